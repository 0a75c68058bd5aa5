//! A token bucket in one number.
//!
//! It keeps when the bucket would be full again (the "theoretical arrival time" of the cell rate
//! algorithm, ITU-T I.371): a call moves that time on by what one call takes, and passes unless it
//! would lie further ahead than the whole bucket. A time in the past is a full bucket, so a bucket
//! that is not in use needs no upkeep, and forgetting it loses nothing.

use std::sync::atomic::{AtomicU64, Ordering};

/// When the bucket is full again, in ns; shared by all workers.
pub(super) type FullAt = AtomicU64;

/// A bucket whose rate has shrunk may lack many times what it holds now, as what it let pass before
/// does not come back; so many times at most.
const LACK_MAX: u64 = 100;

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// Time for one call.
    call_ns: u64,
    /// Time to fill the whole bucket.
    full_ns: u64,
}

// === impl Rate ===

impl Rate {
    /// A share, in millionths, of so many calls in a unit; `None`: not one.
    pub(super) fn new(requests: u64, unit_ms: u64, share_per_million: u32) -> Option<Self> {
        let whole_ns = unit_ms * 1_000_000;
        let share = u128::from(requests) * u128::from(share_per_million);
        let call_ns = (u128::from(whole_ns) * 1_000_000).checked_div(share)?;
        let call_ns = u64::try_from(call_ns)
            .unwrap_or(u64::MAX / 4)
            .clamp(1, u64::MAX / 4);
        Some(Self {
            call_ns,
            // A share of less than one call still lets one pass, once in its time.
            full_ns: whole_ns.max(call_ns),
        })
    }

    /// Takes one call out of a bucket, or says how long to wait until there is one.
    pub(super) fn take(self, bucket: &FullAt, now_ns: u64) -> Result<(), u64> {
        let mut full_at = bucket.load(Ordering::Relaxed);
        loop {
            let next = self.next(full_at, now_ns)?;
            let set =
                bucket.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed);
            match set {
                Ok(_) => return Ok(()),
                Err(other) => full_at = other,
            }
        }
    }

    /// Brings a bucket from the rate `before` to this one: the calls that it still lacks stay
    /// lacking, so a share that moves from one gateway to another makes no calls of its own.
    pub(super) fn rescale(self, bucket: &FullAt, before: Self, now_ns: u64) {
        let scaled = |full_at: u64| {
            let lacking_ns = u128::from(full_at.checked_sub(now_ns)?);
            let lacking_ns = lacking_ns * u128::from(self.call_ns) / u128::from(before.call_ns);
            let lacking_ns = u64::try_from(lacking_ns).unwrap_or(u64::MAX);
            Some(now_ns.saturating_add(lacking_ns.min(self.full_ns.saturating_mul(LACK_MAX))))
        };
        let _a_full_bucket_stays =
            bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, scaled);
    }

    /// Calls that it lacks to be full, rounded up.
    pub(super) fn lacking(self, bucket: &FullAt, now_ns: u64) -> u64 {
        let lacking_ns = bucket.load(Ordering::Relaxed).saturating_sub(now_ns);
        lacking_ns.div_ceil(self.call_ns)
    }

    /// What [`Self::take`] would say.
    pub(super) fn peek(self, bucket: &FullAt, now_ns: u64) -> Result<(), u64> {
        self.next(bucket.load(Ordering::Relaxed), now_ns)
            .map(|_| ())
    }

    fn next(self, full_at: u64, now_ns: u64) -> Result<u64, u64> {
        let next = full_at.max(now_ns).saturating_add(self.call_ns);
        let over_ns = (next - now_ns).saturating_sub(self.full_ns);
        if over_ns == 0 { Ok(next) } else { Err(over_ns) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn all_calls_of_a_unit_may_come_at_once() {
        let rate = Rate::new(3, 1_000, 1_000_000).unwrap();
        let bucket = FullAt::new(0);
        let now_ns = 5_000 * MS;
        let taken = (0..4).map(|_| rate.take(&bucket, now_ns).is_ok());
        assert_eq!(taken.collect::<Vec<_>>(), [true, true, true, false]);
        let wait_ns = rate.peek(&bucket, now_ns).unwrap_err();
        assert!((333 * MS..=334 * MS).contains(&wait_ns), "{wait_ns}");
        assert!(rate.take(&bucket, now_ns + wait_ns).is_ok());
        assert!(rate.take(&bucket, now_ns + wait_ns).is_err());
    }

    #[test]
    fn no_requests_and_no_share_are_no_rate() {
        assert_eq!(Rate::new(0, 1_000, 1_000_000), None);
        assert_eq!(Rate::new(10, 1_000, 0), None);
    }

    #[test]
    fn a_share_below_one_call_passes_one_in_its_time() {
        let rate = Rate::new(1, 1_000, 250_000).unwrap();
        let bucket = FullAt::new(0);
        assert!(rate.take(&bucket, 0).is_ok());
        assert_eq!(rate.take(&bucket, 0), Err(4_000 * MS));
        assert!(rate.take(&bucket, 4_000 * MS).is_ok());
    }

    #[test]
    fn a_bucket_that_lost_its_rate_lacks_the_same_calls() {
        let (whole, tenth) = (
            Rate::new(100, 1_000, 1_000_000).unwrap(),
            Rate::new(100, 1_000, 100_000).unwrap(),
        );
        let bucket = FullAt::new(0);
        let now_ns = 5_000 * MS;
        for _ in 0..40 {
            whole.take(&bucket, now_ns).unwrap();
        }
        tenth.rescale(&bucket, whole, now_ns);
        // 40 lack, 10 is all that it holds: the first passes when 31 have come back, 10 a second.
        assert_eq!(tenth.peek(&bucket, now_ns), Err(3_100 * MS));
        whole.rescale(&bucket, tenth, now_ns);
        let left = (0..100).filter(|_| whole.take(&bucket, now_ns).is_ok());
        assert_eq!(left.count(), 60);
        let full = FullAt::new(1);
        tenth.rescale(&full, whole, now_ns);
        assert_eq!(full.load(Ordering::Relaxed), 1);
    }

    proptest! {
        /// In any time the calls that pass are at most the bucket and what flowed in; and who waits
        /// as told passes.
        #[test]
        fn the_rate_holds(
            requests in 1..50_u64,
            share in 1..=1_000_000_u32,
            waits_ms in prop::collection::vec(0..400_u64, 1..200),
        ) {
            let rate = Rate::new(requests, 1_000, share).unwrap();
            let bucket = FullAt::new(0);
            let (mut now_ns, mut passed) = (1_000 * MS, 0_u64);
            let start_ns = now_ns;
            for wait_ms in waits_ms {
                now_ns += wait_ms * MS;
                prop_assert_eq!(rate.peek(&bucket, now_ns).is_ok(), match rate.take(&bucket, now_ns) {
                    Ok(()) => { passed += 1; true }
                    Err(wait_ns) => {
                        prop_assert!(rate.peek(&bucket, now_ns + wait_ns).is_ok());
                        prop_assert!(rate.peek(&bucket, now_ns + wait_ns - 1).is_err());
                        false
                    }
                });
            }
            let time_ns = now_ns - start_ns + rate.full_ns;
            prop_assert!(passed * rate.call_ns <= time_ns);
        }
    }
}
