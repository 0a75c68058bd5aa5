//! One endpoint: what the snapshot says about it, and what was learned about it since.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{Cluster, Health, Name};

/// An endpoint in a snapshot.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// The member cluster that it is in (or leads to).
    pub cluster_id: Name,
    /// Its region.
    pub region: Name,
    /// Failover level of its locality.
    pub priority: u32,
    /// Its capacity against other endpoints.
    pub weight: u32,
    /// The control plane's word.
    pub health: Health,
    /// A gateway of another cluster.
    pub peer: bool,
    /// Present while `health` is draining.
    pub drain: Option<Drain>,
    /// What was learned; the same object in every snapshot that has this address in this cluster.
    pub shared: Arc<EndpointShared>,
}

/// A drain under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// When a snapshot first said so; kept by later ones.
    pub since_ms: u64,
    /// When streams that are left are ended; `None`: never.
    pub deadline_ms: Option<u64>,
}

/// What workers learned about an endpoint; shared by them and by all snapshots. Atomics only.
#[derive(Debug)]
pub struct EndpointShared {
    address: SocketAddr,
}

impl EndpointShared {
    /// Where this endpoint is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection could not be made, or died by silence: the endpoint is down for everybody. Returns when to try to
    /// connect again (0.1 s doubling to 5 s, with jitter); it stays unavailable for `connect_timeout_ms` longer, so that
    /// the attempt can end before calls are risked.
    pub fn connect_failed(&self, cluster: &Cluster, now_ms: u64, random: u64) -> u64 {
        let _ = (cluster, now_ms, random);
        unimplemented!()
    }

    /// A connection is up (SETTINGS came): the endpoint is available again. Returns whether it was down.
    pub fn connected(&self) -> bool {
        unimplemented!()
    }

    /// The result of an active health check. Returns whether it changed anything.
    pub fn set_active_health(&self, healthy: bool) -> bool {
        let _ = healthy;
        unimplemented!()
    }

    /// Held to be down (see [`Self::connect_failed`]).
    #[must_use]
    pub fn is_down(&self, now_ms: u64) -> bool {
        let _ = now_ms;
        unimplemented!()
    }

    /// Ejected until then, if it is.
    #[must_use]
    pub fn ejected_until_ms(&self, now_ms: u64) -> Option<u64> {
        let _ = now_ms;
        unimplemented!()
    }
}
