//! Making connections to endpoints: when another one is begun, its socket and TLS, and how long calls wait for it.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway_core::Breaker;
use gateway_core::config::Protocol;
use gateway_h2::Config;
use mio::Interest;
use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::codec::Codec;
use crate::conn::{Conn, ConnId, ConnectFault, Side, Up, UpPhase};
use crate::descriptors;
use crate::liveness::watch_by_kernel;
use crate::relay::RESPONSE_WINDOW;
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
        if state.live && state.should_grow(usable, config) {
            self.connect(pool);
        } else if state.live && state.is_full(usable, config) {
            self.meet_bound(state.cluster, Breaker::Connections);
        }
    }

    /// Begins a connection.
    pub fn connect(&mut self, pool: usize) {
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
    pub fn socket_to(&mut self, address: SocketAddr) -> Result<TcpStream, ConnectFault> {
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
        let protocol = state.protocol(&cluster.handle.config);
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
        let codec = self.client_codec(protocol);
        let conn = Conn::connecting(id, transport, codec, Side::Up(up), self.now_ms);
        self.conns.insert(conn);
        self.pools[pool].conns.push(key);
        self.stats.numbers.upstream_connections.add(1);
        Ok(())
    }

    fn client_codec(&self, protocol: Protocol) -> Codec {
        let window = RESPONSE_WINDOW.min(self.settings.stream_window);
        let queue_max = self.settings.stream_window as usize + KEPT_BYTES_MAX;
        match protocol {
            Protocol::Http2 => Codec::h2(Config {
                initial_stream_window: window,
                stream_queue_max: queue_max,
                ..Config::client()
            }),
            Protocol::Http1 => Codec::h1(gateway_h1::Config {
                window,
                queue_max,
                ..gateway_h1::Config::client()
            }),
        }
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
}

/// TLS towards a peer's gateway, which is told `sni`.
pub(crate) fn peer_session(
    tls: &Arc<ClientConfig>,
    sni: &str,
) -> Result<rustls::Connection, ConnectFault> {
    let name = ServerName::try_from(sni.to_owned())
        .map_err(|error| ConnectFault::Tls(format!("TLS: server name `{sni}`: {error}")))?;
    ClientConnection::new(Arc::clone(tls), name)
        .map(rustls::Connection::from)
        .map_err(|error| ConnectFault::Tls(format!("TLS: {error}")))
}
