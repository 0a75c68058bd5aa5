//! Checks of clusters and their endpoints.

use std::net::SocketAddr;

use hashbrown::HashSet;

use super::route::header_name;
use super::{
    Checked, WEIGHT_MAX, cookie_name, each, ensure, named, positive, spiffe_patterns, under, within,
};
use crate::config::{
    Cluster, EndpointDelta, EndpointSet, HashOn, Keepalive, LocalityConfig, Outlier, SlowStart,
};

/// Largest weight of a locality: capacity may be given in finer units.
const LOCALITY_WEIGHT_MAX: u32 = 1_000_000_000;

/// Counters of results have twenty bits.
const REQUEST_VOLUME_MAX: u64 = 1_000_000;
/// Envoy's own bound.
const TABLE_SIZE_MAX: u64 = 5_000_011;
/// Longest slow start: an hour.
const SLOW_START_MS_MAX: u64 = 3_600_000;

pub(super) fn cluster(cluster: &Cluster) -> Checked {
    named("name", &cluster.name)?;
    positive("connect_timeout_ms", Some(cluster.connect_timeout_ms))?;
    positive("max_connections", cluster.max_connections.map(u64::from))?;
    positive("max_requests", cluster.max_requests.map(u64::from))?;
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
    let empty_status = cluster.empty_status.unwrap_or(503);
    within("empty_status", empty_status.into(), 400, 599)?;
    each("hash_on", &cluster.hash_on, hash_on)?;
    table_size(cluster.table_size)?;
    if let Some(SlowStart {
        window_ms,
        min_percent,
    }) = cluster.slow_start
    {
        within("slow_start.window_ms", window_ms, 1, SLOW_START_MS_MAX)?;
        within("slow_start.min_percent", min_percent.into(), 1, 100)?;
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
    if let Some(failures) = &outlier.failure_percentage {
        let at = |field: &str| format!("failure_percentage.{field}");
        let threshold = failures.threshold_percent;
        within(at("threshold_percent"), threshold.into(), 1, 100)?;
        let volume = failures.request_volume;
        within(at("request_volume"), volume.into(), 1, REQUEST_VOLUME_MAX)?;
    }
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

fn table_size(slots: u32) -> Checked {
    within("table_size", slots.into(), 2, TABLE_SIZE_MAX)?;
    let is_prime = (2..slots)
        .take_while(|n| n * n <= slots)
        .all(|n| !slots.is_multiple_of(n));
    ensure(is_prime, "table_size", || {
        format!("must be a prime, got {slots}")
    })
}

fn hash_on(on: &HashOn) -> Checked {
    let given = [
        on.header.is_some(),
        on.cookie.is_some(),
        on.source == Some(true),
    ];
    ensure(
        given.iter().filter(|given| **given).count() == 1 && on.source != Some(false),
        "",
        || "needs exactly one of `header`, `cookie` and `source: true`".into(),
    )?;
    on.header
        .as_ref()
        .map_or(Ok(()), |name| header_name("header", name))?;
    on.cookie
        .as_ref()
        .map_or(Ok(()), |name| cookie_name("cookie", name))
}

pub(super) fn endpoint_set(set: &EndpointSet) -> Checked {
    localities(&set.localities, &mut HashSet::new())
}

pub(super) fn endpoint_delta(delta: &EndpointDelta) -> Checked {
    let mut seen = HashSet::new();
    localities(&delta.localities, &mut seen)?;
    for (position, address) in delta.removed.iter().enumerate() {
        ensure(
            seen.insert(*address),
            format!("removed[{position}]"),
            || format!("`{address}` is in this delta twice"),
        )?;
    }
    Ok(())
}

fn localities(localities: &[LocalityConfig], seen: &mut HashSet<SocketAddr>) -> Checked {
    each("localities", localities, |locality| {
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
