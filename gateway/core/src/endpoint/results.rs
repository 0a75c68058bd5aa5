//! Results of an endpoint in the window of the moment, in one number that all workers count up.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of each of the two counters; the rest is the window's number.
const BITS: u32 = 20;
const MASK: u64 = (1 << BITS) - 1;

/// From the highest bits: number of the window, failures, all results.
#[derive(Debug)]
pub(super) struct Results(AtomicU64);

impl Results {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(super) fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Counts one; gives all results and failures of the window. Full counters are halved, which
    /// keeps the share.
    pub(super) fn count(&self, failed: bool, interval_ms: u64, now_ms: u64) -> (u64, u64) {
        let window = (now_ms / interval_ms.max(1) + 1) & (u64::MAX >> (2 * BITS));
        let next = |packed: u64| {
            let (mut all, mut failures) = unpack(packed, window);
            if all == MASK {
                (all, failures) = (all / 2, failures / 2);
            }
            let failures = failures + u64::from(failed);
            window << (2 * BITS) | failures << BITS | (all + 1)
        };
        let counted = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
                Some(next(packed))
            });
        let (Ok(before) | Err(before)) = counted;
        unpack(next(before), window)
    }
}

/// All results and failures, if the number is of this window.
const fn unpack(packed: u64, window: u64) -> (u64, u64) {
    if packed >> (2 * BITS) == window {
        (packed & MASK, packed >> BITS & MASK)
    } else {
        (0, 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn full_counters_keep_the_share() {
        let nearly_full = 1 << (2 * BITS) | (MASK / 4) << BITS | (MASK - 100);
        let results = Results(AtomicU64::new(nearly_full));
        for n in 0..1_000_u64 {
            let (all, failures) = results.count(n % 4 == 0, 1_000, 5);
            assert!(failures <= all && all <= MASK);
        }
        let (all, failures) = results.count(false, 1_000, 5);
        assert!(
            (failures * 1_000 / all).abs_diff(250) <= 1,
            "{failures} of {all}"
        );
    }

    proptest! {
        #[test]
        fn a_window_counts_its_own(
            steps in prop::collection::vec((0..400_u64, any::<bool>()), 1..100),
        ) {
            let results = Results::new();
            let (mut now_ms, mut model) = (0, (0, 0, 0));
            for (wait_ms, failed) in steps {
                now_ms += wait_ms;
                if now_ms / 1_000 != model.0 {
                    model = (now_ms / 1_000, 0, 0);
                }
                model = (model.0, model.1 + 1, model.2 + u64::from(failed));
                prop_assert_eq!(results.count(failed, 1_000, now_ms), (model.1, model.2));
            }
        }
    }
}
