//! What the owner tells a worker, and how a worker takes a new snapshot.
//!
//! A snapshot replaces the one before by pointer; clusters follow it in `clusters`, listeners and routes here. Commands
//! come through a bounded channel, announced by the waker.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use gateway_core::{KnownMethods, Name};
use mio::Interest;
use mio::net::TcpListener;

use crate::clusters::ClusterChanges;
use crate::listener::{ListenerConfig, WorkerListener};
use crate::series::Place;
use crate::telemetry::tap::{Tap, TapFilter};
use crate::worker::{Worker, listener_token};

/// What workers take of a snapshot, made once for all of them.
pub(crate) struct Applied {
    pub clusters: ClusterChanges,
    pub listeners: Vec<ListenerConfig>,
    /// Names of calls in metrics.
    pub methods: Arc<KnownMethods>,
    /// They, or routes, are others than before.
    pub new_names: bool,
    /// Places where no endpoint is any more, and regions likewise.
    pub places_gone: Vec<Place>,
    pub regions_gone: Vec<Name>,
}

impl Applied {
    /// Names of metrics may have gone with it.
    pub fn renames(&self) -> bool {
        let clusters = &self.clusters;
        self.new_names || !self.places_gone.is_empty() || !clusters.gone.is_empty()
    }
}

/// What the owner tells a worker.
pub(crate) enum Command {
    Apply {
        applied: Arc<Applied>,
        /// New sockets of this worker, by listener name.
        sockets: Vec<(Name, std::net::TcpListener)>,
        /// Told how many microseconds it took, in which no traffic moved.
        done: SyncSender<u64>,
    },
    Drain {
        grace_ms: u64,
    },
    /// Show calls, or no more.
    Tap(Option<Arc<TapFilter>>),
    Stop,
}

impl Worker {
    /// Takes all commands that wait.
    pub fn take_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Apply {
                    applied,
                    sockets,
                    done,
                } => {
                    let began_us = self.clock.now_us();
                    self.take_snapshot(&applied, sockets);
                    let took_us = self.clock.now_us().saturating_sub(began_us);
                    let _owner_may_have_given_up = done.send(took_us);
                }
                Command::Drain { grace_ms } => self.drain_process(grace_ms),
                Command::Tap(filter) => {
                    let workers = self.settings.workers;
                    self.telling.tap = filter.map(|filter| Tap::new(filter, workers));
                }
                Command::Stop => self.stopping = true,
            }
        }
    }

    fn take_snapshot(&mut self, applied: &Applied, sockets: Vec<(Name, std::net::TcpListener)>) {
        self.follow_clusters(&applied.clusters);
        self.follow_listeners(&applied.listeners, sockets);
        self.follow_routes(&applied.listeners);
        self.follow_names(applied);
    }

    /// Forgets what counted under names that are gone.
    fn follow_names(&mut self, applied: &Applied) {
        if self.series.follow(&applied.methods) {
            self.stats.retain_methods(&applied.methods);
        }
        if !applied.places_gone.is_empty() {
            self.series.forget();
            let (places, regions) = (&applied.places_gone, &applied.regions_gone);
            self.stats.forget_places(places, regions);
        }
    }

    /// Forgets routes that have gone. Most snapshots change endpoints alone and pay nothing here.
    fn follow_routes(&mut self, listeners: &[ListenerConfig]) {
        let tables: Vec<_> = listeners
            .iter()
            .map(|listener| Arc::clone(&listener.table))
            .collect();
        let mut pairs = tables.iter().zip(&self.tables);
        if tables.len() == self.tables.len() && pairs.all(|(new, old)| Arc::ptr_eq(new, old)) {
            return;
        }
        self.tables = tables;
        let routes = || self.tables.iter().flat_map(|table| table.routes());
        self.routes
            .prune(&routes().map(Arc::as_ptr).collect(), self.now_ms);
        let names = routes().map(|route| &**route.name()).collect();
        self.stats.retain_routes(&names);
    }

    // --- listeners ---

    fn follow_listeners(
        &mut self,
        listeners: &[ListenerConfig],
        sockets: Vec<(Name, std::net::TcpListener)>,
    ) {
        let mut sockets: HashMap<Name, std::net::TcpListener> = sockets.into_iter().collect();
        let open: Vec<(usize, Name)> = self
            .listeners
            .iter()
            .filter(|(_, state)| state.socket.is_some())
            .map(|(key, state)| (key, state.name.clone()))
            .collect();
        for (key, name) in open {
            let wanted = listeners.iter().find(|it| it.config.name == name);
            match wanted {
                Some(listener) if !sockets.contains_key(&name) => {
                    self.listeners[key].update(listener);
                }
                // Gone, or at another address from now on.
                _ => self.drain_listener(key, self.settings.listener_drain_ms),
            }
        }
        for listener in listeners {
            if let Some(socket) = sockets.remove(&listener.config.name) {
                self.open_listener(listener, TcpListener::from_std(socket));
            }
        }
    }

    fn open_listener(&mut self, listener: &ListenerConfig, mut socket: TcpListener) {
        let key = self.listeners.vacant_key();
        let registered =
            self.poll
                .registry()
                .register(&mut socket, listener_token(key), Interest::READABLE);
        if let Err(error) = registered {
            self.notices.push(crate::events::Notice::ListenerError {
                listener: listener.config.name.to_string(),
                error: format!("a worker cannot watch its socket: {error}"),
            });
            return;
        }
        self.listeners.insert(WorkerListener::new(listener, socket));
    }
}
