//! What the owner tells a worker, and how a worker takes a new snapshot.
//!
//! A snapshot replaces the one before by pointer; the tables of clusters and pools follow it: what stays keeps its
//! connections, what is gone finishes its calls. Commands come through a bounded channel, announced by the waker.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use gateway_core::{ClusterHandle, Endpoint, Name, Snapshot};
use mio::Interest;
use mio::net::TcpListener;
use rustls::ClientConfig;

use crate::listener::{ListenerConfig, WorkerListener};
use crate::pool::{ClusterState, Pool};
use crate::worker::{Worker, listener_token};

/// A snapshot with everything made from it once for all workers.
pub(crate) struct Applied {
    pub snapshot: Arc<Snapshot>,
    pub listeners: Vec<ListenerConfig>,
    pub peer_tls: HashMap<Name, Arc<ClientConfig>>,
}

/// What the owner tells a worker.
pub(crate) enum Command {
    Apply {
        applied: Arc<Applied>,
        /// New sockets of this worker, by listener name.
        sockets: Vec<(Name, std::net::TcpListener)>,
        done: SyncSender<()>,
    },
    Drain {
        grace_ms: u64,
    },
    Stop,
}

impl Worker {
    /// Takes all commands that wait.
    pub fn take_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Apply {
                    applied,
                    sockets,
                    done,
                } => {
                    self.take_snapshot(&applied, sockets);
                    let _owner_may_have_given_up = done.send(());
                }
                Command::Drain { grace_ms } => self.drain_process(grace_ms),
                Command::Stop => self.stopping = true,
            }
        }
    }

    fn take_snapshot(&mut self, applied: &Applied, sockets: Vec<(Name, std::net::TcpListener)>) {
        self.follow_clusters(applied);
        self.follow_listeners(&applied.listeners, sockets);
        self.follow_routes(&applied.listeners);
    }

    /// Forgets routes that have gone. Most snapshots change endpoints alone and pay nothing here.
    fn follow_routes(&mut self, listeners: &[ListenerConfig]) {
        let tables: Vec<_> = listeners
            .iter()
            .map(|listener| Arc::clone(&listener.table))
            .collect();
        let mut pairs = tables.iter().zip(&self.tables);
        if tables.len() == self.tables.len() && pairs.all(|(new, old)| Arc::ptr_eq(new, old)) {
            return;
        }
        self.tables = tables;
        let routes = || self.tables.iter().flat_map(|table| table.routes());
        self.routes.prune(&routes().map(Arc::as_ptr).collect());
        let names = routes().map(|route| &**route.name()).collect();
        self.stats.retain_routes(&names);
    }

    // --- clusters ---

    fn follow_clusters(&mut self, applied: &Applied) {
        for handle in applied.snapshot.clusters() {
            let tls = applied.peer_tls.get(&handle.config.name).cloned();
            self.follow_cluster(handle, tls);
        }
        let gone: Vec<usize> = self
            .clusters
            .iter()
            .filter(|(_, state)| {
                // One that had to wait for its last calls may have a successor of the same name.
                let found = applied.snapshot.cluster(&state.handle.config.name);
                !state.live || found.is_none()
            })
            .map(|(key, _)| key)
            .collect();
        for key in gone {
            self.retire_cluster(key);
        }
    }

    fn follow_cluster(&mut self, handle: &Arc<ClusterHandle>, tls: Option<Arc<ClientConfig>>) {
        let name = &handle.config.name;
        let known = self.cluster_keys.get(name).copied();
        let key = known.unwrap_or_else(|| self.add_cluster(handle));
        let state = &mut self.clusters[key];
        let same_endpoints = Arc::ptr_eq(&state.handle.endpoints, &handle.endpoints);
        state.handle = Arc::clone(handle);
        state.peer_tls = tls;
        state.live = true;
        let number = handle.endpoints.endpoints().len();
        if !same_endpoints || self.clusters[key].pools.len() != number {
            self.follow_endpoints(key, handle.endpoints.endpoints());
        }
    }

    fn add_cluster(&mut self, handle: &Arc<ClusterHandle>) -> usize {
        let key = self.clusters.insert(ClusterState {
            handle: Arc::clone(handle),
            pools: Vec::new(),
            pending: 0,
            calls: 0,
            peer_tls: None,
            live: true,
        });
        self.cluster_keys.insert(handle.config.name.clone(), key);
        key
    }

    fn follow_endpoints(&mut self, cluster: usize, endpoints: &[Endpoint]) {
        let old = std::mem::take(&mut self.clusters[cluster].pools);
        let by_address: HashMap<_, _> = old
            .iter()
            .map(|key| {
                let endpoint = &self.pools[*key].endpoint;
                ((endpoint.address, endpoint.peer), *key)
            })
            .collect();
        let mut kept = HashSet::new();
        let mut pools = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let place = (endpoint.address, endpoint.peer);
            let key = match by_address.get(&place) {
                Some(key) => {
                    kept.insert(*key);
                    *key
                }
                None => self.add_pool(cluster, endpoint),
            };
            pools.push(key);
        }
        self.clusters[cluster].pools.clone_from(&pools);
        for (key, endpoint) in pools.iter().zip(endpoints) {
            let pool = &mut self.pools[*key];
            if pool.endpoint.cluster_id != endpoint.cluster_id {
                pool.answered = self.stats.answered(&endpoint.cluster_id);
            }
            pool.endpoint = endpoint.clone();
            self.follow_drain(*key, endpoint);
        }
        for key in old {
            if !kept.contains(&key) {
                self.retire_pool(key);
            }
        }
    }

    fn add_pool(&mut self, cluster: usize, endpoint: &Endpoint) -> usize {
        self.pools.insert(Pool {
            cluster,
            endpoint: endpoint.clone(),
            conns: Vec::new(),
            connecting: 0,
            waiting: std::collections::VecDeque::new(),
            outstanding: 0,
            answered: self.stats.answered(&endpoint.cluster_id),
            down: false,
            reconnect_timer: None,
            patience_timer: None,
            uneject_timer: None,
            draining: false,
            grace_timer: None,
            graced_ms: None,
            live: true,
        })
    }

    fn retire_cluster(&mut self, key: usize) {
        let state = &mut self.clusters[key];
        if std::mem::take(&mut state.live) {
            self.cluster_keys.remove(&state.handle.config.name);
            for pool in std::mem::take(&mut self.clusters[key].pools) {
                self.retire_pool(pool);
            }
        }
        let unused = self.pools.iter().all(|(_, pool)| pool.cluster != key);
        if unused && self.clusters[key].calls == 0 {
            self.clusters.remove(key);
        }
    }

    // --- listeners ---

    fn follow_listeners(
        &mut self,
        listeners: &[ListenerConfig],
        sockets: Vec<(Name, std::net::TcpListener)>,
    ) {
        let mut sockets: HashMap<Name, std::net::TcpListener> = sockets.into_iter().collect();
        let open: Vec<(usize, Name)> = self
            .listeners
            .iter()
            .filter(|(_, state)| state.socket.is_some())
            .map(|(key, state)| (key, state.name.clone()))
            .collect();
        for (key, name) in open {
            let wanted = listeners.iter().find(|it| it.config.name == name);
            match wanted {
                Some(listener) if !sockets.contains_key(&name) => {
                    self.listeners[key].update(listener);
                }
                // Gone, or at another address from now on.
                _ => self.drain_listener(key, self.settings.listener_drain_ms),
            }
        }
        for listener in listeners {
            if let Some(socket) = sockets.remove(&listener.config.name) {
                self.open_listener(listener, TcpListener::from_std(socket));
            }
        }
    }

    fn open_listener(&mut self, listener: &ListenerConfig, mut socket: TcpListener) {
        let key = self.listeners.vacant_key();
        let registered =
            self.poll
                .registry()
                .register(&mut socket, listener_token(key), Interest::READABLE);
        if let Err(error) = registered {
            self.notices.push(crate::events::Notice::ListenerError {
                listener: listener.config.name.to_string(),
                error: format!("a worker cannot watch its socket: {error}"),
            });
            return;
        }
        self.listeners.insert(WorkerListener::new(listener, socket));
    }
}
