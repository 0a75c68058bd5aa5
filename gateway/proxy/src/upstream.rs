//! Connections to endpoints: what their events mean, and what their end does to calls and endpoints.
//!
//! An endpoint to which no connection can be made is down for all workers at once (`EndpointShared`); this worker then
//! tries again in the background for as long as the snapshot has it, so that it comes back without risking a call.

use std::io;

use gateway_core::Outcome;
use gateway_h2::{ErrorCode, Event, Events, StreamRef};

use crate::call::CallId;
use crate::conn::{ConnectFault, Death, Side, StreamAt, UpPhase};
use crate::events::Notice;
use crate::mirrors::is_of_copy;
use crate::transport::Transport;
use crate::worker::{Deferred, Timer, Worker};

impl Worker {
    /// An event of a connection to an endpoint.
    pub fn on_up_event(&mut self, key: usize, event: &Event, events: &Events, input: &[u8]) {
        if is_of_copy(event) {
            self.peer_speaks(key);
            return self.on_copy_event(key, event);
        }
        match event {
            Event::Response {
                stream,
                token,
                headers,
                end_stream,
                informational,
            } => {
                self.peer_speaks(key);
                let fields = events.fields(*headers);
                match self.call_of_up(key, *stream, *token) {
                    Some(id) if *informational => self.on_interim_response(id, fields),
                    Some(id) => self.on_response(id, fields, *end_stream),
                    None => {}
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
                    None => {
                        self.conns[key].codec.release(*stream, *flow_len);
                    }
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

    /// A connection has room for requests, for the first time or again.
    pub fn on_streams_available(&mut self, key: usize) {
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
            if matches!(self.conns[key].transport, Transport::Tls(_)) {
                self.stats.numbers.tls_peer_ok.add(1);
            }
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
        let unwanted = unwanted || conn.codec.is_over();
        if unwanted && conn.calls.is_empty() && conn.copies == 0 {
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
            self.count_peer_tls(key, &fault);
            self.deferred.push(Deferred::ConnectFailed(pool, fault));
        } else if death == Death::Silent {
            self.mark_down(pool, "no answer to PING");
        } else if death != Death::Finished && !calls.is_empty() && self.pools[pool].live {
            // Calls were cut off: learn at once, and not by the next call, whether the endpoint still lives.
            if self.pools[pool].conns.is_empty() {
                self.connect(pool);
            }
        }
        if self.conns[key].copies > 0 {
            self.lose_copies(key);
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
        self.drop_waiting_copies(pool);
        let waiting = std::mem::take(&mut self.pools[pool].waiting);
        let cluster = self.pools[pool].cluster;
        self.clusters[cluster].served(waiting.len() as u32);
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
        self.conns[up.conn].codec.reset(up.stream, code);
        self.mark_dirty(up.conn);
    }
}
