//! A cluster in a snapshot, and what its endpoints share over snapshots and workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::config::{Cluster, EndpointSet};
use crate::{EndpointShared, EndpointTable};

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
pub struct ClusterShared {
    /// Counts changes of what balancing depends on.
    changes: Arc<AtomicU64>,
    /// The endpoints of the newest snapshot: what the cap on ejections is a share of.
    members: ArcSwap<Vec<Arc<EndpointShared>>>,
    /// A thread is deciding about an ejection.
    ejecting: AtomicBool,
}

// === impl ClusterHandle ===

impl ClusterHandle {
    /// A cluster after `prev` (if there was one), keeping what was learned about endpoints that
    /// stay.
    pub(crate) fn new(
        config: Arc<Cluster>,
        set: &Arc<EndpointSet>,
        prev: Option<&Self>,
        now_ms: u64,
    ) -> Self {
        let shared = prev.map_or_else(Arc::default, |prev| Arc::clone(&prev.shared));
        let prev = prev.map(|prev| &*prev.endpoints);
        let endpoints = Arc::new(EndpointTable::new(
            &config,
            set,
            prev,
            &shared.changes,
            now_ms,
        ));
        Self {
            config,
            endpoints,
            shared,
        }
    }

    /// Makes this the newest: called when the snapshot that has it is accepted.
    pub(crate) fn adopt(&self) {
        let members = self
            .endpoints
            .endpoints()
            .iter()
            .map(|endpoint| Arc::clone(&endpoint.shared));
        self.shared.members.store(Arc::new(members.collect()));
    }
}

// === impl ClusterShared ===

impl ClusterShared {
    /// The endpoints of the newest snapshot.
    #[must_use]
    pub fn members(&self) -> Arc<Vec<Arc<EndpointShared>>> {
        self.members.load_full()
    }

    /// How many of them are ejected.
    #[must_use]
    pub fn ejected(&self, now_ms: u64) -> usize {
        self.members
            .load()
            .iter()
            .filter(|member| member.ejected_until_ms(now_ms).is_some())
            .count()
    }

    /// Runs `decide` unless another thread is in it; then `None`, and the next failure asks again.
    pub(crate) fn alone<T>(&self, decide: impl FnOnce() -> Option<T>) -> Option<T> {
        if self.ejecting.swap(true, Ordering::Acquire) {
            return None;
        }
        let decided = decide();
        self.ejecting.store(false, Ordering::Release);
        decided
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::config::{Cluster, parse_update};

    /// A cluster with the defaults and outlier ejection.
    pub(crate) fn cluster(name: &str) -> Cluster {
        let update = format!(
            r#"{{"version": "1", "full": true, "clusters": [{{"name": "{name}", "outlier":
                {{"consecutive_failures": 5, "consecutive_gateway_failures": 3}}}}]}}"#
        );
        parse_update(update.as_bytes()).unwrap().clusters.remove(0)
    }
}
