//! Retries as a share of requests over a window (GEP-3388 counts over time, not at one moment; so
//! does this).
//!
//! The window is ten buckets, so that forgetting costs nothing and memory is fixed.

/// Buckets in the window.
const BUCKETS: usize = 10;

/// Retries as a share of requests over a window; one for each worker and route.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    percent: u8,
    /// Length of a bucket.
    bucket_ms: u64,
    /// Retries that a window always allows.
    at_least: u64,
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
    /// `percent` of the requests of the last `interval_ms`, and at least `min_retries` in each
    /// `min_interval_ms` of it (GEP-3388 `budget` and `minRetryRate`).
    #[must_use]
    pub const fn over(
        percent: u8,
        interval_ms: u64,
        min_retries: u32,
        min_interval_ms: u64,
    ) -> Self {
        let bucket_ms = nonzero(interval_ms / BUCKETS as u64);
        Self {
            percent,
            bucket_ms,
            // Rounded up: "at least" holds in every window.
            at_least: (min_retries as u64 * bucket_ms * BUCKETS as u64)
                .div_ceil(nonzero(min_interval_ms)),
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
        let now = self.tick(now_ms);
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
        let allowed = retries < by_share.max(self.at_least);
        if allowed {
            let bucket = self.bucket(now_ms);
            bucket.retries = bucket.retries.saturating_add(1);
        }
        allowed
    }

    const fn bucket(&mut self, now_ms: u64) -> &mut Bucket {
        let tick = self.tick(now_ms);
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

    const fn tick(&self, now_ms: u64) -> u64 {
        now_ms / self.bucket_ms + 1
    }
}

const fn nonzero(ms: u64) -> u64 {
    if ms == 0 { 1 } else { ms }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Over ten seconds, with a lowest rate a second.
    fn of(percent: u8, min_per_s: u32) -> RetryBudget {
        RetryBudget::over(percent, 10_000, min_per_s, 1_000)
    }

    #[test]
    fn a_share_of_the_requests_may_be_retried() {
        let mut budget = of(20, 0);
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
        let mut budget = of(100, 0);
        budget.request(500);
        assert!(budget.take(9_999));
        assert!(!budget.take(9_999));
        budget.request(9_999);
        assert!(
            !budget.take(10_000),
            "the request of the first second is forgotten, its retry is not"
        );
        assert!(!of(100, 0).take(0));
    }

    #[test]
    fn a_quiet_route_may_retry_at_the_lowest_rate() {
        let mut budget = of(0, 1);
        assert_eq!((0..20).filter(|_| budget.take(0)).count(), 10);
    }

    #[test]
    fn a_quiet_window_of_any_length_has_its_lowest_rate() {
        let taken = |budget: &mut RetryBudget| (0..99).filter(|_| budget.take(0)).count();
        assert_eq!(taken(&mut RetryBudget::over(20, 10_000, 10, 5_000)), 20);
        assert_eq!(taken(&mut RetryBudget::over(20, 1_000, 3, 1_000)), 3);
        assert_eq!(taken(&mut RetryBudget::over(20, 10_000, 1, 60_000)), 1);
    }

    proptest! {
        #[test]
        fn retries_stay_below_the_share(
            percent in 0..=100_u8,
            steps in proptest::collection::vec((0..50_u64, any::<bool>()), 0..400),
        ) {
            let mut budget = of(percent, 0);
            let (mut now, mut requests, mut retries) = (0, 0_u64, 0_u64);
            for (wait, is_retry) in steps {
                now += wait;
                if is_retry {
                    retries += u64::from(budget.take(now));
                } else {
                    budget.request(now);
                    requests += 1;
                }
                if now < 9_000 {
                    prop_assert!(retries * 100 <= requests * u64::from(percent));
                }
            }
        }
    }
}
