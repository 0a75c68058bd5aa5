//! One worker thread: its poll, its tables, and the order of a turn.
//!
//! A turn: wait for sockets or the next timer; read what is there (a fair share for each connection); take commands;
//! fire timers; then write, once for each connection that has something to say, and take out what died. Nothing
//! blocks, nothing is shared but the snapshot and atomics. All other modules of a worker are `impl Worker` blocks for
//! one subject each; they change connections and calls only through the tables here.
//!
//! Invariants: keys of a turn stay valid for that turn (the dead are removed at its end); a panic costs the
//! connection on which it happened, nothing else.

mod reading;

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use gateway_core::{Admission, Name, RouteTable};
use gateway_h2::{Events, StreamRef};
use mio::{Poll, Token};
use slab::Slab;

use crate::abuse::count_stream_faults;
use crate::call::{Call, CallId};
use crate::clock::Clock;
use crate::conn::{Conn, ConnId, ConnectFault, Death, READ_BUFFER_BYTES, Side};
use crate::control::Command;
use crate::descriptors::SpareDescriptors;
use crate::events::{Notice, NoticeLog};
use crate::headers::HeaderList;
use crate::listener::WorkerListener;
use crate::mirrors::MirrorCopy;
use crate::passthrough::{End, Tunnels};
use crate::pool::{ClusterState, Pool};
use crate::routes::RouteMemory;
use crate::series::{Place, SeriesBudget, SeriesMemory};
use crate::settings::Settings;
use crate::stats::WorkerStats;
use crate::telemetry::hub::Hub;
use crate::telemetry::{Home, Telling};
use crate::timers::Wheel;
use reading::{BYTES_PER_TURN, HANDSHAKES_PER_TURN};

const READY_EVENTS: usize = 1_024;
/// How long calls have to end when a worker drains because of panics.
const PANIC_DRAIN_MS: u64 = 30_000;
/// Emptied header lists and bodies kept for the next calls, and the largest of each that is worth it.
const SPARES_MAX: usize = 256;
const SPARE_LIST_BYTES: usize = 8 * 1024;
const SPARE_BODY_BYTES: usize = 16 * 1024;
/// Ending streams frees what was counted; a second look finds what ending them brought about.
const RELIEFS_PER_TURN: usize = 3;
const TICK_MS: u64 = 1_000;
const WAKER: Token = Token(0);

/// What a timer is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timer {
    /// Once a second: refills budgets against abuse and spare descriptors.
    Tick,
    Deadline(CallId),
    Idle(CallId),
    PerTry(CallId),
    Backoff(CallId),
    /// A call was delayed on purpose; the flag says that it is refused now.
    Delayed(CallId, bool),
    /// A mirror's copy waits for its answer since its call is over.
    Copy(CallId),
    /// Response headers were held long enough.
    Held(CallId),
    /// A connection (of either side) is not set up in time.
    Setup(ConnId),
    /// A listener that got no connection asks again.
    Accept(usize),
    /// A connection to an endpoint may be idle.
    UpIdle(ConnId),
    /// A client's connection may be idle.
    DownIdle(ConnId),
    /// A client's connection may be old, idle or silent, as its listener's settings have it.
    Age(ConnId),
    /// A client's connection is on its way out.
    Leave(ConnId),
    /// A connection that is passed on is not set up in time, or may be idle.
    Tunnel(ConnId),
    /// A refused request had its time to end.
    Linger(ConnId, StreamRef),
    Liveness(ConnId),
    /// A connection to a down endpoint is tried again.
    Reconnect(usize),
    /// Calls waited long enough for a connection.
    Patience(usize),
    /// The calls that are still on a draining endpoint are no short ones.
    Goodbye(usize),
    /// The grace of a draining endpoint is over.
    Grace(usize),
    /// An ejected endpoint may come back.
    Uneject(usize),
    /// What was written about calls is handed over.
    HandOver,
    /// Final GOAWAY on a listener's connections.
    ListenerFinal(usize),
    /// What is left on a listener's connections ends.
    ListenerEnd(usize),
}

/// What all workers of a runtime share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// How many labels they may have together.
    pub series: Arc<SeriesBudget>,
    pub downstream_connections: AtomicUsize,
    /// Workers that drained completely.
    pub drained: AtomicUsize,
    /// Panics caught.
    pub panics: AtomicUsize,
    /// So many panics that nobody should trust this process any longer: it drains itself.
    pub gave_up: AtomicBool,
}

impl Shared {
    pub fn new(series_max: usize) -> Self {
        Self {
            series: Arc::new(SeriesBudget::new(series_max)),
            downstream_connections: AtomicUsize::default(),
            drained: AtomicUsize::default(),
            panics: AtomicUsize::default(),
            gave_up: AtomicBool::default(),
        }
    }
}

/// Work for the end of the turn, so that a chain of failures is no chain of calls on the stack.
pub(crate) enum Deferred {
    ConnectFailed(usize, ConnectFault),
    Retry(CallId),
    /// A stream ended while calls wait for one.
    Serve(usize),
}

/// See the module.
pub(crate) struct Worker {
    pub settings: Arc<Settings>,
    pub clock: Clock,
    pub now_ms: u64,
    pub poll: Poll,
    pub commands: Receiver<Command>,
    pub shared: Arc<Shared>,
    pub stats: Arc<WorkerStats>,
    pub notices: Arc<NoticeLog>,
    pub random: fastrand::Rng,

    pub conns: Slab<Conn>,
    pub calls: Slab<Call>,
    pub copies: Slab<MirrorCopy>,
    pub pools: Slab<Pool>,
    pub clusters: Slab<ClusterState>,
    pub cluster_keys: HashMap<Name, usize>,
    /// Clusters that the snapshot has no more and that have calls or connections still.
    pub retired_clusters: Vec<usize>,
    pub listeners: Slab<WorkerListener>,
    pub routes: RouteMemory,
    pub series: SeriesMemory,
    /// Where calls without an endpoint went.
    pub nowhere: Place,
    pub admission: Admission,
    /// Route tables of the listeners, as the newest snapshot has them.
    pub tables: Vec<Arc<RouteTable>>,
    pub timers: Wheel<Timer>,

    /// The process ends: no listener is left and `drained` will be told.
    pub draining: bool,
    pub stopping: bool,
    pub reported_drained: bool,
    pub serial: u64,
    pub deferred: Vec<Deferred>,
    pub spare_lists: Vec<HeaderList>,
    pub spare_bodies: Vec<Vec<u8>>,
    /// For headers on their way; empty between uses.
    pub work_list: HeaderList,
    pub spare_descriptors: SpareDescriptors,
    pub tunnels: Tunnels,
    pub telling: Telling,
    pub home: Home,
    pub read_buffer: Vec<u8>,

    /// Bytes held for peers: see `memory`.
    pub buffered_bytes: usize,

    dirty: Vec<usize>,
    again: Vec<usize>,
    /// Connections for which this turn had no room: first in the next.
    put_off: Vec<usize>,
    bytes_left: usize,
    handshakes_left: usize,
    dead: Vec<usize>,
    read_events: Events,
    write_events: Events,
}

/// What a worker is made of; the rest starts empty.
pub(crate) struct WorkerParts {
    pub settings: Arc<Settings>,
    pub clock: Clock,
    pub poll: Poll,
    pub commands: Receiver<Command>,
    pub shared: Arc<Shared>,
    pub stats: Arc<WorkerStats>,
    pub notices: Arc<NoticeLog>,
    pub hub: Arc<Hub>,
}

/// Token of the waker.
pub(crate) const fn waker_token() -> Token {
    WAKER
}

/// Token of a listener's socket.
pub(crate) fn listener_token(key: usize) -> Token {
    Token(1 + 3 * key)
}

/// Token of a connection's socket.
pub(crate) fn conn_token(key: usize) -> Token {
    Token(2 + 3 * key)
}

/// Token of a socket of a connection that is passed on.
pub(crate) fn tunnel_token(key: usize, end: End) -> Token {
    Token(3 + 3 * (2 * key + usize::from(end == End::Server)))
}

// === impl Worker ===

impl Worker {
    pub fn new(parts: WorkerParts) -> Self {
        let now_ms = parts.clock.now_ms();
        Self {
            routes: RouteMemory::new(parts.settings.workers as u32),
            series: SeriesMemory::new(Arc::clone(&parts.shared.series)),
            nowhere: Place::none(),
            admission: Admission::new(
                parts.settings.slow_turn_ms,
                parts.settings.max_calls.div_ceil(parts.settings.workers),
            ),
            telling: Telling::new(parts.hub),
            home: Home {
                cluster: parts.settings.cluster.as_str().into(),
                region: parts.settings.region.as_str().into(),
            },
            settings: parts.settings,
            clock: parts.clock,
            now_ms,
            poll: parts.poll,
            commands: parts.commands,
            shared: parts.shared,
            stats: parts.stats,
            notices: parts.notices,
            random: fastrand::Rng::new(),
            conns: Slab::new(),
            calls: Slab::new(),
            copies: Slab::new(),
            pools: Slab::new(),
            clusters: Slab::new(),
            cluster_keys: HashMap::new(),
            retired_clusters: Vec::new(),
            listeners: Slab::new(),
            tables: Vec::new(),
            timers: Wheel::new(now_ms),
            draining: false,
            stopping: false,
            reported_drained: false,
            serial: 0,
            deferred: Vec::new(),
            spare_lists: Vec::new(),
            spare_bodies: Vec::new(),
            work_list: HeaderList::default(),
            spare_descriptors: SpareDescriptors::default(),
            tunnels: Tunnels::default(),
            buffered_bytes: 0,
            dirty: Vec::new(),
            again: Vec::new(),
            put_off: Vec::new(),
            bytes_left: BYTES_PER_TURN,
            handshakes_left: HANDSHAKES_PER_TURN,
            dead: Vec::new(),
            read_buffer: vec![0; READ_BUFFER_BYTES],
            read_events: Events::new(),
            write_events: Events::new(),
        }
    }

    /// Runs until told to stop.
    pub fn run(mut self) {
        let mut ready = mio::Events::with_capacity(READY_EVENTS);
        let mut fired = Vec::new();
        self.on_tick();
        while !self.stopping {
            match self.poll.poll(&mut ready, self.park_time()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    let message = format!("a worker cannot wait for its sockets and ends: {error}");
                    self.notices.push(Notice::Panic { message });
                    break;
                }
                _ => {}
            }
            self.now_ms = self.clock.now_ms();
            self.handshakes_left = HANDSHAKES_PER_TURN;
            self.bytes_left = BYTES_PER_TURN;
            let again = std::mem::take(&mut self.again);
            for key in std::mem::take(&mut self.put_off) {
                self.go_on_reading(key);
            }
            for event in &ready {
                self.on_ready(event);
            }
            for key in again {
                self.go_on_reading(key);
            }
            self.guarded(None, Self::go_on_with_tunnels);
            self.timers.advance(self.now_ms, &mut fired);
            for timer in fired.drain(..) {
                self.guarded(None, |worker| worker.on_timer(timer));
            }
            self.settle();
            let ended_ms = self.clock.now_ms();
            self.admission.turn_ended(ended_ms - self.now_ms, ended_ms);
        }
        self.telling.hand_over();
        let open = self.stats.numbers.downstream_connections.get() as usize;
        let connections = &self.shared.downstream_connections;
        connections.fetch_sub(open, Ordering::Relaxed);
    }

    fn park_time(&self) -> Option<Duration> {
        let reads_on = !self.again.is_empty() || !self.put_off.is_empty();
        if reads_on || self.tunnels.want_a_turn() {
            return Some(Duration::ZERO);
        }
        let next_ms = self.timers.next_at_ms()?;
        Some(Duration::from_millis(
            next_ms.saturating_sub(self.clock.now_ms()),
        ))
    }

    fn on_ready(&mut self, event: &mio::event::Event) {
        let token = event.token();
        if token == WAKER {
            self.guarded(None, Self::take_commands);
            return;
        }
        let key = (token.0 - 1) / 3;
        if token.0 % 3 == 1 {
            self.guarded(None, |worker| worker.accept(key));
        } else if token.0.is_multiple_of(3) {
            let ends = [End::Client, End::Server];
            let readable = event.is_readable() || event.is_read_closed() || event.is_error();
            let writable = event.is_writable() || event.is_error();
            self.guarded(None, |worker| {
                worker.on_tunnel_ready(key / 2, ends[key % 2], readable, writable);
            });
        } else {
            let Some(conn) = self.conns.get_mut(key) else {
                return;
            };
            conn.read_closed |= event.is_read_closed();
            // One that is read later in this turn anyway has no second share.
            let has_its_turn = conn.again;
            if event.is_writable() {
                conn.unblock();
                if conn.wants_flush() {
                    self.mark_dirty(key);
                }
                if self.conns[key].is_reached() {
                    self.on_streams_available(key);
                }
            }
            let readable = event.is_readable() || event.is_read_closed() || event.is_error();
            if readable && !has_its_turn {
                self.guarded(Some(key), |worker| worker.read(key));
            }
        }
    }

    /// Runs one piece of work; a panic in it costs the connection it was for.
    fn guarded(&mut self, key: Option<usize>, work: impl FnOnce(&mut Self)) {
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(self))) else {
            return;
        };
        self.stats.numbers.panics.add(1);
        self.shared.panics.fetch_add(1, Ordering::Relaxed);
        self.notices.push(Notice::Panic {
            message: panic_message(&*panic),
        });
        self.read_buffer.resize(READ_BUFFER_BYTES, 0);
        self.end_tunnel_amid_panic();
        if let Some(key) = key {
            self.kill(key, Death::Panic);
        }
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Tick => self.on_tick(),
            Timer::Deadline(call) => self.on_deadline(call),
            Timer::Idle(call) => self.on_idle(call),
            Timer::PerTry(call) => self.on_try_timeout(call),
            Timer::Backoff(call) => self.on_backoff_over(call),
            Timer::Copy(copy) => self.on_copy_late(copy),
            Timer::Delayed(call, aborts) => self.on_delay_over(call, aborts),
            Timer::Held(call) => self.release_held(call),
            Timer::Setup(conn) => self.on_setup_timeout(conn),
            Timer::Accept(listener) => self.on_pause_over(listener),
            Timer::UpIdle(conn) => self.on_up_idle(conn),
            Timer::DownIdle(conn) => self.on_down_idle(conn),
            Timer::Age(conn) => self.on_age(conn),
            Timer::Leave(conn) => self.on_leave_time(conn),
            Timer::Tunnel(tunnel) => self.on_tunnel_time(tunnel),
            Timer::Linger(conn, stream) => self.on_linger_over(conn, stream),
            Timer::Liveness(conn) => self.on_liveness(conn),
            Timer::Reconnect(pool) => self.on_reconnect(pool),
            Timer::Patience(pool) => self.on_patience_over(pool),
            Timer::Goodbye(pool) => self.ask_clients_to_leave(pool),
            Timer::Grace(pool) => self.on_grace_over(pool),
            Timer::Uneject(pool) => self.on_ejection_over(pool),
            Timer::HandOver => self.telling.hand_over(),
            Timer::ListenerFinal(listener) => self.on_listener_final(listener),
            Timer::ListenerEnd(listener) => self.on_listener_end(listener),
        }
    }

    fn on_tick(&mut self) {
        self.timers.set(self.now_ms + TICK_MS, Timer::Tick);
        for (_, conn) in &mut self.conns {
            conn.codec.tick();
        }
        self.look_for_abuse();
        self.count_what_stands();
        self.telling.tick(self.now_ms);
        self.end_drained_tunnels();
        self.spare_descriptors.fill();
        self.give_up_after_panics();
    }

    /// State that many panics have passed through is not to be trusted: all workers drain, the owner is told once.
    fn give_up_after_panics(&mut self) {
        let (most, shared) = (self.settings.panics_max, &self.shared);
        let panics = shared.panics.load(Ordering::Relaxed);
        if most == 0 || panics < most || self.draining {
            return;
        }
        if !shared.gave_up.swap(true, Ordering::Relaxed) {
            self.notices.push(Notice::GaveUp {
                panics: panics as u64,
            });
        }
        self.drain_process(PANIC_DRAIN_MS);
    }

    // --- writing and taking out ---

    /// The connection has something to write at the end of this turn.
    pub fn mark_dirty(&mut self, key: usize) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(key);
        }
    }

    /// The connection ends with this turn; the first cause counts.
    pub fn kill(&mut self, key: usize, death: Death) {
        if let Some(conn) = self.conns.get_mut(key)
            && conn.dead.is_none()
        {
            conn.dead = Some(death);
            self.dead.push(key);
        }
    }

    fn settle(&mut self) {
        self.carry_out();
        for _ in 0..RELIEFS_PER_TURN {
            if !self.is_overfull() {
                break;
            }
            self.guarded(None, Self::relieve);
            self.carry_out();
        }
        self.stats
            .numbers
            .buffered_bytes
            .set(self.buffered_bytes as u64);
        self.report_drained();
    }

    fn carry_out(&mut self) {
        loop {
            while let Some(key) = self.dirty.pop() {
                self.guarded(Some(key), |worker| worker.flush(key));
            }
            if let Some(key) = self.dead.pop() {
                self.guarded(None, |worker| worker.bury(key));
            } else if let Some(deferred) = self.deferred.pop() {
                self.guarded(None, |worker| worker.on_deferred(deferred));
            } else {
                break;
            }
        }
        self.bury_tunnels();
    }

    fn flush(&mut self, key: usize) {
        let mut events = std::mem::take(&mut self.write_events);
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.dirty = false;
        events.clear();
        let outcome = conn.flush(self.now_ms, &mut events);
        self.on_events(key, &events, &[]);
        self.write_events = events;
        if outcome.is_err() && !self.read_last_words(key) {
            self.kill(key, Death::Closed);
        }
        self.resume_reading(key);
        self.count_connection(key);
        self.watch_liveness(key);
        self.close_if_finished(key);
    }

    fn bury(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        // The GOAWAY that says why is worth one attempt.
        let mut nobody_listens = Events::new();
        if matches!(conn.dead, Some(Death::Protocol | Death::Finished)) {
            let _best_effort = conn.flush(self.now_ms, &mut nobody_listens);
        }
        self.buffered_bytes -= std::mem::take(&mut conn.counted_bytes);
        conn.transport.finish();
        let _already_gone = self.poll.registry().deregister(conn.transport.socket());
        if let Some(timer) = conn.liveness_timer.take() {
            self.timers.cancel(timer);
        }
        let death = conn.dead.clone().unwrap_or(Death::Closed);
        let calls = std::mem::take(&mut conn.calls);
        match &conn.side {
            Side::Down(_) => {
                count_stream_faults(conn, &self.stats.numbers);
                self.on_down_gone(key, &calls);
            }
            Side::Up(_) => self.on_up_gone(key, death, &calls),
        }
        self.conns.remove(key);
    }

    fn on_deferred(&mut self, deferred: Deferred) {
        match deferred {
            Deferred::ConnectFailed(pool, fault) => self.on_connect_failed(pool, &fault),
            Deferred::Retry(call) => self.on_backoff_over(call),
            Deferred::Serve(pool) => self.serve_waiting(pool),
        }
    }

    // --- small services for the other modules ---

    /// The next serial number of a connection or call.
    pub fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// The call, unless it has ended.
    pub fn call(&mut self, id: CallId) -> Option<&mut Call> {
        self.calls
            .get_mut(id.key as usize)
            .filter(|call| call.id == id)
    }

    /// The connection, unless it has ended.
    pub fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(id.key).filter(|conn| conn.id == id)
    }

    /// Keeps the memory of a finished call for the next one.
    pub fn recycle(&mut self, mut list: HeaderList, mut body: Vec<u8>) {
        if self.spare_lists.len() < SPARES_MAX && list.capacity() <= SPARE_LIST_BYTES {
            list.clear();
            self.spare_lists.push(list);
        }
        let worth = 1..=SPARE_BODY_BYTES;
        if self.spare_bodies.len() < SPARES_MAX && worth.contains(&body.capacity()) {
            body.clear();
            self.spare_bodies.push(body);
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Shared, Worker, WorkerParts};
    use crate::clock::Clock;
    use crate::events::{Notice, NoticeLog};
    use crate::settings::Settings;
    use crate::stats::WorkerStats;
    use std::sync::Arc;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn after_many_panics_the_workers_drain_and_the_owner_is_told_once() {
        let shared = Arc::new(Shared::new(10_000));
        let notices = Arc::new(NoticeLog::default());
        let mut workers = [0, 1].map(|_| {
            let (_, commands) = sync_channel(1);
            Worker::new(WorkerParts {
                settings: Arc::new(Settings {
                    panics_max: 2,
                    ..Settings::default()
                }),
                clock: Clock::start(),
                poll: mio::Poll::new().expect("a poll"),
                commands,
                shared: Arc::clone(&shared),
                stats: Arc::new(WorkerStats::new(Arc::clone(&shared.series))),
                notices: Arc::clone(&notices),
                hub: Arc::default(),
            })
        });
        for draining in [false, true] {
            workers[0].guarded(None, |_| panic!("a bug"));
            for worker in &mut workers {
                worker.on_tick();
                worker.settle();
                assert_eq!(worker.draining, draining);
            }
        }
        let gave_up = Notice::GaveUp { panics: 2 };
        let told = notices.take(usize::MAX);
        assert_eq!(told.iter().filter(|it| **it == gave_up).count(), 1);
        assert_eq!(shared.drained.load(super::Ordering::Relaxed), 2);
    }
}
