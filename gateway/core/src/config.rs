//! The configuration document: one JSON message from the Python shell, its types, and the checks of
//! each object by itself. References between objects are checked by
//! [`Snapshot::apply`](crate::Snapshot::apply).
//!
//! Unknown fields are errors: a field that this core does not act on must not look as if it worked.
//! Fields shown with `null` may be absent; fields that have a default (given at the field) may be
//! absent.
//!
//! ```json
//! {
//!   "version": "42",
//!   "full": true,       // everything; false: insert or replace by name, then "removed"
//!   "listeners": [{
//!     "name": "public", "address": "0.0.0.0", "port": 20443,
//!     "kind": "ingress",                                     // or "east_west"
//!     "tls": {"certificates": ["web"], "client_ca": null,      // null: h2c
//!             "client_optional": false, "allowed_spiffe": [],
//!             "chains": [{"server_names": ["a.example.com"], "certificates": ["web"]},
//!                        {"server_names": ["*.example.org"],   // [] for all other names
//!                         "passthrough": {"name": "app/raw/rule-0", "idle_ms": null,
//!                                         "weighted": [{"cluster": "users", "weight": 1}]}}]},
//!     "connection": {                                        // what is left out has no bound
//!       "max_idle_ms": 300000, "max_age_ms": 1800000, "max_age_grace_ms": 30000,
//!       "ping_after_ms": 60000, "ping_timeout_ms": 20000,
//!       "ping_limit": {"min_interval_ms": 10000, "without_calls": false, "strikes": 2}},
//!     "route_table": "main",
//!     "telemetry": {                                         // null: nothing is told
//!       "tracing": {"collector": "infra/otel:4317", "sampling_per_million": 100000,
//!                   "tags": [{"name": "env", "literal": "test"},
//!                            {"name": "tenant", "header": "x-tenant", "default": null}]},
//!       "access_logs": [{"sink": {"otlp": "infra/otel:4317"},  // or {"file": "/dev/stdout"}
//!                        "format": "json",   // or {"json": [["to", "%DESTINATION_CLUSTER%"]]}
//!                                            // or {"text": "%START_TIME% %METHOD% %REASON%"}
//!                        "routes": null}]},  // all but those that other logs name; or names
//!     "passthrough": null   // in place of tls and a table: as in chains, for connections without TLS
//!   }],
//!   "route_tables": [{"name": "main", "virtual_hosts": [{
//!     "name": "app", "hostnames": ["grpc.example.com", "*.example.com", "*"],
//!     "routes": [{                                           // first match wins
//!       "name": "app/users/rule-0",
//!       "match": {
//!         "path": {"exact": "/pkg.Svc/M"},   // or "prefix", "segments", or "regex" (full match)
//!         "headers": [{"name": "version", "exact": "2"}], // or "regex": "...", or "present": true
//!         "query": [{"name": "page", "exact": "2"}],        // the same words
//!         "method": null,                                  // or "GET"
//!         "grpc": true                   // needs content-type application/grpc*; default false
//!       },
//!       "action": {  // or {"reply": {"grpc_status": 14, "http_status": 500, "message": "..."}}
//!                    // or {"redirect": {"status": 302, "scheme": null, "host": null, "port": null,
//!                    //                  "path": null}}, its path as in "rewrite"
//!         "weighted": [{"cluster": "users", "weight": 1,
//!                       "request_headers": null, "response_headers": null, "mirrors": []}]
//!       },
//!       "request_headers": {"set": [["x-a", "1"]], "add": [], "remove": []}, // or fewer lists
//!       "response_headers": null,
//!       "timeout_ms": 2000, "max_stream_ms": null, "idle_timeout_ms": null,
//!       "retry": {"on": ["unavailable"], "http_codes": [503], "grpc_codes": [14],
//!                 "attempts": 2, "base_ms": 200, "max_ms": 3000, "per_try_timeout_ms": null,
//!                 "budget_percent": 20, "budget_name": "app/policy", "budget_interval_ms": 10000,
//!                 "min_retries": 10, "min_retries_interval_ms": 1000, "buffer_bytes": 65536},
//!       "rate_limits": [{"name": "app/policy/rule-0",     // headers: see `LimitHeader`
//!         "headers": [{"name": "x-api-key", "distinct": true}],
//!         "requests": 1000, "unit": "minute",              // or "second", "hour", "day"
//!         "global": true, "first_share_per_million": 500000, "keys_max": 16384}],
//!       "fault": {"delay": {"ms": 100, "per_million": 10000},
//!                 "abort": {"reply": {"grpc_status": 14, "message": "drill"}, "per_million": 0}},
//!       "mirrors": [{"cluster": "users", "numerator": 1, "denominator": 3, // default 100 of 100
//!                    "request_headers": null}],
//!       "session": {"name": "sid", "kind": "cookie",         // or "header"
//!                   "absolute_ms": 3600000, "idle_ms": null, "permanent": true},
//!       "rewrite": {"host": "users.internal",                // path: or "prefix": "/x", or "full"
//!                   "path": {"regex": {"pattern": "^/a/", "substitution": "/"}}},
//!       "cors": {"origins": ["*"], "origin_regexes": [], "methods": ["PUT"], "headers": ["*"],
//!                "expose_headers": [], "credentials": false, "max_age_s": 5},
//!       "tracing": {"sampling_per_million": 1000000, "tags": []}  // null: the listener's
//!     }]
//!   }]}],
//!   "clusters": [{
//!     "name": "users", "connect_timeout_ms": 5000,
//!     "protocol": "http2",     // or "http1"
//!     "lb": "least_request",   // or "round_robin", "peak_ewma", "ring_hash", "maglev"
//!     "hash_on": [{"header": "x-user"}, {"cookie": "id"}, {"source": true}], // all that are there
//!     "table_size": 65537,                                           // of "maglev"; a prime
//!     "slow_start": {"window_ms": 30000, "min_percent": 10},       // null: at once
//!     "keepalive": {"interval_ms": 10000, "timeout_ms": 5000},
//!     "outlier": {"consecutive_failures": 5, "consecutive_gateway_failures": 3,
//!                 "failure_percentage": {"threshold_percent": 85, "request_volume": 50,
//!                                        "minimum_hosts": 5}, // null: in a row only
//!                 "interval_ms": 10000, "base_ejection_ms": 30000,
//!                 "max_ejection_ms": 300000, "max_ejection_percent": 50},
//!     "max_connections": null, "max_pending_requests": 1024, "max_requests": null,
//!     "max_requests_per_connection": null,
//!     "panic_percent": 50, "overprovision_percent": 140,
//!     "peer_tls": {"secret": "me", "ca": "peers", "sni": "gw",
//!                  "allowed_spiffe": ["spiffe://clusterset.local/ns/*"]},
//!     "health_check": false, "empty_status": 503
//!   }],
//!   "endpoints": [{"cluster": "users", "localities": [{
//!     "cluster_id": "us-west-1", "region": "us-west", "priority": 0, "weight": 1,
//!     "endpoints": [{"address": "10.0.0.7:50051", "weight": 1,
//!                    "health": "healthy",                    // or "draining", "unhealthy"
//!                    "peer": false, "drain_grace_ms": null}]
//!   }]}],
//!   "endpoint_deltas": [],  // not in a full update: {"cluster": "users", "localities": [as above,
//!                           // with what is new or other only], "removed": ["10.0.0.9:50051"]}
//!   "secrets": [{"name": "web", "certificate_pem": "...", "private_key_pem": "...",
//!                "ca_pem": null}],
//!   "removed": {"listeners": [], "route_tables": [], "clusters": [], "endpoints": [],
//!               "secrets": []}
//! }
//! ```
//! (JSON has no comments; these are for the reader. A complete document is in
//! `tests/data/update.json`.)

mod check;
mod cluster;
mod endpoints;
mod http;
mod limit;
mod listener;
mod policy;
mod route;
mod telemetry;

use std::sync::Arc;

use serde::Deserialize;

pub use self::cluster::{
    Cluster, FailurePercentage, HashOn, Keepalive, LoadBalancing, Outlier, PeerTls, Protocol,
    SlowStart,
};
pub use self::endpoints::{EndpointConfig, EndpointDelta, EndpointSet, Health, LocalityConfig};
pub use self::http::{Cors, PathRewrite, QueryMatch, Redirect, RegexRewrite, Rewrite};
pub use self::limit::{LimitHeader, LimitUnit, RateLimitConfig};
pub use self::listener::{
    ConnectionPolicy, Listener, ListenerKind, ListenerTls, Passthrough, PassthroughTarget,
    PingLimit, Secret, TlsChain, spiffe_allowed,
};
pub use self::policy::{Fault, FaultAbort, FaultDelay, Mirror, Session, SessionKind};
pub use self::route::{
    Action, HeaderMatch, HeaderOps, PathMatch, Reply, Retry, RetryOn, RouteConfig, RouteMatch,
    RouteTableConfig, VirtualHostConfig, WeightedCluster,
};
pub use self::telemetry::{
    AccessLog, DefaultFormat, ListenerTelemetry, LogFormat, LogSink, RouteTracing, Tag, Tracing,
};
use crate::ConfigError;

/// The name of a configured object; cheap to clone.
pub type Name = Arc<str>;

/// One configuration message: everything (`full`), or what changed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// The version that the snapshot gets; opaque.
    pub version: String,
    /// `true`: the document is everything there is. `false`: objects are inserted or replaced by
    /// name.
    pub full: bool,
    /// Listeners by name.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// Route tables by name.
    #[serde(default)]
    pub route_tables: Vec<RouteTableConfig>,
    /// Clusters by name.
    #[serde(default)]
    pub clusters: Vec<Cluster>,
    /// Endpoint sets by cluster; a set replaces the one that the cluster had.
    #[serde(default)]
    pub endpoints: Vec<EndpointSet>,
    /// Changes of endpoints by cluster; not in a full update, and not for a cluster that
    /// `endpoints` has.
    #[serde(default)]
    pub endpoint_deltas: Vec<EndpointDelta>,
    /// Secrets by name.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// What goes; must be empty in a full update. A name that is not there is no error.
    #[serde(default)]
    pub removed: Removed,
}

/// Names of objects that a delta removes. A removed cluster takes its endpoints with it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Removed {
    /// Names of listeners.
    pub listeners: Vec<Name>,
    /// Names of route tables.
    pub route_tables: Vec<Name>,
    /// Names of clusters.
    pub clusters: Vec<Name>,
    /// Names of clusters whose endpoint set goes; the cluster stays, without endpoints.
    pub endpoints: Vec<Name>,
    /// Names of secrets.
    pub secrets: Vec<Name>,
}

/// Reads an update and checks every object by itself (regular expressions are left to
/// [`Snapshot::apply`](crate::Snapshot::apply), which compiles them).
///
/// # Errors
/// With the path of the first field that is unknown, missing, of the wrong type or out of its
/// range.
pub fn parse_update(json: &[u8]) -> Result<Update, ConfigError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let update: Update = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        ConfigError::new(if path == "." { "update" } else { &path }, error.inner())
    })?;
    reader
        .end()
        .map_err(|error| ConfigError::new("update", error))?;
    check::update(&update)?;
    Ok(update)
}
