//! A cluster in a snapshot, and what its endpoints share over snapshots and workers.

use std::sync::Arc;

use crate::{EndpointTable, config::Cluster};

/// A cluster of a snapshot.
#[derive(Debug, Clone)]
pub struct ClusterHandle {
    /// As configured.
    pub config: Arc<Cluster>,
    /// Its endpoints; empty when the snapshot has none.
    pub endpoints: Arc<EndpointTable>,
    /// Lives as long as any snapshot names the cluster.
    pub shared: Arc<ClusterShared>,
}

/// What the endpoints of a cluster have in common, over snapshots and workers.
#[derive(Debug, Default)]
pub struct ClusterShared {}
