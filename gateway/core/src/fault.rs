//! Which calls get a fault on purpose, and which are copied to a mirror.

use crate::config::{Fault, Mirror, Reply};
use crate::random::Draws;

/// What happens to one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Injected<'a> {
    /// It waits this long first; its deadline goes on.
    pub delay_ms: Option<u64>,
    /// It is answered with this, after the delay.
    pub abort: Option<&'a Reply>,
}

const MILLION: u64 = 1_000_000;

impl Fault {
    /// Draws for one call; `random` uniform over all of `u64`.
    #[must_use]
    pub fn inject(&self, random: u64) -> Injected<'_> {
        let mut draws = Draws::new(random);
        let mut hit = |per_million: u32| draws.below(MILLION) < u64::from(per_million);
        let delay = self.delay.as_ref().filter(|delay| hit(delay.per_million));
        let abort = self.abort.as_ref().filter(|abort| hit(abort.per_million));
        Injected {
            delay_ms: delay.map(|delay| delay.ms),
            abort: abort.map(|abort| &abort.reply),
        }
    }
}

impl Mirror {
    /// Draws for one call; `random` uniform over all of `u64`.
    #[must_use]
    pub const fn takes(&self, random: u64) -> bool {
        Draws::new(random).below(self.denominator as u64) < self.numerator as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{FaultAbort, FaultDelay};

    fn fault(delay: u32, abort: u32) -> Fault {
        Fault {
            delay: Some(FaultDelay {
                ms: 7,
                per_million: delay,
            }),
            abort: Some(FaultAbort {
                reply: Reply {
                    grpc_status: 14,
                    http_status: None,
                    message: "drill".into(),
                },
                per_million: abort,
            }),
        }
    }

    #[test]
    fn all_and_none_are_exact() {
        let none = Fault {
            delay: None,
            abort: None,
        };
        for random in 0..1_000 {
            assert_eq!(fault(0, 0).inject(random), Injected::default());
            assert_eq!(none.inject(random), Injected::default());
            let both = fault(1_000_000, 1_000_000);
            let injected = both.inject(random);
            assert_eq!(injected.delay_ms, Some(7));
            assert_eq!(injected.abort.map(|reply| reply.grpc_status), Some(14));
        }
    }

    fn within(hits: usize, share: f64) -> bool {
        let slack = 6.0 * (20_000.0 * share * (1.0 - share)).sqrt() + 1.0;
        (hits as f64 - 20_000.0 * share).abs() < slack
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn shares_hold_and_are_drawn_apart(delay in 0..=1_000_000_u32, abort in 0..=1_000_000_u32) {
            let fault = fault(delay, abort);
            let all: Vec<_> = (0..20_000).map(|random| fault.inject(random)).collect();
            let count = |hit: fn(&Injected<'_>) -> bool| all.iter().filter(|one| hit(one)).count();
            let [delay, abort] = [delay, abort].map(|part| f64::from(part) / 1e6);
            prop_assert!(within(count(|one| one.delay_ms.is_some()), delay));
            prop_assert!(within(count(|one| one.abort.is_some()), abort));
            let both = count(|one| one.delay_ms.is_some() && one.abort.is_some());
            prop_assert!(within(both, delay * abort));
        }

        #[test]
        fn a_mirror_takes_its_fraction(numerator in 0..=1_000_u32, more in 0..1_000_u32) {
            let denominator = (numerator + more).max(1);
            let mirror = Mirror { cluster: "m".into(), numerator, denominator, request_headers: None };
            let taken = (0..20_000).filter(|random| mirror.takes(*random)).count();
            prop_assert!(within(taken, f64::from(numerator) / f64::from(denominator)));
        }
    }
}
