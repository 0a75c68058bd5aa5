//! How a worker follows the clusters of a new snapshot and their endpoints.
//!
//! The owner says which clusters are new, other or gone (`ClusterChanges`), and a table says in what it differs from
//! the one before: a change of one endpoint among 100,000 costs this thread a handful of steps. What stays keeps its
//! connections, what is gone finishes its calls.
//!
//! An endpoint has a pool from the first call that goes there, or from when it begins to drain (which is an event to
//! tell); so a worker holds pools for what it uses, not for everything there is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gateway_core::config::Health;
use gateway_core::{ClusterHandle, EndpointIndex, EndpointTable, LoadMeter, Name};
use rustls::ClientConfig;

use crate::load::PoolLoad;
use crate::pool::{ClusterState, Pool};
use crate::worker::Worker;

/// In what the clusters of a snapshot differ from those before.
#[derive(Default)]
pub(crate) struct ClusterChanges {
    /// New or other ones, each with TLS towards its peers.
    pub changed: Vec<ToldCluster>,
    pub gone: Vec<Name>,
}

/// A cluster as workers are told of it.
#[derive(Clone)]
pub(crate) struct ToldCluster {
    pub handle: Arc<ClusterHandle>,
    pub peer_tls: Option<Arc<ClientConfig>>,
}

impl Worker {
    /// Takes what changed.
    pub fn follow_clusters(&mut self, changes: &ClusterChanges) {
        for cluster in &changes.changed {
            self.follow_cluster(cluster);
        }
        if !changes.gone.is_empty() {
            let keys = &self.cluster_keys;
            let gone: HashSet<&str> = changes.gone.iter().map(|name| &**name).collect();
            self.stats
                .retain_clusters(|name| keys.contains_key(name) && !gone.contains(name));
            self.routes.forget_clusters(&gone);
        }
        for name in &changes.gone {
            if let Some(key) = self.cluster_keys.remove(name) {
                self.retire_cluster(key);
            }
        }
        let mut retired = std::mem::take(&mut self.retired_clusters);
        retired.retain(|key| !self.forget_cluster_if_done(*key));
        self.retired_clusters.append(&mut retired);
    }

    fn follow_cluster(&mut self, told: &ToldCluster) {
        let handle = &told.handle;
        let known = self.cluster_keys.get(&handle.config.name).copied();
        let key = known.unwrap_or_else(|| self.add_cluster(handle));
        let state = &mut self.clusters[key];
        let before = std::mem::replace(&mut state.handle, Arc::clone(handle));
        state.peer_tls.clone_from(&told.peer_tls);
        if known.is_none() {
            let all = (0..handle.endpoints.len() as u32).map(EndpointIndex);
            self.follow_endpoints(key, all, &handle.endpoints);
        } else if !Arc::ptr_eq(&before.endpoints, &handle.endpoints) {
            let differences = handle.endpoints.differences(&before.endpoints);
            let state = &mut self.clusters[key];
            let gone = differences.gone.iter();
            let gone: Vec<_> = gone.filter_map(|it| state.by_address.remove(it)).collect();
            self.follow_endpoints(key, differences.changed.into_iter(), &handle.endpoints);
            // Their calls look for other endpoints: only now is it clear where these are.
            for pool in gone {
                self.retire_pool(pool);
            }
        }
    }

    fn add_cluster(&mut self, handle: &Arc<ClusterHandle>) -> usize {
        let key = self.clusters.insert(ClusterState {
            handle: Arc::clone(handle),
            pools: Vec::new(),
            by_address: HashMap::new(),
            own_pools: 0,
            pending: 0,
            met_ms: Default::default(),
            calls: 0,
            peer_tls: None,
            live: true,
        });
        self.cluster_keys.insert(handle.config.name.clone(), key);
        key
    }

    /// Puts the pools of changed places where they belong; those of other places are right.
    fn follow_endpoints(
        &mut self,
        cluster: usize,
        changed: impl Iterator<Item = EndpointIndex>,
        table: &EndpointTable,
    ) {
        self.clusters[cluster].resize(table.len());
        let mut replaced = Vec::new();
        let mut kept = Vec::new();
        for index in changed {
            let endpoint = table.get(index);
            let state = &mut self.clusters[cluster];
            let known = state.by_address.get(&endpoint.address).copied();
            let fits = known.filter(|pool| self.pools[*pool].endpoint.peer == endpoint.peer);
            state.place(index, fits);
            if let Some(pool) = fits {
                kept.push((pool, index));
                continue;
            }
            replaced.extend(known);
            state.by_address.remove(&endpoint.address);
            if endpoint.health == Health::Draining {
                kept.push((self.add_pool(cluster, index), index));
            }
        }
        for (pool, index) in kept {
            let endpoint = table.get(index);
            let state = &mut self.pools[pool];
            if state.endpoint.cluster_id != endpoint.cluster_id {
                state.answered = self.stats.answered(&endpoint.cluster_id);
            }
            let name = &self.clusters[cluster].handle.config.name;
            state.load.moves_to(self.stats.loads.of(name, endpoint));
            state.endpoint = endpoint.clone();
            state.told = None;
            self.follow_drain(pool, endpoint);
        }
        for pool in replaced {
            self.retire_pool(pool);
        }
    }

    /// The pool of an endpoint, made when there is none.
    pub fn pool_of(&mut self, cluster: usize, index: EndpointIndex) -> usize {
        match self.clusters[cluster].pool_at(index) {
            Some(pool) => pool,
            None => self.add_pool(cluster, index),
        }
    }

    fn add_pool(&mut self, cluster: usize, index: EndpointIndex) -> usize {
        let endpoint = self.clusters[cluster].handle.endpoints.get(index).clone();
        let state = &mut self.clusters[cluster];
        let address = endpoint.address;
        let pool = self.pools.insert(Pool {
            cluster,
            answered: self.stats.answered(&endpoint.cluster_id),
            load: PoolLoad::new(self.stats.loads.of(&state.handle.config.name, &endpoint)),
            endpoint,
            conns: Vec::new(),
            connecting: 0,
            waiting: std::collections::VecDeque::new(),
            copies: std::collections::VecDeque::new(),
            meter: LoadMeter::new(),
            told: None,
            down: false,
            reconnect_timer: None,
            patience_timer: None,
            uneject_timer: None,
            draining: false,
            grace_timer: None,
            goodbye_timer: None,
            graced_ms: None,
            live: true,
        });
        state.place(index, Some(pool));
        state.by_address.insert(address, pool);
        state.own_pools += 1;
        pool
    }

    /// The snapshot has the cluster no more.
    fn retire_cluster(&mut self, key: usize) {
        let state = &mut self.clusters[key];
        state.live = false;
        state.pools = Vec::new();
        for pool in std::mem::take(&mut state.by_address).into_values() {
            self.retire_pool(pool);
        }
        self.retired_clusters.push(key);
    }

    /// A cluster without calls and pools goes. Returns whether it is gone.
    fn forget_cluster_if_done(&mut self, key: usize) -> bool {
        let state = &self.clusters[key];
        let done = state.calls == 0 && state.own_pools == 0;
        if done {
            let gone = self.clusters.remove(key);
            self.stats.loads.forget_unused(&gone.handle.config.name);
        }
        done
    }
}
