//! The endpoints of a cluster, by locality.

use std::net::SocketAddr;

use serde::Deserialize;

use super::Name;

/// All endpoints of one cluster; replaces what the cluster had.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSet {
    /// The cluster's name.
    pub cluster: Name,
    /// No address may be in two of them.
    pub localities: Vec<LocalityConfig>,
}

/// What changed among the endpoints of one cluster. The cluster and its other endpoints stay as
/// they are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointDelta {
    /// The cluster's name.
    pub cluster: Name,
    /// Endpoints that are new or other than before, under the locality that they are in now. A
    /// locality is known by cluster id, region and priority together; its weight is set too (also
    /// without endpoints), and one that is not known is added.
    #[serde(default)]
    pub localities: Vec<LocalityConfig>,
    /// Endpoints that go; one that is not there is no error.
    #[serde(default)]
    pub removed: Vec<SocketAddr>,
}

/// Endpoints of one cluster of the clusterset at one priority.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalityConfig {
    /// The member cluster that these endpoints are in (or lead to).
    pub cluster_id: Name,
    /// Its region; for telemetry.
    pub region: Name,
    /// 0 is tried first. Gaps do not matter.
    pub priority: u32,
    /// Share of the priority's traffic while healthy; 0 gets nothing and does not count.
    pub weight: u32,
    /// The endpoints.
    pub endpoints: Vec<EndpointConfig>,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// `10.0.0.7:50051` or `[fd00::7]:50051`.
    pub address: SocketAddr,
    /// Its capacity against the other endpoints of the cluster, 1 to 1,000,000: balances inside the
    /// locality, and says how much of the locality and of the priority is lost with it. Default 1.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// What the control plane knows. Default `healthy`.
    #[serde(default)]
    pub health: Health,
    /// A gateway of another cluster, reached by `peer_tls`.
    #[serde(default)]
    pub peer: bool,
    /// With `draining`: how long its streams may go on; `None`: for as long as they like.
    #[serde(default)]
    pub drain_grace_ms: Option<u64>,
}

/// Health by the control plane's word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Takes traffic.
    #[default]
    Healthy,
    /// Finishes what it has, takes nothing new unless nothing else is left in the cluster.
    Draining,
    /// Takes nothing, except in panic.
    Unhealthy,
}

const fn default_weight() -> u32 {
    1
}
