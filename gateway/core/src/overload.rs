//! When a worker has more work than it can do, and how much of it is new work that it takes.
//!
//! Decides by two signs. Turns of the event loop that take long, several in a row: whatever comes
//! waits for a turn, so this is the delay that every call sees. And the number of open calls, which
//! bounds memory. Slow turns lower the part of new calls that is taken, step by step; it comes back
//! with time, so that the gateway does not swing between all and nothing. Retries are work on top of
//! work: there are none until everything is well. Leaves the answer to `gateway-proxy`.
//!
//! Invariants: a single slow turn (a large update, a machine that was asleep) turns nobody away;
//! some new calls are taken always, or nothing could be learned.

/// Turns in a row from which on they count.
const SLOW_TURNS: u32 = 3;
/// Least part of new calls that is taken, in percent.
const LEAST_PERCENT: u32 = 5;
/// One percent of new calls comes back in this time: all of them within ten seconds.
const BACK_MS: u64 = 100;

/// Why a call is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Overload {
    /// Turns take too long.
    #[error("it is behind with its work")]
    Behind,
    /// Too many calls are open.
    #[error("too many calls are open")]
    Calls,
}

/// What one worker takes.
#[derive(Debug)]
pub struct Admission {
    turn_max_ms: u64,
    calls_max: usize,
    slow_in_a_row: u32,
    /// In percent, at `since_ms`.
    taken: u32,
    since_ms: u64,
}

// === impl Admission ===

impl Admission {
    /// `turn_max_ms`: a turn that takes longer is slow; 0: none is. `calls_max`: calls open at a
    /// time.
    #[must_use]
    pub const fn new(turn_max_ms: u64, calls_max: usize) -> Self {
        Self {
            turn_max_ms,
            calls_max,
            slow_in_a_row: 0,
            taken: 100,
            since_ms: 0,
        }
    }

    /// A turn is over.
    pub fn turn_ended(&mut self, took_ms: u64, now_ms: u64) {
        if self.turn_max_ms == 0 || took_ms <= self.turn_max_ms {
            self.slow_in_a_row = 0;
            return;
        }
        self.slow_in_a_row += 1;
        if self.slow_in_a_row >= SLOW_TURNS {
            self.taken = (self.percent(now_ms) * 3 / 4).max(LEAST_PERCENT);
            self.since_ms = now_ms;
        }
    }

    /// Whether a new call is taken while so many are open; `random` uniform over all of `u64`.
    ///
    /// # Errors
    /// When it is not, with the reason.
    pub fn admit(&self, open_calls: usize, now_ms: u64, random: u64) -> Result<(), Overload> {
        if open_calls >= self.calls_max {
            return Err(Overload::Calls);
        }
        if self.taken < 100 && random % 100 >= u64::from(self.percent(now_ms)) {
            return Err(Overload::Behind);
        }
        Ok(())
    }

    /// Whether a call may be tried again.
    #[must_use]
    pub fn may_retry(&self, now_ms: u64) -> bool {
        self.percent(now_ms) == 100
    }

    fn percent(&self, now_ms: u64) -> u32 {
        let back = now_ms.saturating_sub(self.since_ms) / BACK_MS;
        self.taken
            .saturating_add(u32::try_from(back).unwrap_or(u32::MAX))
            .min(100)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(admission: &Admission, now_ms: u64) -> usize {
        let of_a_hundred = (0..100).filter(|at| admission.admit(0, now_ms, *at).is_ok());
        of_a_hundred.count()
    }

    #[test]
    fn slow_turns_in_a_row_lower_what_is_taken_and_time_brings_it_back() {
        let mut admission = Admission::new(250, 10);
        for turn in 0..2 {
            admission.turn_ended(900, turn * 900);
        }
        assert_eq!(taken(&admission, 1_800), 100, "two are no sign yet");
        admission.turn_ended(1, 1_801);
        for turn in 0..3 {
            admission.turn_ended(251, 2_000 + turn);
        }
        assert_eq!(taken(&admission, 2_002), 75);
        assert!(!admission.may_retry(2_002));
        assert_eq!(admission.admit(0, 2_002, 99), Err(Overload::Behind));
        for turn in 3..60 {
            admission.turn_ended(300, 2_000 + turn);
        }
        assert_eq!(taken(&admission, 2_059), 5, "never nothing");
        assert_eq!(taken(&admission, 2_059 + 5_000), 55);
        assert_eq!(taken(&admission, 2_059 + 9_500), 100);
        assert!(admission.may_retry(2_059 + 9_500));
    }

    #[test]
    fn open_calls_are_bounded_and_slow_turns_can_be_of_no_account() {
        let mut admission = Admission::new(0, 10);
        for turn in 0..10 {
            admission.turn_ended(60_000, turn);
        }
        assert_eq!(admission.admit(9, 10, 99), Ok(()));
        assert_eq!(admission.admit(10, 10, 99), Err(Overload::Calls));
        assert!(admission.may_retry(10));
    }

    proptest! {
        /// Whatever came before: ten seconds without slow turns, and everything is taken.
        #[test]
        fn it_comes_back_within_ten_seconds(
            turns in prop::collection::vec((0..2_000_u64, 0..500_u64), 0..100),
        ) {
            let mut admission = Admission::new(250, 10);
            let mut now_ms = 0;
            for (took_ms, wait_ms) in turns {
                now_ms += took_ms + wait_ms;
                admission.turn_ended(took_ms, now_ms);
                prop_assert!(taken(&admission, now_ms) >= 5);
            }
            prop_assert_eq!(taken(&admission, now_ms + 10_000), 100);
        }
    }
}
