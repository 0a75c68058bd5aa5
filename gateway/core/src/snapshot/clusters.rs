//! The clusters of the next snapshot: each is its configuration and its endpoints, which come
//! separately.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::{ByName, Snapshot, changed};
use crate::balance::Source;
use crate::config::{Cluster, EndpointDelta, EndpointSet, Name, Update};
use crate::{ClusterHandle, ConfigError};

/// Clusters and their endpoints together: a cluster is made anew when either changes.
pub(super) fn apply_clusters(
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
    let deltas = &update.endpoint_deltas;
    if let Some(at) = deltas.iter().position(|delta| !stays(&delta.cluster)) {
        let name = &deltas[at].cluster;
        let message = format!("there is no cluster `{name}`; send it in the same update or before");
        return Err(ConfigError::new(
            format!("endpoint_deltas[{at}].cluster"),
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
    deltas: HashMap<&'a Name, &'a EndpointDelta>,
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
            deltas: update
                .endpoint_deltas
                .iter()
                .map(|delta| (&delta.cluster, delta))
                .collect(),
            removed: update.removed.clusters.iter().collect(),
            emptied: update.removed.endpoints.iter().collect(),
        }
    }

    fn stays(&self, base: &Snapshot, name: &Name) -> bool {
        let kept = || base.clusters.contains_key(name) && !self.removed.contains(name);
        self.configs.contains_key(name) || kept()
    }

    /// A cluster that stays: of the parts that were sent, and those that it had in `base`. What it
    /// had in `prev` is used again where it is the same.
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
        // In a full update endpoints that are not sent are none, whatever `prev` had.
        let source = match (self.sets.get(name), self.deltas.get(name)) {
            (Some(set), _) => Source::Set(set),
            (None, Some(delta)) => Source::Delta(delta),
            (None, None) if self.emptied.contains(name) || base.cluster(name).is_none() => {
                Source::Nothing
            }
            (None, None) => Source::Same,
        };
        let same = |before: &&Arc<ClusterHandle>| {
            Arc::ptr_eq(&before.config, &config) && before.endpoints.is_of(source)
        };
        if let Some(before) = before.filter(same) {
            return Arc::clone(before);
        }
        let before = before.map(|before| &**before);
        Arc::new(ClusterHandle::new(config, source, before, now_ms))
    }
}

/// Names of clusters that an update says something about, in its order.
pub(super) fn touched_clusters(update: &Update) -> Vec<Name> {
    let sent = update.clusters.iter().map(|cluster| &cluster.name);
    let sets = update.endpoints.iter().map(|set| &set.cluster);
    let deltas = update.endpoint_deltas.iter().map(|delta| &delta.cluster);
    let mut seen = HashSet::new();
    sent.chain(sets)
        .chain(deltas)
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
