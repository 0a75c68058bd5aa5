//! Routing and balancing decisions of the gateway.
//!
//! Decides: which route a call takes, which cluster of a weighted split, which endpoint; when an
//! endpoint is ejected or held to be down; whether a failed try is tried again, when, and under
//! which deadline. Leaves to others: sockets, HTTP/2, TLS and timers (`gateway-proxy`), and where
//! the configuration comes from (Python).
//!
//! Invariants:
//! - No clock and no randomness: `now_ms` (any monotonic origin, one for the process) and `random`
//!   are arguments, so the same arguments give the same answer.
//! - A [`Snapshot`] never changes; a delta shares every part that it does not name with the
//!   snapshot before it.
//! - What outlives snapshots ([`EndpointShared`]) is atomics only; nothing here waits for another
//!   thread.
//! - Everything from outside is checked once, in [`parse_update`] and [`Snapshot::apply`]; an error
//!   names the field's path.

// A test that cannot go on says so by panicking.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
pub mod aging;
pub mod balance;
pub mod cluster;
pub mod config;
pub mod cookie;
pub mod deadline;
pub mod endpoint;
mod error;
pub mod fault;
pub mod hash;
pub mod http;
pub mod limit;
pub mod meter;
pub mod methods;
pub mod otlp;
pub mod outcome;
pub mod outlier;
pub mod overload;
mod random;
pub mod retry;
pub mod route;
pub mod server_name;
pub mod session;
pub mod snapshot;
mod split;
pub mod status;
pub mod trace;

pub use balance::{
    Affinity, Differences, EndpointIndex, EndpointTable, PickContext, PickError, Picked,
};
pub use cluster::{Breaker, ClusterHandle, ClusterShared};
pub use config::{Name, Update, parse_update};
pub use endpoint::{Endpoint, EndpointShared};
pub use error::ConfigError;
pub use meter::LoadMeter;
pub use methods::{KnownMethods, MethodLabels};
pub use outcome::Outcome;
pub use outlier::Ejection;
pub use overload::{Admission, Overload};
pub use retry::{RetryBudget, RetryDecision, RetryPolicy, RetryState};
pub use route::{HeaderLookup, NoRoute, Route, RouteTable, Target};
pub use snapshot::Snapshot;
pub use status::Code;
