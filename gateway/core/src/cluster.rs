//! A cluster in a snapshot, and what its endpoints share over snapshots and workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use crate::balance::Source;
use crate::config::Cluster;
use crate::outlier::EjectionReason;
use crate::{EndpointShared, EndpointTable};

/// Counts of changes, each for a part of the endpoints: with it a view of 100,000 endpoints is
/// renewed by looking at a 64th of them.
const STRIPES: usize = 64;

/// A cluster of a snapshot.
#[derive(Debug, Clone)]
pub struct ClusterHandle {
    /// As configured.
    pub config: Arc<Cluster>,
    /// Its endpoints; empty when the snapshot has none.
    pub endpoints: Arc<EndpointTable>,
    /// Lives as long as any snapshot names the cluster.
    pub shared: Arc<ClusterShared>,
}

/// What the endpoints of a cluster have in common, over snapshots and workers.
#[derive(Debug, Default)]
pub struct ClusterShared {
    changes: Arc<Changes>,
    /// Endpoints of the newest snapshot: what the cap on ejections is a share of.
    members: AtomicUsize,
    /// Those that may be ejected still; written under `ejecting` only.
    out: ArcSwap<Vec<Arc<EndpointShared>>>,
    /// A thread is deciding about an ejection.
    ejecting: AtomicBool,
    /// Requests that are open on all workers; counted only where `max_requests` bounds them.
    requests: AtomicU32,
    counts: Counts,
}

/// A bound of a cluster that calls may meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    /// `max_connections`.
    Connections,
    /// `max_pending_requests`.
    Pending,
    /// `max_requests`.
    Requests,
    /// The retry budget of a route that leads here.
    RetryBudget,
}

/// For metrics: what is rare enough for all workers to count it in one place.
#[derive(Debug, Default)]
struct Counts {
    ejections: [AtomicU64; EjectionReason::ALL.len()],
    /// Calls that wait for a connection.
    pending: AtomicU32,
    /// How often a worker met the bound after it had not.
    opened: [AtomicU64; Breaker::ALL.len()],
    /// Workers that meet it now.
    full: [AtomicU32; Breaker::ALL.len()],
}

/// Counts changes of what balancing depends on.
#[derive(Debug)]
pub(crate) struct Changes {
    count: AtomicU64,
    stripes: [AtomicU32; STRIPES],
}

// === impl Changes ===

impl Default for Changes {
    fn default() -> Self {
        Self {
            count: AtomicU64::new(0),
            stripes: [const { AtomicU32::new(0) }; STRIPES],
        }
    }
}

impl Changes {
    /// Something about an endpoint of this block changed. The stripe comes first: who sees the new
    /// count sees it too.
    pub(crate) fn changed(&self, block: usize) {
        self.stripes[block % STRIPES].fetch_add(1, Ordering::Release);
        self.count.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn of_block(&self, block: usize) -> u32 {
        self.stripes[block % STRIPES].load(Ordering::Acquire)
    }
}

// === impl ClusterHandle ===

impl ClusterHandle {
    /// A cluster after `prev` (if there was one), keeping what was learned about endpoints that
    /// stay.
    pub(crate) fn new(
        config: Arc<Cluster>,
        source: Source<'_>,
        prev: Option<&Self>,
        now_ms: u64,
    ) -> Self {
        let shared = prev.map_or_else(Arc::default, |prev| Arc::clone(&prev.shared));
        let prev = prev.map(|prev| &*prev.endpoints);
        let endpoints = EndpointTable::new(&config, source, prev, &shared.changes, now_ms);
        Self {
            config,
            endpoints: Arc::new(endpoints),
            shared,
        }
    }

    /// Makes this the newest: called when the snapshot that has it is accepted.
    pub(crate) fn adopt(&self) {
        self.endpoints.adopt();
        self.shared
            .members
            .store(self.endpoints.len(), Ordering::Relaxed);
    }
}

// === impl Breaker ===

impl Breaker {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 4] = [
        Self::Connections,
        Self::Pending,
        Self::Requests,
        Self::RetryBudget,
    ];

    /// The word for labels.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::Pending => "max_pending",
            Self::Requests => "max_requests",
            Self::RetryBudget => "retry_budget",
        }
    }
}

// === impl ClusterShared ===

impl ClusterShared {
    /// How many endpoints the newest snapshot has.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members.load(Ordering::Relaxed)
    }

    /// How many of them are ejected.
    #[must_use]
    pub fn ejected(&self, now_ms: u64) -> usize {
        let out = self.out.load();
        out.iter().filter(|member| member.is_out(now_ms)).count()
    }

    /// Counts an ejection.
    pub fn count_ejection(&self, reason: EjectionReason) {
        self.counts.ejections[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Ejections so far for a reason.
    #[must_use]
    pub fn ejections(&self, reason: EjectionReason) -> u64 {
        self.counts.ejections[reason as usize].load(Ordering::Relaxed)
    }

    /// One more call waits for a connection.
    pub fn count_waiting(&self) {
        self.counts.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// So many calls wait no more.
    pub fn count_served(&self, calls: u32) {
        self.counts.pending.fetch_sub(calls, Ordering::Relaxed);
    }

    /// Calls that wait for a connection on all workers.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.counts.pending.load(Ordering::Relaxed)
    }

    /// A worker begins to meet a bound.
    pub fn opened(&self, breaker: Breaker) {
        self.counts.opened[breaker as usize].fetch_add(1, Ordering::Relaxed);
        self.counts.full[breaker as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A worker meets the bound no more.
    pub fn closed(&self, breaker: Breaker) {
        self.counts.full[breaker as usize].fetch_sub(1, Ordering::Relaxed);
    }

    /// How often workers began to meet a bound, and whether one meets it now.
    #[must_use]
    pub fn breaker(&self, breaker: Breaker) -> (u64, bool) {
        let opened = self.counts.opened[breaker as usize].load(Ordering::Relaxed);
        let full = self.counts.full[breaker as usize].load(Ordering::Relaxed);
        (opened, full > 0)
    }

    /// Takes a place among `max` requests at a time, over all workers; `false` when there is none.
    #[must_use]
    pub fn admit(&self, max: u32) -> bool {
        let admitted = self.requests.fetch_add(1, Ordering::Relaxed) < max;
        if !admitted {
            self.release();
        }
        admitted
    }

    /// Gives back the place that [`Self::admit`] gave.
    pub fn release(&self) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }

    /// Ejects `endpoint` by `eject` if fewer than `allowed` are out. Unless another thread is
    /// deciding; then `None`, and the next failure asks again.
    pub(crate) fn eject_within<T>(
        &self,
        allowed: usize,
        endpoint: &Arc<EndpointShared>,
        now_ms: u64,
        eject: impl FnOnce() -> T,
    ) -> Option<T> {
        if self.ejecting.swap(true, Ordering::Acquire) {
            return None;
        }
        let out = self.out.load();
        let still = out.iter().filter(|member| member.is_out(now_ms));
        let mut still: Vec<_> = still.cloned().collect();
        let ejected = (still.len() < allowed && !endpoint.is_out(now_ms)).then(|| {
            still.push(Arc::clone(endpoint));
            eject()
        });
        if ejected.is_some() {
            self.out.store(Arc::new(still));
        }
        self.ejecting.store(false, Ordering::Release);
        ejected
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::ClusterShared;
    use crate::config::{Cluster, parse_update};

    #[test]
    fn places_are_bounded_and_come_back() {
        let shared = ClusterShared::default();
        assert!(shared.admit(2) && shared.admit(2));
        assert!(!shared.admit(2) && !shared.admit(1), "a refusal takes none");
        assert!(shared.admit(3), "a larger bound holds from now on");
        shared.release();
        shared.release();
        assert!(shared.admit(2));
    }

    /// A cluster with the defaults and outlier ejection.
    pub(crate) fn cluster(name: &str) -> Cluster {
        let update = format!(
            r#"{{"version": "1", "full": true, "clusters": [{{"name": "{name}", "outlier":
                {{"consecutive_failures": 5, "consecutive_gateway_failures": 3}}}}]}}"#
        );
        parse_update(update.as_bytes()).unwrap().clusters.remove(0)
    }
}
