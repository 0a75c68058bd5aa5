//! Passive ejection: takes an endpoint out of balancing after failures in a row.
//!
//! Decides what counts as a failure, when there were too many, and for how long the endpoint is
//! out. The cap keeps ejections from emptying a cluster: at most `max_ejection_percent` of its
//! endpoints at once, but one always may. What fails at the cap stays in, and each further failure
//! asks again. Endpoints that leave the snapshot can leave a larger share ejected than the cap;
//! panic is for that.
//!
//! Failures count in a row, or (`failure_percentage`) as a share of the results of a window.
//!
//! An endpoint that comes back is on probation: a failure before its first success ejects it again
//! at once, for longer.
//!
//! What counts, by who answered:
//!
//! | outcome | endpoint of this cluster | gateway of another cluster (`peer`) |
//! |---|---|---|
//! | connect failure, reset | gateway failure | nothing: its liveness is the connection's |
//! | our per-try timeout | gateway failure | nothing: the service behind it may be slow |
//! | refused, unprocessed | nothing | nothing |
//! | UNAVAILABLE | gateway failure | gateway failure if it made the answer itself, else success |
//! | `INTERNAL`, `DATA_LOSS`; `UNKNOWN` with HTTP 5xx | failure | success |
//! | `CANCELLED`, `DEADLINE_EXCEEDED`, `RESOURCE_EXHAUSTED` | nothing | nothing |
//! | every other code | success: the application answered | success |
//!
//! One connection to a peer carries the calls of a whole region. When it dies, all of them fail at
//! once; counted as failures in a row they would keep a region out for the ejection's time after it
//! is back. A peer that cannot be reached is down (`crate::endpoint`) and returns with a connection.

use crate::outcome::Answer;
use crate::{ClusterHandle, Code, Endpoint, Outcome};

/// An endpoint that was just taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// When it may come back.
    pub until_ms: u64,
    /// Ejections that are not forgiven yet, this one included.
    pub count: u32,
    /// Why.
    pub reason: EjectionReason,
}

/// What was one failure too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EjectionReason {
    /// `consecutive_failures`.
    ConsecutiveFailures,
    /// `consecutive_gateway_failures`.
    ConsecutiveGatewayFailures,
    /// `failure_percentage`.
    FailurePercentage,
    /// It had come back from an ejection and failed before any success.
    FailedOnReturn,
}

impl EjectionReason {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 4] = [
        Self::ConsecutiveFailures,
        Self::ConsecutiveGatewayFailures,
        Self::FailurePercentage,
        Self::FailedOnReturn,
    ];

    /// The word for labels, logs and events.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::ConsecutiveGatewayFailures => "consecutive_gateway_failures",
            Self::FailurePercentage => "failure_percentage",
            Self::FailedOnReturn => "failed_on_return",
        }
    }
}

/// What an outcome says about the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Success,
    Nothing,
    Failure,
    GatewayFailure,
}

/// Counts the end of a try at `endpoint`, and ejects it when that was one failure too many and the
/// cap allows it.
///
/// Both may be of an older snapshot than the current one: counters and the cap are shared by all
/// snapshots.
#[must_use = "an ejection is an event to report"]
pub fn record(
    cluster: &ClusterHandle,
    endpoint: &Endpoint,
    outcome: Outcome,
    now_ms: u64,
) -> Option<Ejection> {
    let policy = cluster.config.outlier.as_ref()?;
    let shared = &endpoint.shared;
    // Ends of streams that began before the ejection say nothing new.
    if shared.ejected_until_ms(now_ms).is_some() {
        return None;
    }
    let by_gateway = match judge(outcome, endpoint.peer) {
        Verdict::Nothing => return None,
        Verdict::Success => {
            shared.succeeded(policy, now_ms);
            return None;
        }
        Verdict::Failure => false,
        Verdict::GatewayFailure => true,
    };
    let members = cluster.shared.members();
    let too_often = shared.failed_too_often(policy, members, now_ms);
    let reason = shared.failed(policy, by_gateway).or(too_often)?;
    let allowed = (members * usize::from(policy.max_ejection_percent) / 100).max(1);
    cluster.shared.eject_within(allowed, shared, now_ms, || {
        shared.eject(policy, reason, now_ms)
    })
}

const fn judge(outcome: Outcome, peer: bool) -> Verdict {
    match outcome {
        Outcome::Refused => Verdict::Nothing,
        Outcome::ConnectFailure | Outcome::Reset | Outcome::Timeout if peer => Verdict::Nothing,
        Outcome::ConnectFailure | Outcome::Reset | Outcome::Timeout => Verdict::GatewayFailure,
        Outcome::Answer(answer) => judge_answer(answer, peer),
    }
}

const fn judge_answer(answer: Answer, peer: bool) -> Verdict {
    match answer.code {
        Code::Cancelled | Code::DeadlineExceeded | Code::ResourceExhausted => Verdict::Nothing,
        Code::Unavailable if !peer || answer.by_gateway => Verdict::GatewayFailure,
        _ if peer => Verdict::Success,
        Code::Internal | Code::DataLoss => Verdict::Failure,
        Code::Unknown if answer.http_status >= 500 => Verdict::Failure,
        _ => Verdict::Success,
    }
}

#[cfg(test)]
mod tests;
