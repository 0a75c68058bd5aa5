//! Connections whose bytes go on to an endpoint as they are. A listener without TLS has one place for all of them.
//! Where there is TLS the client's first message is read, and its server name chooses a chain of the listener: TLS goes
//! on, or it ends here and what is in it goes on (what a peer's gateway sends), or calls are routed.
//!
//! ```text
//!   Hello ──name of a chain──▶ Connecting ──connected──▶ Open ──both directions over, idle, drained──▶ (gone)
//!     │ │└─TLS ends here─▶ Securing ──handshake done──▲ └─failed─▶ the next endpoint, CONNECTS_MAX in all ─▶ (gone)
//!     │ └─calls are routed─▶ (a client's connection)
//!     └─no chain, noise, too slow─▶ (gone)
//! ```
//! Across clusters bytes travel in mutual TLS between gateways; the server name that the cluster's settings have for it
//! says what is meant. No endpoint is connected to before the client's identity is known where one is demanded.
//! Bounds: a connection holds its hello, later at most one read for each direction; its time to be set up is that of
//! every client. It counts as a client's connection of its listener. What it cannot do: move to another endpoint, or be
//! asked to leave; a listener's drain and the drain of its endpoint end it when their grace is over.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gateway_core::config::{Listener, Passthrough};
use gateway_core::server_name::{ServerNames, pick_target};
use gateway_core::{ClusterHandle, EndpointIndex, PickContext};
use mio::Interest;
use mio::net::TcpStream;
use rustls::ServerConnection;
use slab::Slab;

use crate::conn::ConnId;
use crate::connect::peer_session;
use crate::hello::{Heard, Hello, UNRECOGNIZED_NAME};
use crate::liveness::watch_by_kernel;
use crate::pipe::Pipe;
use crate::timers::TimerId;
use crate::transport::Transport;
use crate::worker::{Timer, Worker, tunnel_token};

/// Endpoints tried for one connection.
const CONNECTS_MAX: usize = 4;
/// Without a configured one; Envoy's default.
const IDLE_MS: u64 = 3_600_000;

/// What a listener does with a server name.
#[derive(Clone, Debug)]
pub(crate) enum Entrance {
    /// TLS ends here, and calls are routed.
    Terminate,
    /// TLS goes on.
    Pass(Arc<Passthrough>),
    /// TLS ends here, and what is in it goes on.
    Open(Arc<Passthrough>),
}

/// All connections of a worker that are passed on.
#[derive(Default)]
pub(crate) struct Tunnels {
    all: Slab<Tunnel>,
    again: Vec<usize>,
    dead: Vec<usize>,
    /// The one that is worked on: a panic costs it and nothing else.
    at: Option<usize>,
    /// Open ones by endpoint.
    open: HashMap<SocketAddr, u32>,
}

struct Tunnel {
    id: ConnId,
    listener: usize,
    /// The client's.
    address: IpAddr,
    phase: Phase,
    timer: Option<TimerId>,
    moved_ms: u64,
    again: bool,
    dead: bool,
}

enum Phase {
    Hello(Box<(TcpStream, Hello)>),
    Securing(Box<(Transport, Arc<Passthrough>)>),
    Passing(Box<Passing>),
    /// Its socket went on to be a client's connection, or it is gone.
    Over,
}

/// A client and where it is to go; `seen` are bytes of it that were read.
struct Outset {
    client: Transport,
    chain: Arc<Passthrough>,
    cluster: Arc<ClusterHandle>,
    tried: Vec<SocketAddr>,
    seen: Vec<u8>,
}

struct Passing {
    chain: Arc<Passthrough>,
    cluster: Arc<ClusterHandle>,
    address: SocketAddr,
    client: Transport,
    server: Transport,
    connected: bool,
    tried: Vec<SocketAddr>,
    up: Pipe,
    down: Pipe,
}

/// Which socket of a tunnel an event is of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    Client,
    Server,
}

/// What the listener's chains say by server name; `None`: no hello has to be read for it.
pub(crate) fn entrances(listener: &Listener) -> Option<Arc<ServerNames<Entrance>>> {
    let chains = &listener.tls.as_ref()?.chains;
    chains.iter().find(|chain| chain.passthrough.is_some())?;
    let entries = chains.iter().map(|chain| {
        let entrance = match &chain.passthrough {
            None => Entrance::Terminate,
            Some(passthrough) if chain.certificates.is_empty() => {
                Entrance::Pass(Arc::new(passthrough.clone()))
            }
            Some(passthrough) => Entrance::Open(Arc::new(passthrough.clone())),
        };
        (&chain.server_names[..], entrance)
    });
    Some(Arc::new(ServerNames::new(entries)))
}

// === impl Tunnels ===

impl Tunnels {
    /// Something waits for the next turn.
    pub fn want_a_turn(&self) -> bool {
        !self.again.is_empty()
    }

    fn leave(&mut self, address: SocketAddr) {
        if let Some(open) = self.open.get_mut(&address) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&address);
            }
        }
    }
}

impl Worker {
    /// A client of a listener that passes bytes on.
    pub fn open_tunnel(
        &mut self,
        listener: usize,
        mut client: TcpStream,
        address: IpAddr,
    ) -> io::Result<()> {
        let key = self.tunnels.all.vacant_key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = tunnel_token(key, End::Client);
        self.poll
            .registry()
            .register(&mut client, token, interest)?;
        let id = ConnId {
            key,
            serial: self.next_serial(),
        };
        let at_ms = self.now_ms + self.settings.handshake_timeout_ms;
        let passthrough = self.listeners[listener].passthrough.clone();
        let (plain, phase) = match passthrough {
            Some(chain) => (Some((client, chain)), Phase::Over),
            None => (None, Phase::Hello(Box::new((client, Hello::default())))),
        };
        self.tunnels.all.insert(Tunnel {
            id,
            listener,
            address,
            phase,
            timer: Some(self.timers.set(at_ms, Timer::Tunnel(id))),
            moved_ms: self.now_ms,
            again: false,
            dead: false,
        });
        if let Some((client, chain)) = plain {
            // Without TLS nothing has to be read first, and many servers speak first.
            let _only_slower_without = client.set_nodelay(true);
            self.stats.numbers.passthrough_accepted.add(1);
            self.tunnels.at = Some(key);
            self.choose_cluster(key, chain, Transport::Plain(client), Vec::new());
            self.tunnels.at = None;
        }
        Ok(())
    }

    /// The poll has news of a tunnel's socket.
    pub fn on_tunnel_ready(&mut self, key: usize, end: End, readable: bool, writable: bool) {
        let Some(tunnel) = self.tunnels.all.get_mut(key) else {
            return;
        };
        if let Phase::Passing(passing) = &mut tunnel.phase {
            let (from, to) = match end {
                End::Client => (&mut passing.up, &mut passing.down),
                End::Server => (&mut passing.down, &mut passing.up),
            };
            from.readable |= readable;
            // A socket that is still connecting takes nothing.
            to.writable |= writable && (end == End::Client || passing.connected);
        }
        if !tunnel.again {
            self.go_on_with_tunnel(key);
        }
    }

    /// Those that used up their share of the last turn go on.
    pub fn go_on_with_tunnels(&mut self) {
        for key in std::mem::take(&mut self.tunnels.again) {
            if let Some(tunnel) = self.tunnels.all.get_mut(key) {
                tunnel.again = false;
                self.go_on_with_tunnel(key);
            }
        }
    }

    fn go_on_with_tunnel(&mut self, key: usize) {
        self.tunnels.at = Some(key);
        self.take_tunnels_turn(key);
        self.tunnels.at = None;
    }

    /// Ends the connection on which a panic happened, if it was one of these.
    pub fn end_tunnel_amid_panic(&mut self) {
        let at = self.tunnels.at.take();
        if let Some(key) = at.filter(|key| self.tunnels.all.contains(*key)) {
            self.end_tunnel(key);
        }
    }

    fn take_tunnels_turn(&mut self, key: usize) {
        let tunnel = &mut self.tunnels.all[key];
        if tunnel.dead {
            return;
        }
        match &mut tunnel.phase {
            Phase::Hello(hello) => {
                let (client, hello) = &mut **hello;
                match hello.read(client, &mut self.read_buffer) {
                    Heard::Nothing => {}
                    Heard::All(name, seen) => self.enter(key, name.as_deref(), seen),
                    Heard::Noise => {
                        self.stats.numbers.downstream_handshake_failures.add(1);
                        self.end_tunnel(key);
                    }
                }
            }
            Phase::Securing(_) => self.look_whether_secured(key),
            Phase::Passing(passing) if !passing.connected => self.look_whether_connected(key),
            Phase::Passing(_) => self.pass_on(key),
            Phase::Over => {}
        }
    }

    /// The server name decides.
    fn enter(&mut self, key: usize, name: Option<&str>, seen: Vec<u8>) {
        let tunnel = &mut self.tunnels.all[key];
        let Phase::Hello(hello) = std::mem::replace(&mut tunnel.phase, Phase::Over) else {
            return;
        };
        let (mut client, _) = *hello;
        let listener = &self.listeners[tunnel.listener];
        let found = listener.entrances.as_ref().and_then(|it| it.find(name));
        match found.cloned() {
            Some(Entrance::Pass(chain)) => {
                self.stats.numbers.passthrough_accepted.add(1);
                self.choose_cluster(key, chain, Transport::Plain(client), seen);
            }
            Some(Entrance::Open(chain)) => self.open_tls(key, client, chain, seen),
            None if listener.tls.is_none() => {
                self.stats.numbers.passthrough_unknown_names.add(1);
                let _best_effort = io::Write::write(&mut client, &UNRECOGNIZED_NAME);
                self.end_tunnel(key);
            }
            Some(Entrance::Terminate) | None => self.terminate_after_all(key, client, seen),
        }
    }

    /// TLS ends here: the handshake comes first.
    fn open_tls(&mut self, key: usize, client: TcpStream, chain: Arc<Passthrough>, seen: Vec<u8>) {
        let listener = self.tunnels.all[key].listener;
        let tls = self.listeners[listener].tls.clone();
        let session = tls.and_then(|tls| ServerConnection::new(tls).ok());
        let Some(session) = session else {
            self.stats.numbers.downstream_handshake_failures.add(1);
            return self.end_tunnel(key);
        };
        let _only_slower_without = client.set_nodelay(true);
        let client = Transport::tls_after(client, session.into(), seen);
        self.tunnels.all[key].phase = Phase::Securing(Box::new((client, chain)));
        self.look_whether_secured(key);
    }

    fn look_whether_secured(&mut self, key: usize) {
        let tunnel = &mut self.tunnels.all[key];
        let Phase::Securing(securing) = &mut tunnel.phase else {
            return;
        };
        match securing.0.establish() {
            Ok(false) => {}
            Ok(true) => {
                if let Phase::Securing(securing) = std::mem::replace(&mut tunnel.phase, Phase::Over)
                {
                    let (client, chain) = *securing;
                    self.stats.numbers.passthrough_accepted.add(1);
                    self.choose_cluster(key, chain, client, Vec::new());
                }
            }
            Err(_) => {
                self.stats.numbers.downstream_handshake_failures.add(1);
                self.end_tunnel(key);
            }
        }
    }

    /// The client's connection is one of those that end here.
    fn terminate_after_all(&mut self, key: usize, mut client: TcpStream, seen: Vec<u8>) {
        let tunnel = self.tunnels.all.remove(key);
        if let Some(timer) = tunnel.timer {
            self.timers.cancel(timer);
        }
        let (listener, address) = (tunnel.listener, tunnel.address);
        let moved = self.poll.registry().deregister(&mut client);
        let opened = moved.and_then(|()| self.open_down(listener, client, address, seen));
        if opened.is_err() {
            self.count_down_gone(listener);
        }
    }

    // --- choosing and connecting ---

    fn choose_cluster(
        &mut self,
        key: usize,
        chain: Arc<Passthrough>,
        client: Transport,
        seen: Vec<u8>,
    ) {
        let random = self.random.u64(..);
        let target = pick_target(&chain.weighted, random);
        let cluster = target.and_then(|target| self.cluster_keys.get(&target.cluster));
        let Some(cluster) = cluster.map(|key| Arc::clone(&self.clusters[*key].handle)) else {
            return self.fail_tunnel(key);
        };
        let outset = Outset {
            client,
            chain,
            cluster,
            tried: Vec::new(),
            seen,
        };
        self.connect_tunnel(key, outset);
    }

    /// Begins a connection to an endpoint not tried yet, as long as there is one.
    fn connect_tunnel(&mut self, key: usize, mut outset: Outset) {
        while outset.tried.len() < CONNECTS_MAX {
            let Some((address, peer)) = self.choose_endpoint(&outset.cluster, &outset.tried) else {
                break;
            };
            outset.tried.push(address);
            let Ok(server) = self.begin_tunnel(key, address, peer, &outset.cluster) else {
                self.note_tunnel_failed(&outset.cluster, address);
                continue;
            };
            let at_ms = self.now_ms + outset.cluster.config.connect_timeout_ms;
            self.set_tunnel_timer(key, at_ms);
            let tunnel = &mut self.tunnels.all[key];
            tunnel.phase = Phase::Passing(Box::new(Passing {
                chain: outset.chain,
                cluster: outset.cluster,
                address,
                client: outset.client,
                server,
                connected: false,
                tried: outset.tried,
                up: Pipe::after(outset.seen),
                down: Pipe::towards_client(),
            }));
            *self.tunnels.open.entry(address).or_default() += 1;
            return;
        }
        self.fail_tunnel(key);
    }

    fn choose_endpoint(
        &mut self,
        cluster: &ClusterHandle,
        tried: &[SocketAddr],
    ) -> Option<(SocketAddr, bool)> {
        let open = &self.tunnels.open;
        let endpoints = &cluster.endpoints;
        let load = |index: EndpointIndex| {
            let address = endpoints.get(index).address;
            open.get(&address).copied().unwrap_or(0)
        };
        let picked = endpoints
            .pick(&PickContext {
                now_ms: self.now_ms,
                random: self.random.u64(..),
                tried,
                tried_clusters: &[],
                outstanding: &load,
            })
            .ok()?;
        let endpoint = endpoints.get(picked.index);
        (!picked.again).then_some((endpoint.address, endpoint.peer))
    }

    fn begin_tunnel(
        &mut self,
        key: usize,
        address: SocketAddr,
        peer: bool,
        cluster: &ClusterHandle,
    ) -> Result<Transport, ()> {
        let session = if peer {
            let known = self.cluster_keys.get(&cluster.config.name);
            let tls = known.and_then(|key| self.clusters[*key].peer_tls.as_ref());
            let sni = cluster.config.peer_tls.as_ref().map_or("", |it| &it.sni);
            Some(peer_session(tls.ok_or(())?, sni).map_err(drop)?)
        } else {
            None
        };
        let mut server = self.socket_to(address).map_err(drop)?;
        let _only_slower_without = server.set_nodelay(true);
        let _found_later_without = watch_by_kernel(&server, &cluster.config);
        let token = tunnel_token(key, End::Server);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut server, token, interest);
        registered.map_err(drop)?;
        Ok(match session {
            Some(session) => Transport::tls(server, session),
            None => Transport::Plain(server),
        })
    }

    fn look_whether_connected(&mut self, key: usize) {
        let tunnel = &mut self.tunnels.all[key];
        let Phase::Passing(passing) = &mut tunnel.phase else {
            return;
        };
        let socket = passing.server.socket();
        let failed = socket.take_error().map_or(true, |it| it.is_some());
        if failed {
            return self.on_tunnel_connect_failed(key);
        }
        if socket.peer_addr().is_err() {
            return;
        }
        match passing.server.establish() {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => return self.on_tunnel_connect_failed(key),
        }
        passing.connected = true;
        passing.up.writable = true;
        // With the handshake there may have come more, of which no poll tells.
        passing.down.readable = true;
        let endpoints = &passing.cluster.endpoints;
        if let Some(index) = endpoints.find(passing.address) {
            endpoints.get(index).shared.connected();
        }
        let idle_ms = passing.chain.idle_ms.unwrap_or(IDLE_MS);
        tunnel.moved_ms = self.now_ms;
        self.stats.numbers.passthrough_connections.add(1);
        self.set_tunnel_timer(key, self.now_ms + idle_ms);
        self.pass_on(key);
    }

    fn on_tunnel_connect_failed(&mut self, key: usize) {
        let tunnel = &mut self.tunnels.all[key];
        let Phase::Passing(mut passing) = std::mem::replace(&mut tunnel.phase, Phase::Over) else {
            return;
        };
        let _already_gone = self.poll.registry().deregister(passing.server.socket());
        self.tunnels.leave(passing.address);
        self.note_tunnel_failed(&passing.cluster, passing.address);
        let outset = Outset {
            seen: passing.up.take_rest(),
            client: passing.client,
            chain: passing.chain,
            cluster: passing.cluster,
            tried: passing.tried,
        };
        self.connect_tunnel(key, outset);
    }

    fn note_tunnel_failed(&mut self, cluster: &ClusterHandle, address: SocketAddr) {
        self.stats.numbers.passthrough_connect_failures.add(1);
        if let Some(index) = cluster.endpoints.find(address) {
            let random = self.random.u64(..);
            let shared = &cluster.endpoints.get(index).shared;
            shared.connect_failed(&cluster.config, self.now_ms, random);
        }
    }

    fn fail_tunnel(&mut self, key: usize) {
        self.stats.numbers.passthrough_failed.add(1);
        self.end_tunnel(key);
    }

    // --- passing on ---

    fn pass_on(&mut self, key: usize) {
        let tunnel = &mut self.tunnels.all[key];
        let Phase::Passing(passing) = &mut tunnel.phase else {
            return;
        };
        let Passing {
            client,
            server,
            up,
            down,
            ..
        } = &mut **passing;
        let buffer = &mut self.read_buffer;
        let moved = up
            .turn(client, server, buffer)
            .and_then(|sent| Ok((sent, down.turn(server, client, buffer)?)));
        let Ok((sent, received)) = moved else {
            return self.end_tunnel(key);
        };
        let numbers = &self.stats.numbers;
        numbers.passthrough_bytes_up.add(sent.bytes);
        numbers.passthrough_bytes_down.add(received.bytes);
        if sent.bytes + received.bytes > 0 {
            tunnel.moved_ms = self.now_ms;
        }
        if up.is_over() && down.is_over() {
            self.end_tunnel(key);
        } else if sent.again || received.again {
            tunnel.again = true;
            self.tunnels.again.push(key);
        }
    }

    // --- time and the end ---

    fn set_tunnel_timer(&mut self, key: usize, at_ms: u64) {
        let tunnel = &mut self.tunnels.all[key];
        let timer = self.timers.set(at_ms, Timer::Tunnel(tunnel.id));
        if let Some(old) = tunnel.timer.replace(timer) {
            self.timers.cancel(old);
        }
    }

    /// A tunnel's time to be set up is over, or it may be idle.
    pub fn on_tunnel_time(&mut self, id: ConnId) {
        let all = &mut self.tunnels.all;
        let Some(tunnel) = all.get_mut(id.key).filter(|tunnel| tunnel.id == id) else {
            return;
        };
        tunnel.timer = None;
        match &tunnel.phase {
            Phase::Hello(_) | Phase::Securing(_) => {
                self.stats.numbers.downstream_handshake_failures.add(1);
                self.end_tunnel(id.key);
            }
            Phase::Passing(passing) if !passing.connected => self.on_tunnel_connect_failed(id.key),
            Phase::Passing(passing) => {
                let end_ms = tunnel.moved_ms + passing.chain.idle_ms.unwrap_or(IDLE_MS);
                if self.now_ms < end_ms {
                    self.set_tunnel_timer(id.key, end_ms);
                } else {
                    self.stats.numbers.passthrough_idle_closed.add(1);
                    self.end_tunnel(id.key);
                }
            }
            Phase::Over => {}
        }
    }

    /// Once a second: ends tunnels whose endpoint was drained and had its grace.
    pub fn end_drained_tunnels(&mut self) {
        let drained = |tunnel: &Tunnel| {
            let Phase::Passing(passing) = &tunnel.phase else {
                return false;
            };
            let cluster = self.cluster_keys.get(&passing.cluster.config.name);
            let endpoints = cluster.map(|key| &self.clusters[*key].handle.endpoints);
            let deadline_ms = endpoints.and_then(|endpoints| {
                let drain = endpoints.get(endpoints.find(passing.address)?).drain?;
                drain.deadline_ms
            });
            deadline_ms.is_some_and(|deadline_ms| deadline_ms <= self.now_ms)
        };
        let all = self.tunnels.all.iter();
        let over: Vec<usize> = all
            .filter(|(_, it)| drained(it))
            .map(|(key, _)| key)
            .collect();
        self.stats.numbers.drained_streams.add(over.len() as u64);
        for key in over {
            self.end_tunnel(key);
        }
    }

    /// The time of a closed listener is over.
    pub fn end_tunnels_of(&mut self, listener: usize) {
        let all = self.tunnels.all.iter();
        let of_it = all.filter(|(_, tunnel)| tunnel.listener == listener);
        let keys: Vec<usize> = of_it.map(|(key, _)| key).collect();
        for key in keys {
            self.end_tunnel(key);
        }
    }

    fn end_tunnel(&mut self, key: usize) {
        let tunnel = &mut self.tunnels.all[key];
        if !std::mem::replace(&mut tunnel.dead, true) {
            self.tunnels.dead.push(key);
        }
    }

    /// Takes out what ended in this turn.
    pub fn bury_tunnels(&mut self) {
        while let Some(key) = self.tunnels.dead.pop() {
            let tunnel = self.tunnels.all.remove(key);
            if let Some(timer) = tunnel.timer {
                self.timers.cancel(timer);
            }
            if let Phase::Passing(passing) = tunnel.phase {
                self.tunnels.leave(passing.address);
                if passing.connected {
                    self.stats.numbers.passthrough_connections.sub(1);
                }
            }
            self.count_down_gone(tunnel.listener);
        }
    }
}
