//! Connections to endpoints: making them, what their events mean, and what their end does to calls and endpoints.
//!
//! An endpoint to which no connection can be made is down for all workers at once (`EndpointShared`); this worker then
//! tries again in the background for as long as the snapshot has it, so that it comes back without risking a call.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use gateway_core::Outcome;
use gateway_h2::{Config, Connection, ErrorCode, Event, Events, StreamRef};
use mio::Interest;
use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::call::CallId;
use crate::conn::{Conn, ConnId, ConnectFault, Death, Side, StreamAt, Up, UpPhase};
use crate::descriptors;
use crate::events::Notice;
use crate::liveness::watch_by_kernel;
use crate::transport::Transport;
use crate::worker::{Deferred, Timer, Worker, conn_token};

/// How long calls wait for a connection at least before they turn to another endpoint.
const PATIENCE_MS_MIN: u64 = 500;
/// Room in a stream's queue for what was kept of the request, beside one window: above the largest `buffer_bytes`.
const KEPT_BYTES_MAX: usize = 32 << 20;

impl Worker {
    /// Begins another connection when the waiting calls ask for it.
    pub fn grow(&mut self, pool: usize) {
        let state = &self.pools[pool];
        let config = &self.clusters[state.cluster].handle.config;
        let leaving = |key: &&usize| {
            let side = &self.conns[**key].side;
            matches!(side, Side::Up(up) if up.phase == UpPhase::Leaving)
        };
        let usable = state.conns.len() - state.conns.iter().filter(leaving).count();
        if state.live && state.should_grow(usable, config.max_connections) {
            self.connect(pool);
        }
    }

    fn connect(&mut self, pool: usize) {
        let connected = self.open_up(pool);
        let state = &mut self.pools[pool];
        if let Some(timer) = state.reconnect_timer.take() {
            self.timers.cancel(timer);
        }
        match connected {
            Ok(()) => {
                state.connecting += 1;
                self.limit_patience(pool);
            }
            Err(fault) => self.deferred.push(Deferred::ConnectFailed(pool, fault)),
        }
    }

    /// Calls that wait for a connection under way do so for a limited time, whoever began it.
    pub fn limit_patience(&mut self, pool: usize) {
        let state = &self.pools[pool];
        let waits = state.connecting > 0 && !state.waiting.is_empty();
        if waits && state.patience_timer.is_none() {
            let at_ms = self.now_ms + self.patience_ms(pool);
            let timer = self.timers.set(at_ms, Timer::Patience(pool));
            self.pools[pool].patience_timer = Some(timer);
        }
    }

    /// A socket on its way to an endpoint; at the limit of descriptors it takes the place of a spare one.
    fn socket_to(&mut self, address: SocketAddr) -> Result<TcpStream, ConnectFault> {
        match TcpStream::connect(address) {
            Err(error) if descriptors::are_short(&error) => {
                self.stats.numbers.descriptor_shortages.add(1);
                self.spare_descriptors.give_up_one();
                TcpStream::connect(address)
            }
            done => done,
        }
        .map_err(|error| ConnectFault::from(&error))
    }

    fn open_up(&mut self, pool: usize) -> Result<(), ConnectFault> {
        let stream = self.socket_to(self.pools[pool].endpoint.address)?;
        let state = &self.pools[pool];
        let cluster = &self.clusters[state.cluster];
        let _only_slower_without = stream.set_nodelay(true);
        let _found_later_without = watch_by_kernel(&stream, &cluster.handle.config);
        let mut transport = if state.endpoint.peer {
            let tls = cluster.peer_tls.as_ref().ok_or_else(|| {
                ConnectFault::Tls("TLS: this gateway has no usable identity".to_owned())
            })?;
            let sni = cluster.handle.config.peer_tls.as_ref();
            Transport::tls(stream, peer_session(tls, sni.map_or("", |tls| &tls.sni))?)
        } else {
            Transport::Plain(stream)
        };
        let key = self.conns.vacant_key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(transport.socket(), conn_token(key), interest)
            .map_err(|error| ConnectFault::from(&error))?;
        let timeout_ms = self.now_ms + cluster.handle.config.connect_timeout_ms;
        let id = ConnId {
            key,
            serial: self.next_serial(),
        };
        let up = Up {
            pool,
            phase: UpPhase::Connecting,
            requests: 0,
            setup_timer: Some(self.timers.set(timeout_ms, Timer::Setup(id))),
            idle_timer: None,
            last_call_ms: self.now_ms,
        };
        let h2 = Connection::new(Config {
            initial_stream_window: self.settings.stream_window,
            stream_queue_max: self.settings.stream_window as usize + KEPT_BYTES_MAX,
            ..Config::client()
        });
        let conn = Conn::connecting(id, transport, h2, Side::Up(up), self.now_ms);
        self.conns.insert(conn);
        self.pools[pool].conns.push(key);
        self.stats.numbers.upstream_connections.add(1);
        Ok(())
    }

    /// With PINGs configured, silence on a new connection is judged like silence on an old one.
    fn patience_ms(&self, pool: usize) -> u64 {
        let config = &self.clusters[self.pools[pool].cluster].handle.config;
        let connect_ms = config.connect_timeout_ms;
        match &config.keepalive {
            None => connect_ms,
            Some(keepalive) => {
                let silence_ms = keepalive.interval_ms + keepalive.timeout_ms;
                connect_ms.min(silence_ms.max(PATIENCE_MS_MIN))
            }
        }
    }

    /// An event of a connection to an endpoint.
    pub fn on_up_event(&mut self, key: usize, event: &Event, events: &Events, input: &[u8]) {
        match event {
            Event::Response {
                stream,
                token,
                headers,
                end_stream,
                informational,
            } => {
                self.peer_speaks(key);
                if let Some(id) = self.call_of_up(key, *stream, *token)
                    && !informational
                {
                    self.on_response(id, events.fields(*headers), *end_stream);
                }
            }
            Event::Data {
                stream,
                token,
                range,
                flow_len,
                end_stream,
            } => {
                self.peer_speaks(key);
                let data = input.get(range.clone()).unwrap_or_default();
                match self.call_of_up(key, *stream, *token) {
                    Some(id) => self.on_response_data(id, data, *flow_len, *end_stream),
                    None => self.conns[key].h2.release(*stream, *flow_len),
                }
            }
            Event::Trailers {
                stream,
                token,
                headers,
            } => {
                self.peer_speaks(key);
                if let Some(id) = self.call_of_up(key, *stream, *token) {
                    self.on_trailers(id, events.fields(*headers));
                }
            }
            Event::Reset {
                stream,
                token,
                code,
                ..
            } => {
                if let Some(id) = self.call_of_up(key, *stream, *token) {
                    self.on_up_reset(id, *code);
                }
            }
            Event::Drained { stream, token, .. } => {
                if let Some(id) = self.call_of_up(key, *stream, *token) {
                    self.settle_request(id);
                }
            }
            Event::GoAway { .. } => self.leave_upstream(key),
            Event::PingAck { .. } => self.conns[key].ping_sent_ms = None,
            Event::StreamsAvailable => self.on_streams_available(key),
            Event::Request { .. } => {}
        }
    }

    fn peer_speaks(&mut self, key: usize) {
        self.conns[key].pings_in_vain = 0;
    }

    fn call_of_up(&mut self, conn: usize, stream: StreamRef, token: u64) -> Option<CallId> {
        let id = CallId::from_token(token);
        let at = StreamAt { conn, stream };
        self.call(id)
            .is_some_and(|call| call.up == Some(at))
            .then_some(id)
    }

    fn on_streams_available(&mut self, key: usize) {
        let Some(up) = self.conns[key].up() else {
            return;
        };
        let (pool, first) = (up.pool, up.phase == UpPhase::Connecting);
        if first {
            up.phase = UpPhase::Ready;
            if let Some(timer) = up.setup_timer.take() {
                self.timers.cancel(timer);
            }
            self.pools[pool].connecting -= 1;
            self.stats.numbers.connects.add(1);
            self.note_up(pool);
            self.watch_idleness_of_endpoint(key);
        }
        self.serve_waiting(pool);
    }

    fn note_up(&mut self, pool: usize) {
        let state = &mut self.pools[pool];
        let was_down = state.endpoint.shared.connected();
        if std::mem::take(&mut state.down) || was_down {
            let (cluster, address) = self.names_of(pool);
            self.notices.push(Notice::EndpointUp { cluster, address });
        }
    }

    /// No new streams on this connection; it closes with its last one.
    pub fn leave_upstream(&mut self, key: usize) {
        let Some(up) = self.conns[key].up() else {
            return;
        };
        let pool = up.pool;
        match up.phase {
            UpPhase::Connecting if self.pools[pool].live => {
                self.kill(key, Death::Connect(ConnectFault::Closed));
            }
            UpPhase::Connecting => self.kill(key, Death::Connect(ConnectFault::Unwanted)),
            UpPhase::Ready => {
                up.phase = UpPhase::Leaving;
                self.grow(pool);
                self.close_up_if_finished(key);
            }
            UpPhase::Leaving => self.close_up_if_finished(key),
        }
    }

    /// Closes a connection that takes no new streams and has none left, or whose endpoint is gone.
    pub fn close_up_if_finished(&mut self, key: usize) {
        let conn = &self.conns[key];
        let Side::Up(up) = &conn.side else { return };
        let unwanted = up.phase == UpPhase::Leaving || !self.pools[up.pool].live;
        if unwanted && conn.calls.is_empty() {
            self.kill(key, Death::Finished);
        }
    }

    /// What the end of an endpoint's socket means.
    pub fn upstream_death(&self, key: usize, error: &io::Error) -> Death {
        match &self.conns[key].side {
            Side::Up(up) if up.phase == UpPhase::Connecting => Death::Connect(error.into()),
            _ => Death::Closed,
        }
    }

    /// A connection to an endpoint is gone.
    pub fn on_up_gone(&mut self, key: usize, death: Death, calls: &[CallId]) {
        let Some(up) = self.conns[key].up() else {
            return;
        };
        let (pool, phase) = (up.pool, up.phase);
        let timers = [up.setup_timer.take(), up.idle_timer.take()];
        for timer in timers.into_iter().flatten() {
            self.timers.cancel(timer);
        }
        self.stats.numbers.upstream_connections.sub(1);
        self.pools[pool].conns.retain(|it| *it != key);
        if phase == UpPhase::Connecting {
            self.pools[pool].connecting -= 1;
            let fault = match death {
                Death::Connect(fault) => fault,
                _ => ConnectFault::Closed,
            };
            self.deferred.push(Deferred::ConnectFailed(pool, fault));
        } else if death == Death::Silent {
            self.mark_down(pool, "no answer to PING");
        } else if death != Death::Finished && !calls.is_empty() && self.pools[pool].live {
            // Calls were cut off: learn at once, and not by the next call, whether the endpoint still lives.
            if self.pools[pool].conns.is_empty() {
                self.connect(pool);
            }
        }
        for id in calls {
            self.on_connection_lost(*id);
        }
        if phase != UpPhase::Connecting && self.pools.contains(pool) {
            self.grow(pool);
        }
        self.forget_pool_if_done(pool);
    }

    /// A connection could not be made.
    pub fn on_connect_failed(&mut self, pool: usize, fault: &ConnectFault) {
        let blames = fault.blames_endpoint();
        self.stats.numbers.connect_failures.add(u64::from(blames));
        if !self.pools.contains(pool) || self.has_ready_connection(pool) {
            return;
        }
        let outcome = if blames {
            self.mark_down(pool, fault.words());
            Outcome::ConnectFailure
        } else {
            Outcome::Refused
        };
        if self.pools[pool].connecting == 0 {
            self.turn_away_waiting(pool, outcome);
        }
        self.forget_pool_if_done(pool);
    }

    fn has_ready_connection(&self, pool: usize) -> bool {
        self.pools[pool].conns.iter().any(|key| {
            let conn = &self.conns[*key];
            conn.dead.is_none() && matches!(&conn.side, Side::Up(up) if up.phase == UpPhase::Ready)
        })
    }

    /// The endpoint is down for all workers; this one tries it again in the background.
    pub fn mark_down(&mut self, pool: usize, reason: &str) {
        let state = &self.pools[pool];
        let config = &self.clusters[state.cluster].handle.config;
        let again_ms =
            state
                .endpoint
                .shared
                .connect_failed(config, self.now_ms, self.random.u64(..));
        if state.live && state.reconnect_timer.is_none() {
            let timer = self.timers.set(again_ms, Timer::Reconnect(pool));
            self.pools[pool].reconnect_timer = Some(timer);
        }
        if !std::mem::replace(&mut self.pools[pool].down, true) {
            let (cluster, address) = self.names_of(pool);
            self.notices.push(Notice::EndpointDown {
                cluster,
                address,
                reason: reason.to_owned(),
            });
        }
    }

    /// Calls that wait here turn to other endpoints.
    pub fn turn_away_waiting(&mut self, pool: usize, outcome: Outcome) {
        let waiting = std::mem::take(&mut self.pools[pool].waiting);
        let cluster = self.pools[pool].cluster;
        self.clusters[cluster].pending -= waiting.len() as u32;
        if let Some(timer) = self.pools[pool].patience_timer.take() {
            self.timers.cancel(timer);
        }
        for id in waiting {
            if self.call(id).is_some() {
                self.try_failed(id, outcome, None);
            }
        }
    }

    /// The background attempt is due.
    pub fn on_reconnect(&mut self, pool: usize) {
        let Some(state) = self.pools.get_mut(pool) else {
            return;
        };
        state.reconnect_timer = None;
        if state.live && state.connecting == 0 && !self.has_ready_connection(pool) {
            self.connect(pool);
        }
    }

    /// Calls waited long enough: they turn to other endpoints, the attempt goes on.
    pub fn on_patience_over(&mut self, pool: usize) {
        let Some(state) = self.pools.get_mut(pool) else {
            return;
        };
        state.patience_timer = None;
        if !self.has_ready_connection(pool) {
            self.mark_down(pool, "no connection in time");
            self.turn_away_waiting(pool, Outcome::ConnectFailure);
        }
    }

    /// Cluster name and address, for notices.
    pub fn names_of(&self, pool: usize) -> (String, String) {
        let state = &self.pools[pool];
        let cluster = &self.clusters[state.cluster].handle.config.name;
        (cluster.to_string(), state.endpoint.address.to_string())
    }

    /// Asks an endpoint to end a stream that nobody waits for.
    pub fn cancel_up(&mut self, up: StreamAt, code: ErrorCode) {
        self.conns[up.conn].h2.reset(up.stream, code);
        self.mark_dirty(up.conn);
    }
}

fn peer_session(tls: &Arc<ClientConfig>, sni: &str) -> Result<rustls::Connection, ConnectFault> {
    let name = ServerName::try_from(sni.to_owned())
        .map_err(|error| ConnectFault::Tls(format!("TLS: server name `{sni}`: {error}")))?;
    ClientConnection::new(Arc::clone(tls), name)
        .map(rustls::Connection::from)
        .map_err(|error| ConnectFault::Tls(format!("TLS: {error}")))
}
