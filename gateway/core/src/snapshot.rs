//! A complete, consistent, immutable configuration.

use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::config::{Listener, Name, Secret, Update};
use crate::{ClusterHandle, ConfigError, EndpointShared, RouteTable};

/// A complete, consistent, immutable configuration.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    version: String,
    listeners: Arc<Vec<Arc<Listener>>>,
    tables: Arc<HashMap<Name, Arc<RouteTable>>>,
    clusters: Arc<HashMap<Name, Arc<ClusterHandle>>>,
    secrets: Arc<HashMap<Name, Arc<Secret>>>,
}

impl Snapshot {
    /// The snapshot after an update. `prev` stays as it is; [`Snapshot::default`] is the one before the first.
    ///
    /// # Errors
    /// When an object refers to one that would not be there; then nothing changed.
    pub fn apply(prev: &Self, update: Update, now_ms: u64) -> Result<Self, ConfigError> {
        let _ = (prev, update, now_ms);
        unimplemented!()
    }

    /// The version of the update that made it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// By name.
    #[must_use]
    pub fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    /// The route table of this name; there is one for each name that a listener has.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Arc<RouteTable>> {
        self.tables.get(name)
    }

    /// The cluster of this name; there is one for each name that a route has.
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<&Arc<ClusterHandle>> {
        self.clusters.get(name)
    }

    /// All clusters, in no order.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<ClusterHandle>> {
        self.clusters.values()
    }

    /// The secret of this name; there is one for each name that a listener or cluster has.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<&Arc<Secret>> {
        self.secrets.get(name)
    }

    /// What was learned about an endpoint, to report the health of it.
    #[must_use]
    pub fn endpoint(&self, cluster: &str, address: SocketAddr) -> Option<&Arc<EndpointShared>> {
        let endpoints = &self.cluster(cluster)?.endpoints;
        Some(&endpoints.get(endpoints.find(address)?).shared)
    }
}
