//! How busy an endpoint is, as one worker sees it: what least-request and peak EWMA compare.
//!
//! Decides the load of an endpoint from its open requests and how its answers came. Leaves to
//! others which of two loads wins (`crate::balance`).
//!
//! - `least_request`: open requests.
//! - `peak_ewma` (Finagle): open requests and one more, times the time that an answer takes. The
//!   time jumps up to a slower answer at once and comes down from it by halves.
//!
//! A server that refuses is quick, and would look like the best of all. So a refusal
//! (`RESOURCE_EXHAUSTED`, `UNAVAILABLE`, refused streams) never lowers the time: it counts as an answer
//! that took long, and as requests that are open still. Both are forgotten by halves: the endpoint
//! that refuses gets less, not more, and is found again some seconds after it stops.

use crate::config::LoadBalancing;
use crate::{Code, Outcome};

/// The time in which what was seen counts half.
const HALF_LIFE_MS: u64 = 1_000;
/// Open requests that one refusal counts for, in thousandths.
const REFUSAL_MILLI: u64 = 4_000;
/// The most that refusals together count for: found again within ten half-lives.
const REFUSALS_MILLI_MAX: u64 = 1_000_000;
/// The answer time that a refusal stands for: above what callers put up with elsewhere.
const REFUSAL_US: u64 = 1_000_000;
/// An answer time to begin with, so that a new endpoint is neither free nor avoided.
const FIRST_US: u64 = 1_000;
/// Longest answer time that is told apart: an hour.
const ANSWER_US_MAX: u64 = 3_600_000_000;

/// The load of one endpoint on one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadMeter {
    open: u32,
    /// Thousandths of requests.
    refusals_milli: u64,
    refused_at_ms: u64,
    /// 0: no answer yet.
    answer_us: u64,
    answered_at_ms: u64,
}

// === impl LoadMeter ===

impl Default for LoadMeter {
    fn default() -> Self {
        Self::new()
    }
}

impl LoadMeter {
    /// Of an endpoint that had no requests.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            open: 0,
            refusals_milli: 0,
            refused_at_ms: 0,
            answer_us: 0,
            answered_at_ms: 0,
        }
    }

    /// Requests that are open now.
    #[must_use]
    pub const fn open(&self) -> u32 {
        self.open
    }

    /// A try begins.
    pub const fn started(&mut self) {
        self.open = self.open.saturating_add(1);
    }

    /// A try ended. `answer_us` is the time to its response headers, or to its end if none came;
    /// `None` if it says nothing, as when the client left.
    pub fn finished(&mut self, outcome: Option<Outcome>, answer_us: Option<u64>, now_ms: u64) {
        self.open = self.open.saturating_sub(1);
        if outcome.is_some_and(is_refusal) {
            let left = self.refusals_milli_at(now_ms);
            self.refusals_milli = (left + REFUSAL_MILLI).min(REFUSALS_MILLI_MAX);
            self.refused_at_ms = now_ms;
            self.answered(self.answer_us_at(now_ms).max(REFUSAL_US), now_ms);
        } else if let Some(answer_us) = answer_us {
            self.answered(answer_us.clamp(1, ANSWER_US_MAX), now_ms);
        }
    }

    fn answered(&mut self, answer_us: u64, now_ms: u64) {
        let before_us = self.answer_us;
        let passed_ms = now_ms.saturating_sub(self.answered_at_ms);
        self.answered_at_ms = now_ms;
        self.answer_us = if answer_us >= before_us {
            answer_us
        } else {
            // Answers that come together count together: what each moves is by the time between.
            answer_us + halved(before_us - answer_us, passed_ms)
        };
    }

    /// What to give to [`PickContext::outstanding`](crate::PickContext::outstanding).
    #[must_use]
    pub fn load(&self, lb: LoadBalancing, now_ms: u64) -> u32 {
        let refusals_milli = self.refusals_milli_at(now_ms);
        let requests_milli = u64::from(self.open) * 1_000 + refusals_milli;
        let load = if lb == LoadBalancing::PeakEwma {
            let answer_us = self.answer_us_at(now_ms);
            answer_us.saturating_mul(requests_milli + 1_000) / 1_000
        } else {
            requests_milli / 1_000
        };
        u32::try_from(load).unwrap_or(u32::MAX)
    }

    /// Without answers the time is forgotten down to the first guess: a slow endpoint that gets
    /// nothing any more is tried again.
    fn answer_us_at(&self, now_ms: u64) -> u64 {
        if self.answer_us == 0 {
            return FIRST_US;
        }
        let silence_ms = now_ms.saturating_sub(self.answered_at_ms);
        let above_us = halved(self.answer_us.saturating_sub(FIRST_US), silence_ms);
        self.answer_us.min(FIRST_US) + above_us
    }

    fn refusals_milli_at(&self, now_ms: u64) -> u64 {
        if self.refusals_milli == 0 {
            return 0;
        }
        halved(
            self.refusals_milli,
            now_ms.saturating_sub(self.refused_at_ms),
        )
    }
}

/// Cheap answers that say "not now".
const fn is_refusal(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Answer(answer) => {
            matches!(answer.code, Code::ResourceExhausted | Code::Unavailable)
        }
        Outcome::ConnectFailure | Outcome::Refused | Outcome::Reset => true,
        Outcome::Timeout => false,
    }
}

/// `value` after some time of halving each [`HALF_LIFE_MS`]; between two halvings on a straight
/// line.
const fn halved(value: u64, passed_ms: u64) -> u64 {
    let halvings = passed_ms / HALF_LIFE_MS;
    if halvings >= 64 {
        return 0;
    }
    let value = value >> halvings;
    value - value * (passed_ms % HALF_LIFE_MS) / HALF_LIFE_MS / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OK: Option<Outcome> = Some(Outcome::status(Code::Ok));
    const NO: Option<Outcome> = Some(Outcome::status(Code::ResourceExhausted));
    const EWMA: LoadBalancing = LoadBalancing::PeakEwma;
    const LEAST: LoadBalancing = LoadBalancing::LeastRequest;

    #[test]
    fn open_requests_are_the_load() {
        let mut meter = LoadMeter::new();
        meter.started();
        meter.started();
        assert_eq!((meter.open(), meter.load(LEAST, 0)), (2, 2));
        meter.finished(OK, Some(500), 0);
        assert_eq!(meter.load(LEAST, 0), 1);
        meter.finished(None, None, 0);
        assert_eq!(meter.load(LEAST, 0), 0);
    }

    #[test]
    fn a_refusal_counts_as_open_for_a_while() {
        let mut meter = LoadMeter::new();
        meter.started();
        meter.finished(NO, Some(10), 0);
        assert_eq!(meter.load(LEAST, 0), 4);
        assert_eq!(meter.load(LEAST, 1_000), 2);
        assert_eq!(meter.load(LEAST, 3_000), 0);
    }

    #[test]
    fn a_refusal_is_no_quick_answer() {
        let mut refuses = LoadMeter::new();
        refuses.started();
        refuses.finished(NO, Some(10), 0);
        let mut busy = LoadMeter::new();
        busy.started();
        busy.finished(OK, Some(100_000), 0);
        for _ in 0..8 {
            busy.started();
        }
        assert!(refuses.load(EWMA, 0) > busy.load(EWMA, 0));
        assert!(
            refuses.load(EWMA, 20_000) <= FIRST_US as u32,
            "it is found again"
        );
    }

    #[test]
    fn peaks_count_at_once_and_fade() {
        let mut meter = LoadMeter::new();
        let mut answer = |answer_us, now_ms| {
            meter.started();
            meter.finished(OK, Some(answer_us), now_ms);
            meter.load(EWMA, now_ms)
        };
        assert_eq!(answer(2_000, 0), 2_000);
        assert_eq!(answer(50_000, 0), 50_000);
        assert_eq!(answer(2_000, 0), 50_000, "no time has passed");
        assert_eq!(answer(2_000, 1_000), 26_000);
        assert!(
            meter.load(EWMA, 60_000) == FIRST_US as u32,
            "it is tried again"
        );
    }

    proptest! {
        /// The endpoint that refuses quickly never looks better than it did, nor better than one
        /// that works.
        #[test]
        fn a_refusal_never_attracts(
            answers in prop::collection::vec((1..100_000_u64, 0..500_u64), 0..20),
            refusal_us in 0..1_000_u64,
        ) {
            let mut meter = LoadMeter::new();
            let mut now_ms = 1;
            for (answer_us, wait_ms) in answers {
                now_ms += wait_ms;
                meter.started();
                meter.finished(OK, Some(answer_us), now_ms);
            }
            let works = meter.clone();
            for lb in [EWMA, LEAST] {
                let before = meter.load(lb, now_ms);
                meter.started();
                meter.finished(NO, Some(refusal_us), now_ms);
                prop_assert!(meter.load(lb, now_ms) > before);
                for later_ms in [0, 100, 1_000, 10_000, 100_000] {
                    let [refuses, works] =
                        [&meter, &works].map(|meter| meter.load(lb, now_ms + later_ms));
                    prop_assert!(refuses >= works);
                }
            }
        }

        #[test]
        fn load_is_bounded_and_refusals_end(refusals in 0..10_000_u32, answer_us: u64) {
            let mut meter = LoadMeter::new();
            for _ in 0..refusals {
                meter.started();
                meter.finished(NO, Some(answer_us), 0);
            }
            prop_assert!(meter.load(LEAST, 0) <= 1_000);
            prop_assert_eq!(meter.load(LEAST, 20_000), 0);
        }
    }
}
