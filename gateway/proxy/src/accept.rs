//! Taking clients' connections from listeners, as far as bounds and the system allow.
//!
//! Above `max_connections` a connection is closed at once. When the system gives none (descriptors, memory), the
//! listener pauses instead of spinning, and those who wait in its queue are taken when there is room again.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gateway_h2::Config;
use mio::Interest;
use mio::net::TcpStream;
use rustls::ServerConnection;

use crate::codec::Codec;
use crate::conn::{Conn, ConnId, Down, DownPhase, Side};
use crate::events::Notice;
use crate::leaving::Leave;
use crate::relay::REQUEST_WINDOW;
use crate::transport::Transport;
use crate::worker::{Timer, Worker, conn_token, listener_token};

/// Connections taken in one turn; the listener is asked again in the next.
const ACCEPTS_PER_TURN: usize = 64;
/// How long a listener waits after the system gave it no connection.
const ACCEPT_PAUSE_MS: u64 = 100;

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
                Ok((stream, client)) => self.admit(key, stream, client.ip()),
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
        let token = listener_token(key);
        let _stays_registered = self
            .poll
            .registry()
            .reregister(socket, token, Interest::READABLE);
    }

    fn admit(&mut self, listener: usize, stream: TcpStream, client: IpAddr) {
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
        let found = &self.listeners[listener];
        let opened = if found.entrances.is_some() || found.passthrough.is_some() {
            self.open_tunnel(listener, stream, client)
        } else {
            self.open_down(listener, stream, client, Vec::new())
        };
        if opened.is_err() {
            self.count_down_gone(listener);
        }
    }

    /// A client's connection; `early` is what was read of its TLS.
    pub fn open_down(
        &mut self,
        listener: usize,
        stream: TcpStream,
        client: IpAddr,
        early: Vec<u8>,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let is_early = !early.is_empty();
        let mut transport = match &self.listeners[listener].tls {
            None => Transport::Plain(stream),
            Some(tls) => {
                let session = ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
                Transport::tls_after(stream, session.into(), early)
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
            client,
            peer_cluster: None,
            phase: DownPhase::Preface,
            setup_timer: Some(self.timers.set(timeout_ms, Timer::Setup(id))),
            idle_timer: None,
            last_call_ms: self.now_ms,
            leave: Leave::default(),
            peer: None,
            life: None,
        };
        let codec = Codec::h2(self.server_config());
        self.conns.insert(Conn::new(
            id,
            transport,
            codec,
            Side::Down(down),
            self.now_ms,
        ));
        if is_early {
            self.read_next_turn(entry);
        }
        Ok(())
    }

    fn server_config(&self) -> Config {
        Config {
            max_concurrent_streams: self.settings.max_concurrent_streams,
            initial_stream_window: REQUEST_WINDOW.min(self.settings.stream_window),
            stream_queue_max: 2 * self.settings.stream_window as usize,
            ..Config::server()
        }
    }
}
