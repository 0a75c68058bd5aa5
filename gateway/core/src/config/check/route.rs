//! Checks of route tables.

use std::fmt;

use hashbrown::HashSet;

use super::{
    Checked, WEIGHT_MAX, each, ensure, http, named, policy, positive, telemetry, under, within,
};
use crate::config::route::{
    Action, HeaderMatch, HeaderOps, PathMatch, Reply, Retry, RouteConfig, RouteMatch,
};
use crate::config::{RouteTableConfig, VirtualHostConfig};

/// More retries than this are a mistake; gRFC A6 allows 4.
const RETRY_ATTEMPTS_MAX: u32 = 16;
/// Memory that one call may hold for retries.
const RETRY_BUFFER_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// Bounds of GEP-3388.
const BUDGET_INTERVAL_MS: (u64, u64) = (1_000, 3_600_000);
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

/// A table by itself; its regular expressions are checked by compiling them.
pub(super) fn route_table(table: &RouteTableConfig) -> Checked {
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
                    "must be `*`, an IP address, or a lower-case DNS name, with or without `*.` in front; \
                     it is `{hostname}`"
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
    each("rate_limits", &route.rate_limits, policy::rate_limit)?;
    each("mirrors", &route.mirrors, policy::mirror)?;
    if let Some(fault) = &route.fault {
        under("fault", policy::fault(fault))?;
    }
    if let Some(session) = &route.session {
        under("session", policy::session(session))?;
    }
    if let Some(rewrite) = &route.rewrite {
        under("rewrite", http::rewrite(rewrite))?;
    }
    if let Some(cors) = &route.cors {
        under("cors", http::cors(cors))?;
    }
    if let Some(tracing) = &route.tracing {
        under("tracing", telemetry::route(tracing))?;
    }
    route
        .retry
        .as_ref()
        .map_or(Ok(()), |policy| under("retry", retry(policy)))
}

fn route_match(matches: &RouteMatch) -> Checked {
    match &matches.path {
        PathMatch::Exact(path) => absolute("path.exact", path)?,
        PathMatch::Prefix(path) => absolute("path.prefix", path)?,
        PathMatch::Segments(path) => {
            absolute("path.segments", path)?;
            ensure(!path.ends_with('/'), "path.segments", || {
                format!("must not end with `/`; it is `{path}`")
            })?;
        }
        PathMatch::Regex(_) => {}
    }
    if let Some(method) = &matches.method {
        http::method("method", method)?;
    }
    each("query", &matches.query, http::query_match)?;
    each("headers", &matches.headers, header_match)
}

pub(super) fn absolute(path: &str, value: &str) -> Checked {
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
                header_ops("response_headers", part.response_headers.as_ref())?;
                each("mirrors", &part.mirrors, policy::mirror)
            })
        }
        Action::Reply(reply) => under("reply", grpc_reply(reply)),
        Action::Redirect(redirect) => under("redirect", http::redirect(redirect)),
    }
}

pub(super) fn grpc_reply(reply: &Reply) -> Checked {
    within("grpc_status", reply.grpc_status.into(), 0, 16)?;
    let status = reply.http_status.unwrap_or(200);
    within("http_status", status.into(), 200, 599)
}

pub(super) fn header_ops(path: &str, ops: Option<&HeaderOps>) -> Checked {
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

pub(super) fn header_name(path: impl fmt::Display, name: &str) -> Checked {
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
    let intervals = [
        ("budget_interval_ms", retry.budget_interval_ms),
        ("min_retries_interval_ms", retry.min_retries_interval_ms),
    ];
    for (name, interval_ms) in intervals {
        within(
            name,
            interval_ms,
            BUDGET_INTERVAL_MS.0,
            BUDGET_INTERVAL_MS.1,
        )?;
    }
    for (position, code) in retry.http_codes.iter().enumerate() {
        within(format!("http_codes[{position}]"), (*code).into(), 100, 599)?;
    }
    for (position, code) in retry.grpc_codes.iter().enumerate() {
        within(format!("grpc_codes[{position}]"), (*code).into(), 1, 16)?;
    }
    Ok(())
}
