//! Clusters in the xDS sense: how to connect, balance, and judge the endpoints of one service.

use std::net::IpAddr;

use serde::Deserialize;

use super::Name;
use crate::hash::{hash_bytes, hash_ip};
use crate::random::mix;
use crate::{HeaderLookup, cookie};

/// How the endpoints of one name are reached and balanced.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Unique name.
    pub name: Name,
    /// Bound for TCP, TLS and the peer's first SETTINGS together. Default 5000.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// What its endpoints speak; peers speak HTTP/2 whatever this says. Default `http2`.
    #[serde(default)]
    pub protocol: Protocol,
    /// How an endpoint is chosen among those of a locality. Default `least_request`.
    #[serde(default)]
    pub lb: LoadBalancing,
    /// What `ring_hash` and `maglev` hash, see [`Cluster::hash`]; a call that has none of it is
    /// balanced like `least_request`.
    #[serde(default)]
    pub hash_on: Vec<HashOn>,
    /// Slots of a `maglev` table, a prime; more of them divide keys more evenly and cost four bytes
    /// each for every locality. Default 65537.
    #[serde(default = "default_table_size")]
    pub table_size: u32,
    /// `None`: a new endpoint takes its whole share at once.
    #[serde(default)]
    pub slow_start: Option<SlowStart>,
    /// `None`: no PINGs.
    #[serde(default)]
    pub keepalive: Option<Keepalive>,
    /// `None`: nothing is ejected.
    #[serde(default)]
    pub outlier: Option<Outlier>,
    /// Connections for each worker and endpoint; `None`: as many as streams need, and with HTTP/1 at
    /// most 1024.
    #[serde(default)]
    pub max_connections: Option<u32>,
    /// Requests of a worker that may wait for a connection; the next one fails. Default 1024.
    #[serde(default = "default_max_pending_requests")]
    pub max_pending_requests: u32,
    /// Requests that all workers together may have at its endpoints, waiting or open; the next one
    /// fails. `None`: no bound.
    #[serde(default)]
    pub max_requests: Option<u32>,
    /// A connection is replaced after as many; `None`: never.
    #[serde(default)]
    pub max_requests_per_connection: Option<u32>,
    /// Below this available share of a priority its health is ignored when all priorities together
    /// are short; 0 refuses instead. Default 50.
    #[serde(default = "default_panic_percent")]
    pub panic_percent: u8,
    /// How much of its share an endpoint can carry, in percent; 100 to 1000. Default 140.
    #[serde(default = "default_overprovision_percent")]
    pub overprovision_percent: u32,
    /// For endpoints with `peer`; needed when there are any.
    #[serde(default)]
    pub peer_tls: Option<PeerTls>,
    /// Whether active health checks run: what they report counts only then. An endpoint not checked
    /// yet is healthy.
    #[serde(default)]
    pub health_check: bool,
    /// HTTP status, 400 to 599, of the answer to a request that is not gRPC while there are no
    /// endpoints: 500 where a rule refers to what does not exist. Default 503.
    #[serde(default)]
    pub empty_status: Option<u16>,
}

/// A version of HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/2, without TLS by prior knowledge: gRPC, `kubernetes.io/h2c`.
    #[default]
    Http2,
    /// HTTP/1.1: one request at a time on a connection, which is kept for the next.
    Http1,
}

/// How an endpoint is chosen among those of a locality.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancing {
    /// Two at random by weight, then the one with fewer requests for its weight.
    #[default]
    LeastRequest,
    /// In turn, by weight.
    RoundRobin,
    /// Like `least_request`, by the time that answers take (with its peaks) times requests.
    PeakEwma,
    /// The same endpoint for the same key: points on a circle.
    RingHash,
    /// The same endpoint for the same key: a table of slots.
    Maglev,
}

/// Where the key of a call is: exactly one of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashOn {
    /// The value of this header, lower case.
    #[serde(default)]
    pub header: Option<Name>,
    /// The value of this cookie.
    #[serde(default)]
    pub cookie: Option<Name>,
    /// `true`: the client's IP address.
    #[serde(default)]
    pub source: Option<bool>,
}

/// How an endpoint that is new or comes back grows into its share; not with `ring_hash` and
/// `maglev`, where its keys are its own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowStart {
    /// How long it takes to the whole share.
    pub window_ms: u64,
    /// The part of its share that it begins with, 1 to 100. Default 10.
    #[serde(default = "default_min_percent")]
    pub min_percent: u8,
}

/// PING on a connection that has streams and is silent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keepalive {
    /// Silence before a PING.
    pub interval_ms: u64,
    /// Silence after it before the connection counts as dead.
    pub timeout_ms: u64,
}

/// Passive ejection by results (gRFC A50 in spirit, counted from trailers).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outlier {
    /// Failures of any kind in a row that eject; `None`: not counted.
    #[serde(default)]
    pub consecutive_failures: Option<u32>,
    /// Gateway failures (UNAVAILABLE, connect, reset, timeout) in a row that eject; `None`: not
    /// counted.
    #[serde(default)]
    pub consecutive_gateway_failures: Option<u32>,
    /// Ejects by the share of failures too, for endpoints that fail often but not in a row; `None`:
    /// not.
    #[serde(default)]
    pub failure_percentage: Option<FailurePercentage>,
    /// An endpoint that stays in for this long is forgiven one earlier ejection; also the length of
    /// the window of `failure_percentage`. Default 10000.
    #[serde(default = "default_interval_ms")]
    pub interval_ms: u64,
    /// Time out of service, times the number of ejections. Default 30000.
    #[serde(default = "default_base_ejection_ms")]
    pub base_ejection_ms: u64,
    /// Bound of it; at least `base_ejection_ms`. Default 300000.
    #[serde(default = "default_max_ejection_ms")]
    pub max_ejection_ms: u64,
    /// Share of the cluster's endpoints that may be out at once; one always may. Default 50.
    #[serde(default = "default_max_ejection_percent")]
    pub max_ejection_percent: u8,
}

/// Ejection by the share of failures in a window of `interval_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailurePercentage {
    /// This share of failures ejects, 1 to 100. Default 85.
    #[serde(default = "default_threshold_percent")]
    pub threshold_percent: u8,
    /// An endpoint with fewer results in the window is not judged, 1 to 1,000,000. Default 50.
    #[serde(default = "default_request_volume")]
    pub request_volume: u32,
    /// A cluster with fewer endpoints is not judged. Default 5.
    #[serde(default = "default_minimum_hosts")]
    pub minimum_hosts: u32,
}

/// Mutual TLS towards gateways of other clusters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerTls {
    /// Secret with this gateway's certificate and key.
    pub secret: Name,
    /// Secret whose `ca_pem` the peer must chain to.
    pub ca: Name,
    /// Server name to ask for.
    pub sni: Name,
    /// SPIFFE ids that the peer may have, see [`super::spiffe_allowed`].
    #[serde(default)]
    pub allowed_spiffe: Vec<Name>,
}

// === impl LoadBalancing ===

impl LoadBalancing {
    /// Whether an endpoint is chosen by a key of the call.
    #[must_use]
    pub const fn uses_keys(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

// === impl Cluster ===

impl Cluster {
    /// The hash of a call's key: all of `hash_on` that the call has, together. `None`: it has none, or
    /// balancing here uses no keys.
    pub fn hash(&self, headers: &impl HeaderLookup, source: IpAddr) -> Option<u64> {
        if !self.lb.uses_keys() {
            return None;
        }
        let found = self
            .hash_on
            .iter()
            .filter_map(|on| on.hash(headers, source));
        found.reduce(|all, one| mix(all.rotate_left(1) ^ one))
    }
}

impl HashOn {
    fn hash(&self, headers: &impl HeaderLookup, source: IpAddr) -> Option<u64> {
        match (&self.header, &self.cookie) {
            (Some(name), _) => Some(hash_bytes(0, headers.first(name)?)),
            (None, Some(name)) => Some(hash_bytes(0, cookie::value(headers, name)?)),
            (None, None) => Some(hash_ip(0, source)),
        }
    }
}

const fn default_min_percent() -> u8 {
    10
}

const fn default_table_size() -> u32 {
    65_537
}

const fn default_connect_timeout_ms() -> u64 {
    5_000
}

const fn default_max_pending_requests() -> u32 {
    1_024
}

const fn default_panic_percent() -> u8 {
    50
}

const fn default_overprovision_percent() -> u32 {
    140
}

const fn default_threshold_percent() -> u8 {
    85
}

const fn default_request_volume() -> u32 {
    50
}

const fn default_minimum_hosts() -> u32 {
    5
}

const fn default_interval_ms() -> u64 {
    10_000
}

const fn default_base_ejection_ms() -> u64 {
    30_000
}

const fn default_max_ejection_ms() -> u64 {
    300_000
}

const fn default_max_ejection_percent() -> u8 {
    50
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use crate::HeaderLookup;
    use crate::config::parse_update;

    struct Headers(&'static [(&'static str, &'static str)]);

    impl HeaderLookup for Headers {
        fn first(&self, name: &str) -> Option<&[u8]> {
            let mut found = self.0.iter().filter(|(other, _)| *other == name);
            found.next().map(|(_, value)| value.as_bytes())
        }
    }

    fn hash(lb: &str, headers: &'static [(&'static str, &'static str)]) -> Option<u64> {
        let update = format!(
            r#"{{"version": "1", "full": true, "clusters": [{{"name": "a", "lb": "{lb}", "hash_on":
                [{{"header": "x-user"}}, {{"header": "x-team"}}]}}]}}"#
        );
        let cluster = parse_update(update.as_bytes()).unwrap().clusters.remove(0);
        cluster.hash(&Headers(headers), IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    #[test]
    fn a_key_is_all_that_the_call_has_of_it() {
        let ann = hash("maglev", &[("x-user", "ann")]);
        let blue = hash("maglev", &[("x-team", "blue")]);
        let both = hash("maglev", &[("x-user", "ann"), ("x-team", "blue")]);
        assert!(ann.is_some() && blue.is_some() && both.is_some());
        assert!(ann != blue && ann != both && blue != both);
        assert_eq!(
            both,
            hash("ring_hash", &[("x-team", "blue"), ("x-user", "ann")])
        );
        assert_eq!(hash("maglev", &[("x-other", "1")]), None);
        assert_eq!(hash("least_request", &[("x-user", "ann")]), None);
    }
}
