//! A complete, consistent, immutable configuration, and the step from one to the next.
//!
//! Decides whether an update fits what is there: every name that an object refers to exists and is
//! of use. Leaves the checks of single objects to `crate::config`.
//!
//! Invariants:
//! - A snapshot has no dangling name, so lookups by names out of it succeed.
//! - What an update does not name, or names without a change, is the same object as before
//!   (`Arc::ptr_eq`): a change of endpoints costs one cluster and one map of pointers.
//! - A refused update changes nothing, in the old snapshot or in what endpoints share.

mod clusters;
mod references;

use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use self::clusters::{apply_clusters, touched_clusters};
use self::references::{Positions, check};
use crate::config::{Listener, Name, RouteTableConfig, Secret, Update};
use crate::limit::RateLimit;
use crate::route::KnownLimits;
use crate::{ClusterHandle, ConfigError, EndpointShared, RouteTable};

/// Objects by name; shared while nothing of the kind changes.
type ByName<T> = Arc<HashMap<Name, Arc<T>>>;

/// A complete, consistent, immutable configuration. Cloning copies pointers.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    version: Arc<str>,
    /// By name, ascending.
    listeners: Arc<Vec<Arc<Listener>>>,
    tables: ByName<RouteTable>,
    clusters: ByName<ClusterHandle>,
    secrets: ByName<Secret>,
}

impl Snapshot {
    /// The snapshot after an update. `prev` stays as it is; [`Snapshot::default`] is the one before
    /// the first.
    ///
    /// From here on the cap on ejections counts the endpoints of the new snapshot.
    ///
    /// # Errors
    /// When an object refers to one that would not be there, or a regular expression does not
    /// compile; then nothing changed.
    pub fn apply(prev: &Self, update: Update, now_ms: u64) -> Result<Self, ConfigError> {
        let positions = Positions::of(&update);
        let base = if update.full {
            Self::default()
        } else {
            prev.clone()
        };
        let secrets_changed = !update.secrets.is_empty();
        let removed = &update.removed;
        let something_removed = [&removed.route_tables, &removed.clusters, &removed.secrets]
            .iter()
            .any(|names| !names.is_empty());

        let touched = touched_clusters(&update);
        let clusters = apply_clusters(prev, &base, &update, &touched, now_ms)?;
        let secrets = apply_secrets(prev, &base, update.secrets, &removed.secrets);
        let tables = apply_tables(prev, &base, update.route_tables, &removed.route_tables)?;
        let listeners = apply_listeners(prev, &base, update.listeners, &removed.listeners);
        let next = Self {
            version: update.version.into(),
            listeners,
            tables,
            clusters,
            secrets,
        };

        // An update that neither removes nor replaces what others may need can only break what it
        // carries.
        let everything = update.full || something_removed || secrets_changed;
        check(&next, &positions, &touched, everything)?;
        for cluster in touched.iter().filter_map(|name| next.cluster(name)) {
            cluster.adopt();
        }
        Ok(next)
    }

    /// The version of the update that made it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// All listeners, by name.
    #[must_use]
    pub fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    /// The route table of this name; there is one for each name that a listener has.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Arc<RouteTable>> {
        self.tables.get(name)
    }

    /// All route tables, in no order.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<RouteTable>> {
        self.tables.values()
    }

    /// Each rate limit once, in no order. Two may have one name while a change of the limit has
    /// reached only some of the tables.
    #[must_use]
    pub fn rate_limits(&self) -> Vec<&Arc<RateLimit>> {
        let mut limits: Vec<_> = self.tables().flat_map(|table| table.limits()).collect();
        limits.sort_by_key(|limit| Arc::as_ptr(limit));
        limits.dedup_by(|a, b| Arc::ptr_eq(a, b));
        limits
    }

    /// The cluster of this name; there is one for each name that a route has.
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<&Arc<ClusterHandle>> {
        self.clusters.get(name)
    }

    /// All clusters, in no order.
    #[must_use]
    pub fn clusters(&self) -> impl ExactSizeIterator<Item = &Arc<ClusterHandle>> {
        self.clusters.values()
    }

    /// The secret of this name; there is one for each name that a listener or cluster has.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<&Arc<Secret>> {
        self.secrets.get(name)
    }

    /// What was learned about an endpoint, to report the health of it.
    #[must_use]
    pub fn endpoint(&self, cluster: &str, address: SocketAddr) -> Option<&Arc<EndpointShared>> {
        let endpoints = &self.cluster(cluster)?.endpoints;
        Some(&endpoints.get(endpoints.find(address)?).shared)
    }
}

fn apply_listeners(
    prev: &Snapshot,
    base: &Snapshot,
    sent: Vec<Listener>,
    removed: &[Name],
) -> Arc<Vec<Arc<Listener>>> {
    if sent.is_empty() && removed.is_empty() {
        return Arc::clone(&base.listeners);
    }
    let replaced: HashSet<Name> = sent
        .iter()
        .map(|listener| Name::clone(&listener.name))
        .chain(removed.iter().cloned())
        .collect();
    let kept = base
        .listeners
        .iter()
        .filter(|listener| !replaced.contains(&listener.name))
        .cloned();
    let new = sent.into_iter().map(|listener| {
        let before = prev.listeners.iter().find(|before| ***before == listener);
        before.map_or_else(|| Arc::new(listener), Arc::clone)
    });
    let mut listeners: Vec<_> = kept.chain(new).collect();
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    Arc::new(listeners)
}

fn apply_secrets(
    prev: &Snapshot,
    base: &Snapshot,
    sent: Vec<Secret>,
    removed: &[Name],
) -> ByName<Secret> {
    let new = sent.into_iter().map(|secret| {
        let before = prev
            .secret(&secret.name)
            .filter(|before| ***before == secret);
        (
            Name::clone(&secret.name),
            before.map_or_else(|| Arc::new(secret.clone()), Arc::clone),
        )
    });
    changed(&base.secrets, new.collect(), removed)
}

fn apply_tables(
    prev: &Snapshot,
    base: &Snapshot,
    sent: Vec<RouteTableConfig>,
    removed: &[Name],
) -> Result<ByName<RouteTable>, ConfigError> {
    let mut new = Vec::with_capacity(sent.len());
    let mut limits = KnownLimits::default();
    if !sent.is_empty() {
        prev.tables().for_each(|table| limits.add(table));
    }
    for (position, config) in sent.into_iter().enumerate() {
        let name = Name::clone(&config.name);
        let before = prev.table(&name).filter(|before| before.is_of(&config));
        let table = if let Some(before) = before {
            Arc::clone(before)
        } else {
            let table = RouteTable::compile(config, &limits)
                .map_err(|error| error.under(&format!("route_tables[{position}]")))?;
            limits.add(&table);
            Arc::new(table)
        };
        new.push((name, table));
    }
    Ok(changed(&base.tables, new, removed))
}

/// The objects of a kind after a change; the same map when nothing of the kind changed.
fn changed<T>(base: &ByName<T>, new: Vec<(Name, Arc<T>)>, removed: &[Name]) -> ByName<T> {
    let mut objects = Arc::clone(base);
    if !new.is_empty() || !removed.is_empty() {
        let objects = Arc::make_mut(&mut objects);
        for name in removed {
            objects.remove(name);
        }
        objects.extend(new);
    }
    objects
}

#[cfg(test)]
mod tests;
