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
//! - An endpoint that is new or comes back may begin with a part of its share (`slow_start`); one
//!   that comes back from an ejection gets one request first.
//!
//! All that depends on health is computed once for each change of it, into a view that every worker
//! reads without waiting; a pick is then three draws. Both the table and the view are made of parts
//! of bounded size that the next one shares unless they changed, so a change in a cluster of
//! 100,000 endpoints costs what it costs in a small one.

mod choose;
mod load;
mod members;
mod pool;
mod ring;
mod table;
mod view;

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Guard};

use self::choose::Choice;
use self::members::Members;
pub(crate) use self::members::block_of;
use self::ring::Ring;
use self::table::Builder;
pub(crate) use self::table::Source;
use self::view::View;
use crate::EndpointShared;
use crate::cluster::Changes;
use crate::config::{Cluster, LoadBalancing, Name};
use crate::endpoint::Endpoint;

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
    /// How busy an endpoint is: requests that the asking worker has open on it, or what
    /// [`LoadMeter::load`](crate::LoadMeter::load) says.
    pub outstanding: &'a dyn Fn(EndpointIndex) -> u32,
}

/// What binds a call to an endpoint, if anything does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Affinity {
    /// The hash of its key ([`Cluster::hash`](crate::config::Cluster::hash)); used by `ring_hash`
    /// and `maglev`.
    pub hash: Option<u64>,
    /// The endpoint of its session; taken if it is there, available and not tried.
    pub pinned: Option<SocketAddr>,
}

/// How a table differs from the one before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// Places whose endpoint is new, another one, or has changed.
    pub changed: Vec<EndpointIndex>,
    /// Addresses that are no more.
    pub gone: Vec<SocketAddr>,
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

/// All endpoints of a cluster in one snapshot. It shares the parts that did not change with the
/// table before it.
#[derive(Debug)]
pub struct EndpointTable {
    settings: Settings,
    members: Members,
    /// As configured; also those without weight or endpoints.
    localities: Vec<Locality>,
    /// By locality; empty when no keys are used.
    rings: Vec<Ring>,
    changes: Arc<Changes>,
    view: ArcSwap<View>,
    /// What [`EndpointTable::adopt`] has to tell endpoints.
    placed: Vec<EndpointIndex>,
    gone: Vec<Arc<EndpointShared>>,
    /// For [`EndpointTable::endpoints`].
    flat: OnceLock<Vec<Endpoint>>,
}

/// What balancing takes from the cluster's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settings {
    lb: LoadBalancing,
    table_size: u32,
    panic_percent: u64,
    overprovision_percent: u64,
    health_check: bool,
    /// 0: off.
    slow_start_ms: u64,
    slow_start_min_percent: u64,
}

/// Endpoints that share a locality weight.
#[derive(Debug, Clone)]
struct Locality {
    cluster_id: Name,
    region: Name,
    priority: u32,
    weight: u64,
    /// Where round robin is.
    cursor: Arc<AtomicU64>,
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
    /// The table of a checked source. Endpoints that `prev` has keep what was learned about them
    /// and when they began to drain; `changes` is the cluster's counter.
    pub(crate) fn new(
        cluster: &Cluster,
        source: Source<'_>,
        prev: Option<&Self>,
        changes: &Arc<Changes>,
        now_ms: u64,
    ) -> Self {
        let before = prev.map(|prev| (&prev.members, &prev.localities[..]));
        let mut builder = Builder::new(before, changes, now_ms);
        builder.apply(source);
        let mut table = Self {
            settings: Settings::of(cluster),
            members: builder.members,
            localities: builder.localities,
            rings: Vec::new(),
            changes: Arc::clone(changes),
            view: ArcSwap::from_pointee(View::default()),
            placed: builder.placed,
            gone: builder.gone,
            flat: OnceLock::new(),
        };
        table.rings = table.make_rings();
        let prev = prev.filter(|prev| prev.settings == table.settings);
        let old = prev.map(|prev| (prev.view.load_full(), prev.members.blocks()));
        let old = old.as_ref().map(|(view, blocks)| (&**view, *blocks));
        table.view.store(Arc::new(View::new(&table, now_ms, old)));
        table
    }

    fn make_rings(&self) -> Vec<Ring> {
        if !self.settings.lb.uses_keys() {
            return Vec::new();
        }
        let mut nodes = vec![Vec::new(); self.localities.len()];
        for (index, endpoint) in (0..).map(EndpointIndex).zip(self.members.iter()) {
            nodes[endpoint.locality as usize].push((index, endpoint.address, endpoint.weight));
        }
        let ring =
            |mut nodes: Vec<_>| Ring::new(self.settings.lb, self.settings.table_size, &mut nodes);
        nodes.into_iter().map(ring).collect()
    }

    /// Tells endpoints where they are from now on.
    pub(crate) fn adopt(&self) {
        for shared in &self.gone {
            shared.place(None);
        }
        for index in &self.placed {
            // The place of one that was removed last of all.
            if (index.0 as usize) < self.len() {
                self.get(*index).shared.place(Some(index.0));
            }
        }
    }

    /// How many endpoints there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Member cluster and region of each locality; one may come several times.
    pub fn places(&self) -> impl Iterator<Item = (&Name, &Name)> {
        let localities = self.localities.iter();
        localities.map(|locality| (&locality.cluster_id, &locality.region))
    }

    /// How many are gateways of other clusters.
    #[must_use]
    pub const fn peers(&self) -> usize {
        self.members.peers()
    }

    /// All endpoints; the position is the [`EndpointIndex`].
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.members.iter()
    }

    /// All endpoints as one slice; the position is the [`EndpointIndex`]. Copied together on first
    /// use: where there may be many, [`Self::iter`] and [`Self::differences`] cost less.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        self.flat.get_or_init(|| self.iter().cloned().collect())
    }

    /// What is other here than in `prev`, the table that a worker followed until now. Looks only at
    /// parts that the two do not share.
    #[must_use]
    pub fn differences(&self, prev: &Self) -> Differences {
        let (old, new) = (prev.members.blocks(), self.members.blocks());
        let mut differences = Differences::default();
        for at in 0..old.len().max(new.len()) {
            let (old, new) = (old.get(at), new.get(at));
            if let (Some(old), Some(new)) = (old, new)
                && Arc::ptr_eq(old, new)
            {
                continue;
            }
            let old = old.map_or(&[][..], |block| block);
            let new = new.map_or(&[][..], |block| block);
            let first = members::first_of(at);
            let changed = (first..)
                .zip(new)
                .enumerate()
                .filter(|(position, (_, endpoint))| {
                    old.get(*position).is_none_or(|old| !old.is_same(endpoint))
                });
            let changed = changed.map(|(_, (index, _))| EndpointIndex(index));
            differences.changed.extend(changed);
            let gone = old.iter().map(|endpoint| endpoint.address);
            let gone = gone.filter(|address| self.find(*address).is_none());
            differences.gone.extend(gone);
        }
        differences
    }

    /// The endpoint at an index that this table gave.
    ///
    /// # Panics
    /// With an index of another table that is beyond this one.
    #[must_use]
    pub fn get(&self, index: EndpointIndex) -> &Endpoint {
        self.members.get(index)
    }

    /// The endpoint with this address.
    #[must_use]
    pub fn find(&self, address: SocketAddr) -> Option<EndpointIndex> {
        self.members.find(address)
    }

    /// Chooses an endpoint for one try of a call that is bound to none.
    ///
    /// # Errors
    /// When there is nothing to choose from.
    pub fn pick(&self, context: &PickContext<'_>) -> Result<Picked, PickError> {
        self.pick_for(context, Affinity::default())
    }

    /// Chooses an endpoint for one try.
    ///
    /// # Errors
    /// When there is nothing to choose from.
    pub fn pick_for(
        &self,
        context: &PickContext<'_>,
        affinity: Affinity,
    ) -> Result<Picked, PickError> {
        let view = self.view(context.now_ms);
        if view.levels.is_empty() {
            return Err(PickError::Empty);
        }
        let mut choice = Choice::new(self, &view, context, affinity);
        choice.pick().ok_or(PickError::Unavailable)
    }

    /// Whether [`Self::pick`] would find an endpoint that was not tried yet. Nothing goes there for
    /// it, so an endpoint on its way back from an ejection still waits for its one request.
    #[must_use]
    pub fn has_untried(&self, context: &PickContext<'_>) -> bool {
        let view = self.view(context.now_ms);
        let picked = Choice::new(self, &view, context, Affinity::default()).choose();
        picked.is_some_and(|picked| !picked.again)
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
        if view.is_of(self.changes.count(), now_ms) {
            return view;
        }
        // Not loaded again after it is stored: another worker may have stored one that it began
        // earlier.
        let old = (&**view, self.members.blocks());
        let view = Arc::new(View::new(self, now_ms, Some(old)));
        self.view.store(Arc::clone(&view));
        Guard::from_inner(view)
    }
}

// === impl Settings ===

impl Settings {
    fn of(cluster: &Cluster) -> Self {
        Self {
            lb: cluster.lb,
            table_size: cluster.table_size,
            panic_percent: cluster.panic_percent.into(),
            overprovision_percent: cluster.overprovision_percent.into(),
            health_check: cluster.health_check,
            slow_start_ms: cluster.slow_start.as_ref().map_or(0, |it| it.window_ms),
            slow_start_min_percent: cluster
                .slow_start
                .as_ref()
                .map_or(100, |it| it.min_percent.into()),
        }
    }

    /// When an endpoint that became available then takes its whole share.
    const fn warm_at_ms(&self, since_ms: u64) -> u64 {
        if since_ms == 0 {
            0
        } else {
            since_ms.saturating_add(self.slow_start_ms)
        }
    }

    /// The part of its share that it takes now.
    fn warm_percent(&self, since_ms: u64, now_ms: u64) -> u64 {
        if now_ms >= self.warm_at_ms(since_ms) {
            return 100;
        }
        let percent = now_ms.saturating_sub(since_ms) * 100 / self.slow_start_ms.max(1);
        percent.max(self.slow_start_min_percent)
    }
}

#[cfg(test)]
mod tests;
