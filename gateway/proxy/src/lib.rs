//! The gateway's data plane: event loops, TLS and connections. Moves bytes; asks `gateway-core` where to and
//! `gateway-h2` what they mean.
//!
//! ```text
//!   owner (any thread)          worker threads (one poll each)
//!   Runtime ── Command ───────▶ Worker: listeners ▶ client connections ▶ calls ▶ pools ▶ endpoint connections
//!       ▲                          │ counters (relaxed atomics), notices (bounded list)
//!       └──────────────────────────┘
//! ```
//! Nothing is shared on the path of a request: each worker has its own sockets on both sides, its own tables and
//! counters, and an immutable snapshot. What workers learn about endpoints is in atomics of `gateway-core`.
//!
//! Memory: a stream holds at most its receive windows, its header list and its retry buffer; the windows of one
//! client's streams grow by a bounded sum (`relay`); what all of a worker hold together is bounded by
//! `Settings::buffers_max_bytes` (`memory`). A connection holds nothing while idle but its header tables, and goes when
//! it stays idle (`idleness`). Every queue and list states its bound.

mod abuse;
mod accept;
mod age;
mod answers;
mod bind;
mod bounds;
mod budgets;
mod call;
mod choice;
mod clock;
mod cluster_view;
mod clusters;
mod codec;
mod conn;
mod connect;
mod control;
mod counting;
mod descriptors;
mod dispatch;
mod downstream;
mod drain;
mod elsewhere;
mod events;
mod faults;
mod finish;
mod flow;
mod headers;
mod hello;
mod http_answer;
mod idleness;
mod leaving;
mod limits;
mod listener;
mod liveness;
mod load;
mod memory;
mod mirrors;
mod opening;
mod passthrough;
mod pipe;
mod pool;
mod relay;
mod reply;
mod rewrite;
mod routes;
mod runtime;
mod series;
mod sessions;
mod settings;
mod state;
mod stats;
mod telemetry;
mod timers;
mod tls;
mod transport;
mod tries;
mod tunnel;
mod upstream;
mod waiting;
mod web;
mod worker;

// What tests share is written for callers of this crate.
#[cfg(test)]
extern crate self as gateway_proxy;
#[cfg(test)]
mod panics;

pub use events::Notice;
pub use runtime::{ApplyReport, ListenerReport, Runtime, RuntimeError};
pub use settings::{Settings, SettingsError};
pub use telemetry::hub::Taken;
