//! How long a client's connection lives, as timers without a clock.
//!
//! Decides when a connection is asked to leave (idle, or old), when it is cut, when a PING is due,
//! when silence means death, and when a client's own PINGs are too many. Leaves to `gateway-proxy`
//! to send, to close, and to wake up at [`Aging::next_ms`].
//!
//! ```text
//!            max_idle_ms without calls, max_age_ms      max_age_grace_ms (age only)
//!   Serving ----------------- Leave -----------> Leaving ---------- Cut ---------> (gone)
//!      |                                            |
//!      +---- ping_after_ms of silence: Ping; ping_timeout_ms more: Dead ----> (gone)
//! ```
//! To leave is a graceful GOAWAY: calls go on, new ones come on a new connection; none is lost.

use crate::config::{ConnectionPolicy, PingLimit};
use crate::random::Draws;

/// gRPC's default.
const PING_TIMEOUT_MS: u64 = 20_000;
/// What gRPC allows without calls: one PING in two hours.
const PING_IDLE_MS: u64 = 7_200_000;

/// The timers of one connection.
#[derive(Debug, Clone)]
pub struct Aging {
    policy: ConnectionPolicy,
    calls: u32,
    /// Since when there are no calls.
    idle_since_ms: u64,
    /// With jitter.
    old_at_ms: Option<u64>,
    heard_ms: u64,
    /// A PING is out since then.
    pinged_ms: Option<u64>,
    leaving: Leaving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// Cut then, if ever.
    Yes(Option<u64>),
}

/// What is due on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Send a PING.
    Ping,
    /// Ask the client to leave: graceful GOAWAY, `NO_ERROR`.
    Leave(LeaveReason),
    /// The grace is over: end the calls that are left with UNAVAILABLE, and close.
    Cut,
    /// Nobody is there: close at once.
    Dead,
}

/// Why a connection is asked to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveReason {
    /// No calls for `max_idle_ms`.
    Idle,
    /// Older than `max_age_ms`.
    Old,
}

impl LeaveReason {
    /// The word for labels, logs and the GOAWAY's debug data (gRPC's own).
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Idle => "max_idle",
            Self::Old => "max_age",
        }
    }
}

// === impl Aging ===

impl Aging {
    /// Of a new connection; `random` uniform over all of `u64` spreads the ends of connections that
    /// began together.
    #[must_use]
    pub fn new(policy: &ConnectionPolicy, now_ms: u64, random: u64) -> Self {
        let jittered = |age_ms: u64| {
            let tenth_ms = age_ms / 10;
            age_ms - tenth_ms + Draws::new(random).below(2 * tenth_ms + 1)
        };
        let old_at_ms = policy.max_age_ms.map(jittered);
        Self {
            policy: policy.clone(),
            calls: 0,
            idle_since_ms: now_ms,
            old_at_ms: old_at_ms.map(|age_ms| now_ms.saturating_add(age_ms)),
            heard_ms: now_ms,
            pinged_ms: None,
            leaving: Leaving::No,
        }
    }

    /// A call began.
    pub const fn call_began(&mut self) {
        self.calls = self.calls.saturating_add(1);
    }

    /// A call ended.
    pub const fn call_ended(&mut self, now_ms: u64) {
        self.calls = self.calls.saturating_sub(1);
        if self.calls == 0 {
            self.idle_since_ms = now_ms;
        }
    }

    /// Something was read: the peer lives. Also answers the PING.
    pub const fn heard(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
        self.pinged_ms = None;
    }

    /// Whether the client was asked to leave.
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        !matches!(self.leaving, Leaving::No)
    }

    /// When to ask [`Self::due`] next; `None`: not before something happens. It may have nothing
    /// then, when something happened in between.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        let leave = match self.leaving {
            Leaving::Yes(cut_at_ms) => cut_at_ms,
            Leaving::No => [self.old_at_ms, self.idle_at_ms()]
                .into_iter()
                .flatten()
                .min(),
        };
        leave.into_iter().chain(self.silence_at_ms()).min()
    }

    /// What is due now, one at a time: ask until `None`. Each is given once.
    pub fn due(&mut self, now_ms: u64) -> Option<Due> {
        let come = |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if come(self.silence_at_ms()) {
            if self.pinged_ms.is_some() {
                return Some(Due::Dead);
            }
            self.pinged_ms = Some(now_ms);
            return Some(Due::Ping);
        }
        match self.leaving {
            Leaving::Yes(cut_at_ms) => {
                let cut = come(cut_at_ms).then_some(Due::Cut);
                if cut.is_some() {
                    self.leaving = Leaving::Yes(None);
                }
                cut
            }
            Leaving::No if come(self.old_at_ms) => {
                let grace_ms = self.policy.max_age_grace_ms;
                self.leaving = Leaving::Yes(grace_ms.map(|grace| now_ms.saturating_add(grace)));
                Some(Due::Leave(LeaveReason::Old))
            }
            Leaving::No if come(self.idle_at_ms()) => {
                self.leaving = Leaving::Yes(None);
                Some(Due::Leave(LeaveReason::Idle))
            }
            Leaving::No => None,
        }
    }

    fn idle_at_ms(&self) -> Option<u64> {
        let max_idle_ms = self.policy.max_idle_ms.filter(|_| self.calls == 0)?;
        Some(self.idle_since_ms.saturating_add(max_idle_ms))
    }

    /// When silence asks for a PING, or means death after one.
    fn silence_at_ms(&self) -> Option<u64> {
        let after_ms = self.policy.ping_after_ms?;
        let timeout_ms = self.policy.ping_timeout_ms.unwrap_or(PING_TIMEOUT_MS);
        Some(match self.pinged_ms {
            None => self.heard_ms.saturating_add(after_ms),
            Some(pinged_ms) => pinged_ms.saturating_add(timeout_ms),
        })
    }
}

/// Watches over the PINGs of one client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PingGuard {
    last_ms: Option<u64>,
    strikes: u32,
}

impl PingGuard {
    /// We sent HEADERS or DATA: a client that pings while it gets answers does no harm.
    pub const fn sent(&mut self) {
        self.last_ms = None;
        self.strikes = 0;
    }

    /// A PING came (not an answer to ours). `false`: they are too many; end the connection by
    /// GOAWAY, `ENHANCE_YOUR_CALM`, debug data `too_many_pings`.
    #[must_use]
    pub fn allows(&mut self, limit: &PingLimit, calls: u32, now_ms: u64) -> bool {
        let interval_ms = if calls > 0 || limit.without_calls {
            limit.min_interval_ms
        } else {
            limit.min_interval_ms.max(PING_IDLE_MS)
        };
        let early = self
            .last_ms
            .is_some_and(|last_ms| now_ms < last_ms.saturating_add(interval_ms));
        self.last_ms = Some(now_ms);
        self.strikes = self.strikes.saturating_add(u32::from(early));
        self.strikes <= limit.strikes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> ConnectionPolicy {
        ConnectionPolicy {
            max_idle_ms: Some(300),
            max_age_ms: Some(1_000),
            max_age_grace_ms: Some(50),
            ping_after_ms: Some(100),
            ping_timeout_ms: Some(20),
            ping_limit: None,
        }
    }

    fn only(change: impl FnOnce(&mut ConnectionPolicy)) -> Aging {
        let mut policy = ConnectionPolicy::default();
        change(&mut policy);
        Aging::new(&policy, 1_000, 0)
    }

    #[test]
    fn without_bounds_nothing_is_ever_due() {
        let mut aging = only(|_| {});
        assert_eq!(aging.next_ms(), None);
        assert_eq!(aging.due(u64::MAX), None);
    }

    #[test]
    fn idle_means_no_calls_for_a_while() {
        let mut aging = only(|policy| policy.max_idle_ms = Some(300));
        assert_eq!(aging.next_ms(), Some(1_300));
        aging.call_began();
        assert_eq!((aging.next_ms(), aging.due(9_000)), (None, None));
        aging.call_ended(9_000);
        assert_eq!(aging.due(9_299), None);
        assert_eq!(aging.due(9_300), Some(Due::Leave(LeaveReason::Idle)));
        assert!(aging.is_leaving());
        assert_eq!(
            (aging.next_ms(), aging.due(u64::MAX)),
            (None, None),
            "it may take its time"
        );
    }

    #[test]
    fn an_old_connection_leaves_and_is_cut_after_its_grace() {
        let mut aging = only(|policy| {
            policy.max_age_ms = Some(1_000);
            policy.max_age_grace_ms = Some(50);
        });
        aging.call_began();
        let old_ms = aging.next_ms().unwrap();
        assert!((1_900..=2_100).contains(&old_ms));
        assert_eq!(aging.due(old_ms - 1), None);
        assert_eq!(aging.due(old_ms), Some(Due::Leave(LeaveReason::Old)));
        assert_eq!(
            (aging.due(old_ms + 49), aging.due(old_ms + 50)),
            (None, Some(Due::Cut))
        );
        assert_eq!(aging.due(u64::MAX), None);
    }

    #[test]
    fn silence_asks_and_then_means_death() {
        let mut aging = only(|policy| policy.ping_after_ms = Some(100));
        aging.heard(1_050);
        assert_eq!(aging.due(1_100), None);
        assert_eq!(
            (aging.due(1_150), aging.due(1_150)),
            (Some(Due::Ping), None)
        );
        aging.heard(1_160);
        assert_eq!(
            (aging.due(1_259), aging.due(1_260)),
            (None, Some(Due::Ping))
        );
        assert_eq!(aging.due(1_260 + PING_TIMEOUT_MS - 1), None);
        assert_eq!(aging.due(1_260 + PING_TIMEOUT_MS), Some(Due::Dead));
    }

    #[test]
    fn early_pings_are_strikes() {
        let limit = PingLimit {
            min_interval_ms: 100,
            without_calls: false,
            strikes: 2,
        };
        let mut guard = PingGuard::default();
        let mut calm = || (0..20).all(|n| guard.allows(&limit, 1, n * 100));
        assert!(calm());
        let mut guard = PingGuard::default();
        let allowed = (0..5).map(|n| guard.allows(&limit, 1, n * 99));
        assert_eq!(
            allowed.collect::<Vec<_>>(),
            [true, true, true, false, false]
        );
        guard.sent();
        assert!(guard.allows(&limit, 1, 1_000));
        let mut idle = PingGuard::default();
        let allowed = (0..4).map(|n| idle.allows(&limit, 0, n * 100));
        assert_eq!(allowed.collect::<Vec<_>>(), [true, true, true, false]);
    }

    proptest! {
        /// Whatever happens, asking at `next_ms` finds all that is due, in a bounded number of
        /// steps, and a connection is asked to leave at most once.
        #[test]
        fn timers_are_complete_and_come_once(
            steps in prop::collection::vec((0..200_u64, 0..3_u8), 1..60),
            random: u64,
        ) {
            let mut aging = Aging::new(&policy(), 0, random);
            let (mut now_ms, mut leaves, mut calls) = (0, 0, 0_u32);
            'life: for (wait_ms, what) in steps {
                let until_ms = now_ms + wait_ms;
                while let Some(at_ms) = aging.next_ms().filter(|at_ms| *at_ms <= until_ms) {
                    prop_assert!(at_ms >= now_ms);
                    now_ms = at_ms;
                    let due = aging.due(now_ms);
                    prop_assert!(due.is_some(), "nothing at {now_ms}");
                    leaves += u32::from(matches!(due, Some(Due::Leave(_))));
                    if matches!(due, Some(Due::Dead | Due::Cut)) {
                        break 'life;
                    }
                }
                now_ms = until_ms;
                match what {
                    0 => { aging.call_began(); calls += 1; }
                    1 if calls > 0 => { aging.call_ended(now_ms); calls -= 1; }
                    _ => {}
                }
                aging.heard(now_ms);
            }
            prop_assert!(leaves <= 1);
        }
    }
}
