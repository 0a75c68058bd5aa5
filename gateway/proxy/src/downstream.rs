//! Clients' connections: accepting them, telling HTTP/2 from HTTP/1, and what their events mean.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gateway_h2::{Config, Connection, ErrorCode, Event, Events, StreamRef};
use mio::Interest;
use mio::net::TcpStream;
use rustls::ServerConnection;

use crate::call::{CallId, Phase};
use crate::conn::{Conn, ConnId, Death, Down, DownPhase, Side, StreamAt};
use crate::events::Notice;
use crate::opening::{Opening, opening};
use crate::reply::HTTP1_REFUSAL;
use crate::transport::Transport;
use crate::worker::{Timer, Worker, conn_token};

/// Connections taken in one turn; the listener is asked again in the next.
const ACCEPTS_PER_TURN: usize = 64;
/// How long a listener waits after the system gave it no connection.
const ACCEPT_PAUSE_MS: u64 = 100;
/// How long the end of a refused client or request is awaited, so that the refusal is read.
pub(crate) const LINGER_MS: u64 = 1_000;

impl Worker {
    /// Takes waiting connections of a listener.
    pub fn accept(&mut self, key: usize) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = self.listeners.get_mut(key) else {
                return;
            };
            let Some(socket) = listener.socket.as_ref().filter(|_| !listener.paused) else {
                return;
            };
            match socket.accept() {
                Ok((stream, _peer)) => self.admit(key, stream),
                // The client has gone meanwhile: the next one may do.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    listener.told_pause = false;
                    return;
                }
                Err(error) => return self.pause_accepting(key, &error),
            }
        }
        self.look_again_at_listener(key);
    }

    /// The system gives no connection (descriptors or memory are short): those who wait are taken a little later.
    fn pause_accepting(&mut self, key: usize, error: &io::Error) {
        self.stats.numbers.accept_pauses.add(1);
        self.accept_later(key);
        let listener = &mut self.listeners[key];
        if !std::mem::replace(&mut listener.told_pause, true) {
            self.notices.push(Notice::ListenerError {
                listener: listener.name.to_string(),
                error: format!("new connections wait, those that stand are served: {error}"),
            });
        }
    }

    fn accept_later(&mut self, key: usize) {
        let at_ms = self.now_ms + ACCEPT_PAUSE_MS;
        self.timers.set(at_ms, Timer::Accept(key));
        self.listeners[key].paused = true;
    }

    /// The pause of a listener is over. Spare descriptors come first.
    pub fn on_pause_over(&mut self, key: usize) {
        self.spare_descriptors.fill();
        let spared = self.spare_descriptors.is_full();
        match self.listeners.get_mut(key) {
            Some(listener) if listener.paused && listener.socket.is_some() => {
                listener.paused = false;
                if spared {
                    self.accept(key);
                } else {
                    self.accept_later(key);
                }
            }
            _ => {}
        }
    }

    /// Edge-triggered: a listener that was left with clients in its queue would not be reported again.
    fn look_again_at_listener(&mut self, key: usize) {
        let Some(socket) = self
            .listeners
            .get_mut(key)
            .and_then(|it| it.socket.as_mut())
        else {
            return;
        };
        let token = crate::worker::listener_token(key);
        let _stays_registered = self
            .poll
            .registry()
            .reregister(socket, token, Interest::READABLE);
    }

    fn admit(&mut self, listener: usize, stream: TcpStream) {
        let numbers = &self.stats.numbers;
        let open = self
            .shared
            .downstream_connections
            .fetch_add(1, Ordering::Relaxed);
        if open >= self.settings.max_connections {
            self.shared
                .downstream_connections
                .fetch_sub(1, Ordering::Relaxed);
            numbers.downstream_refused.add(1);
            return;
        }
        numbers.downstream_accepted.add(1);
        numbers.downstream_connections.add(1);
        self.listeners[listener].connections += 1;
        if self.open_down(listener, stream).is_err() {
            self.count_down_gone(listener);
        }
    }

    fn open_down(&mut self, listener: usize, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut transport = match &self.listeners[listener].tls {
            None => Transport::Plain(stream),
            Some(tls) => {
                let session = ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
                Transport::tls(stream, session.into())
            }
        };
        let entry = self.conns.vacant_key();
        self.poll.registry().register(
            transport.socket(),
            conn_token(entry),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let id = ConnId {
            key: entry,
            serial: self.next_serial(),
        };
        let timeout_ms = self.now_ms + self.settings.handshake_timeout_ms;
        let down = Down {
            listener,
            phase: DownPhase::Preface,
            setup_timer: Some(self.timers.set(timeout_ms, Timer::Setup(id))),
            idle_timer: None,
            last_call_ms: self.now_ms,
        };
        let h2 = Connection::new(self.server_config());
        self.conns
            .insert(Conn::new(id, transport, h2, Side::Down(down), self.now_ms));
        Ok(())
    }

    fn server_config(&self) -> Config {
        Config {
            max_concurrent_streams: self.settings.max_concurrent_streams,
            initial_stream_window: self.settings.stream_window,
            stream_queue_max: 2 * self.settings.stream_window as usize,
            ..Config::server()
        }
    }

    /// Decides at the first bytes of a client whether it speaks HTTP/2; true for endpoints.
    pub fn is_http2(&mut self, key: usize, input: &[u8]) -> bool {
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        let Side::Down(down) = &mut conn.side else {
            return true;
        };
        match down.phase {
            DownPhase::Refused => return false,
            DownPhase::Preface => {}
            _ => return true,
        }
        let opening = opening(input);
        if opening == Opening::Unknown {
            conn.keep(input);
            return false;
        }
        match opening {
            Opening::Http2 => {
                down.phase = DownPhase::Http2;
                conn.held = false;
                self.mark_dirty(key);
            }
            Opening::Http1 => self.refuse_http1(key),
            Opening::Neither | Opening::Unknown => {
                self.stats.numbers.downstream_handshake_failures.add(1);
                self.kill(key, Death::Closed);
            }
        }
        opening == Opening::Http2
    }

    fn refuse_http1(&mut self, key: usize) {
        self.stats.numbers.http1_refused.add(1);
        let conn = &mut self.conns[key];
        let written = conn.transport.write(HTTP1_REFUSAL);
        conn.transport.finish();
        let id = conn.id;
        if written.is_err() {
            self.kill(key, Death::Closed);
            return;
        }
        let timer = self.timers.set(self.now_ms + LINGER_MS, Timer::Setup(id));
        if let Some(down) = self.conns[key].down() {
            down.phase = DownPhase::Refused;
            if let Some(old) = down.setup_timer.replace(timer) {
                self.timers.cancel(old);
            }
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
        self.watch_idleness(key);
        if closed {
            self.ask_to_leave(key, b"draining");
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
                self.on_request(down, events.fields(*headers), *end_stream);
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
                    None => self.conns[key].h2.release(*stream, *flow_len),
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
            Event::PingAck { .. } => {
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.ping_sent_ms = None;
                }
            }
            // A client that says goodbye finishes its streams and closes; nothing has to be done for it.
            Event::GoAway { .. } | Event::Response { .. } | Event::StreamsAvailable => {}
        }
    }

    /// Found by the stream's slot: a request and its first bytes may come in one read, before a token could be set.
    fn call_of_down(&mut self, conn: usize, stream: StreamRef) -> Option<CallId> {
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
        for timer in [down.setup_timer.take(), down.idle_timer.take()] {
            timer.into_iter().for_each(|it| self.timers.cancel(it));
        }
        self.count_down_gone(listener);
    }

    fn count_down_gone(&mut self, listener: usize) {
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
        match &mut conn.side {
            Side::Up(up) => {
                up.setup_timer = None;
                self.kill(id.key, Death::Connect(crate::conn::ConnectFault::TimedOut));
            }
            Side::Down(down) => {
                down.setup_timer = None;
                if down.phase != DownPhase::Refused {
                    self.stats.numbers.downstream_handshake_failures.add(1);
                }
                self.kill(id.key, Death::Closed);
            }
        }
    }

    /// Asks a client to move to another connection; its streams go on.
    pub fn ask_to_leave(&mut self, key: usize, why: &[u8]) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let Some(down) = conn.down() else { return };
        match down.phase {
            DownPhase::Http2 => {
                down.phase = DownPhase::Leaving;
                conn.h2.go_away(ErrorCode::NoError, true, why);
                self.mark_dirty(key);
            }
            // One that is being set up is asked when it stands.
            DownPhase::Preface | DownPhase::Leaving | DownPhase::Final | DownPhase::Refused => {}
        }
    }

    /// Takes no further streams of a client; the connection closes with its last one.
    pub fn close_after_streams(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let Some(down) = conn.down() else { return };
        match down.phase {
            DownPhase::Http2 | DownPhase::Leaving => {
                down.phase = DownPhase::Final;
                conn.h2.go_away(ErrorCode::NoError, false, b"draining");
                self.mark_dirty(key);
            }
            DownPhase::Preface => return self.kill(key, Death::Finished),
            DownPhase::Final | DownPhase::Refused => {}
        }
        self.close_if_finished(key);
    }

    /// Closes a connection that said its final goodbye, has no stream left and nothing more to write.
    pub fn close_if_finished(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let quiet = conn.calls.is_empty()
            && conn.h2.stream_count() == 0
            && !conn.h2.wants_write()
            && !conn.transport.wants_flush();
        if quiet
            && conn
                .down()
                .is_some_and(|down| down.phase == DownPhase::Final)
        {
            self.kill(key, Death::Finished);
        }
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
        if conn.h2.queued(down.stream) > 0 {
            self.calls[id.key as usize].phase = Phase::Closing;
            return false;
        }
        conn.h2.reset(down.stream, ErrorCode::NoError);
        self.mark_dirty(down.conn);
        true
    }
}
