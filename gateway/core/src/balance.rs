//! Choice of an endpoint: priority, then locality, then endpoint.
//!
//! Decides which endpoint a try goes to. Leaves to others who is unhealthy, ejected or down
//! (`crate::endpoint`, `crate::outlier`, the control plane), and the weights.
//!
//! How it goes:
//! - An endpoint is available unless it is draining, unhealthy (by the control plane or by active
//!   checks), ejected or down.
//! - A priority can take its available capacity times `overprovision_percent`; what one cannot take
//!   goes to the next (`load`). Capacity is endpoint weight, not the number of endpoints.
//! - Inside a priority, localities share by their weight times what is available of them, with the
//!   same overprovision.
//! - When all priorities together are short, one that has less than `panic_percent` is in panic:
//!   health is ignored there, except that endpoints known to be down are left out while any other
//!   is there. Draining endpoints are used only when the cluster has nothing else at all.
//! - A rolling update is no loss: draining endpoints do not count while their locality has others.
//!   A locality that drains as a whole does count as lost.
//! - A retry avoids what was tried, if anything else is available at whatever priority.
//!
//! All that depends on health is computed once for each change of it, into a view that every worker
//! reads without waiting; a pick is then three draws.

mod load;
mod pool;
mod retry;
mod view;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use hashbrown::HashMap;

use self::view::View;
use crate::config::{Cluster, EndpointSet, Health, LoadBalancing, LocalityConfig, Name};
use crate::endpoint::{Drain, Endpoint, EndpointShared};
use crate::random::Draws;

/// The place of an endpoint in its [`EndpointTable`]; means nothing in another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointIndex(pub u32);

/// What one choice depends on besides the table.
pub struct PickContext<'a> {
    /// The present.
    pub now_ms: u64,
    /// Uniform over all of `u64`; a new one for each pick.
    pub random: u64,
    /// Endpoints tried already; avoided if anything else is available, at whatever priority.
    pub tried: &'a [SocketAddr],
    /// Member clusters that are known not to be able; avoided if any other is available, at
    /// whatever priority.
    pub tried_clusters: &'a [Name],
    /// Requests that the asking worker has open on an endpoint.
    pub outstanding: &'a dyn Fn(EndpointIndex) -> u32,
}

/// A choice and how it came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    /// The endpoint.
    pub index: EndpointIndex,
    /// The priority of its locality.
    pub priority: u32,
    /// Health was ignored, since too little was available.
    pub panic: bool,
    /// The endpoint had been tried already: nothing else was available.
    pub again: bool,
}

/// Why there is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// The cluster has no endpoints (of a locality with weight).
    #[error("the cluster has no endpoints")]
    Empty,
    /// None is available and `panic_percent` is 0.
    #[error(
        "no endpoint is available (all are unhealthy, ejected, down or draining) and panic is off"
    )]
    Unavailable,
}

/// The share of a priority at one moment, for telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriorityLoad {
    /// The priority as configured.
    pub priority: u32,
    /// Available capacity in percent of its total.
    pub available_percent: u32,
    /// Its share of traffic in percent; all priorities make 100, or 0 when nothing can be picked.
    pub load_percent: u32,
    /// Its health is ignored.
    pub panic: bool,
}

/// All endpoints of a cluster in one snapshot.
#[derive(Debug)]
pub struct EndpointTable {
    config: Arc<EndpointSet>,
    settings: Settings,
    endpoints: Vec<Endpoint>,
    by_address: HashMap<SocketAddr, EndpointIndex>,
    /// By priority; those without weight or endpoints are left out.
    localities: Vec<Locality>,
    changes: Arc<AtomicU64>,
    view: ArcSwap<View>,
}

/// What balancing takes from the cluster's configuration.
#[derive(Debug, Clone)]
struct Settings {
    lb: LoadBalancing,
    panic_percent: u64,
    overprovision_percent: u64,
    health_check: bool,
}

/// Endpoints that share a locality weight.
#[derive(Debug)]
struct Locality {
    priority: u32,
    weight: u64,
    members: Vec<EndpointIndex>,
    /// Where round robin is.
    cursor: AtomicU64,
}

// === impl PickError ===

impl PickError {
    /// One word for labels and `x-federation-reason`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Empty => "no_endpoints",
            Self::Unavailable => "no_available_endpoint",
        }
    }
}

// === impl EndpointTable ===

impl EndpointTable {
    /// The table of a checked set. Endpoints that `prev` has keep what was learned about them and
    /// when they began to drain; `changes` is the cluster's counter.
    pub(crate) fn new(
        cluster: &Cluster,
        config: &Arc<EndpointSet>,
        prev: Option<&Self>,
        changes: &Arc<AtomicU64>,
        now_ms: u64,
    ) -> Self {
        let mut table = Self {
            settings: Settings::of(cluster),
            endpoints: Vec::new(),
            by_address: HashMap::new(),
            localities: Vec::new(),
            changes: Arc::clone(changes),
            view: ArcSwap::from_pointee(View::default()),
            config: Arc::clone(config),
        };
        for locality in &config.localities {
            table.add(locality, prev, now_ms);
        }
        table.localities.sort_by_key(|locality| locality.priority);
        table.view.store(Arc::new(View::new(&table, now_ms)));
        table
    }

    fn add(&mut self, config: &LocalityConfig, prev: Option<&Self>, now_ms: u64) {
        let first = self.endpoints.len();
        for endpoint in &config.endpoints {
            let before =
                prev.and_then(|prev| prev.find(endpoint.address).map(|index| prev.get(index)));
            let shared = before.map_or_else(
                || {
                    Arc::new(EndpointShared::new(
                        endpoint.address,
                        Arc::clone(&self.changes),
                    ))
                },
                |before| Arc::clone(&before.shared),
            );
            let drain = (endpoint.health == Health::Draining).then(|| {
                let since_ms = before
                    .and_then(|before| before.drain)
                    .map_or(now_ms, |drain| drain.since_ms);
                Drain {
                    since_ms,
                    deadline_ms: endpoint
                        .drain_grace_ms
                        .map(|grace| since_ms.saturating_add(grace)),
                }
            });
            self.by_address
                .insert(endpoint.address, EndpointIndex(self.endpoints.len() as u32));
            self.endpoints.push(Endpoint {
                address: endpoint.address,
                cluster_id: Name::clone(&config.cluster_id),
                region: Name::clone(&config.region),
                priority: config.priority,
                weight: endpoint.weight,
                health: endpoint.health,
                peer: endpoint.peer,
                drain,
                shared,
            });
        }
        if config.weight > 0 && first < self.endpoints.len() {
            self.localities.push(Locality {
                priority: config.priority,
                weight: config.weight.into(),
                members: (first..self.endpoints.len())
                    .map(|at| EndpointIndex(at as u32))
                    .collect(),
                // Not 0: gateways that take a snapshot together shall not take turns together.
                cursor: AtomicU64::new(Draws::new(now_ms).below(1 << 32)),
            });
        }
    }

    /// As configured.
    #[must_use]
    pub const fn config(&self) -> &Arc<EndpointSet> {
        &self.config
    }

    /// All endpoints; the position is the [`EndpointIndex`].
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The endpoint at an index that this table gave.
    ///
    /// # Panics
    /// With an index of another table that is beyond this one.
    #[must_use]
    pub fn get(&self, index: EndpointIndex) -> &Endpoint {
        &self.endpoints[index.0 as usize]
    }

    /// The endpoint with this address.
    #[must_use]
    pub fn find(&self, address: SocketAddr) -> Option<EndpointIndex> {
        self.by_address.get(&address).copied()
    }

    /// Chooses an endpoint for one try.
    ///
    /// # Errors
    /// When there is nothing to choose from.
    pub fn pick(&self, context: &PickContext<'_>) -> Result<Picked, PickError> {
        if self.localities.is_empty() {
            return Err(PickError::Empty);
        }
        let view = self.view(context.now_ms);
        let mut draws = Draws::new(context.random);
        let picked = if context.tried.is_empty() && context.tried_clusters.is_empty() {
            self.pick_fresh(&view, context, &mut draws)
        } else {
            self.pick_untried(&view, context, &mut draws)
        };
        picked.ok_or(PickError::Unavailable)
    }

    fn pick_fresh(
        &self,
        view: &View,
        context: &PickContext<'_>,
        draws: &mut Draws,
    ) -> Option<Picked> {
        let level = &view.levels[view.loads.pick(draws.next())?];
        let pool = &level.pools[level.shares.pick(draws.next())?];
        let position = match self.settings.lb {
            LoadBalancing::LeastRequest => pool.least_request(draws, context.outstanding),
            LoadBalancing::RoundRobin => pool.next_in_turn(&self.localities[pool.locality].cursor),
        };
        Some(level.picked(pool.members[position], false))
    }

    /// How traffic spreads over the priorities now.
    #[must_use]
    pub fn loads(&self, now_ms: u64) -> Vec<PriorityLoad> {
        self.view(now_ms)
            .levels
            .iter()
            .map(|level| level.load)
            .collect()
    }

    /// The view of the present; made anew when health changed or a time that it depends on has
    /// come. Workers that do so at once make the same one.
    fn view(&self, now_ms: u64) -> Guard<Arc<View>> {
        let view = self.view.load();
        // Acquire: what was stored before the count is seen by the view that is made for it.
        if view.is_of(self.changes.load(Ordering::Acquire), now_ms) {
            return view;
        }
        // Not loaded again after it is stored: another worker may have stored one that it began
        // earlier.
        let view = Arc::new(View::new(self, now_ms));
        self.view.store(Arc::clone(&view));
        Guard::from_inner(view)
    }
}

// === impl Settings ===

impl Settings {
    fn of(cluster: &Cluster) -> Self {
        Self {
            lb: cluster.lb,
            panic_percent: cluster.panic_percent.into(),
            overprovision_percent: cluster.overprovision_percent.into(),
            health_check: cluster.health_check,
        }
    }
}

#[cfg(test)]
mod tests;
