//! A complete, consistent, immutable configuration, and the step from one to the next.
//!
//! Decides whether an update fits what is there: every name that an object refers to exists and is of use. Leaves the
//! checks of single objects to `crate::config`.
//!
//! Invariants:
//! - A snapshot has no dangling name, so lookups by names out of it succeed.
//! - What an update does not name, or names without a change, is the same object as before (`Arc::ptr_eq`): a change of
//!   endpoints costs one cluster and one map of pointers.
//! - A refused update changes nothing, in the old snapshot or in what endpoints share.

mod references;

use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use self::references::{Positions, check};
use crate::config::{Cluster, EndpointSet, Listener, Name, RouteTableConfig, Secret, Update};
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
    /// The snapshot after an update. `prev` stays as it is; [`Snapshot::default`] is the one before the first.
    ///
    /// From here on the cap on ejections counts the endpoints of the new snapshot.
    ///
    /// # Errors
    /// When an object refers to one that would not be there, or a regular expression does not compile; then nothing
    /// changed.
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

        // An update that neither removes nor replaces what others may need can only break what it carries.
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

    /// The cluster of this name; there is one for each name that a route has.
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<&Arc<ClusterHandle>> {
        self.clusters.get(name)
    }

    /// All clusters, in no order.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<ClusterHandle>> {
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
    for (position, config) in sent.into_iter().enumerate() {
        let name = Name::clone(&config.name);
        let before = prev.table(&name).filter(|before| before.is_of(&config));
        let compile = |config| {
            let table = RouteTable::compile(config).map(Arc::new);
            table.map_err(|error| error.under(&format!("route_tables[{position}]")))
        };
        let table = if let Some(before) = before {
            Arc::clone(before)
        } else {
            compile(config)?
        };
        new.push((name, table));
    }
    Ok(changed(&base.tables, new, removed))
}

/// Clusters and their endpoints together: a cluster is made anew when either changes.
fn apply_clusters(
    prev: &Snapshot,
    base: &Snapshot,
    update: &Update,
    touched: &[Name],
    now_ms: u64,
) -> Result<ByName<ClusterHandle>, ConfigError> {
    let sent = Sent::of(update);
    let stays = |name: &Name| sent.stays(base, name);
    if let Some(at) = update.endpoints.iter().position(|set| !stays(&set.cluster)) {
        let name = &update.endpoints[at].cluster;
        let message = format!("there is no cluster `{name}`; send it in the same update or before");
        return Err(ConfigError::new(
            format!("endpoints[{at}].cluster"),
            message,
        ));
    }
    let staying = touched.iter().filter(|name| stays(name));
    let new = staying.map(|name| (Name::clone(name), sent.cluster(prev, base, name, now_ms)));
    Ok(changed(
        &base.clusters,
        new.collect(),
        &update.removed.clusters,
    ))
}

/// What an update says about clusters, by name.
struct Sent<'a> {
    configs: HashMap<&'a Name, &'a Cluster>,
    sets: HashMap<&'a Name, &'a EndpointSet>,
    removed: HashSet<&'a Name>,
    emptied: HashSet<&'a Name>,
}

impl<'a> Sent<'a> {
    fn of(update: &'a Update) -> Self {
        Self {
            configs: update
                .clusters
                .iter()
                .map(|cluster| (&cluster.name, cluster))
                .collect(),
            sets: update
                .endpoints
                .iter()
                .map(|set| (&set.cluster, set))
                .collect(),
            removed: update.removed.clusters.iter().collect(),
            emptied: update.removed.endpoints.iter().collect(),
        }
    }

    fn stays(&self, base: &Snapshot, name: &Name) -> bool {
        let kept = || base.clusters.contains_key(name) && !self.removed.contains(name);
        self.configs.contains_key(name) || kept()
    }

    /// A cluster that stays: of the parts that were sent, and those that it had in `base`. What it had in `prev` is used
    /// again where it is the same.
    fn cluster(
        &self,
        prev: &Snapshot,
        base: &Snapshot,
        name: &Name,
        now_ms: u64,
    ) -> Arc<ClusterHandle> {
        let before = prev.cluster(name);
        let config = match self.configs.get(name) {
            Some(sent) => reused(before.map(|before| &before.config), sent),
            None => Arc::clone(&base.clusters[name].config),
        };
        let set = match (self.sets.get(name), base.cluster(name)) {
            (Some(sent), _) => reused(before.map(|before| before.endpoints.config()), sent),
            (None, Some(kept)) if !self.emptied.contains(name) => {
                Arc::clone(kept.endpoints.config())
            }
            (None, _) => Arc::new(EndpointSet {
                cluster: Name::clone(name),
                localities: Vec::new(),
            }),
        };
        let same = |before: &&Arc<ClusterHandle>| {
            Arc::ptr_eq(&before.config, &config) && *before.endpoints.config() == set
        };
        if let Some(before) = before.filter(same) {
            return Arc::clone(before);
        }
        let before = before.map(|before| &**before);
        Arc::new(ClusterHandle::new(config, &set, before, now_ms))
    }
}

/// Names of clusters that an update says something about, in its order.
fn touched_clusters(update: &Update) -> Vec<Name> {
    let sent = update.clusters.iter().map(|cluster| &cluster.name);
    let sets = update.endpoints.iter().map(|set| &set.cluster);
    let mut seen = HashSet::new();
    sent.chain(sets)
        .chain(&update.removed.endpoints)
        .filter(|name| seen.insert(Name::clone(name)))
        .cloned()
        .collect()
}

/// The object that was there when it is equal, so that it stays the same one.
fn reused<T: PartialEq + Clone>(before: Option<&Arc<T>>, sent: &T) -> Arc<T> {
    before
        .filter(|before| ***before == *sent)
        .map_or_else(|| Arc::new(sent.clone()), Arc::clone)
}

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
