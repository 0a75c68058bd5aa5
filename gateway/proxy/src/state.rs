//! What the owner's side remembers between updates: workers, sockets, TLS. Steps of `Runtime::apply`.
//!
//! Each step keeps what it had for an object that fails, and says why; nothing here waits for a worker longer than
//! `WORKER_ANSWER`.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use gateway_core::config::{Listener, ListenerTls, Secret};
use gateway_core::methods::Reflected;
use gateway_core::{ClusterHandle, EndpointTable, KnownMethods, Name, RouteTable, Snapshot};
use rustls::{ClientConfig, ServerConfig};

use crate::bind::bind;
use crate::clusters::{ClusterChanges, ToldCluster};
use crate::control::{Applied, Command};
use crate::listener::{ListenerConfig, hosts};
use crate::passthrough::entrances;
use crate::runtime::{ListenerReport, RuntimeError, WorkerHandle};
use crate::series::{Place, SeriesBudget};
use crate::telemetry::FileWriter;
use crate::telemetry::told::Told;
use crate::tls::{self, Certificates, ClientDemand};

/// How long the owner waits for a worker to take a snapshot; a worker's turn takes microseconds to milliseconds.
const WORKER_ANSWER: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Default)]
pub(crate) struct State {
    pub workers: Vec<WorkerHandle>,
    pub stopped: bool,
    pub draining: bool,
    pub snapshot: Arc<Snapshot>,
    pub bound: HashMap<Name, Bound>,
    pub peers: HashMap<Name, Peer>,
    /// Names of calls in metrics, and what they were made from.
    methods: Arc<KnownMethods>,
    pub reflected: Vec<Reflected>,
    tables: Vec<Arc<RouteTable>>,
    places: Places,
    /// What workers were told of each cluster; they are told again what is another object.
    told: HashMap<Name, ToldCluster>,
    /// Writes access logs to files; `None`: no listener has had one.
    pub files: Option<FileWriter>,
}

/// A listener with sockets.
pub(crate) struct Bound {
    /// As configured, before the system chose a port.
    wanted: SocketAddr,
    actual: SocketAddr,
    config: Arc<Listener>,
    /// What `tls` was made from.
    tls_config: Option<ListenerTls>,
    secrets: Vec<Arc<Secret>>,
    tls: Option<Arc<ServerConfig>>,
}

/// TLS towards the peers of one cluster, and what it was made from.
pub(crate) struct Peer {
    secrets: [Arc<Secret>; 2],
    allowed: Vec<Name>,
    tls: Arc<ClientConfig>,
}

pub(crate) type Sockets = Vec<(Name, Vec<std::net::TcpListener>)>;

/// Where endpoints are, over all clusters: how often each place is named.
#[derive(Default)]
struct Places {
    counts: HashMap<Place, usize>,
    regions: HashMap<Name, usize>,
    gone: Vec<Place>,
    regions_gone: Vec<Name>,
}

// === impl Places ===

impl Places {
    fn add(&mut self, table: &EndpointTable) {
        for (cluster, region) in table.places() {
            let place = Place {
                cluster: cluster.clone(),
                region: region.clone(),
            };
            *self.counts.entry(place).or_default() += 1;
            *self.regions.entry(region.clone()).or_default() += 1;
        }
    }

    fn remove(&mut self, table: &EndpointTable) {
        for (cluster, region) in table.places() {
            let place = Place {
                cluster: cluster.clone(),
                region: region.clone(),
            };
            if is_last(&mut self.counts, &place) {
                self.gone.push(place);
            }
            if is_last(&mut self.regions, region) {
                self.regions_gone.push(region.clone());
            }
        }
    }

    /// Those that nothing names any more.
    fn take_gone(&mut self) -> (Vec<Place>, Vec<Name>) {
        let (mut gone, mut regions) = (
            std::mem::take(&mut self.gone),
            std::mem::take(&mut self.regions_gone),
        );
        // One may have come back in the same update.
        gone.retain(|place| !self.counts.contains_key(place));
        regions.retain(|region| !self.regions.contains_key(region));
        (gone, regions)
    }
}

/// Counts one less; whether none is left.
fn is_last<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: &K) -> bool {
    let Some(count) = counts.get_mut(key) else {
        return false;
    };
    *count -= 1;
    let last = *count == 0;
    if last {
        counts.remove(key);
    }
    last
}

// === impl State ===

impl State {
    pub fn check_running(&self) -> Result<(), RuntimeError> {
        if self.stopped {
            Err(RuntimeError::Closed("it was stopped"))
        } else if self.workers.is_empty() {
            Err(RuntimeError::Closed("it was not started"))
        } else {
            Ok(())
        }
    }

    /// Closes the sockets of listeners that go or move, before others want their ports.
    pub fn let_go_of_ports(&mut self, snapshot: &Snapshot) {
        let before = self.bound.len();
        self.bound.retain(|name, bound| {
            snapshot.listeners().iter().any(|listener| {
                let wanted = SocketAddr::new(listener.address, listener.port);
                listener.name == *name && bound.wanted == wanted
            })
        });
        if self.bound.len() < before {
            let before = Arc::clone(&self.snapshot);
            let applied = Arc::new(self.applied(&before));
            self.tell_all(&applied, Sockets::new());
        }
    }

    /// Binds new listeners and renews TLS; what fails keeps what it had.
    pub fn follow_listeners(
        &mut self,
        snapshot: &Snapshot,
        workers: usize,
    ) -> (Vec<ListenerReport>, Sockets) {
        let wanted = snapshot.listeners();
        let mut sockets = Sockets::new();
        let mut reports = Vec::with_capacity(wanted.len());
        for listener in wanted {
            let error = self.follow_listener(snapshot, listener, workers, &mut sockets);
            let address = match self.bound.get(&listener.name) {
                Some(bound) => bound.actual,
                None => SocketAddr::new(listener.address, listener.port),
            };
            reports.push(ListenerReport {
                name: listener.name.to_string(),
                address: address.to_string(),
                error: error.err(),
            });
        }
        (reports, sockets)
    }

    pub fn follow_listener(
        &mut self,
        snapshot: &Snapshot,
        listener: &Arc<Listener>,
        workers: usize,
        sockets: &mut Sockets,
    ) -> Result<(), String> {
        let secrets = secrets_of(snapshot, listener);
        let wanted = SocketAddr::new(listener.address, listener.port);
        if let Some(bound) = self.bound.get_mut(&listener.name)
            && bound.wanted == wanted
        {
            bound.config = Arc::clone(listener);
            if bound.tls_config != listener.tls || bound.secrets != secrets {
                bound.tls = server_tls(snapshot, listener)?;
                bound.tls_config.clone_from(&listener.tls);
                bound.secrets = secrets;
            }
            return Ok(());
        }
        if self.draining {
            return Err(format!("cannot listen on {wanted}: the gateway drains"));
        }
        let tls = server_tls(snapshot, listener)?;
        let opened =
            bind(wanted, workers).map_err(|error| format!("cannot listen on {wanted}: {error}"))?;
        let actual = opened[0].local_addr().unwrap_or(wanted);
        self.bound.insert(
            listener.name.clone(),
            Bound {
                wanted,
                actual,
                config: Arc::clone(listener),
                tls_config: listener.tls.clone(),
                secrets,
                tls,
            },
        );
        sockets.push((listener.name.clone(), opened));
        Ok(())
    }

    /// Renews TLS towards peers where its secrets changed; returns what failed, by cluster.
    pub fn follow_peers(&mut self, snapshot: &Snapshot) -> Vec<(String, String)> {
        let mut failed = Vec::new();
        let mut peers = HashMap::new();
        for cluster in snapshot.clusters() {
            let name = &cluster.config.name;
            let Some(config) = &cluster.config.peer_tls else {
                continue;
            };
            let (Some(identity), Some(ca)) =
                (snapshot.secret(&config.secret), snapshot.secret(&config.ca))
            else {
                continue;
            };
            let old = self.peers.remove(name);
            let fits = |old: &Peer| {
                old.secrets[0] == *identity
                    && old.secrets[1] == *ca
                    && old.allowed == config.allowed_spiffe
            };
            if old.as_ref().is_some_and(fits) {
                peers.extend(old.map(|old| (name.clone(), old)));
                continue;
            }
            match tls::peer_config(identity, ca, &config.allowed_spiffe) {
                Ok(tls) => {
                    let peer = Peer {
                        secrets: [Arc::clone(identity), Arc::clone(ca)],
                        allowed: config.allowed_spiffe.clone(),
                        tls,
                    };
                    peers.insert(name.clone(), peer);
                }
                Err(error) => {
                    failed.push((name.to_string(), error.to_string()));
                    peers.extend(old.map(|old| (name.clone(), old)));
                }
            }
        }
        self.peers = peers;
        failed
    }

    /// What workers have to be told of a snapshot: all listeners, and of the clusters what changed since last time.
    pub fn applied(&mut self, snapshot: &Snapshot) -> Applied {
        let listeners: Vec<_> = self
            .bound
            .values()
            .filter_map(|bound| {
                Some(ListenerConfig {
                    config: Arc::clone(&bound.config),
                    table: match &bound.config.route_table {
                        Some(name) => Arc::clone(snapshot.table(name)?),
                        None => Arc::default(),
                    },
                    tls: bound.tls.clone(),
                    entrances: entrances(&bound.config),
                    hosts: hosts(&bound.config),
                    told: bound
                        .config
                        .telemetry
                        .as_ref()
                        .and_then(|telemetry| Told::new(&bound.config.name, telemetry))
                        .map(Arc::new),
                })
            })
            .collect();
        let new_names = self.follow_tables(&listeners);
        let clusters = self.cluster_changes(snapshot);
        let (places_gone, regions_gone) = self.places.take_gone();
        Applied {
            clusters,
            listeners,
            methods: Arc::clone(&self.methods),
            new_names,
            places_gone,
            regions_gone,
        }
    }

    /// Names calls by the routes of the moment; whether these are others than before.
    fn follow_tables(&mut self, listeners: &[ListenerConfig]) -> bool {
        let tables = listeners.iter().map(|it| Arc::clone(&it.table));
        let tables: Vec<_> = tables.collect();
        let mut pairs = tables.iter().zip(&self.tables);
        let same =
            tables.len() == self.tables.len() && pairs.all(|(new, old)| Arc::ptr_eq(new, old));
        if !same {
            self.tables = tables;
            self.name_methods();
        }
        !same
    }

    /// Names calls anew.
    pub fn name_methods(&mut self) {
        let routes = self.tables.iter().flat_map(|table| table.routes());
        let paths = routes.map(|route| &route.config().matches.path);
        self.methods = Arc::new(KnownMethods::new(paths, &self.reflected));
    }

    /// Gives back the room of series that workers have forgotten.
    pub fn prune_series(&self, budget: &SeriesBudget, applied: &Applied) {
        let routes = self.tables.iter().flat_map(|table| table.routes());
        let routes: HashSet<&Name> = routes.map(|route| route.name()).collect();
        let gone: HashSet<&Place> = applied.places_gone.iter().collect();
        budget.retain(
            |labels| self.methods.has(&labels.method) && !gone.contains(&labels.place),
            |route, cluster| {
                let there = cluster.is_empty() || self.told.contains_key(cluster);
                routes.contains(route) && there
            },
        );
    }

    fn cluster_changes(&mut self, snapshot: &Snapshot) -> ClusterChanges {
        let mut changes = ClusterChanges::default();
        for handle in snapshot.clusters() {
            let name = &handle.config.name;
            let peer_tls = self.peers.get(name).map(|peer| &peer.tls);
            let known = self.told.get(name);
            if known.is_some_and(|told| told.is_of(handle, peer_tls)) {
                continue;
            }
            let told = ToldCluster {
                handle: Arc::clone(handle),
                peer_tls: peer_tls.cloned(),
            };
            self.places.add(&handle.endpoints);
            if let Some(before) = self.told.insert(name.clone(), told.clone()) {
                self.places.remove(&before.handle.endpoints);
            }
            changes.changed.push(told);
        }
        if self.told.len() > snapshot.clusters().len() {
            let names = self.told.keys();
            let gone = names.filter(|name| snapshot.cluster(name).is_none());
            changes.gone = gone.cloned().collect();
            for name in &changes.gone {
                if let Some(before) = self.told.remove(name) {
                    self.places.remove(&before.handle.endpoints);
                }
            }
        }
        changes
    }

    /// Has all workers take it; returns the longest time, in microseconds, that one did nothing else meanwhile.
    pub fn tell_all(&self, applied: &Arc<Applied>, sockets: Sockets) -> u64 {
        let (done, all_done) = sync_channel(self.workers.len());
        let mut per_worker: Vec<Vec<(Name, std::net::TcpListener)>> = Vec::new();
        per_worker.resize_with(self.workers.len(), Vec::new);
        for (name, opened) in sockets {
            for (mine, socket) in per_worker.iter_mut().zip(opened) {
                mine.push((name.clone(), socket));
            }
        }
        for (worker, sockets) in self.workers.iter().zip(per_worker) {
            worker.tell(Command::Apply {
                applied: Arc::clone(applied),
                sockets,
                done: done.clone(),
            });
        }
        // One that is late is not lost: it takes it when it can.
        let times = self.workers.iter();
        times
            .filter_map(|_| all_done.recv_timeout(WORKER_ANSWER).ok())
            .max()
            .unwrap_or_default()
    }
}

// === impl ToldCluster ===

impl ToldCluster {
    fn is_of(&self, handle: &Arc<ClusterHandle>, peer_tls: Option<&Arc<ClientConfig>>) -> bool {
        let same_tls = match (&self.peer_tls, peer_tls) {
            (Some(told), Some(now)) => Arc::ptr_eq(told, now),
            (told, now) => told.is_none() && now.is_none(),
        };
        same_tls && Arc::ptr_eq(&self.handle, handle)
    }
}

fn secrets_of(snapshot: &Snapshot, listener: &Listener) -> Vec<Arc<Secret>> {
    let Some(tls) = &listener.tls else {
        return Vec::new();
    };
    let of_chains = tls.chains.iter().flat_map(|chain| &chain.certificates);
    let names = tls.certificates.iter().chain(of_chains);
    let names = names.chain(&tls.client_ca);
    names
        .filter_map(|name| snapshot.secret(name).cloned())
        .collect()
}

fn server_tls(
    snapshot: &Snapshot,
    listener: &Listener,
) -> Result<Option<Arc<ServerConfig>>, String> {
    let Some(tls) = &listener.tls else {
        return Ok(None);
    };
    let secret = |name: &Name| {
        snapshot
            .secret(name)
            .ok_or_else(|| format!("secret `{name}` is not known"))
    };
    let identities = |names: &[Name]| {
        let found = names.iter().map(|name| secret(name).map(|it| &**it));
        found.collect::<Result<Vec<_>, _>>()
    };
    let terminated = tls.chains.iter().filter(|it| !it.certificates.is_empty());
    let by_name = terminated
        .map(|chain| Ok((&chain.server_names[..], identities(&chain.certificates)?)))
        .collect::<Result<Vec<_>, String>>()?;
    let certificates = Certificates {
        rest: identities(&tls.certificates)?,
        by_name,
    };
    if certificates.is_empty() {
        return Ok(None);
    }
    let demand = match &tls.client_ca {
        None => None,
        Some(name) => Some(ClientDemand {
            authorities: secret(name)?,
            allowed: &tls.allowed_spiffe,
            optional: tls.client_optional,
        }),
    };
    tls::server_config(&certificates, demand.as_ref())
        .map(Some)
        .map_err(|error| error.to_string())
}
