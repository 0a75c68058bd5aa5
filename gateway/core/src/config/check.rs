//! Checks of each object by itself: ranges, names, duplicates. Regular expressions are checked by compiling them, once,
//! when a snapshot is made.
//!
//! What serde cannot say in a type. A check returns the path below the object; callers put theirs in front.

use hashbrown::HashSet;

use super::route::{Action, HeaderMatch, HeaderOps, PathMatch, Retry, RouteConfig, RouteMatch};
use super::{
    Cluster, EndpointSet, Keepalive, Listener, Outlier, Removed, RouteTableConfig, Secret, Update,
    VirtualHostConfig,
};
use crate::ConfigError;

/// Largest weight of a cluster in a split, or of an endpoint (Gateway API's bound for `weight`).
const WEIGHT_MAX: u32 = 1_000_000;
/// Largest weight of a locality: capacity may be given in finer units.
const LOCALITY_WEIGHT_MAX: u32 = 1_000_000_000;
/// More retries than this are a mistake; gRFC A6 allows 4.
const RETRY_ATTEMPTS_MAX: u32 = 16;
/// Memory that one call may hold for retries.
const RETRY_BUFFER_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// Longest hostname (RFC 1035).
const HOSTNAME_BYTES_MAX: usize = 253;
/// Fields that belong to one connection or to the protocol, not to a rule.
const HEADERS_RESERVED: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "te",
    "grpc-timeout",
];

type Checked = Result<(), ConfigError>;

/// Everything that can be said about an update without the snapshot that it changes.
pub(super) fn update(update: &Update) -> Checked {
    each("listeners", &update.listeners, listener)?;
    each("route_tables", &update.route_tables, route_table)?;
    each("clusters", &update.clusters, cluster)?;
    each("endpoints", &update.endpoints, endpoint_set)?;
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
    let Some(tls) = &listener.tls else {
        return Ok(());
    };
    ensure(!tls.certificates.is_empty(), "tls.certificates", || {
        "needs at least one secret".into()
    })?;
    ensure(
        tls.allowed_spiffe.is_empty() || tls.client_ca.is_some(),
        "tls.allowed_spiffe",
        || "needs `client_ca`: without it no client certificate is asked for".into(),
    )?;
    spiffe_patterns("tls.allowed_spiffe", &tls.allowed_spiffe)
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

fn route_table(table: &RouteTableConfig) -> Checked {
    named("name", &table.name)?;
    each("virtual_hosts", &table.virtual_hosts, virtual_host)?;
    let mut seen = HashSet::new();
    for (position, host) in table.virtual_hosts.iter().enumerate() {
        for (at, hostname) in host.hostnames.iter().enumerate() {
            let path = format!("virtual_hosts[{position}].hostnames[{at}]");
            ensure(seen.insert(hostname), path, || {
                format!("`{hostname}` is in this table twice")
            })?;
        }
    }
    Ok(())
}

fn virtual_host(host: &VirtualHostConfig) -> Checked {
    ensure(!host.hostnames.is_empty(), "hostnames", || {
        "needs at least one".into()
    })?;
    for (position, hostname) in host.hostnames.iter().enumerate() {
        ensure(
            is_hostname(hostname),
            format!("hostnames[{position}]"),
            || {
                format!(
                    "must be `*`, `*.` and a lower-case DNS name, a lower-case DNS name, or an IP address; it is `{hostname}`"
                )
            },
        )?;
    }
    each("routes", &host.routes, route)
}

fn is_hostname(pattern: &str) -> bool {
    if pattern == "*" || pattern.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let name = pattern.strip_prefix("*.").unwrap_or(pattern);
    name.len() <= HOSTNAME_BYTES_MAX && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    (1..=63).contains(&label.len()) && label.bytes().all(inner)
}

fn route(route: &RouteConfig) -> Checked {
    named("name", &route.name)?;
    under("match", route_match(&route.matches))?;
    under("action", action(&route.action))?;
    header_ops("request_headers", route.request_headers.as_ref())?;
    header_ops("response_headers", route.response_headers.as_ref())?;
    positive("timeout_ms", route.timeout_ms)?;
    positive("max_stream_ms", route.max_stream_ms)?;
    positive("idle_timeout_ms", route.idle_timeout_ms)?;
    route
        .retry
        .as_ref()
        .map_or(Ok(()), |policy| under("retry", retry(policy)))
}

fn route_match(matches: &RouteMatch) -> Checked {
    match &matches.path {
        PathMatch::Exact(path) => absolute("path.exact", path)?,
        PathMatch::Prefix(path) => absolute("path.prefix", path)?,
        PathMatch::Regex(_) => {}
    }
    each("headers", &matches.headers, header_match)
}

fn absolute(path: &str, value: &str) -> Checked {
    ensure(value.starts_with('/'), path, || {
        format!("must begin with `/`; it is `{value}`")
    })
}

fn header_match(header: &HeaderMatch) -> Checked {
    header_name("name", &header.name)?;
    let given = [
        header.exact.is_some(),
        header.regex.is_some(),
        header.present == Some(true),
    ];
    ensure(
        given.iter().filter(|given| **given).count() == 1 && header.present != Some(false),
        "",
        || "needs exactly one of `exact`, `regex` and `present: true`".into(),
    )
}

fn action(action: &Action) -> Checked {
    match action {
        Action::Weighted(parts) => {
            ensure(!parts.is_empty(), "weighted", || {
                "needs at least one cluster; use `reply` to answer".into()
            })?;
            each("weighted", parts, |part| {
                within("weight", u64::from(part.weight), 0, WEIGHT_MAX.into())?;
                header_ops("request_headers", part.request_headers.as_ref())?;
                header_ops("response_headers", part.response_headers.as_ref())
            })
        }
        Action::Reply(reply) => within("reply.grpc_status", reply.grpc_status.into(), 0, 16),
    }
}

fn header_ops(path: &str, ops: Option<&HeaderOps>) -> Checked {
    let Some(ops) = ops else { return Ok(()) };
    for (list, pairs) in [("set", &ops.set), ("add", &ops.add)] {
        for (position, (name, value)) in pairs.iter().enumerate() {
            header_name(format!("{path}.{list}[{position}][0]"), name)?;
            ensure(
                !value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0)),
                format!("{path}.{list}[{position}][1]"),
                || "must not contain line breaks or NUL".into(),
            )?;
        }
    }
    for (position, name) in ops.remove.iter().enumerate() {
        header_name(format!("{path}.remove[{position}]"), name)?;
    }
    Ok(())
}

fn header_name(path: impl std::fmt::Display, name: &str) -> Checked {
    let token =
        |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9') || b"!#$%&'*+-.^_`|~".contains(&byte);
    ensure(!name.is_empty() && name.bytes().all(token), &path, || {
        format!("must be a lower-case field name, not a pseudo header; it is `{name}`")
    })?;
    ensure(!HEADERS_RESERVED.contains(&name), &path, || {
        format!("`{name}` belongs to the protocol; rules cannot use it")
    })
}

fn retry(retry: &Retry) -> Checked {
    within(
        "attempts",
        retry.attempts.into(),
        0,
        RETRY_ATTEMPTS_MAX.into(),
    )?;
    within(
        "buffer_bytes",
        retry.buffer_bytes.into(),
        0,
        RETRY_BUFFER_BYTES_MAX.into(),
    )?;
    within(
        "budget_percent",
        retry.budget_percent.unwrap_or(0).into(),
        0,
        100,
    )?;
    ensure(retry.base_ms <= retry.max_ms, "max_ms", || {
        format!("must be at least `base_ms`, {}", retry.base_ms)
    })?;
    positive("per_try_timeout_ms", retry.per_try_timeout_ms)?;
    for (position, code) in retry.http_codes.iter().enumerate() {
        within(format!("http_codes[{position}]"), (*code).into(), 100, 599)?;
    }
    for (position, code) in retry.grpc_codes.iter().enumerate() {
        within(format!("grpc_codes[{position}]"), (*code).into(), 1, 16)?;
    }
    Ok(())
}

fn cluster(cluster: &Cluster) -> Checked {
    named("name", &cluster.name)?;
    positive("connect_timeout_ms", Some(cluster.connect_timeout_ms))?;
    positive("max_connections", cluster.max_connections.map(u64::from))?;
    positive(
        "max_requests_per_connection",
        cluster.max_requests_per_connection.map(u64::from),
    )?;
    within("panic_percent", cluster.panic_percent.into(), 0, 100)?;
    within(
        "overprovision_percent",
        cluster.overprovision_percent.into(),
        100,
        1_000,
    )?;
    if let Some(Keepalive {
        interval_ms,
        timeout_ms,
    }) = cluster.keepalive
    {
        positive("keepalive.interval_ms", Some(interval_ms))?;
        positive("keepalive.timeout_ms", Some(timeout_ms))?;
    }
    if let Some(tls) = &cluster.peer_tls {
        named("peer_tls.sni", &tls.sni)?;
        spiffe_patterns("peer_tls.allowed_spiffe", &tls.allowed_spiffe)?;
    }
    cluster
        .outlier
        .as_ref()
        .map_or(Ok(()), |policy| under("outlier", outlier(policy)))
}

fn outlier(outlier: &Outlier) -> Checked {
    positive(
        "consecutive_failures",
        outlier.consecutive_failures.map(u64::from),
    )?;
    positive(
        "consecutive_gateway_failures",
        outlier.consecutive_gateway_failures.map(u64::from),
    )?;
    positive("interval_ms", Some(outlier.interval_ms))?;
    positive("base_ejection_ms", Some(outlier.base_ejection_ms))?;
    within(
        "max_ejection_percent",
        outlier.max_ejection_percent.into(),
        0,
        100,
    )?;
    ensure(
        outlier.base_ejection_ms <= outlier.max_ejection_ms,
        "max_ejection_ms",
        || {
            format!(
                "must be at least `base_ejection_ms`, {}",
                outlier.base_ejection_ms
            )
        },
    )
}

fn endpoint_set(set: &EndpointSet) -> Checked {
    let mut seen = HashSet::new();
    each("localities", &set.localities, |locality| {
        named("cluster_id", &locality.cluster_id)?;
        within(
            "weight",
            locality.weight.into(),
            0,
            LOCALITY_WEIGHT_MAX.into(),
        )?;
        each("endpoints", &locality.endpoints, |endpoint| {
            within("weight", endpoint.weight.into(), 1, WEIGHT_MAX.into())?;
            ensure(endpoint.address.port() != 0, "address", || {
                "needs a port other than 0".into()
            })?;
            ensure(seen.insert(endpoint.address), "address", || {
                format!("`{}` is in this set twice", endpoint.address)
            })
        })
    })
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
