//! Making a table: from a whole set, from what changed, or from the table before.
//!
//! What stays keeps its place, what was learned about it, and when it began to drain. A whole set
//! is taken as the changes that it makes when its localities are those of the table before, so that
//! both ways give the same table.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hashbrown::HashSet;

use super::members::Members;
use super::{EndpointIndex, EndpointTable, Locality};
use crate::EndpointShared;
use crate::cluster::Changes;
use crate::config::{EndpointConfig, EndpointDelta, EndpointSet, Health, LocalityConfig, Name};
use crate::endpoint::{Drain, Endpoint};
use crate::random::Draws;

/// What a table is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// These endpoints and no others.
    Set(&'a EndpointSet),
    /// Those before, with changes.
    Delta(&'a EndpointDelta),
    /// Those before.
    Same,
    /// None.
    Nothing,
}

/// A table under construction.
pub(super) struct Builder<'a> {
    pub(super) members: Members,
    pub(super) localities: Vec<Locality>,
    /// Endpoints that got a place they did not have.
    pub(super) placed: Vec<EndpointIndex>,
    /// Endpoints that are no more.
    pub(super) gone: Vec<Arc<EndpointShared>>,
    changes: &'a Arc<Changes>,
    now_ms: u64,
    /// There were endpoints before: new ones begin slowly.
    follows: bool,
}

type Key<'a> = (&'a Name, &'a Name, u32);

impl<'a> Builder<'a> {
    pub(super) fn new(
        before: Option<(&Members, &[Locality])>,
        changes: &'a Arc<Changes>,
        now_ms: u64,
    ) -> Self {
        let (members, localities) = before
            .map(|(members, localities)| (members.clone(), localities.to_vec()))
            .unwrap_or_default();
        Self {
            follows: members.len() > 0,
            members,
            localities,
            placed: Vec::new(),
            gone: Vec::new(),
            changes,
            now_ms,
        }
    }

    pub(super) fn apply(&mut self, source: Source<'_>) {
        match source {
            Source::Same => {}
            Source::Nothing => self.set(&[]),
            Source::Set(set) => self.set(&set.localities),
            Source::Delta(delta) => {
                for address in &delta.removed {
                    self.remove(*address);
                }
                for locality in &delta.localities {
                    let at = self.locality(locality);
                    self.localities[at].weight = locality.weight.into();
                    self.put_all(at, locality);
                }
            }
        }
    }

    fn set(&mut self, localities: &[LocalityConfig]) {
        let known = self.localities.iter().map(Locality::key);
        let sent = localities.iter().map(key);
        if self.localities.len() > localities.len() || !known.zip(sent).all(|(a, b)| a == b) {
            self.start_over(localities);
        }
        for (at, locality) in localities.iter().enumerate() {
            if at == self.localities.len() {
                self.localities.push(Locality::new(locality, self.now_ms));
            }
            self.localities[at].weight = locality.weight.into();
            self.put_all(at, locality);
        }
        let sent: usize = localities.iter().map(|it| it.endpoints.len()).sum();
        if self.members.len() > sent {
            let sent = localities.iter().flat_map(|it| &it.endpoints);
            let sent: HashSet<_> = sent.map(|endpoint| endpoint.address).collect();
            let known = self.members.iter().map(|endpoint| endpoint.address);
            let gone: Vec<_> = known.filter(|address| !sent.contains(address)).collect();
            for address in gone {
                self.remove(address);
            }
        }
    }

    /// The localities are others: endpoints that stay are put in anew.
    fn start_over(&mut self, localities: &[LocalityConfig]) {
        let expected = localities.iter().map(|it| it.endpoints.len()).sum();
        let old = std::mem::replace(&mut self.members, Members::with_capacity(expected));
        self.localities.clear();
        for (at, locality) in localities.iter().enumerate() {
            self.localities.push(Locality::new(locality, self.now_ms));
            for endpoint in &locality.endpoints {
                let before = old.find(endpoint.address).map(|index| old.get(index));
                self.push(at, endpoint, before);
            }
        }
        let gone = old
            .iter()
            .filter(|endpoint| self.members.find(endpoint.address).is_none());
        self.gone
            .extend(gone.map(|endpoint| Arc::clone(&endpoint.shared)));
    }

    /// The locality with this name, made when there is none.
    fn locality(&mut self, config: &LocalityConfig) -> usize {
        let known = self
            .localities
            .iter()
            .position(|locality| locality.key() == key(config));
        known.unwrap_or_else(|| {
            self.localities.push(Locality::new(config, self.now_ms));
            self.localities.len() - 1
        })
    }

    fn put_all(&mut self, locality: usize, config: &LocalityConfig) {
        for endpoint in &config.endpoints {
            let Some(index) = self.members.find(endpoint.address) else {
                self.push(locality, endpoint, None);
                continue;
            };
            let before = self.members.get(index);
            if !before.is_of(endpoint, locality) {
                let shared = Arc::clone(&before.shared);
                let endpoint = self.endpoint(locality, endpoint, before.drain, shared);
                self.members.replace(index, endpoint);
            }
        }
    }

    fn push(&mut self, locality: usize, config: &EndpointConfig, before: Option<&Endpoint>) {
        let index = self.members.next_index();
        let shared = before.map_or_else(
            || {
                let since_ms = if self.follows { self.now_ms } else { 0 };
                let changes = Arc::clone(self.changes);
                Arc::new(EndpointShared::new(
                    config.address,
                    changes,
                    index.0,
                    since_ms,
                ))
            },
            |before| Arc::clone(&before.shared),
        );
        let drain = before.and_then(|before| before.drain);
        let endpoint = self.endpoint(locality, config, drain, shared);
        self.members.push(endpoint);
        self.placed.push(index);
    }

    fn remove(&mut self, address: SocketAddr) {
        let Some(index) = self.members.find(address) else {
            return;
        };
        if let Some(removed) = self.members.remove(index) {
            self.gone.push(removed.shared);
            self.placed.push(index);
        }
    }

    fn endpoint(
        &self,
        locality: usize,
        config: &EndpointConfig,
        drain: Option<Drain>,
        shared: Arc<EndpointShared>,
    ) -> Endpoint {
        let drain = (config.health == Health::Draining).then(|| {
            let since_ms = drain.map_or(self.now_ms, |drain| drain.since_ms);
            let deadline_ms = config
                .drain_grace_ms
                .map(|grace| since_ms.saturating_add(grace));
            Drain {
                since_ms,
                deadline_ms,
            }
        });
        let head = &self.localities[locality];
        Endpoint {
            address: config.address,
            cluster_id: Name::clone(&head.cluster_id),
            region: Name::clone(&head.region),
            priority: head.priority,
            weight: config.weight,
            health: config.health,
            peer: config.peer,
            drain,
            shared,
            locality: locality as u32,
            drain_grace_ms: config.drain_grace_ms,
        }
    }
}

fn key(config: &LocalityConfig) -> Key<'_> {
    (&config.cluster_id, &config.region, config.priority)
}

// === impl Locality ===

impl Locality {
    fn new(config: &LocalityConfig, now_ms: u64) -> Self {
        Self {
            cluster_id: Name::clone(&config.cluster_id),
            region: Name::clone(&config.region),
            priority: config.priority,
            weight: config.weight.into(),
            // Not 0: gateways that take a snapshot together shall not take turns together.
            cursor: Arc::new(AtomicU64::new(Draws::new(now_ms).below(1 << 32))),
        }
    }

    fn key(&self) -> Key<'_> {
        (&self.cluster_id, &self.region, self.priority)
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Whether it would be the same if it were made of `config`.
    fn is_of(&self, config: &EndpointConfig, locality: usize) -> bool {
        self.locality as usize == locality
            && self.weight == config.weight
            && self.health == config.health
            && self.peer == config.peer
            && self.drain_grace_ms == config.drain_grace_ms
    }
}

// === impl EndpointTable ===

impl EndpointTable {
    /// Whether making it of `source` would give this table again.
    pub(crate) fn is_of(&self, source: Source<'_>) -> bool {
        match source {
            Source::Same => true,
            Source::Nothing => self.is_empty() && self.localities.is_empty(),
            Source::Set(set) => {
                let endpoints: usize = set.localities.iter().map(|it| it.endpoints.len()).sum();
                self.len() == endpoints
                    && self.localities.len() == set.localities.len()
                    && set
                        .localities
                        .iter()
                        .enumerate()
                        .all(|it| self.has(it.0, it.1))
            }
            Source::Delta(delta) => {
                let position = |config: &LocalityConfig| {
                    self.localities
                        .iter()
                        .position(|it| it.key() == key(config))
                };
                delta
                    .removed
                    .iter()
                    .all(|address| self.find(*address).is_none())
                    && delta
                        .localities
                        .iter()
                        .all(|config| position(config).is_some_and(|at| self.has(at, config)))
            }
        }
    }

    /// Whether the locality here has this name and weight, and these endpoints among its own.
    fn has(&self, at: usize, config: &LocalityConfig) -> bool {
        let locality = &self.localities[at];
        let has = |endpoint: &EndpointConfig| {
            self.find(endpoint.address)
                .is_some_and(|index| self.get(index).is_of(endpoint, at))
        };
        locality.key() == key(config)
            && locality.weight == u64::from(config.weight)
            && config.endpoints.iter().all(has)
    }
}

#[cfg(test)]
mod tests;
