//! Whether a failed try is repeated, and when.

use crate::Outcome;

/// A compiled `retry` of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {}

/// How far one call is with its retries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryState {
    retries: u32,
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
    /// Too many retries in the window: UNAVAILABLE.
    Budget,
    /// The wait would outlast the deadline.
    Deadline,
}

impl RetryState {
    /// Counted retries so far: the value of `grpc-previous-rpc-attempts`.
    #[must_use]
    pub const fn retries(&self) -> u32 {
        self.retries
    }
}

impl RetryPolicy {
    /// A try without response headers after this long failed.
    #[must_use]
    pub fn per_try_timeout_ms(&self) -> Option<u64> {
        unimplemented!()
    }

    /// Request bytes to keep.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        unimplemented!()
    }

    /// Share of requests that may be retries: what a [`RetryBudget`] is made with.
    #[must_use]
    pub fn budget_percent(&self) -> Option<u8> {
        unimplemented!()
    }

    /// Decides after a failed try of a call that is not committed; counts the retry in `state` (and the budget) when
    /// the answer is [`RetryDecision::After`].
    pub fn decide(
        &self,
        state: &mut RetryState,
        outcome: Outcome,
        context: RetryContext<'_>,
    ) -> RetryDecision {
        let _ = (state, outcome, context);
        unimplemented!()
    }
}

/// Reads `grpc-retry-pushback-ms`: negative or unreadable means stop.
#[must_use]
pub fn parse_pushback(value: &[u8]) -> Pushback {
    let _ = value;
    unimplemented!()
}

/// Retries as a share of requests over the last 10 seconds; one for each worker and route.
#[derive(Debug, Clone)]
pub struct RetryBudget {}

impl RetryBudget {
    /// `percent` of the window's requests, and at least `min_per_s` a second.
    #[must_use]
    pub fn new(percent: u8, min_per_s: u32) -> Self {
        let _ = (percent, min_per_s);
        unimplemented!()
    }

    /// Counts a call (not its retries).
    pub fn request(&mut self, now_ms: u64) {
        let _ = now_ms;
        unimplemented!()
    }

    /// Takes one retry out of the budget, if there is one.
    pub fn take(&mut self, now_ms: u64) -> bool {
        let _ = now_ms;
        unimplemented!()
    }
}
