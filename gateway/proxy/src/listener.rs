//! A listener as a worker sees it: its socket, and what its calls are routed by.

use std::rc::Rc;
use std::sync::Arc;

use gateway_core::config::{ConnectionPolicy, Listener, ListenerKind, Passthrough};
use gateway_core::server_name::ServerNames;
use gateway_core::{Name, RouteTable};
use mio::net::TcpListener;
use rustls::ServerConfig;

use crate::passthrough::Entrance;
use crate::telemetry::told::Told;
use crate::timers::TimerId;

/// A listener that could be set up: checked, bound, its certificates loaded.
#[derive(Clone)]
pub(crate) struct ListenerConfig {
    pub config: Arc<Listener>,
    pub table: Arc<RouteTable>,
    pub tls: Option<Arc<ServerConfig>>,
    pub entrances: Option<Arc<ServerNames<Entrance>>>,
    pub hosts: Option<Arc<ServerNames<usize>>>,
    pub told: Option<Arc<Told>>,
}

/// One worker's part of a listener. It stays while connections of it are open, also after its socket is closed.
pub(crate) struct WorkerListener {
    pub name: Name,
    pub kind: ListenerKind,
    pub table: Arc<RouteTable>,
    pub tls: Option<Arc<ServerConfig>>,
    /// What the server name decides; `None`: nothing.
    pub entrances: Option<Arc<ServerNames<Entrance>>>,
    /// The entries of the port that hosts belong to; `None`: there is one.
    pub hosts: Option<Arc<ServerNames<usize>>>,
    /// Where connections without TLS go as they are; `None`: their calls are routed.
    pub passthrough: Option<Arc<Passthrough>>,
    /// How long new connections live.
    pub connection: ConnectionPolicy,
    /// What is told about its calls; `None`: nothing. Each worker has its own, so that calls share no count.
    pub told: Option<Rc<Told>>,
    /// `None`: closed, the connections drain.
    pub socket: Option<TcpListener>,
    /// The system gave no connection: a timer will ask again.
    pub paused: bool,
    /// The owner knows of the pause.
    pub told_pause: bool,
    /// Keys of its connections are not kept; this is their number.
    pub connections: usize,
    pub drain_timers: Vec<TimerId>,
}

/// Which entries a listener for clients has, by server name; `None`: one for all. Towards gateways of other clusters the
/// server name says something else than the host.
pub(crate) fn hosts(listener: &Listener) -> Option<Arc<ServerNames<usize>>> {
    let tls = listener.tls.as_ref().filter(|tls| !tls.chains.is_empty())?;
    if listener.kind != ListenerKind::Ingress {
        return None;
    }
    let chains = tls.chains.iter().enumerate();
    let named = chains.map(|(at, chain)| (&chain.server_names[..], at));
    let rest = (!tls.certificates.is_empty()).then_some((&[][..], tls.chains.len()));
    Some(Arc::new(ServerNames::new(named.chain(rest))))
}

// === impl ListenerConfig ===

impl ListenerConfig {
    fn told(&self) -> Option<Rc<Told>> {
        self.told.as_ref().map(|told| Rc::new(Told::clone(told)))
    }

    fn passthrough(&self) -> Option<Arc<Passthrough>> {
        self.config.passthrough.clone().map(Arc::new)
    }
}

// === impl WorkerListener ===

impl WorkerListener {
    pub fn new(listener: &ListenerConfig, socket: TcpListener) -> Self {
        Self {
            name: listener.config.name.clone(),
            kind: listener.config.kind,
            table: Arc::clone(&listener.table),
            tls: listener.tls.clone(),
            entrances: listener.entrances.clone(),
            hosts: listener.hosts.clone(),
            passthrough: listener.passthrough(),
            connection: listener.config.connection.clone(),
            told: listener.told(),
            socket: Some(socket),
            paused: false,
            told_pause: false,
            connections: 0,
            drain_timers: Vec::new(),
        }
    }

    /// Takes what a new snapshot says; standing connections route by it from now on.
    pub fn update(&mut self, listener: &ListenerConfig) {
        self.kind = listener.config.kind;
        self.table = Arc::clone(&listener.table);
        self.tls.clone_from(&listener.tls);
        self.entrances.clone_from(&listener.entrances);
        self.hosts.clone_from(&listener.hosts);
        self.passthrough = listener.passthrough();
        self.connection.clone_from(&listener.config.connection);
        self.told = listener.told();
    }

    /// Answers made here carry their reason for the peer gateway that asked.
    pub fn marks_replies(&self) -> bool {
        self.kind == ListenerKind::EastWest
    }
}
