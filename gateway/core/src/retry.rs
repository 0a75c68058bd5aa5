//! Whether a failed try is repeated, and when.
//!
//! Decides by what the policy covers, how many retries there were, the server's word, the deadline
//! and the budget. Leaves to `gateway-proxy` whether the call is committed (response headers went
//! out, or the kept request overflowed), and transparent retries of what was surely not processed,
//! which do not count.
//!
//! What each word of `on` covers. `5xx`, `gateway-error` and `reset` speak of what a client would
//! see, so failures below HTTP are in them; gRPC answers with HTTP status 200 are taken by what
//! their code maps to, all others by their HTTP status alone: a 400 or 429 is no server's failure,
//! though gRPC clients are told INTERNAL or UNAVAILABLE for it.
//!
//! | word | connect failure | refused | reset | our per-try timeout | answers |
//! |---|---|---|---|---|---|
//! | `5xx` | x | x | x | x | UNAVAILABLE, INTERNAL, DATA_LOSS; any code with an HTTP status from 500 |
//! | `gateway-error` | x | x | x | x | UNAVAILABLE; any code with HTTP 502, 503, 504 |
//! | `reset` | x | x | x | x | |
//! | `connect-failure` | x | | | | |
//! | `refused-stream` | | x | | | |
//! | `unavailable` | x | x | x | | UNAVAILABLE |
//! | `deadline-exceeded` | | | | x | DEADLINE_EXCEEDED |
//! | `cancelled`, `internal`, `resource-exhausted` | | | | | that code |
//! | `retriable-status-codes` | as 503, 14 | as 503, 14 | as 503, 14 | as 504, 4 | listed code, or HTTP status; UNAVAILABLE also as 503 |

mod budget;

pub use self::budget::RetryBudget;
use crate::config::{Retry, RetryOn};
use crate::outcome::Answer;
use crate::random::Draws;
use crate::{Code, Outcome};

/// The `retry` of a route, ready to decide by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    config: Retry,
}

/// How far one call is with its retries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryState {
    retries: u32,
    /// Retries since the start or since the last pushback, which resets the back-off (gRFC A6).
    backoff_steps: u32,
}

/// What [`RetryPolicy::decide`] depends on besides the policy.
#[derive(Debug)]
pub struct RetryContext<'a> {
    /// `grpc-retry-pushback-ms` of the failed try.
    pub pushback: Option<Pushback>,
    /// Time to the call's deadline; `None`: no deadline.
    pub left_ms: Option<u64>,
    /// The worker's budget for this route; `None` when the route has none.
    pub budget: Option<&'a mut RetryBudget>,
    /// The present.
    pub now_ms: u64,
    /// Uniform over all of `u64`.
    pub random: u64,
}

/// The server's word on retrying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushback {
    /// Wait exactly this long.
    After(u64),
    /// Do not retry.
    Stop,
}

/// The answer of [`RetryPolicy::decide`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again after so many milliseconds.
    After(u64),
    /// Give the client what came.
    No(NoRetry),
}

/// Why there is no retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRetry {
    /// The policy does not cover this outcome.
    NotCovered,
    /// All `attempts` are used.
    AttemptsUsed,
    /// The server asked not to.
    Pushback,
    /// The wait would outlast the deadline.
    Deadline,
    /// Too many retries in the window; the client gets UNAVAILABLE (GEP-3388).
    Budget,
}

impl NoRetry {
    /// The word for labels and logs.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotCovered => "not_covered",
            Self::AttemptsUsed => "attempts_used",
            Self::Pushback => "pushback",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
        }
    }
}

/// Reads `grpc-retry-pushback-ms`: negative or unreadable means stop.
#[must_use]
pub fn parse_pushback(value: &[u8]) -> Pushback {
    let text = std::str::from_utf8(value).unwrap_or_default();
    text.parse::<u32>()
        .map_or(Pushback::Stop, |ms| Pushback::After(ms.into()))
}

// === impl RetryState ===

impl RetryState {
    /// Counted retries so far: the value of `grpc-previous-rpc-attempts`.
    #[must_use]
    pub const fn retries(&self) -> u32 {
        self.retries
    }
}

// === impl RetryPolicy ===

impl RetryPolicy {
    /// The policy of a configuration that was checked.
    #[must_use]
    pub const fn new(config: Retry) -> Self {
        Self { config }
    }

    /// As configured.
    #[must_use]
    pub const fn config(&self) -> &Retry {
        &self.config
    }

    /// Request bytes to keep.
    #[must_use]
    pub const fn buffer_bytes(&self) -> usize {
        self.config.buffer_bytes as usize
    }

    /// A budget as configured, new, for one of so many workers, each of which counts for itself;
    /// `None`: retries are not bounded by one.
    #[must_use]
    pub fn new_budget(&self, workers: u32) -> Option<RetryBudget> {
        let config = &self.config;
        config.budget_percent.map(|percent| {
            RetryBudget::over(
                percent,
                config.budget_interval_ms,
                config.min_retries,
                config
                    .min_retries_interval_ms
                    .saturating_mul(workers.max(1).into()),
            )
        })
    }

    /// When the per-try timer of a try has to fire; `None`: the call's deadline comes first, or
    /// there is neither. Ends at the deadline are the call's, not the try's: they are no
    /// [`Outcome::Timeout`].
    #[must_use]
    pub fn try_ends_ms(&self, now_ms: u64, deadline_ms: Option<u64>) -> Option<u64> {
        let ends_ms = now_ms.saturating_add(self.config.per_try_timeout_ms?);
        Some(ends_ms).filter(|ends_ms| deadline_ms.is_none_or(|deadline| *ends_ms < deadline))
    }

    /// Whether the policy covers an outcome at all (the table in the module's head).
    #[must_use]
    pub fn covers(&self, outcome: Outcome) -> bool {
        if matches!(outcome, Outcome::Answer(Answer { code: Code::Ok, .. })) {
            return false;
        }
        self.config.on.iter().any(|on| match on {
            RetryOn::RetriableStatusCodes => self.lists_code_of(outcome),
            on => covered_by(*on, outcome),
        })
    }

    /// Decides after a failed try of a call that is not committed; counts the retry in `state` (and
    /// the budget) when the answer is [`RetryDecision::After`].
    pub fn decide(
        &self,
        state: &mut RetryState,
        outcome: Outcome,
        context: RetryContext<'_>,
    ) -> RetryDecision {
        match self.wait_ms(state, outcome, context) {
            Ok(ms) => {
                state.retries += 1;
                RetryDecision::After(ms)
            }
            Err(reason) => RetryDecision::No(reason),
        }
    }

    fn wait_ms(
        &self,
        state: &mut RetryState,
        outcome: Outcome,
        context: RetryContext<'_>,
    ) -> Result<u64, NoRetry> {
        if !self.covers(outcome) {
            return Err(NoRetry::NotCovered);
        }
        if state.retries >= self.config.attempts {
            return Err(NoRetry::AttemptsUsed);
        }
        let (wait_ms, backoff_steps) = match context.pushback {
            Some(Pushback::Stop) => return Err(NoRetry::Pushback),
            Some(Pushback::After(ms)) => (ms, 0),
            None => (
                self.backoff_ms(state.backoff_steps, context.random),
                state.backoff_steps + 1,
            ),
        };
        if context.left_ms.is_some_and(|left| wait_ms >= left) {
            return Err(NoRetry::Deadline);
        }
        if context
            .budget
            .is_some_and(|budget| !budget.take(context.now_ms))
        {
            return Err(NoRetry::Budget);
        }
        state.backoff_steps = backoff_steps;
        Ok(wait_ms)
    }

    /// Uniform over 0 to min(`base` * 2^`steps`, `max`), both included: full jitter, as gRFC A6 has
    /// it.
    fn backoff_ms(&self, steps: u32, random: u64) -> u64 {
        let doubled = self
            .config
            .base_ms
            .saturating_mul(1_u64.checked_shl(steps).unwrap_or(u64::MAX));
        let bound = doubled.min(self.config.max_ms);
        Draws::new(random).below(bound.saturating_add(1))
    }

    fn lists_code_of(&self, outcome: Outcome) -> bool {
        let (http_status, code) = match outcome {
            Outcome::Answer(answer)
                if answer.code != Code::Unavailable || answer.http_status != 200 =>
            {
                (answer.http_status, answer.code)
            }
            Outcome::Timeout => (504, Code::DeadlineExceeded),
            Outcome::Answer(_) | Outcome::ConnectFailure | Outcome::Refused | Outcome::Reset => {
                (503, Code::Unavailable)
            }
        };
        self.config.http_codes.contains(&http_status)
            || self.config.grpc_codes.contains(&code.number())
    }
}

fn covered_by(on: RetryOn, outcome: Outcome) -> bool {
    match outcome {
        Outcome::Answer(answer) => answer_covered_by(on, answer),
        Outcome::ConnectFailure if on == RetryOn::ConnectFailure => true,
        Outcome::Refused if on == RetryOn::RefusedStream => true,
        Outcome::Timeout if on == RetryOn::DeadlineExceeded => true,
        Outcome::Timeout if on == RetryOn::Unavailable => false,
        _ => matches!(
            on,
            RetryOn::ServerError | RetryOn::GatewayError | RetryOn::Reset | RetryOn::Unavailable
        ),
    }
}

const fn answer_covered_by(on: RetryOn, answer: Answer) -> bool {
    match on {
        RetryOn::ServerError => {
            answer.http_status >= 500
                || answer.http_status == 200
                    && matches!(
                        answer.code,
                        Code::Unavailable | Code::Internal | Code::DataLoss
                    )
        }
        RetryOn::GatewayError => {
            matches!(answer.http_status, 502..=504)
                || answer.http_status == 200 && matches!(answer.code, Code::Unavailable)
        }
        RetryOn::Cancelled => matches!(answer.code, Code::Cancelled),
        RetryOn::DeadlineExceeded => matches!(answer.code, Code::DeadlineExceeded),
        RetryOn::Internal => matches!(answer.code, Code::Internal),
        RetryOn::ResourceExhausted => matches!(answer.code, Code::ResourceExhausted),
        RetryOn::Unavailable => matches!(answer.code, Code::Unavailable),
        RetryOn::ConnectFailure
        | RetryOn::RefusedStream
        | RetryOn::Reset
        | RetryOn::RetriableStatusCodes => false,
    }
}

#[cfg(test)]
mod tests;
