//! Choice of an endpoint: priority, then locality, then endpoint.

use crate::{Endpoint, Name};
use std::net::SocketAddr;

/// The place of an endpoint in its [`EndpointTable`]; means nothing in another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointIndex(pub u32);

/// What one choice depends on besides the table.
pub struct PickContext<'a> {
    /// The present.
    pub now_ms: u64,
    /// Uniform over all of `u64`; a new one for each pick.
    pub random: u64,
    /// Endpoints tried already; avoided if anything else is available, at whatever priority.
    pub tried: &'a [SocketAddr],
    /// Member clusters that are known not to be able; avoided if any other is available, at whatever priority.
    pub tried_clusters: &'a [Name],
    /// Requests that the asking worker has open on an endpoint.
    pub outstanding: &'a dyn Fn(EndpointIndex) -> u32,
}

/// A choice and how it came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    /// The endpoint.
    pub index: EndpointIndex,
    /// The priority of its locality.
    pub priority: u32,
    /// Health was ignored, since too little was available.
    pub panic: bool,
    /// Everything available had been tried already.
    pub again: bool,
}

/// Why there is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// The cluster has no endpoints (of a locality with weight).
    #[error("the cluster has no endpoints")]
    Empty,
    /// None is available and `panic_percent` is 0.
    #[error(
        "no endpoint is available (all are unhealthy, ejected, down or draining) and panic is off"
    )]
    Unavailable,
}

impl PickError {
    /// One word for labels and `x-federation-reason`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Empty => "no_endpoints",
            Self::Unavailable => "no_available_endpoint",
        }
    }
}

/// The share of a priority at one moment, for telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriorityLoad {
    /// The priority as configured.
    pub priority: u32,
    /// Available capacity in percent of its total.
    pub available_percent: u32,
    /// Its share of traffic in percent; all priorities make 100, or 0 when nothing can be picked.
    pub load_percent: u32,
    /// Its health is ignored.
    pub panic: bool,
}

/// All endpoints of a cluster in one snapshot.
#[derive(Debug)]
pub struct EndpointTable {
    endpoints: Vec<Endpoint>,
}

impl EndpointTable {
    /// All endpoints; the position is the [`EndpointIndex`].
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The endpoint at an index that this table gave.
    ///
    /// # Panics
    /// With an index of another table that is beyond this one.
    #[must_use]
    pub fn get(&self, index: EndpointIndex) -> &Endpoint {
        &self.endpoints[index.0 as usize]
    }

    /// The endpoint with this address.
    #[must_use]
    pub fn find(&self, address: SocketAddr) -> Option<EndpointIndex> {
        let _ = address;
        unimplemented!()
    }

    /// Chooses an endpoint for one try.
    ///
    /// # Errors
    /// When there is nothing to choose from.
    pub fn pick(&self, context: &PickContext<'_>) -> Result<Picked, PickError> {
        let _ = context;
        unimplemented!()
    }

    /// How traffic spreads over the priorities now.
    #[must_use]
    pub fn loads(&self, now_ms: u64) -> Vec<PriorityLoad> {
        let _ = now_ms;
        unimplemented!()
    }
}
