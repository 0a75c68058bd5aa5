//! Passive ejection: takes an endpoint out of balancing after failures in a row.

use crate::{ClusterHandle, EndpointShared, Outcome};

/// An endpoint that was just taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// When it may come back.
    pub until_ms: u64,
    /// Ejections in a row, this one included.
    pub count: u32,
    /// Why.
    pub reason: EjectionReason,
}

/// Which counter reached its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EjectionReason {
    /// `consecutive_failures`.
    ConsecutiveFailures,
    /// `consecutive_gateway_failures`.
    ConsecutiveGatewayFailures,
    /// It had just come back from an ejection and failed at once.
    FailedOnReturn,
}

/// Counts the end of a try at `endpoint`, and ejects it when that was one failure too many and the cap allows it.
///
/// `cluster` may be of an older snapshot than the current one: counters and the cap are shared by all snapshots.
pub fn record(
    cluster: &ClusterHandle,
    endpoint: &EndpointShared,
    peer: bool,
    outcome: Outcome,
    now_ms: u64,
) -> Option<Ejection> {
    let _ = (cluster, endpoint, peer, outcome, now_ms);
    unimplemented!()
}
