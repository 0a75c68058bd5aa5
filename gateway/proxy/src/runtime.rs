//! The owner's side: starts workers, gives them snapshots, asks them to drain, reads what they counted.
//!
//! `apply` checks a whole update before anything changes, then binds what is new and builds TLS; what fails there is
//! reported for its listener and stops no other. Calls of the owner may come from any thread; a mutex orders them.
//! No call waits for a worker longer than `WORKER_ANSWER`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use gateway_core::config::{Listener, Secret};
use gateway_core::{ConfigError, Name, Snapshot, parse_update};
use mio::{Poll, Waker};
use rustls::{ClientConfig, ServerConfig};
use serde::Serialize;
use serde_json::{Value, json};

use crate::bind::bind;
use crate::clock::Clock;
use crate::control::{Applied, Command};
use crate::events::{Notice, NoticeLog};
use crate::listener::ListenerConfig;
use crate::settings::Settings;
use crate::stats::{self, WorkerStats};
use crate::tls::{self, ClientDemand};
use crate::worker::{Shared, Worker, WorkerParts, waker_token};

/// How long the owner waits for a worker to take a snapshot; a worker's turn takes microseconds to milliseconds.
const WORKER_ANSWER: Duration = Duration::from_secs(5);
const COMMANDS_MAX: usize = 64;

/// Why the owner's wish was not done.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The update is wrong; nothing of it was taken.
    #[error(transparent)]
    Rejected(#[from] ConfigError),
    /// The runtime was not started, or is stopped.
    #[error("the core is not running: {0}")]
    Closed(&'static str),
    /// The system refused what workers need.
    #[error("cannot start worker {worker}: {source}")]
    Start {
        /// Which.
        worker: usize,
        /// What the system said.
        source: io::Error,
    },
}

/// What became of an update.
#[derive(Debug, Serialize)]
pub struct ApplyReport {
    /// The snapshot's version.
    pub version: String,
    /// Every listener of the snapshot.
    pub listeners: Vec<ListenerReport>,
}

/// One listener after an update.
#[derive(Debug, Serialize)]
pub struct ListenerReport {
    /// Its name.
    pub name: String,
    /// Where it listens, or should.
    pub address: String,
    /// Why it does not, or not as configured.
    pub error: Option<String>,
}

/// The data plane of one process.
pub struct Runtime {
    settings: Arc<Settings>,
    clock: Clock,
    notices: Arc<NoticeLog>,
    shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    workers: Vec<WorkerHandle>,
    stopped: bool,
    draining: bool,
    snapshot: Arc<Snapshot>,
    bound: HashMap<Name, Bound>,
    peers: HashMap<Name, Peer>,
}

struct WorkerHandle {
    commands: SyncSender<Command>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
    stats: Arc<WorkerStats>,
}

/// A listener with sockets.
struct Bound {
    /// As configured, before the system chose a port.
    wanted: SocketAddr,
    actual: SocketAddr,
    config: Arc<Listener>,
    secrets: Vec<Arc<Secret>>,
    tls: Option<Arc<ServerConfig>>,
}

/// TLS towards the peers of one cluster, and what it was made from.
struct Peer {
    secrets: [Arc<Secret>; 2],
    allowed: Vec<Name>,
    tls: Arc<ClientConfig>,
}

type Sockets = Vec<(Name, Vec<std::net::TcpListener>)>;

// === impl Runtime ===

impl Runtime {
    /// A runtime that is not started yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            clock: Clock::start(),
            notices: Arc::default(),
            shared: Arc::default(),
            state: Mutex::default(),
        }
    }

    /// Starts the workers; a second call does nothing.
    ///
    /// # Errors
    /// When the system gives no poll or thread, or the runtime was stopped.
    pub fn start(&self) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        if state.stopped {
            return Err(RuntimeError::Closed("it was stopped"));
        }
        for index in state.workers.len()..self.settings.workers {
            let worker = self
                .start_worker(index)
                .map_err(|source| RuntimeError::Start {
                    worker: index,
                    source,
                })?;
            state.workers.push(worker);
        }
        Ok(())
    }

    fn start_worker(&self, index: usize) -> io::Result<WorkerHandle> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), waker_token())?;
        let (sender, receiver) = sync_channel(COMMANDS_MAX);
        let stats = Arc::new(WorkerStats::default());
        let parts = WorkerParts {
            settings: Arc::clone(&self.settings),
            clock: self.clock,
            poll,
            commands: receiver,
            shared: Arc::clone(&self.shared),
            stats: Arc::clone(&stats),
            notices: Arc::clone(&self.notices),
        };
        let thread = thread::Builder::new()
            .name(format!("gateway-{index}"))
            .spawn(move || Worker::new(parts).run())?;
        Ok(WorkerHandle {
            commands: sender,
            waker,
            thread: Some(thread),
            stats,
        })
    }

    /// Takes an update (JSON, see `gateway_core::config`) and returns once all workers have it.
    ///
    /// # Errors
    /// When the update is wrong, or the runtime does not run.
    pub fn apply(&self, update: &[u8]) -> Result<ApplyReport, RuntimeError> {
        let update = parse_update(update)?;
        let mut state = self.lock();
        state.check_running()?;
        let now_ms = self.clock.now_ms();
        let snapshot = Arc::new(Snapshot::apply(&state.snapshot, update, now_ms)?);
        state.let_go_of_ports(&snapshot);
        let (reports, sockets) = state.follow_listeners(&snapshot, self.settings.workers);
        for report in &reports {
            if let Some(error) = &report.error {
                self.notices.push(Notice::ListenerError {
                    listener: report.name.clone(),
                    error: error.clone(),
                });
            }
        }
        for (cluster, error) in state.follow_peers(&snapshot) {
            self.notices.push(Notice::PeerTlsError { cluster, error });
        }
        let applied = Arc::new(state.applied(&snapshot));
        let version = snapshot.version().to_owned();
        state.snapshot = snapshot;
        state.tell_all(&applied, sockets);
        Ok(ApplyReport {
            version,
            listeners: reports,
        })
    }

    /// The result of an active health check; one for an endpoint that is not in the snapshot has no effect.
    ///
    /// # Errors
    /// When the address is none.
    pub fn set_health(&self, cluster: &str, address: &str, healthy: bool) -> Result<(), String> {
        let address: SocketAddr = address
            .parse()
            .map_err(|_| format!("`{address}` is not an address of the form IP:PORT"))?;
        let snapshot = Arc::clone(&self.lock().snapshot);
        if let Some(endpoint) = snapshot.endpoint(cluster, address) {
            endpoint.set_active_health(healthy);
        }
        Ok(())
    }

    /// Asks all workers to finish: listeners close, clients are asked to leave, what is left after `grace_ms` ends
    /// with UNAVAILABLE. Returns at once.
    pub fn drain(&self, grace_ms: u64) {
        let mut state = self.lock();
        state.draining = true;
        for worker in &state.workers {
            worker.tell(Command::Drain { grace_ms });
        }
    }

    /// True once a drain was asked for and no downstream connection is left.
    #[must_use]
    pub fn drained(&self) -> bool {
        let state = self.lock();
        state.draining && self.shared.drained.load(Ordering::Acquire) >= state.workers.len()
    }

    /// Ends all workers at once and waits for their threads.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        for worker in &state.workers {
            worker.tell(Command::Stop);
        }
        for worker in &mut state.workers {
            if let Some(thread) = worker.thread.take() {
                let _a_panic_was_counted = thread.join();
            }
        }
    }

    /// All counters as JSON.
    #[must_use]
    pub fn stats(&self) -> Value {
        let (snapshot, workers) = {
            let state = self.lock();
            let workers: Vec<_> = state
                .workers
                .iter()
                .map(|it| Arc::clone(&it.stats))
                .collect();
            (Arc::clone(&state.snapshot), workers)
        };
        let mut all = stats::sum(&workers);
        all.insert("version".to_owned(), json!(snapshot.version()));
        all.insert("notices_dropped".to_owned(), json!(self.notices.dropped()));
        all.insert("endpoints".to_owned(), self.endpoints_json(&snapshot));
        Value::Object(all)
    }

    fn endpoints_json(&self, snapshot: &Snapshot) -> Value {
        let now_ms = self.clock.now_ms();
        let mut all = Vec::new();
        for cluster in snapshot.clusters() {
            for endpoint in cluster.endpoints.endpoints() {
                let ejected = endpoint.shared.ejected_until_ms(now_ms);
                all.push(json!({
                    "cluster": &*cluster.config.name,
                    "address": endpoint.address.to_string(),
                    "cluster_id": &*endpoint.cluster_id,
                    "region": &*endpoint.region,
                    "priority": endpoint.priority,
                    "health": format!("{:?}", endpoint.health).to_lowercase(),
                    "down": endpoint.shared.is_down(now_ms),
                    "ejected_until_unix_ms": ejected.map(|at_ms| self.clock.unix_ms(at_ms)),
                }));
            }
        }
        Value::Array(all)
    }

    /// Takes up to `max` notices, oldest first.
    #[must_use]
    pub fn notices(&self, max: usize) -> Vec<Notice> {
        self.notices.take(max)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop();
    }
}

// === impl State ===

impl State {
    fn check_running(&self) -> Result<(), RuntimeError> {
        if self.stopped {
            Err(RuntimeError::Closed("it was stopped"))
        } else if self.workers.is_empty() {
            Err(RuntimeError::Closed("it was not started"))
        } else if self.draining {
            Err(RuntimeError::Closed("it drains"))
        } else {
            Ok(())
        }
    }

    /// Closes the sockets of listeners that go or move, before others want their ports.
    fn let_go_of_ports(&mut self, snapshot: &Snapshot) {
        let before = self.bound.len();
        self.bound.retain(|name, bound| {
            snapshot.listeners().iter().any(|listener| {
                let wanted = SocketAddr::new(listener.address, listener.port);
                listener.name == *name && bound.wanted == wanted
            })
        });
        if self.bound.len() < before {
            let applied = Arc::new(self.applied(&Arc::clone(&self.snapshot)));
            self.tell_all(&applied, Sockets::new());
        }
    }

    /// Binds new listeners and renews TLS; what fails keeps what it had.
    fn follow_listeners(
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

    fn follow_listener(
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
            let same = bound.secrets.len() == secrets.len()
                && bound.secrets.iter().zip(&secrets).all(|(a, b)| a == b);
            if !same || listener.tls.is_some() != bound.tls.is_some() {
                bound.tls = server_tls(snapshot, listener)?;
                bound.secrets = secrets;
            }
            return Ok(());
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
                secrets,
                tls,
            },
        );
        sockets.push((listener.name.clone(), opened));
        Ok(())
    }

    /// Renews TLS towards peers where its secrets changed; returns what failed, by cluster.
    fn follow_peers(&mut self, snapshot: &Snapshot) -> Vec<(String, String)> {
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

    fn applied(&self, snapshot: &Arc<Snapshot>) -> Applied {
        let listeners = self
            .bound
            .values()
            .filter_map(|bound| {
                Some(ListenerConfig {
                    config: Arc::clone(&bound.config),
                    table: Arc::clone(snapshot.table(&bound.config.route_table)?),
                    tls: bound.tls.clone(),
                })
            })
            .collect();
        let peers = self.peers.iter();
        Applied {
            snapshot: Arc::clone(snapshot),
            listeners,
            peer_tls: peers
                .map(|(name, peer)| (name.clone(), Arc::clone(&peer.tls)))
                .collect(),
        }
    }

    fn tell_all(&self, applied: &Arc<Applied>, sockets: Sockets) {
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
        for _ in &self.workers {
            let _late_is_not_lost = all_done.recv_timeout(WORKER_ANSWER);
        }
    }
}

// === impl WorkerHandle ===

impl WorkerHandle {
    fn tell(&self, command: Command) {
        let _worker_may_have_ended = self.commands.send(command);
        let _worker_may_have_ended = self.waker.wake();
    }
}

fn secrets_of(snapshot: &Snapshot, listener: &Listener) -> Vec<Arc<Secret>> {
    let Some(tls) = &listener.tls else {
        return Vec::new();
    };
    let names = tls.certificates.iter().chain(&tls.client_ca);
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
    let certificates = tls
        .certificates
        .iter()
        .map(|name| secret(name).map(|it| &**it))
        .collect::<Result<Vec<_>, _>>()?;
    let demand = match &tls.client_ca {
        None => None,
        Some(name) => Some(ClientDemand {
            authorities: secret(name)?,
            allowed: &tls.allowed_spiffe,
        }),
    };
    tls::server_config(&certificates, demand.as_ref())
        .map(Some)
        .map_err(|error| error.to_string())
}
