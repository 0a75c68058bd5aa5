//! Whether every name in a snapshot leads to something that can be used.

use std::sync::Arc;

use hashbrown::HashMap;

use super::Snapshot;
use crate::config::{Listener, Name, Passthrough, Secret, TlsChain, Update};
use crate::{ClusterHandle, ConfigError, RouteTable};

type Checked = Result<(), ConfigError>;

/// Where the objects of an update stand in it, for the paths of errors.
pub(super) struct Positions {
    listeners: HashMap<Name, usize>,
    tables: HashMap<Name, usize>,
    clusters: HashMap<Name, usize>,
    endpoints: HashMap<Name, usize>,
}

/// What a secret has to have.
#[derive(Clone, Copy)]
enum Part {
    Identity,
    Ca,
}

// === impl Positions ===

impl Positions {
    pub(super) fn of(update: &Update) -> Self {
        Self {
            listeners: positions(update.listeners.iter().map(|listener| &listener.name)),
            tables: positions(update.route_tables.iter().map(|table| &table.name)),
            clusters: positions(update.clusters.iter().map(|cluster| &cluster.name)),
            endpoints: positions(update.endpoints.iter().map(|set| &set.cluster)),
        }
    }
}

fn positions<'a>(names: impl Iterator<Item = &'a Name>) -> HashMap<Name, usize> {
    names
        .enumerate()
        .map(|(position, name)| (Name::clone(name), position))
        .collect()
}

/// The place in the update, or kind and name of an object that the update does not carry.
fn path(kind: &str, positions: &HashMap<Name, usize>, name: &Name) -> String {
    positions.get(name).map_or_else(
        || format!("{kind}({name})"),
        |position| format!("{kind}[{position}]"),
    )
}

/// Checks the objects that the update carries (clusters: those that it touches), or all of them.
pub(super) fn check(
    next: &Snapshot,
    positions: &Positions,
    touched: &[Name],
    everything: bool,
) -> Checked {
    for listener in next.listeners() {
        if everything || positions.listeners.contains_key(&listener.name) {
            let at = path("listeners", &positions.listeners, &listener.name);
            check_listener(next, listener).map_err(|error| error.under(&at))?;
        }
    }
    for table in sorted(next.tables(), |table| table.name()) {
        if everything || positions.tables.contains_key(table.name()) {
            let at = path("route_tables", &positions.tables, table.name());
            check_table(next, table).map_err(|error| error.under(&at))?;
        }
    }
    let all = || next.clusters().collect();
    let some = || {
        touched
            .iter()
            .filter_map(|name| next.cluster(name))
            .collect()
    };
    let clusters: Vec<_> = if everything { all() } else { some() };
    for cluster in sorted(clusters.into_iter(), |cluster| &cluster.config.name) {
        check_cluster(next, cluster, positions)?;
    }
    Ok(())
}

/// By name, so that the same update gives the same error.
fn sorted<'a, T>(
    objects: impl Iterator<Item = &'a Arc<T>>,
    name: impl Fn(&T) -> &Name,
) -> Vec<&'a Arc<T>> {
    let mut objects: Vec<_> = objects.collect();
    objects.sort_by(|a, b| name(a).cmp(name(b)));
    objects
}

fn check_listener(next: &Snapshot, listener: &Listener) -> Checked {
    if let Some(table) = &listener.route_table
        && next.table(table).is_none()
    {
        return Err(missing("route_table", "route table", table));
    }
    if let Some(passthrough) = &listener.passthrough {
        check_targets(next, passthrough)?;
    }
    let Some(tls) = &listener.tls else {
        return Ok(());
    };
    for (position, name) in tls.certificates.iter().enumerate() {
        check_secret(
            next,
            &format!("tls.certificates[{position}]"),
            name,
            Part::Identity,
        )?;
    }
    for (position, chain) in tls.chains.iter().enumerate() {
        let at = format!("tls.chains[{position}]");
        check_chain(next, chain).map_err(|error| error.under(&at))?;
    }
    tls.client_ca.as_ref().map_or(Ok(()), |name| {
        check_secret(next, "tls.client_ca", name, Part::Ca)
    })
}

fn check_chain(next: &Snapshot, chain: &TlsChain) -> Checked {
    for (position, name) in chain.certificates.iter().enumerate() {
        check_secret(
            next,
            &format!("certificates[{position}]"),
            name,
            Part::Identity,
        )?;
    }
    chain
        .passthrough
        .as_ref()
        .map_or(Ok(()), |it| check_targets(next, it))
}

fn check_targets(next: &Snapshot, passthrough: &Passthrough) -> Checked {
    for (position, target) in passthrough.weighted.iter().enumerate() {
        if next.cluster(&target.cluster).is_none() {
            let at = format!("passthrough.weighted[{position}].cluster");
            return Err(missing(&at, "cluster", &target.cluster));
        }
    }
    Ok(())
}

fn check_table(next: &Snapshot, table: &RouteTable) -> Checked {
    table
        .references()
        .find(|(_, name)| next.cluster(name).is_none())
        .map_or(Ok(()), |(place, name)| {
            Err(missing(&place.to_string(), "cluster", name))
        })
}

fn check_cluster(next: &Snapshot, cluster: &ClusterHandle, positions: &Positions) -> Checked {
    let name = &cluster.config.name;
    if let Some(tls) = &cluster.config.peer_tls {
        let under = |error: ConfigError| error.under(&path("clusters", &positions.clusters, name));
        check_secret(next, "peer_tls.secret", &tls.secret, Part::Identity).map_err(under)?;
        return check_secret(next, "peer_tls.ca", &tls.ca, Part::Ca).map_err(under);
    }
    if cluster.endpoints.peers() == 0 {
        return Ok(());
    }
    let peer = cluster.endpoints.iter().find(|endpoint| endpoint.peer);
    peer.map_or(Ok(()), |peer| {
        let set = path("endpoints", &positions.endpoints, name);
        let message = format!(
            "`{}` is a gateway of another cluster: needs `peer_tls` in the cluster `{name}`",
            peer.address
        );
        let at = format!("{set}.localities[{}]", peer.locality);
        Err(ConfigError::new(at, message))
    })
}

fn check_secret(next: &Snapshot, path: &str, name: &Name, part: Part) -> Checked {
    let secret: &Secret = next
        .secret(name)
        .ok_or_else(|| missing(path, "secret", name))?;
    let (has, what) = match part {
        Part::Identity => (secret.certificate_pem.is_some(), "certificate and key"),
        Part::Ca => (secret.ca_pem.is_some(), "`ca_pem`"),
    };
    if has {
        Ok(())
    } else {
        Err(ConfigError::new(
            path,
            format!("the secret `{name}` has no {what}"),
        ))
    }
}

fn missing(path: &str, kind: &str, name: &Name) -> ConfigError {
    ConfigError::new(
        path,
        format!("there is no {kind} `{name}`; send it in the same update or before"),
    )
}
