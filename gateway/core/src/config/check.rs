//! Checks of each object by itself: ranges, names, duplicates. Regular expressions are checked by
//! compiling them, once, when a snapshot is made.
//!
//! What serde cannot say in a type. A check returns the path below the object; callers put theirs
//! in front.

mod cluster;
mod http;
mod policy;
mod route;
mod telemetry;

use hashbrown::HashSet;

use self::cluster::{cluster, endpoint_delta, endpoint_set};
use self::route::route_table;
use super::{ConnectionPolicy, Listener, Passthrough, Removed, Secret, TlsChain, Update};
use crate::ConfigError;

/// Largest weight of a cluster in a split, or of an endpoint (Gateway API's bound for `weight`).
const WEIGHT_MAX: u32 = 1_000_000;

type Checked = Result<(), ConfigError>;

/// Everything that can be said about an update without the snapshot that it changes.
pub(super) fn update(update: &Update) -> Checked {
    each("listeners", &update.listeners, listener)?;
    each("route_tables", &update.route_tables, route_table)?;
    each("clusters", &update.clusters, cluster)?;
    each("endpoints", &update.endpoints, endpoint_set)?;
    each("endpoint_deltas", &update.endpoint_deltas, endpoint_delta)?;
    deltas(update)?;
    each("secrets", &update.secrets, secret)?;
    unique(
        "listeners",
        "name",
        update.listeners.iter().map(|item| &*item.name),
    )?;
    unique(
        "route_tables",
        "name",
        update.route_tables.iter().map(|item| &*item.name),
    )?;
    unique(
        "clusters",
        "name",
        update.clusters.iter().map(|item| &*item.name),
    )?;
    unique(
        "endpoints",
        "cluster",
        update.endpoints.iter().map(|item| &*item.cluster),
    )?;
    unique(
        "secrets",
        "name",
        update.secrets.iter().map(|item| &*item.name),
    )?;
    removed(update)
}

/// A delta of endpoints needs endpoints that nothing else in the update speaks of.
fn deltas(update: &Update) -> Checked {
    let sets = update.endpoints.iter().map(|set| &set.cluster);
    let gone = update.removed.clusters.iter();
    let gone = gone.chain(&update.removed.endpoints);
    let others: HashSet<_> = sets.chain(gone).collect();
    for (position, delta) in update.endpoint_deltas.iter().enumerate() {
        let path = format!("endpoint_deltas[{position}].cluster");
        ensure(!update.full, &path, || {
            "must not be in a full update, which has whole sets in `endpoints`".into()
        })?;
        ensure(!others.contains(&delta.cluster), &path, || {
            let name = &delta.cluster;
            format!("`{name}` is in `endpoints` or `removed` of this update too")
        })?;
    }
    let names = update.endpoint_deltas.iter().map(|delta| &*delta.cluster);
    unique("endpoint_deltas", "cluster", names)
}

fn removed(update: &Update) -> Checked {
    let Removed {
        listeners,
        route_tables,
        clusters,
        endpoints,
        secrets,
    } = &update.removed;
    let kinds = [
        (
            "listeners",
            listeners,
            update
                .listeners
                .iter()
                .map(|item| &item.name)
                .collect::<Vec<_>>(),
        ),
        (
            "route_tables",
            route_tables,
            update.route_tables.iter().map(|item| &item.name).collect(),
        ),
        (
            "clusters",
            clusters,
            update.clusters.iter().map(|item| &item.name).collect(),
        ),
        (
            "endpoints",
            endpoints,
            update.endpoints.iter().map(|item| &item.cluster).collect(),
        ),
        (
            "secrets",
            secrets,
            update.secrets.iter().map(|item| &item.name).collect(),
        ),
    ];
    for (kind, removed, sent) in kinds {
        let sent: HashSet<_> = sent.into_iter().collect();
        for (position, name) in removed.iter().enumerate() {
            let path = format!("removed.{kind}[{position}]");
            ensure(!update.full, &path, || {
                "must not be in a full update, which is everything there is".into()
            })?;
            ensure(!sent.contains(name), &path, || {
                format!("`{name}` is in `{kind}` of this update too")
            })?;
        }
    }
    Ok(())
}

fn listener(listener: &Listener) -> Checked {
    named("name", &listener.name)?;
    under("connection", connection(&listener.connection))?;
    if let Some(told) = &listener.telemetry {
        under("telemetry", telemetry::listener(told))?;
    }
    let Some(tls) = &listener.tls else {
        if let Some(passed) = &listener.passthrough {
            under("passthrough", passthrough(passed))?;
        }
        let one = listener.route_table.is_some() != listener.passthrough.is_some();
        return ensure(one, "route_table", || {
            "is needed without TLS, unless there is `passthrough`".into()
        });
    };
    ensure(listener.passthrough.is_none(), "passthrough", || {
        "is for listeners without TLS; with it, chains have their own".into()
    })?;
    ensure(
        !tls.certificates.is_empty() || !tls.chains.is_empty(),
        "tls.certificates",
        || "needs at least one secret".into(),
    )?;
    each("tls.chains", &tls.chains, chain)?;
    distinct_names(&tls.chains)?;
    let routes = tls.chains.iter().any(|chain| chain.passthrough.is_none());
    let terminates = !tls.certificates.is_empty() || routes;
    ensure(
        !terminates || listener.route_table.is_some(),
        "route_table",
        || "is needed where TLS is terminated".into(),
    )?;
    ensure(
        !tls.client_optional || tls.client_ca.is_some(),
        "tls.client_optional",
        || "needs `client_ca`: without it no client certificate is asked for".into(),
    )?;
    ensure(
        tls.allowed_spiffe.is_empty() || tls.client_ca.is_some(),
        "tls.allowed_spiffe",
        || "needs `client_ca`: without it no client certificate is asked for".into(),
    )?;
    spiffe_patterns("tls.allowed_spiffe", &tls.allowed_spiffe)
}

fn distinct_names(chains: &[TlsChain]) -> Checked {
    let mut seen = HashSet::new();
    for (position, chain) in chains.iter().enumerate() {
        let other = chain.server_names.is_empty().then_some("every other name");
        let names = chain.server_names.iter().map(|name| &**name);
        for name in other.into_iter().chain(names) {
            let at = format!("tls.chains[{position}].server_names");
            ensure(seen.insert(name), at, || {
                format!("`{name}` is in another chain too")
            })?;
        }
    }
    Ok(())
}

fn chain(chain: &TlsChain) -> Checked {
    ensure(
        !chain.certificates.is_empty() || chain.passthrough.is_some(),
        "certificates",
        || "a chain has certificates, or passes TLS through, or both".into(),
    )?;
    for (position, name) in chain.server_names.iter().enumerate() {
        let plain = name.strip_prefix("*.").unwrap_or(name);
        let fine = !plain.is_empty() && !plain.contains('*') && **name == *name.to_lowercase();
        ensure(fine, format!("server_names[{position}]"), || {
            format!("must be a lower-case name, `*.` in front at most; it is `{name}`")
        })?;
    }
    chain
        .passthrough
        .as_ref()
        .map_or(Ok(()), |it| under("passthrough", passthrough(it)))
}

fn passthrough(passthrough: &Passthrough) -> Checked {
    named("name", &passthrough.name)?;
    positive("idle_ms", passthrough.idle_ms)?;
    each("weighted", &passthrough.weighted, |target| {
        within("weight", u64::from(target.weight), 0, 1_000_000)
    })?;
    ensure(
        passthrough.weighted.iter().any(|target| target.weight > 0),
        "weighted",
        || "needs a cluster with a weight above 0".into(),
    )
}

fn connection(policy: &ConnectionPolicy) -> Checked {
    positive("max_idle_ms", policy.max_idle_ms)?;
    positive("max_age_ms", policy.max_age_ms)?;
    positive("ping_after_ms", policy.ping_after_ms)?;
    positive("ping_timeout_ms", policy.ping_timeout_ms)?;
    ensure(
        policy.max_age_grace_ms.is_none() || policy.max_age_ms.is_some(),
        "max_age_grace_ms",
        || "needs `max_age_ms`".into(),
    )?;
    ensure(
        policy.ping_timeout_ms.is_none() || policy.ping_after_ms.is_some(),
        "ping_timeout_ms",
        || "needs `ping_after_ms`".into(),
    )
}

fn spiffe_patterns(path: &str, patterns: &[super::Name]) -> Checked {
    for (position, pattern) in patterns.iter().enumerate() {
        let whole = pattern.strip_suffix('*').unwrap_or(pattern);
        ensure(
            whole.starts_with("spiffe://") && !whole.contains('*'),
            format!("{path}[{position}]"),
            || format!("must be a SPIFFE id, `*` only at its end; it is `{pattern}`"),
        )?;
    }
    Ok(())
}

fn secret(secret: &Secret) -> Checked {
    named("name", &secret.name)?;
    ensure(
        secret.certificate_pem.is_some() == secret.private_key_pem.is_some(),
        "private_key_pem",
        || "`certificate_pem` and `private_key_pem` come together".into(),
    )
}

// === the small checks ===

fn ensure(holds: bool, path: impl std::fmt::Display, message: impl FnOnce() -> String) -> Checked {
    if holds {
        Ok(())
    } else {
        Err(ConfigError::new(path, message()))
    }
}

fn within(path: impl std::fmt::Display, value: u64, least: u64, most: u64) -> Checked {
    ensure((least..=most).contains(&value), path, || {
        format!("must be {least} to {most}; it is {value}")
    })
}

fn cookie_name(path: &str, name: &str) -> Checked {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    ensure(!name.is_empty() && name.bytes().all(token), path, || {
        format!("must be a cookie name (RFC 6265); it is `{name}`")
    })
}

fn positive(path: &str, value: Option<u64>) -> Checked {
    ensure(value != Some(0), path, || "must be above 0".into())
}

fn named(path: &str, name: &str) -> Checked {
    ensure(!name.is_empty(), path, || "must not be empty".into())
}

fn under(parent: &str, result: Checked) -> Checked {
    result.map_err(|error| error.under(parent))
}

fn each<T>(parent: &str, items: &[T], mut check: impl FnMut(&T) -> Checked) -> Checked {
    for (position, item) in items.iter().enumerate() {
        check(item).map_err(|error| error.under(&format!("{parent}[{position}]")))?;
    }
    Ok(())
}

fn unique<'a>(kind: &str, field: &str, names: impl Iterator<Item = &'a str>) -> Checked {
    let mut seen = HashSet::new();
    for (position, name) in names.enumerate() {
        ensure(
            seen.insert(name),
            format!("{kind}[{position}].{field}"),
            || format!("`{name}` is in this update twice"),
        )?;
    }
    Ok(())
}
