//! Route tables: from host, path and headers to a route, and from a route to a cluster.

use std::sync::Arc;

use crate::config::{HeaderOps, Reply, WeightedCluster};
use crate::{Name, RetryPolicy};

/// A request's header fields.
pub trait HeaderLookup {
    /// The first value of the field with this lower-case name.
    fn first(&self, name: &str) -> Option<&[u8]>;
}

/// No route takes the call; for gRPC both are UNIMPLEMENTED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// No virtual host has the hostname.
    #[error("no route has this host")]
    NoHost,
    /// The virtual host has no rule that matches.
    #[error("no rule of this host matches")]
    NoRule,
}

/// Where a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// To this part of the split.
    Cluster(&'a WeightedCluster),
    /// It is answered at once.
    Reply(&'a Reply),
    /// Every weight is 0: UNAVAILABLE.
    NoWeight,
}

/// A compiled route.
#[derive(Debug)]
pub struct Route {
    name: Name,
}

impl Route {
    /// For logs, metrics and messages.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Chooses by weight; `random` uniform over all of `u64`.
    #[must_use]
    pub fn pick(&self, random: u64) -> Target<'_> {
        let _ = random;
        unimplemented!()
    }

    /// Changes to request headers.
    #[must_use]
    pub fn request_headers(&self) -> Option<&HeaderOps> {
        unimplemented!()
    }

    /// Changes to response headers.
    #[must_use]
    pub fn response_headers(&self) -> Option<&HeaderOps> {
        unimplemented!()
    }

    /// The route's own deadline.
    #[must_use]
    pub fn timeout_ms(&self) -> Option<u64> {
        unimplemented!()
    }

    /// Longest life of a stream.
    #[must_use]
    pub fn max_stream_ms(&self) -> Option<u64> {
        unimplemented!()
    }

    /// Longest silence on a stream.
    #[must_use]
    pub fn idle_timeout_ms(&self) -> Option<u64> {
        unimplemented!()
    }

    /// `None`: no retries.
    #[must_use]
    pub fn retry(&self) -> Option<&RetryPolicy> {
        unimplemented!()
    }
}

/// A compiled route table.
#[derive(Debug)]
pub struct RouteTable {
    name: Name,
}

impl RouteTable {
    /// As configured.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The first route that takes a call. `host` is `:authority` (case and port do not matter), `path` is `:path`
    /// (a query does not matter), `is_grpc` says whether content-type begins with `application/grpc`.
    ///
    /// # Errors
    /// When no route takes it.
    pub fn lookup(
        &self,
        host: &[u8],
        path: &[u8],
        headers: &impl HeaderLookup,
        is_grpc: bool,
    ) -> Result<&Arc<Route>, NoRoute> {
        let _ = (host, path, headers, is_grpc);
        unimplemented!()
    }
}
