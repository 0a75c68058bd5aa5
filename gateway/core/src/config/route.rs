//! Route tables as they are configured; `crate::route` compiles them.

use serde::Deserialize;

use super::{
    Cors, Fault, Mirror, Name, QueryMatch, RateLimitConfig, Redirect, Rewrite, RouteTracing,
    Session,
};

/// A named set of virtual hosts; several listeners may use one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTableConfig {
    /// Unique name.
    pub name: Name,
    /// Virtual hosts; no hostname may be in two of them.
    pub virtual_hosts: Vec<VirtualHostConfig>,
}

/// The routes of some hostnames.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualHostConfig {
    /// For logs.
    pub name: Name,
    /// `grpc.example.com`, `*.example.com` (one or more labels in front, never the apex), or `*`.
    pub hostnames: Vec<Name>,
    /// In order of precedence: the first that matches wins.
    pub routes: Vec<RouteConfig>,
}

/// One rule: what it matches, and what happens then.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// For logs, metrics and messages, e.g. `app/user-service-route/rule-0`; rules with several
    /// matches repeat it.
    pub name: Name,
    /// What has to hold.
    #[serde(rename = "match")]
    pub matches: RouteMatch,
    /// Where the call goes.
    pub action: Action,
    /// Changes to request headers; those of the chosen cluster come after.
    #[serde(default)]
    pub request_headers: Option<HeaderOps>,
    /// Changes to response headers; those of the chosen cluster come before.
    #[serde(default)]
    pub response_headers: Option<HeaderOps>,
    /// Deadline of the call; the client's `grpc-timeout` can only lower it. `None`: the client's
    /// alone.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Longest life of a stream; `None`: unbounded.
    #[serde(default)]
    pub max_stream_ms: Option<u64>,
    /// Longest silence on a stream, both directions; `None`: unbounded.
    #[serde(default)]
    pub idle_timeout_ms: Option<u64>,
    /// `None`: failed tries are not repeated (what a peer refused unprocessed still is, see
    /// `gateway-proxy`).
    #[serde(default)]
    pub retry: Option<Retry>,
    /// A call must pass all that count it.
    #[serde(default)]
    pub rate_limits: Vec<RateLimitConfig>,
    /// `None`: no faults on purpose.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// Each is drawn apart; those of the chosen cluster come to them.
    #[serde(default)]
    pub mirrors: Vec<Mirror>,
    /// `None`: each call is balanced by itself.
    #[serde(default)]
    pub session: Option<Session>,
    /// `None`: the endpoint is asked for what the client asked for.
    #[serde(default)]
    pub rewrite: Option<Rewrite>,
    /// `None`: the service itself says who may call from a foreign page.
    #[serde(default)]
    pub cors: Option<Cors>,
    /// In place of the listener's sampling and tags, where the listener traces; `None`: those.
    #[serde(default)]
    pub tracing: Option<RouteTracing>,
}

/// Conditions on a request; all must hold.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteMatch {
    /// On `:path` without a query.
    pub path: PathMatch,
    /// On header fields; all must hold.
    #[serde(default)]
    pub headers: Vec<HeaderMatch>,
    /// On parameters of the query; all must hold.
    #[serde(default)]
    pub query: Vec<QueryMatch>,
    /// The HTTP method, case-sensitive; `None`: every one.
    #[serde(default)]
    pub method: Option<String>,
    /// Requires a content-type that begins with `application/grpc`.
    #[serde(default)]
    pub grpc: bool,
}

/// A condition on the path; case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// The beginning of the path, byte by byte.
    Prefix(String),
    /// The beginning of the path, whole segments alone: `/a` takes `/a`, `/a/` and `/a/b`, not `/ab`.
    /// It does not end with `/`.
    Segments(String),
    /// A regular expression (crate `regex`) for the whole path.
    Regex(String),
}

/// A condition on one header field: exactly one of `exact`, `regex` and `present: true`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    /// Lower case.
    pub name: Name,
    /// The whole value.
    #[serde(default)]
    pub exact: Option<String>,
    /// A regular expression for the whole value.
    #[serde(default)]
    pub regex: Option<String>,
    /// `true`: any value will do.
    #[serde(default)]
    pub present: Option<bool>,
}

/// What a route does with a call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Sends it to one of these clusters, proportional to weight.
    Weighted(Vec<WeightedCluster>),
    /// Answers it.
    Reply(Reply),
    /// Sends the client elsewhere.
    Redirect(Redirect),
}

/// One part of a split.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedCluster {
    /// A cluster's name.
    pub cluster: Name,
    /// 0 to 1,000,000; 0 gets nothing.
    pub weight: u32,
    /// Changes to request headers after those of the route.
    #[serde(default)]
    pub request_headers: Option<HeaderOps>,
    /// Changes to response headers before those of the route.
    #[serde(default)]
    pub response_headers: Option<HeaderOps>,
    /// Mirrors besides those of the route.
    #[serde(default)]
    pub mirrors: Vec<Mirror>,
}

/// An answer without an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// gRPC code, 0 to 16.
    pub grpc_status: u8,
    /// Status for a request that is not gRPC, 200 to 599; `None`: what the gRPC code means in HTTP.
    #[serde(default)]
    pub http_status: Option<u16>,
    /// Text of `grpc-message`, not encoded yet.
    pub message: String,
}

/// Changes to header fields: first `remove`, then `set`, then `add`. Names are lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderOps {
    /// Replaces every field of the name.
    pub set: Vec<(Name, Name)>,
    /// Adds a field beside those that are there.
    pub add: Vec<(Name, Name)>,
    /// Removes every field of the name.
    pub remove: Vec<Name>,
}

/// When and how often a failed try is repeated.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Which failures.
    #[serde(default)]
    pub on: Vec<RetryOn>,
    /// HTTP statuses for `retriable-status-codes`.
    #[serde(default)]
    pub http_codes: Vec<u16>,
    /// gRPC codes for `retriable-status-codes`.
    #[serde(default)]
    pub grpc_codes: Vec<u8>,
    /// Retries after the first try; at most 16.
    pub attempts: u32,
    /// Bound of the first wait; doubles with each retry. Default 25.
    #[serde(default = "default_base_ms")]
    pub base_ms: u64,
    /// Bound of every wait; at least `base_ms`. Default 250.
    #[serde(default = "default_max_ms")]
    pub max_ms: u64,
    /// A try without response headers after this long failed; `None`: the call's deadline alone.
    #[serde(default)]
    pub per_try_timeout_ms: Option<u64>,
    /// Retries as a share of requests over a window, 0 to 100; `None`: unbounded.
    #[serde(default)]
    pub budget_percent: Option<u8>,
    /// Routes with the same name and the same numbers share one budget; `None`: the route's own name.
    #[serde(default)]
    pub budget_name: Option<Name>,
    /// Length of that window, 1000 to 3,600,000 (GEP-3388 `budget.interval`). Default 10000.
    #[serde(default = "default_budget_interval_ms")]
    pub budget_interval_ms: u64,
    /// Retries that the budget always allows (GEP-3388 `minRetryRate.count`) in each
    /// `min_retries_interval_ms`. Default 10.
    #[serde(default = "default_min_retries")]
    pub min_retries: u32,
    /// 1000 to 3,600,000 (GEP-3388 `minRetryRate.interval`). Default 1000.
    #[serde(default = "default_min_retries_interval_ms")]
    pub min_retries_interval_ms: u64,
    /// Request bytes kept for a retry; beyond it the call is committed. Default 65536, at most 16
    /// MiB.
    #[serde(default = "default_buffer_bytes")]
    pub buffer_bytes: u32,
}

/// A kind of failure; `crate::retry` has the table of what each covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // the spelling is the meaning; the table is in `crate::retry`
pub enum RetryOn {
    #[serde(rename = "5xx")]
    ServerError,
    GatewayError,
    ConnectFailure,
    RefusedStream,
    Reset,
    RetriableStatusCodes,
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
}

const fn default_base_ms() -> u64 {
    25
}

const fn default_max_ms() -> u64 {
    250
}

const fn default_budget_interval_ms() -> u64 {
    10_000
}

const fn default_min_retries() -> u32 {
    10
}

const fn default_min_retries_interval_ms() -> u64 {
    1_000
}

const fn default_buffer_bytes() -> u32 {
    65_536
}
