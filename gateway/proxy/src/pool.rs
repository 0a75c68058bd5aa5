//! What a worker holds for each cluster and for each endpoint: its connections and the calls that wait for one.
//!
//! Data and bookkeeping only; `upstream` connects and `dispatch` opens streams. A pool lives as long as its endpoint
//! is in the snapshot, and after that until its last call and connection are gone.
//!
//! Bounds: connections of a pool by `max_connections` (one is always allowed), waiting calls of all pools of a
//! cluster by `max_pending_requests`.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use gateway_core::config::{Cluster, Protocol};
use gateway_core::{Breaker, ClusterHandle, Endpoint, EndpointIndex, LoadMeter};
use rustls::ClientConfig;

use crate::call::CallId;
use crate::load::PoolLoad;
use crate::stats::Counter;
use crate::telemetry::record::Destination;
use crate::timers::TimerId;

/// A cluster of the snapshot, as this worker sees it.
pub(crate) struct ClusterState {
    pub handle: Arc<ClusterHandle>,
    /// Keys of pools by endpoint index, `NO_POOL` where no call went yet; through `pool_at` and `place`.
    pub pools: Vec<u32>,
    /// The same by address.
    pub by_address: HashMap<SocketAddr, usize>,
    /// How many pools say that they are of this cluster, also those of endpoints that are gone.
    pub own_pools: usize,
    /// Calls that wait for a connection.
    pub pending: u32,
    /// When a bound was last met, while it counts as met; 0: it does not.
    pub met_ms: [u64; Breaker::ALL.len()],
    /// Calls that refer to this entry.
    pub calls: u32,
    /// For endpoints that are peer gateways.
    pub peer_tls: Option<Arc<ClientConfig>>,
    /// The snapshot has it.
    pub live: bool,
}

/// An endpoint of a cluster, as this worker sees it.
pub(crate) struct Pool {
    pub cluster: usize,
    /// As the newest snapshot has it.
    pub endpoint: Endpoint,
    /// Keys of its connections in every phase.
    pub conns: Vec<usize>,
    pub connecting: u32,
    pub waiting: VecDeque<CallId>,
    /// Mirrors' copies that wait for a connection under way.
    pub copies: VecDeque<CallId>,
    /// Calls assigned here (waiting or open), and how those before them went.
    pub meter: LoadMeter,
    pub answered: Arc<Counter>,
    pub load: PoolLoad,
    /// The endpoint as tries are told of; `None`: none was since it is as it is.
    pub told: Option<Rc<Destination>>,
    /// A connection could not be made and none was since.
    pub down: bool,
    pub reconnect_timer: Option<TimerId>,
    pub patience_timer: Option<TimerId>,
    pub uneject_timer: Option<TimerId>,
    /// A drain with its timer, when it has an end.
    pub draining: bool,
    pub grace_timer: Option<TimerId>,
    /// Clients that still have calls here when it fires are asked to leave.
    pub goodbye_timer: Option<TimerId>,
    /// The end of a grace period that was kept already: the same drain does not end streams twice.
    pub graced_ms: Option<u64>,
    /// The snapshot has it.
    pub live: bool,
}

/// Streams that a connection is expected to carry before its SETTINGS say so: how many calls may wait for each
/// connection that is being made before another one is begun (the default of gRPC servers is 100 and more).
const STREAMS_EXPECTED: usize = 100;

/// Connections of a pool whose endpoint takes one request at a time on each, when the cluster states no bound.
const HTTP1_CONNECTIONS_MAX: u32 = 1024;

const NO_POOL: u32 = u32::MAX;

// === impl ClusterState ===

impl ClusterState {
    /// The pool of an endpoint, if there is one.
    pub fn pool_at(&self, index: EndpointIndex) -> Option<usize> {
        let key = self.pools.get(index.0 as usize).copied();
        key.filter(|key| *key != NO_POOL).map(|key| key as usize)
    }

    /// Says which pool is an endpoint's.
    pub fn place(&mut self, index: EndpointIndex, pool: Option<usize>) {
        self.pools[index.0 as usize] = pool.map_or(NO_POOL, |pool| pool as u32);
    }

    /// One more call waits for a connection.
    pub fn waits(&mut self) {
        self.pending += 1;
        self.handle.shared.count_waiting();
    }

    /// So many calls wait no more.
    pub fn served(&mut self, calls: u32) {
        self.pending -= calls;
        self.handle.shared.count_served(calls);
    }

    /// Makes room for so many endpoints.
    pub fn resize(&mut self, endpoints: usize) {
        self.pools.resize(endpoints, NO_POOL);
    }
}

// === impl Pool ===

impl Pool {
    /// Whether another connection should be begun for the calls that wait.
    pub fn should_grow(&self, usable: usize, config: &Cluster) -> bool {
        self.wants_more(config) && self.has_room(usable, config)
    }

    /// Whether it would, but for the bound on connections.
    pub fn is_full(&self, usable: usize, config: &Cluster) -> bool {
        self.wants_more(config) && !self.has_room(usable, config)
    }

    fn wants_more(&self, config: &Cluster) -> bool {
        let expected = match self.protocol(config) {
            Protocol::Http2 => STREAMS_EXPECTED,
            Protocol::Http1 => 1,
        };
        self.waiting.len() + self.copies.len() > self.connecting as usize * expected
    }

    fn has_room(&self, usable: usize, config: &Cluster) -> bool {
        let most = match self.protocol(config) {
            Protocol::Http2 => config.max_connections,
            Protocol::Http1 => config.max_connections.or(Some(HTTP1_CONNECTIONS_MAX)),
        };
        most.is_none_or(|max| usable < max.max(1) as usize)
    }

    /// What the endpoint speaks: gateways speak HTTP/2 to each other.
    pub fn protocol(&self, config: &Cluster) -> Protocol {
        if self.endpoint.peer {
            Protocol::Http2
        } else {
            config.protocol
        }
    }

    /// Nothing refers to it any more.
    pub fn is_idle(&self) -> bool {
        self.conns.is_empty() && self.meter.open() == 0 && self.waiting.is_empty()
    }
}
