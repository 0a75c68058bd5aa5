//! Route tables: from host, path and headers to a route, and from a route to a cluster.
//!
//! Decides which virtual host a hostname has (exact, then the longest wildcard, then `*`), which of
//! its routes is first to match, and which part of a split a call takes. Leaves the order of routes
//! to whoever wrote the configuration (Gateway API's rules of precedence), and what to answer when
//! nothing matches to `gateway-proxy`.
//!
//! Invariants: a lookup gives what trying every route in order would give; it allocates nothing,
//! and its cost does not grow with the number of routes that have an exact path, a `/service/`
//! prefix, or a method of any service.

mod host;
mod index;
mod limits;
mod matcher;

use std::fmt;
use std::sync::{Arc, OnceLock};

use self::host::HostMap;
pub(crate) use self::host::without_port;
use self::index::PathIndex;
pub(crate) use self::limits::KnownLimits;
use self::limits::Limits;
pub(crate) use self::matcher::{HeaderMatcher, compile_regex, compile_whole};
use self::matcher::{PathMatcher, QueryMatcher};
use crate::config::{
    Action, HeaderOps, Mirror, Name, Reply, RouteConfig, RouteTableConfig, Session,
    VirtualHostConfig, WeightedCluster,
};
use crate::fault::Injected;
use crate::http::{HttpChanges, Redirection};
use crate::limit::{self, Limited, RateLimit};
use crate::otlp::ReadyAttributes;
use crate::random::Draws;
use crate::session::Held;
use crate::split::Split;
use crate::{ConfigError, RetryPolicy};

/// A request's header fields.
pub trait HeaderLookup {
    /// The first value of the field with this lower-case name.
    fn first(&self, name: &str) -> Option<&[u8]>;

    /// Whether any of the field's values passes `test`: what conditions ask, so that it does not
    /// matter at which place a value stands. As it is it serves lookups in which no name repeats.
    fn any(&self, name: &str, test: &dyn Fn(&[u8]) -> bool) -> bool {
        self.first(name).is_some_and(test)
    }
}

/// No route takes the call; for gRPC each is UNIMPLEMENTED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// No virtual host has the hostname.
    #[error("no route has this host")]
    NoHost,
    /// The virtual host has no rule that matches.
    #[error("no rule of this host matches")]
    NoRule,
    /// The virtual host has a rule that matches, but for calls of gRPC only.
    #[error("the rule that matches takes calls of gRPC only")]
    NotGrpc,
}

/// Where a call goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target<'a> {
    /// To the part of the split with this position in [`Route::clusters`].
    Cluster(usize),
    /// It is answered at once.
    Reply(&'a Reply),
    /// The client is sent elsewhere.
    Redirect(&'a Redirection),
    /// Every weight is 0: UNAVAILABLE.
    NoWeight,
}

/// A compiled route.
#[derive(Debug)]
pub struct Route {
    config: RouteConfig,
    path: PathMatcher,
    headers: Vec<HeaderMatcher>,
    query: Vec<QueryMatcher>,
    split: Split,
    retry: Option<RetryPolicy>,
    limits: Vec<Arc<RateLimit>>,
    redirect: Option<Box<Redirection>>,
    http: Option<Box<HttpChanges>>,
    /// Made when a call is traced first: few of many routes are.
    told: OnceLock<ReadyAttributes>,
}

/// A compiled route table; the default one has no host.
#[derive(Debug, Default)]
pub struct RouteTable {
    name: Name,
    hosts: HostMap,
    virtual_hosts: Vec<VirtualHost>,
    limits: Limits,
}

#[derive(Debug)]
struct VirtualHost {
    name: Name,
    hostnames: Vec<Name>,
    routes: Vec<Arc<Route>>,
    index: PathIndex,
}

/// Where in a table a cluster is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    host: usize,
    route: usize,
    part: Option<usize>,
    mirror: Option<usize>,
}

// === impl Reference ===

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "virtual_hosts[{}].routes[{}]", self.host, self.route)?;
        if let Some(part) = self.part {
            write!(f, ".action.weighted[{part}]")?;
        }
        if let Some(mirror) = self.mirror {
            write!(f, ".mirrors[{mirror}]")?;
        }
        f.write_str(".cluster")
    }
}

// === impl Route ===

impl Route {
    /// `ConfigError::path` is relative to the route.
    fn compile(
        config: RouteConfig,
        (limits, known): (&mut Limits, &KnownLimits),
    ) -> Result<Self, ConfigError> {
        let matches = &config.matches;
        let path =
            PathMatcher::compile(&matches.path).map_err(|error| error.under("match.path"))?;
        let (split, redirect) = match &config.action {
            Action::Weighted(parts) => (
                Split::new(parts.iter().map(|part| part.weight.into())),
                None,
            ),
            Action::Reply(_) => (Split::new(std::iter::empty()), None),
            Action::Redirect(redirect) => {
                let compiled = Redirection::compile(redirect.clone(), &matches.path)
                    .map_err(|error| error.under("action.redirect"))?;
                (Split::new(std::iter::empty()), Some(Box::new(compiled)))
            }
        };
        Ok(Self {
            path,
            headers: compiled("match.headers", &matches.headers, HeaderMatcher::compile)?,
            query: compiled("match.query", &matches.query, QueryMatcher::compile)?,
            split,
            retry: config.retry.clone().map(RetryPolicy::new),
            limits: compiled("rate_limits", &config.rate_limits, |it| {
                limits.limit(it, known)
            })?,
            redirect,
            http: HttpChanges::compile(
                config.rewrite.as_ref(),
                config.cors.as_ref(),
                &matches.path,
            )?,
            told: OnceLock::new(),
            config,
        })
    }

    fn matches_beside_path(&self, headers: &impl HeaderLookup, query: &[u8]) -> bool {
        let method = self.config.matches.method.as_ref();
        method.is_none_or(|method| headers.first(":method") == Some(method.as_bytes()))
            && self.headers.iter().all(|header| header.matches(headers))
            && self.query.iter().all(|parameter| parameter.matches(query))
    }

    /// For logs, metrics and messages.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.config.name
    }

    /// The route that a rule with this name is of, by the names that control planes give: `KIND NS/NAME rule NAME`,
    /// `ROUTE/rule-N`.
    #[must_use]
    pub fn parent_of(rule: &str) -> &str {
        let found = rule.rsplit_once(" rule ");
        let found = found.or_else(|| rule.rsplit_once("/rule-"));
        found.map_or(rule, |it| it.0)
    }

    /// What all spans of its calls say of it.
    pub fn span_attributes(&self) -> &ReadyAttributes {
        self.told.get_or_init(|| {
            ReadyAttributes::new(|attributes| {
                if !self.name().is_empty() {
                    attributes.text("federation.route", Self::parent_of(self.name()));
                    attributes.text("federation.rule", self.name());
                }
            })
        })
    }

    /// As configured.
    #[must_use]
    pub const fn config(&self) -> &RouteConfig {
        &self.config
    }

    /// Chooses by weight; `random` uniform over all of `u64`.
    #[must_use]
    pub fn pick(&self, random: u64) -> Target<'_> {
        match &self.config.action {
            Action::Weighted(_) => self
                .split
                .pick(random)
                .map_or(Target::NoWeight, Target::Cluster),
            Action::Reply(reply) => Target::Reply(reply),
            Action::Redirect(_) => self
                .redirect
                .as_ref()
                .map_or(Target::NoWeight, |redirect| Target::Redirect(redirect)),
        }
    }

    /// The position of the part of the split that a session is with, while calls may go there; a
    /// part whose weight became 0 has no sessions either. Its endpoint is for
    /// [`Affinity::pinned`](crate::Affinity::pinned).
    #[must_use]
    pub fn held(&self, held: &Held) -> Option<usize> {
        let mut parts = self.clusters().iter();
        parts.position(|part| part.weight > 0 && held.is_with(&part.cluster))
    }

    /// Counts a call by the route's rate limits.
    ///
    /// # Errors
    /// When one of them does not let it pass.
    pub fn pass(&self, headers: &impl HeaderLookup, now_ms: u64) -> Result<(), Limited> {
        limit::pass(&self.limits, headers, now_ms)
    }

    /// The faults of one call; `random` uniform over all of `u64`.
    #[must_use]
    pub fn inject(&self, random: u64) -> Injected<'_> {
        let fault = self.config.fault.as_ref();
        fault.map_or_else(Injected::default, |fault| fault.inject(random))
    }

    /// Where copies of one call go, which itself goes to `part`; `random` uniform over all of
    /// `u64`.
    pub fn mirrors<'a>(
        &'a self,
        part: &'a WeightedCluster,
        random: u64,
    ) -> impl Iterator<Item = &'a Mirror> {
        let mut draws = Draws::new(random);
        let all = self.config.mirrors.iter().chain(&part.mirrors);
        all.filter(move |mirror| mirror.takes(draws.next()))
    }

    /// `None`: each call is balanced by itself.
    #[must_use]
    pub const fn session(&self) -> Option<&Session> {
        self.config.session.as_ref()
    }

    /// The parts of its split; none when it answers by itself.
    #[must_use]
    pub fn clusters(&self) -> &[WeightedCluster] {
        match &self.config.action {
            Action::Weighted(parts) => parts,
            Action::Reply(_) | Action::Redirect(_) => &[],
        }
    }

    /// What it changes besides header fields; `None`: nothing.
    #[must_use]
    pub fn http(&self) -> Option<&HttpChanges> {
        self.http.as_deref()
    }

    /// Changes to request headers.
    #[must_use]
    pub const fn request_headers(&self) -> Option<&HeaderOps> {
        self.config.request_headers.as_ref()
    }

    /// Changes to response headers.
    #[must_use]
    pub const fn response_headers(&self) -> Option<&HeaderOps> {
        self.config.response_headers.as_ref()
    }

    /// The route's own deadline.
    #[must_use]
    pub const fn timeout_ms(&self) -> Option<u64> {
        self.config.timeout_ms
    }

    /// Longest life of a stream.
    #[must_use]
    pub const fn max_stream_ms(&self) -> Option<u64> {
        self.config.max_stream_ms
    }

    /// Longest silence on a stream.
    #[must_use]
    pub const fn idle_timeout_ms(&self) -> Option<u64> {
        self.config.idle_timeout_ms
    }

    /// `None`: no retries.
    #[must_use]
    pub const fn retry(&self) -> Option<&RetryPolicy> {
        self.retry.as_ref()
    }
}

// === impl RouteTable ===

impl RouteTable {
    /// Compiles a checked table, with the limits that are `known` as they are now;
    /// `ConfigError::path` is relative to it.
    pub(crate) fn compile(
        config: RouteTableConfig,
        known: &KnownLimits,
    ) -> Result<Self, ConfigError> {
        let mut limits = Limits::default();
        let mut virtual_hosts = Vec::with_capacity(config.virtual_hosts.len());
        for (position, host) in config.virtual_hosts.into_iter().enumerate() {
            let host = VirtualHost::compile(host, (&mut limits, known))
                .map_err(|error| error.under(&format!("virtual_hosts[{position}]")));
            virtual_hosts.push(host?);
        }
        let hosts = HostMap::new(virtual_hosts.iter().map(|host| &host.hostnames[..]));
        Ok(Self {
            name: config.name,
            hosts,
            virtual_hosts,
            limits,
        })
    }

    /// Whether compiling `config` would give this table again.
    pub(crate) fn is_of(&self, config: &RouteTableConfig) -> bool {
        self.name == config.name
            && self.virtual_hosts.len() == config.virtual_hosts.len()
            && self
                .virtual_hosts
                .iter()
                .zip(&config.virtual_hosts)
                .all(|(host, config)| host.is_of(config))
    }

    /// Clusters that routes name, with the places where they do.
    pub(crate) fn references(&self) -> impl Iterator<Item = (Reference, &Name)> {
        let hosts = self.virtual_hosts.iter().enumerate();
        hosts.flat_map(|(host, virtual_host)| {
            let routes = virtual_host.routes.iter().enumerate();
            routes.flat_map(move |(route, compiled)| {
                let place = move |part, mirror| Reference {
                    host,
                    route,
                    part,
                    mirror,
                };
                let parts = compiled.clusters().iter().enumerate();
                let parts = parts.flat_map(move |(part, weighted)| {
                    let mirrors = weighted.mirrors.iter().enumerate();
                    let mirrors = mirrors
                        .map(move |(at, mirror)| (place(Some(part), Some(at)), &mirror.cluster));
                    mirrors.chain([(place(Some(part), None), &weighted.cluster)])
                });
                let mirrors = compiled.config.mirrors.iter().enumerate();
                let mirrors =
                    mirrors.map(move |(at, mirror)| (place(None, Some(at)), &mirror.cluster));
                parts.chain(mirrors)
            })
        })
    }

    /// The rate limit of this name.
    #[must_use]
    pub fn limit(&self, name: &str) -> Option<&Arc<RateLimit>> {
        self.limits.get(name)
    }

    /// All rate limits, in no order.
    pub fn limits(&self) -> impl Iterator<Item = &Arc<RateLimit>> {
        self.limits.iter()
    }

    /// As configured.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Every route, by virtual host and then in order of precedence.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.virtual_hosts.iter().flat_map(|host| &host.routes)
    }

    /// The first route that takes a call. `host` is `:authority` (case, port and a final dot do not
    /// matter), `path` is `:path` with its query, `headers` knows `:method` too, `is_grpc` says
    /// whether content-type begins with `application/grpc`.
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
        let position = self.hosts.find(host).ok_or(NoRoute::NoHost)?;
        let host = &self.virtual_hosts[position];
        let end = path.iter().position(|byte| *byte == b'?');
        let (path, query) = path.split_at(end.unwrap_or(path.len()));
        let query = query.strip_prefix(b"?").unwrap_or_default();
        let mut not_grpc = false;
        let mut candidates = host.index.candidates(path);
        candidates
            .find_map(|(at, path_matches)| {
                let route = &host.routes[at];
                let matches = (path_matches || route.path.matches(path))
                    && route.matches_beside_path(headers, query);
                let taken = is_grpc || !route.config.matches.grpc;
                not_grpc |= matches && !taken;
                (matches && taken).then_some(route)
            })
            .ok_or(if not_grpc {
                NoRoute::NotGrpc
            } else {
                NoRoute::NoRule
            })
    }
}

/// Compiles each of `configs`; `ConfigError::path` gets the name of the list and the position.
fn compiled<C, T>(
    list: &str,
    configs: &[C],
    mut compile: impl FnMut(&C) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    let compiled = configs.iter().enumerate().map(|(position, config)| {
        compile(config).map_err(|error| error.under(&format!("{list}[{position}]")))
    });
    compiled.collect()
}

// === impl VirtualHost ===

impl VirtualHost {
    fn compile(
        config: VirtualHostConfig,
        (limits, known): (&mut Limits, &KnownLimits),
    ) -> Result<Self, ConfigError> {
        let mut routes = Vec::with_capacity(config.routes.len());
        for (position, route) in config.routes.into_iter().enumerate() {
            let route = Route::compile(route, (&mut *limits, known))
                .map_err(|error| error.under(&format!("routes[{position}]")));
            routes.push(Arc::new(route?));
        }
        let index = PathIndex::new(routes.iter().map(|route| &route.config.matches.path));
        Ok(Self {
            name: config.name,
            hostnames: config.hostnames,
            routes,
            index,
        })
    }

    fn is_of(&self, config: &VirtualHostConfig) -> bool {
        self.name == config.name
            && self.hostnames == config.hostnames
            && self.routes.len() == config.routes.len()
            && self
                .routes
                .iter()
                .zip(&config.routes)
                .all(|(route, config)| route.config == *config)
    }
}

#[cfg(test)]
mod tests;
