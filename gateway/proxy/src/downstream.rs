//! Clients' connections: telling HTTP/2 from HTTP/1, and what their events mean.

use std::io;
use std::sync::atomic::Ordering;

use gateway_core::config::ListenerKind;
use gateway_h2::{ErrorCode, Event, Events, StreamRef};

use crate::call::{CallId, Phase};
use crate::codec::Codec;
use crate::conn::{Conn, ConnId, Death, DownPhase, Side, StreamAt};
use crate::dispatch::is_grpc_type;
use crate::opening::{Opening, opening};
use crate::reply::HTTP1_REFUSAL;
use crate::transport::Transport;
use crate::worker::Worker;

impl Worker {
    /// Decides at the first bytes of a client what it speaks; true when the codec gets the bytes.
    pub fn is_understood(&mut self, key: usize, input: &[u8]) -> bool {
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        let Side::Down(down) = &mut conn.side else {
            return true;
        };
        match down.phase {
            DownPhase::Lingering => return false,
            DownPhase::Preface => {}
            _ => return true,
        }
        let opening = opening(input);
        if opening == Opening::Unknown {
            conn.keep(input);
            return false;
        }
        if matches!(conn.transport, Transport::Tls(_)) {
            self.stats.numbers.tls_client_ok.add(1);
        }
        let listener = down.listener;
        let serves_http1 = self.listeners[listener].kind == ListenerKind::Ingress;
        match opening {
            Opening::Http2 => {
                down.phase = DownPhase::Open;
                conn.held = false;
                self.mark_dirty(key);
                true
            }
            Opening::Http1 if serves_http1 => {
                down.phase = DownPhase::Open;
                conn.held = false;
                let secure = matches!(conn.transport, Transport::Tls(_));
                self.conns[key].codec = Codec::h1(self.http1_config(secure));
                true
            }
            Opening::Http1 => {
                self.stats.numbers.http1_refused.add(1);
                let written = conn.transport.write(HTTP1_REFUSAL);
                if written.is_ok() {
                    self.linger(key);
                } else {
                    self.kill(key, Death::Closed);
                }
                false
            }
            Opening::Neither | Opening::Unknown => {
                self.stats.numbers.downstream_handshake_failures.add(1);
                self.kill(key, Death::Closed);
                false
            }
        }
    }

    fn http1_config(&self, secure: bool) -> gateway_h1::Config {
        gateway_h1::Config {
            secure,
            window: self.settings.stream_window,
            queue_max: 2 * self.settings.stream_window as usize,
            ..gateway_h1::Config::server()
        }
    }

    /// A client has said all that a connection begins with: from here on only idleness ends it.
    pub fn on_down_established(&mut self, key: usize) {
        let Some(down) = self.conns.get_mut(key).and_then(Conn::down) else {
            return;
        };
        let Some(timer) = down.setup_timer.take() else {
            return;
        };
        let closed = self.listeners[down.listener].socket.is_none();
        self.timers.cancel(timer);
        self.learn_peer(key);
        self.watch_age(key);
        self.watch_idleness(key);
        if closed {
            self.ask_to_leave(key, b"draining");
        }
    }

    /// Of which member cluster a peer's gateway is: its certificate says so.
    fn learn_peer(&mut self, key: usize) {
        let conn = &mut self.conns[key];
        let Side::Down(down) = &mut conn.side else {
            return;
        };
        if self.listeners[down.listener].kind == ListenerKind::EastWest {
            down.peer_cluster = conn.transport.peer_cluster().map(Into::into);
        }
    }

    /// An event of a client's connection.
    pub fn on_down_event(&mut self, key: usize, event: &Event, events: &Events, input: &[u8]) {
        match event {
            Event::Request {
                stream,
                headers,
                end_stream,
            } => {
                let down = StreamAt {
                    conn: key,
                    stream: *stream,
                };
                // Taken back in the same breath: no endpoint is bothered with it.
                let codec = &self.conns[key].codec;
                let content_type = || events.value(*headers, b"content-type");
                if codec.is_h1() && content_type().is_some_and(is_grpc_type) {
                    self.refuse_grpc_over_http1(down, *end_stream);
                } else if codec.is_live(*stream) {
                    self.on_request(down, events.fields(*headers), *end_stream);
                }
            }
            Event::Data {
                stream,
                range,
                flow_len,
                end_stream,
                ..
            } => {
                let data = input.get(range.clone()).unwrap_or_default();
                match self.call_of_down(key, *stream) {
                    Some(id) => self.on_request_data(id, data, *flow_len, *end_stream),
                    None => {
                        self.conns[key].codec.release(*stream, *flow_len);
                    }
                }
            }
            // gRPC has no request trailers; what a client sends as such only ends the request.
            Event::Trailers { stream, .. } => {
                if let Some(id) = self.call_of_down(key, *stream) {
                    self.on_request_data(id, &[], 0, true);
                }
            }
            Event::Reset { stream, .. } => {
                if let Some(id) = self.call_of_down(key, *stream) {
                    self.on_cancelled(id);
                }
            }
            Event::Drained { stream, .. } => {
                if let Some(id) = self.call_of_down(key, *stream) {
                    self.on_response_drained(id);
                }
            }
            Event::PingAck { payload } => {
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.ping_sent_ms = None;
                }
                self.on_ping_answered(key, *payload);
            }
            // A client that says goodbye finishes its streams and closes; nothing has to be done for it.
            Event::GoAway { .. } | Event::Response { .. } | Event::StreamsAvailable => {}
        }
    }

    /// Found by the stream's slot: a request and its first bytes may come in one read, before a token could be set.
    pub fn call_of_down(&mut self, conn: usize, stream: StreamRef) -> Option<CallId> {
        let id = *self.conns[conn].by_slot.get(stream.slot() as usize)?;
        let at = StreamAt { conn, stream };
        self.call(id)
            .is_some_and(|call| call.down == at)
            .then_some(id)
    }

    /// The socket of a connection ended or failed.
    pub fn on_ended(&mut self, key: usize, error: &io::Error) {
        let conn = &mut self.conns[key];
        let established = conn.transport.is_established();
        if let Side::Down(down) = &conn.side {
            if down.phase == DownPhase::Preface && !established {
                self.stats.numbers.downstream_handshake_failures.add(1);
                self.stats.numbers.tls_client_failed.add(1);
            }
            self.kill(key, Death::Closed);
        } else {
            let death = self.upstream_death(key, error);
            self.kill(key, death);
        }
    }

    /// A client's connection is gone, and so are its calls.
    pub fn on_down_gone(&mut self, key: usize, calls: &[CallId]) {
        for id in calls {
            if let Some(call) = self.call(*id) {
                call.request_ended = true;
                self.on_cancelled(*id);
            }
        }
        let Side::Down(down) = &mut self.conns[key].side else {
            return;
        };
        let listener = down.listener;
        let age_timer = down.life.take().and_then(|life| life.timer());
        let timers = [
            down.setup_timer.take(),
            down.idle_timer.take(),
            down.leave.timer(),
            age_timer,
        ];
        for timer in timers.into_iter().flatten() {
            self.timers.cancel(timer);
        }
        self.count_down_gone(listener);
    }

    /// Gives the place of a connection free.
    pub fn count_down_gone(&mut self, listener: usize) {
        self.shared
            .downstream_connections
            .fetch_sub(1, Ordering::Relaxed);
        self.stats.numbers.downstream_connections.sub(1);
        self.listeners[listener].connections -= 1;
        self.forget_listener_if_done(listener);
    }

    /// A connection of either side is not set up in time.
    pub fn on_setup_timeout(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else {
            return;
        };
        let established = conn.transport.is_established();
        match &mut conn.side {
            Side::Up(up) => {
                up.setup_timer = None;
                self.kill(id.key, Death::Connect(crate::conn::ConnectFault::TimedOut));
            }
            Side::Down(down) => {
                down.setup_timer = None;
                self.stats.numbers.downstream_handshake_failures.add(1);
                self.stats
                    .numbers
                    .tls_client_timeout
                    .add(u64::from(!established));
                self.kill(id.key, Death::Closed);
            }
        }
    }

    /// A client of HTTP/1 broke the protocol: its answer is written, its call is over.
    pub fn end_http1(&mut self, key: usize) {
        for id in self.conns[key].calls.clone() {
            self.on_cancelled(id);
        }
        self.mark_dirty(key);
    }

    /// Ends the client's side of a call whose response is complete. False while the rest must leave first.
    pub fn end_down(&mut self, id: CallId) -> bool {
        let Some(call) = self.call(id) else {
            return true;
        };
        let (down, ended) = (call.down, call.request_ended);
        let Some(conn) = self.conns.get_mut(down.conn) else {
            return true;
        };
        if ended {
            return true;
        }
        if conn.codec.queued(down.stream) > 0 {
            self.calls[id.key as usize].phase = Phase::Closing;
            return false;
        }
        conn.codec.reset(down.stream, ErrorCode::NoError);
        self.mark_dirty(down.conn);
        true
    }
}
