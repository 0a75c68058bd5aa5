//! What a route may do besides sending a call on: faults, mirrors, sessions.

use serde::Deserialize;

use super::Name;
use super::route::{HeaderOps, Reply};

/// Faults on purpose, for drills and tests. Delay and abort are drawn apart; a call that gets both
/// is delayed, then aborted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Calls that wait before they go on.
    #[serde(default)]
    pub delay: Option<FaultDelay>,
    /// Calls that are answered at once.
    #[serde(default)]
    pub abort: Option<FaultAbort>,
}

/// Calls that wait.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultDelay {
    /// How long, 1 to 3,600,000.
    pub ms: u64,
    /// How many of a million calls.
    pub per_million: u32,
}

/// Calls that are answered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultAbort {
    /// With what.
    pub reply: Reply,
    /// How many of a million calls.
    pub per_million: u32,
}

/// A copy of some calls to another cluster, whose answers nobody waits for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// A cluster's name.
    pub cluster: Name,
    /// So many of `denominator` calls. Default 100.
    #[serde(default = "hundred")]
    pub numerator: u32,
    /// At least 1 and at least `numerator`. Default 100.
    #[serde(default = "hundred")]
    pub denominator: u32,
    /// Changes to the copy's request headers, after those of the call itself.
    #[serde(default)]
    pub request_headers: Option<HeaderOps>,
}

/// Calls of one session go to one endpoint (GEP-1619). What the client is given for it names
/// cluster and endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Of the cookie, or of the header (lower case) in requests and responses.
    pub name: Name,
    /// Where it is kept.
    #[serde(default)]
    pub kind: SessionKind,
    /// A session ends this long after its first call; `None`: never by that.
    #[serde(default)]
    pub absolute_ms: Option<u64>,
    /// A session ends this long after its last call; `None`: never by that.
    #[serde(default)]
    pub idle_ms: Option<u64>,
    /// With a cookie: kept by the client until the session ends (`absolute_ms` is needed), not only
    /// while the client runs.
    #[serde(default)]
    pub permanent: bool,
}

/// Where a client keeps its session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionKind {
    /// In a cookie.
    #[default]
    Cookie,
    /// In a header that it repeats.
    Header,
}

const fn hundred() -> u32 {
    100
}
