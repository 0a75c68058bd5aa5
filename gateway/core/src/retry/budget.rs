//! Retries as a share of requests over a window (GEP-3388 counts over time, not at one moment; so
//! does this).
//!
//! The window is ten buckets of a second, so that forgetting costs nothing and memory is fixed.

/// Length of a bucket.
const BUCKET_MS: u64 = 1_000;
/// Buckets in the window: its default length in GEP-3388 is 10 s.
const BUCKETS: usize = 10;

/// Retries as a share of requests over the last 10 seconds; one for each worker and route.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    percent: u8,
    min_per_s: u32,
    buckets: [Bucket; BUCKETS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Number of the second it counts, plus one; 0 means never used.
    tick: u64,
    requests: u32,
    retries: u32,
}

impl RetryBudget {
    /// `percent` of the window's requests, and at least `min_per_s` retries for each second of the
    /// window.
    #[must_use]
    pub const fn new(percent: u8, min_per_s: u32) -> Self {
        Self {
            percent,
            min_per_s,
            buckets: [Bucket {
                tick: 0,
                requests: 0,
                retries: 0,
            }; BUCKETS],
        }
    }

    /// Counts a call (not its retries).
    pub const fn request(&mut self, now_ms: u64) {
        let bucket = self.bucket(now_ms);
        bucket.requests = bucket.requests.saturating_add(1);
    }

    /// Takes one retry out of the budget, if there is one.
    pub fn take(&mut self, now_ms: u64) -> bool {
        let now = tick(now_ms);
        let live = self
            .buckets
            .iter()
            .filter(|bucket| bucket.tick + BUCKETS as u64 > now);
        let (requests, retries) = live.fold((0_u64, 0_u64), |(requests, retries), bucket| {
            (
                requests + u64::from(bucket.requests),
                retries + u64::from(bucket.retries),
            )
        });
        let by_share = requests * u64::from(self.percent) / 100;
        let by_rate = u64::from(self.min_per_s) * BUCKETS as u64;
        let allowed = retries < by_share.max(by_rate);
        if allowed {
            let bucket = self.bucket(now_ms);
            bucket.retries = bucket.retries.saturating_add(1);
        }
        allowed
    }

    const fn bucket(&mut self, now_ms: u64) -> &mut Bucket {
        let tick = tick(now_ms);
        let bucket = &mut self.buckets[(tick % BUCKETS as u64) as usize];
        if bucket.tick != tick {
            *bucket = Bucket {
                tick,
                requests: 0,
                retries: 0,
            };
        }
        bucket
    }
}

const fn tick(now_ms: u64) -> u64 {
    now_ms / BUCKET_MS + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_share_of_the_requests_may_be_retried() {
        let mut budget = RetryBudget::new(20, 0);
        assert!(!budget.take(0));
        for _ in 0..10 {
            budget.request(0);
        }
        assert_eq!(
            [budget.take(1), budget.take(2), budget.take(3)],
            [true, true, false]
        );
    }

    #[test]
    fn the_window_forgets() {
        let mut budget = RetryBudget::new(100, 0);
        budget.request(500);
        assert!(budget.take(9_999));
        assert!(!budget.take(9_999));
        budget.request(9_999);
        assert!(
            !budget.take(10_000),
            "the request of the first second is forgotten, its retry is not"
        );
        assert!(!RetryBudget::new(100, 0).take(0));
    }

    #[test]
    fn a_quiet_route_may_retry_at_the_lowest_rate() {
        let mut budget = RetryBudget::new(0, 1);
        assert_eq!((0..20).filter(|_| budget.take(0)).count(), 10);
    }

    proptest! {
        #[test]
        fn retries_stay_below_the_share(
            percent in 0..=100_u8,
            steps in proptest::collection::vec((0..50_u64, any::<bool>()), 0..400),
        ) {
            let mut budget = RetryBudget::new(percent, 0);
            let (mut now, mut requests, mut retries) = (0, 0_u64, 0_u64);
            for (wait, is_retry) in steps {
                now += wait;
                if is_retry {
                    retries += u64::from(budget.take(now));
                } else {
                    budget.request(now);
                    requests += 1;
                }
                if now < BUCKET_MS * (BUCKETS as u64 - 1) {
                    prop_assert!(retries * 100 <= requests * u64::from(percent));
                }
            }
        }
    }
}
