//! The owner's side: starts workers, gives them snapshots, asks them to drain, reads what they counted.
//!
//! `apply` checks a whole update before anything changes, then binds what is new and builds TLS; what fails there is
//! reported for its listener and stops no other. Calls of the owner may come from any thread; a mutex orders them.
//! No call waits for a worker longer than `WORKER_ANSWER`.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::{io, thread};

use gateway_core::config::Health;
use gateway_core::methods::Reflected;
use gateway_core::{ConfigError, Snapshot, parse_update};
use mio::{Poll, Waker};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::clock::Clock;
use crate::cluster_view::ClusterView;
use crate::control::{Applied, Command};
use crate::events::{Notice, NoticeLog};
use crate::limits;
use crate::load;
use crate::settings::Settings;
use crate::state::{Sockets, State};
use crate::stats::{self, WorkerStats};
use crate::telemetry::FileWriter;
use crate::telemetry::hub::{Hub, Sink, Taken};
use crate::telemetry::tap::TapFilter;
use crate::worker::{Shared, Worker, WorkerParts, waker_token};

const COMMANDS_MAX: usize = 64;
/// Endpoints that `stats` lists one by one: what a person can look through, and a scrape can read.
const ENDPOINTS_LISTED_MAX: usize = 10_000;

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
    /// The longest time that a worker moved no traffic for it.
    pub pause_us: u64,
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
    hub: Arc<Hub>,
    state: Mutex<State>,
}

/// One worker thread as the owner sees it.
pub(crate) struct WorkerHandle {
    commands: SyncSender<Command>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
    stats: Arc<WorkerStats>,
}

// === impl Runtime ===

impl Runtime {
    /// A runtime that is not started yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            shared: Arc::new(Shared::new(settings.metric_series_max)),
            settings: Arc::new(settings),
            clock: Clock::start(),
            notices: Arc::default(),
            hub: Arc::default(),
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
        let stats = Arc::new(WorkerStats::new(Arc::clone(&self.shared.series)));
        let parts = WorkerParts {
            settings: Arc::clone(&self.settings),
            clock: self.clock,
            poll,
            commands: receiver,
            shared: Arc::clone(&self.shared),
            stats: Arc::clone(&stats),
            notices: Arc::clone(&self.notices),
            hub: Arc::clone(&self.hub),
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
        state.draining |= self.shared.gave_up.load(Ordering::Relaxed);
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
        self.follow_sinks(&mut state, &applied);
        let version = snapshot.version().to_owned();
        let before = std::mem::replace(&mut state.snapshot, snapshot);
        let pause_us = state.tell_all(&applied, sockets);
        if applied.renames() {
            state.prune_series(&self.shared.series, &applied);
        }
        // Here and not before: what nobody needs any more is freed by this thread, not by one that moves traffic.
        drop(before);
        Ok(ApplyReport {
            version,
            pause_us,
            listeners: reports,
        })
    }

    /// Has what is told about calls a place to go to.
    fn follow_sinks(&self, state: &mut State, applied: &Applied) {
        let told = applied.listeners.iter().filter_map(|it| it.told.as_ref());
        let sinks: Vec<_> = told.flat_map(|told| told.sinks()).collect();
        self.hub.follow(sinks.iter().copied());
        let has_files = sinks.iter().any(|sink| matches!(sink, Sink::File(_)));
        if !has_files || state.files.is_some() {
            return;
        }
        match FileWriter::start(Arc::clone(&self.hub), self.clock) {
            Ok(writer) => state.files = Some(writer),
            Err(error) => self.notices.push(Notice::AccessLogError {
                error: format!("no thread for access logs in files: {error}"),
            }),
        }
    }

    /// Takes spans and log records that wait: for each collector and kind at most `bytes_max`, but one batch at least.
    /// Each entry's bytes are a `ScopeSpans` or `ScopeLogs` of OTLP with its records alone.
    #[must_use]
    pub fn take_telemetry(&self, bytes_max: usize) -> Vec<Taken> {
        self.hub.take(bytes_max)
    }

    /// Shows live calls that fit a filter (JSON, see `_native.pyi`), or none any more.
    ///
    /// # Errors
    /// When the filter is none.
    pub fn set_tap(&self, filter: Option<&[u8]>) -> Result<(), String> {
        let filter = filter.map(TapFilter::parse).transpose()?;
        let state = self.lock();
        let id = self.hub.begin_tap();
        let filter = filter.map(|filter| Arc::new(filter.of_tap(id)));
        self.hub.note_tap_taken(self.clock.now_ms());
        for worker in &state.workers {
            worker.tell(Command::Tap(filter.clone()));
        }
        Ok(())
    }

    /// Takes up to `max` tapped calls as lines of JSON, oldest first. A tap that nobody takes from for 30 s is over.
    #[must_use]
    pub fn take_tap(&self, max: usize) -> Vec<u8> {
        self.hub.note_tap_taken(self.clock.now_ms());
        self.hub.take_tapped(max)
    }

    /// Has files of access logs opened again, after they were moved away.
    pub fn reopen_logs(&self) {
        self.hub.reopen();
    }

    /// The result of an active health check; one for an endpoint that is not in the snapshot has no effect.
    ///
    /// # Errors
    /// When the address is none.
    pub fn set_health(&self, cluster: &str, address: &str, healthy: bool) -> Result<(), String> {
        let address: SocketAddr = address
            .parse()
            .map_err(|_| format!("`{address}` is not an address of the form IP:PORT"))?;
        if let Some(endpoint) = self.snapshot().endpoint(cluster, address) {
            endpoint.set_active_health(healthy);
        }
        Ok(())
    }

    /// What was asked of global rate limits, as JSON: a list of `{"name", "requests", "has_share", "passed", "refused"}`
    /// (totals); `"keys"`, a list of `[key, passed, refused]` since the last call, most first, at most `keys_max` of each
    /// limit; and with `all` `"outstanding"`, a list of `[key or "", calls that passed and count still]`.
    #[must_use]
    pub fn take_limit_demand(&self, keys_max: usize, all: bool) -> Value {
        limits::demand(&self.snapshot(), keys_max, all, self.clock.now_ms())
    }

    /// Sets this gateway's shares of global rate limits: JSON, a list of `{"limit", "share_per_million", "keys": {key:
    /// per million}}`; without a share those in force are confirmed. A limit that is not there is passed over.
    ///
    /// # Errors
    /// When the message is not of this form.
    pub fn set_limit_shares(&self, shares: &[u8]) -> Result<(), String> {
        limits::set(&self.snapshot(), shares, self.clock.now_ms())
    }

    /// Names methods beside those that routes name, for metrics: JSON, a list of `{"service", "method", "type"}` in place
    /// of the one before. The first `REFLECTED_MAX` count.
    ///
    /// # Errors
    /// When the message is not of this form.
    pub fn set_known_methods(&self, methods: &[u8]) -> Result<(), String> {
        let methods: Vec<Reflected> =
            serde_json::from_slice(methods).map_err(|error| format!("known methods: {error}"))?;
        let mut state = self.lock();
        if methods == state.reflected {
            return Ok(());
        }
        state.reflected = methods;
        state.name_methods();
        let snapshot = Arc::clone(&state.snapshot);
        let applied = Arc::new(state.applied(&snapshot));
        state.tell_all(&applied, Sockets::new());
        state.prune_series(&self.shared.series, &applied);
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

    /// True once a drain was asked for, by the owner or by too many panics, and no downstream connection is left.
    #[must_use]
    pub fn drained(&self) -> bool {
        let state = self.lock();
        let drained = self.shared.drained.load(Ordering::Acquire);
        let draining = state.draining || drained > 0;
        draining && drained >= state.workers.len()
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
        if let Some(mut files) = state.files.take() {
            files.stop();
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
        self.add_series(&mut all, &snapshot, &workers);
        let rate_limits = limits::summary(&snapshot, self.clock.now_ms());
        all.insert("rate_limits".to_owned(), rate_limits);
        all.insert("telemetry".to_owned(), self.hub.summary());
        let homeless = json!(self.hub.homeless());
        all.insert("telemetry_homeless".to_owned(), homeless);
        let tap = json!({"dropped": self.hub.tapped_dropped()});
        all.insert("tap".to_owned(), tap);
        all.insert("endpoints".to_owned(), self.endpoints_json(&snapshot));
        all.insert("endpoints_total".to_owned(), json!(endpoints_of(&snapshot)));
        Value::Object(all)
    }

    /// Tries by where they go, as JSON: `{"calls_open", "connections", "latency_bounds_us", "places": [{"cluster",
    /// "cluster_id", "region", "priority", "began", "succeeded", "failed", "open", "latency"}]}`; all but what is open
    /// counts from the start of the process.
    #[must_use]
    pub fn loads(&self) -> Value {
        let workers: Vec<_> = {
            let state = self.lock();
            state
                .workers
                .iter()
                .map(|it| Arc::clone(&it.stats))
                .collect()
        };
        load::sum(&workers)
    }

    /// How many series there are, and clusters with what metrics tell of each: as many as there is room for, and those
    /// of which there is something to tell first.
    fn add_series(
        &self,
        all: &mut Map<String, Value>,
        snapshot: &Snapshot,
        workers: &[Arc<WorkerStats>],
    ) {
        let (used, room) = self.shared.series.used();
        let now_ms = self.clock.now_ms();
        let mut streams = stats::drain_streams(workers);
        let mut told: Vec<ClusterView> = snapshot
            .clusters()
            .map(|cluster| ClusterView::of(cluster, &mut streams, now_ms))
            .collect();
        told.sort_by(|a, b| (b.is_notable(), &a.name).cmp(&(a.is_notable(), &b.name)));
        let mut series = 0;
        let total = told.len();
        let fits = told.iter().take_while(|it| {
            series += it.series();
            series <= room
        });
        let listed: Vec<Value> = fits.map(ClusterView::json).collect();
        let series: usize = told
            .iter()
            .take(listed.len())
            .map(ClusterView::series)
            .sum();
        let clusters_left_out = total - listed.len();
        all.insert(
            "series".to_owned(),
            json!({"used": used + series, "clusters_left_out": clusters_left_out}),
        );
        all.insert("clusters".to_owned(), Value::Array(listed));
    }

    /// The endpoints; of more than `ENDPOINTS_LISTED_MAX` only those that are not plainly well, up to as many.
    fn endpoints_json(&self, snapshot: &Snapshot) -> Value {
        let now_ms = self.clock.now_ms();
        let whole = endpoints_of(snapshot) <= ENDPOINTS_LISTED_MAX;
        let mut all = Vec::new();
        for cluster in snapshot.clusters() {
            for endpoint in cluster.endpoints.iter() {
                let ejected = endpoint.shared.ejected_until_ms(now_ms);
                let down = endpoint.shared.is_down(now_ms);
                let check_failed = cluster.config.health_check && endpoint.shared.check_failed();
                let said_well = endpoint.health == Health::Healthy && !check_failed;
                let well = said_well && !down && ejected.is_none();
                if !whole && (well || all.len() >= ENDPOINTS_LISTED_MAX) {
                    continue;
                }
                all.push(json!({
                    "cluster": &*cluster.config.name,
                    "address": endpoint.address.to_string(),
                    "cluster_id": &*endpoint.cluster_id,
                    "region": &*endpoint.region,
                    "priority": endpoint.priority,
                    "health": format!("{:?}", endpoint.health).to_lowercase(),
                    "down": down,
                    "check_failed": check_failed,
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

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.lock().snapshot)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn endpoints_of(snapshot: &Snapshot) -> usize {
    snapshot.clusters().map(|it| it.endpoints.len()).sum()
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop();
    }
}

// === impl WorkerHandle ===

impl WorkerHandle {
    /// Sends a command and wakes the worker.
    pub fn tell(&self, command: Command) {
        let _worker_may_have_ended = self.commands.send(command);
        let _worker_may_have_ended = self.waker.wake();
    }
}
