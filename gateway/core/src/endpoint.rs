//! One endpoint: what the snapshot says about it, and what was learned about it since.
//!
//! What is learned has four parts, each with its own way back:
//!
//! | part | set by | ends |
//! |---|---|---|
//! | down | a failed connect, a connection that died in silence | with a good connection, or by time |
//! | ejected | results in a row (`crate::outlier`) | by time |
//! | unhealthy | an active check | with the next good check |
//! | counters | every result | with the next success |
//!
//! An endpoint that comes back from an ejection is tried with one real request first: until that
//! one (or an older one) succeeded, balancing avoids it.
//!
//! Invariant: whoever changes what balancing depends on counts up the cluster's changes afterwards,
//! so that a view that was made before is known to be old.

mod results;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use self::results::Results;
use crate::balance::block_of;
use crate::cluster::Changes;
use crate::config::{Cluster, Health, Name, Outlier};
use crate::outlier::{Ejection, EjectionReason};
use crate::random::Draws;

/// First wait before connecting again.
const RECONNECT_MS_MIN: u64 = 100;
/// Longest wait before connecting again.
const RECONNECT_MS_MAX: u64 = 5_000;
/// How long the one request to a returning endpoint is waited for before another is tried.
const PROBE_MS: u64 = 1_000;
/// The slot of an endpoint that no snapshot has any more.
const GONE: u32 = u32::MAX;

/// An endpoint in a snapshot.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// The member cluster that it is in (or leads to).
    pub cluster_id: Name,
    /// Its region.
    pub region: Name,
    /// Failover level of its locality.
    pub priority: u32,
    /// Its capacity against other endpoints.
    pub weight: u32,
    /// The control plane's word.
    pub health: Health,
    /// A gateway of another cluster.
    pub peer: bool,
    /// Present while `health` is draining.
    pub drain: Option<Drain>,
    /// What was learned; the same object in every snapshot that has this address in this cluster.
    pub shared: Arc<EndpointShared>,
    /// Position of its locality in the table.
    pub(crate) locality: u32,
    /// As configured.
    pub(crate) drain_grace_ms: Option<u64>,
}

/// A drain under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// When a snapshot first said so; kept by later ones.
    pub since_ms: u64,
    /// When streams that are left are ended; `None`: never.
    pub deadline_ms: Option<u64>,
}

/// What workers learned about an endpoint; shared by them and by all snapshots. Atomics only.
#[derive(Debug)]
pub struct EndpointShared {
    address: SocketAddr,
    /// The cluster's: see the module's head.
    changes: Arc<Changes>,
    /// Its index in the newest snapshot.
    slot: AtomicU32,
    /// When it became available; 0: there was no time when it was not.
    since_ms: AtomicU64,
    /// It was not available when balancing last looked.
    was_out: AtomicBool,
    /// 0: not down.
    down_until_ms: AtomicU64,
    reconnect_at_ms: AtomicU64,
    connect_failures: AtomicU32,
    check_failed: AtomicBool,
    /// 0: never was ejected.
    ejected_until_ms: AtomicU64,
    ejections: AtomicU32,
    /// Was ejected and has had no success since.
    on_return: AtomicBool,
    /// With `on_return`: a request is under way that shows what it is worth.
    probe_until_ms: AtomicU64,
    failures: AtomicU32,
    gateway_failures: AtomicU32,
    results: Results,
}

impl Endpoint {
    /// Whether nothing about it is other than in `other`.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
            && self.locality == other.locality
            && self.priority == other.priority
            && self.cluster_id == other.cluster_id
            && self.region == other.region
            && self.weight == other.weight
            && self.health == other.health
            && self.peer == other.peer
            && self.drain == other.drain
    }
}

impl EndpointShared {
    /// `since_ms`: see the field.
    pub(crate) const fn new(
        address: SocketAddr,
        changes: Arc<Changes>,
        slot: u32,
        since_ms: u64,
    ) -> Self {
        Self {
            address,
            changes,
            slot: AtomicU32::new(slot),
            since_ms: AtomicU64::new(since_ms),
            was_out: AtomicBool::new(false),
            down_until_ms: AtomicU64::new(0),
            reconnect_at_ms: AtomicU64::new(0),
            connect_failures: AtomicU32::new(0),
            check_failed: AtomicBool::new(false),
            ejected_until_ms: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            on_return: AtomicBool::new(false),
            probe_until_ms: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            gateway_failures: AtomicU32::new(0),
            results: Results::new(),
        }
    }

    /// Where this endpoint is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection could not be made, or died by silence: the endpoint is down for everybody.
    /// Returns when to try to connect again (0.1 s doubling to 5 s, the later half of it at
    /// random).
    ///
    /// It stays unavailable for `connect_timeout_ms` longer than that, so that the attempt can end
    /// before calls are risked. A second failure before that time changes nothing: workers often
    /// fail together.
    pub fn connect_failed(&self, cluster: &Cluster, now_ms: u64, random: u64) -> u64 {
        let was_down = self.is_down(now_ms);
        let planned_ms = self.reconnect_at_ms.load(Ordering::Relaxed);
        if was_down && now_ms < planned_ms {
            return planned_ms;
        }
        let steps = self
            .connect_failures
            .fetch_add(1, Ordering::Relaxed)
            .min(16);
        let bound_ms = (RECONNECT_MS_MIN << steps).min(RECONNECT_MS_MAX);
        let wait_ms = bound_ms / 2 + Draws::new(random).below(bound_ms / 2 + 1);
        let reconnect_at_ms = now_ms.saturating_add(wait_ms);
        self.reconnect_at_ms
            .store(reconnect_at_ms, Ordering::Relaxed);
        self.down_until_ms.store(
            reconnect_at_ms.saturating_add(cluster.connect_timeout_ms),
            Ordering::Relaxed,
        );
        if !was_down {
            self.changed();
        }
        reconnect_at_ms
    }

    /// A connection is up (SETTINGS came): the endpoint is available again. Returns whether it had
    /// failed before.
    pub fn connected(&self) -> bool {
        // Looked at before it is written: the line stays shared between workers while all is well.
        if self.down_until_ms.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let failed = self.down_until_ms.swap(0, Ordering::Relaxed) != 0;
        self.connect_failures.store(0, Ordering::Relaxed);
        self.changed();
        failed
    }

    /// Held to be down (see [`Self::connect_failed`]).
    #[must_use]
    pub fn is_down(&self, now_ms: u64) -> bool {
        self.down_until_ms(now_ms).is_some()
    }

    /// Until when it is held to be down, if it is and nothing happens.
    #[must_use]
    pub fn down_until_ms(&self, now_ms: u64) -> Option<u64> {
        Some(self.down_until_ms.load(Ordering::Relaxed)).filter(|until_ms| now_ms < *until_ms)
    }

    /// The result of an active health check. Returns whether it changed anything.
    pub fn set_active_health(&self, healthy: bool) -> bool {
        let changed = self.check_failed.swap(!healthy, Ordering::Relaxed) == healthy;
        if changed {
            self.changed();
        }
        changed
    }

    /// The last active check failed; without one so far, `false`.
    #[must_use]
    pub fn check_failed(&self) -> bool {
        self.check_failed.load(Ordering::Relaxed)
    }

    /// Ejected until then, if it is.
    #[must_use]
    pub fn ejected_until_ms(&self, now_ms: u64) -> Option<u64> {
        Some(self.ejected_until_ms.load(Ordering::Relaxed)).filter(|until_ms| now_ms < *until_ms)
    }

    pub(crate) fn succeeded(&self, policy: &Outlier, now_ms: u64) {
        if policy.failure_percentage.is_some() {
            self.results.count(false, policy.interval_ms, now_ms);
        }
        // Looked at first, for the same reason as in `connected`.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.gateway_failures.load(Ordering::Relaxed) != 0 {
            self.gateway_failures.store(0, Ordering::Relaxed);
        }
        if self.on_return.load(Ordering::Relaxed) {
            self.on_return.store(false, Ordering::Relaxed);
            self.changed();
        }
    }

    /// It has come back from an ejection and no success followed yet.
    #[must_use]
    pub fn is_on_return(&self) -> bool {
        self.on_return.load(Ordering::Relaxed)
    }

    /// Whether a request may go there, or another one is showing what it is worth.
    pub(crate) fn may_be_tried(&self, now_ms: u64) -> bool {
        !self.is_on_return() || now_ms >= self.probe_until_ms.load(Ordering::Relaxed)
    }

    /// A request goes there: if the endpoint is on its way back, others wait for the result.
    pub(crate) fn tried(&self, now_ms: u64) {
        if self.is_on_return() {
            let until_ms = now_ms.saturating_add(PROBE_MS);
            self.probe_until_ms.store(until_ms, Ordering::Relaxed);
        }
    }

    /// Balancing sees it as available or not; answers since when it is.
    pub(crate) fn seen(&self, available: bool, now_ms: u64) -> u64 {
        if !available {
            self.was_out.store(true, Ordering::Relaxed);
        } else if self.was_out.load(Ordering::Relaxed) {
            self.since_ms.store(now_ms, Ordering::Relaxed);
            self.was_out.store(false, Ordering::Relaxed);
        }
        self.since_ms.load(Ordering::Relaxed)
    }

    /// When it became available; 0: there was no time when it was not.
    pub(crate) fn since_ms(&self) -> u64 {
        self.since_ms.load(Ordering::Relaxed)
    }

    /// The newest snapshot has it here, or not at all. A change of place counts as a change of
    /// health: the view of that place may have been made while changes counted for the old one.
    pub(crate) fn place(&self, slot: Option<u32>) {
        let slot = slot.unwrap_or(GONE);
        if self.slot.swap(slot, Ordering::Relaxed) != slot && slot != GONE {
            self.changed();
        }
    }

    /// Ejected, and in the newest snapshot.
    pub(crate) fn is_out(&self, now_ms: u64) -> bool {
        self.slot.load(Ordering::Relaxed) != GONE && self.ejected_until_ms(now_ms).is_some()
    }

    /// Counts a failure by its share of results, in a cluster of so many members.
    pub(crate) fn failed_too_often(
        &self,
        policy: &Outlier,
        members: usize,
        now_ms: u64,
    ) -> Option<EjectionReason> {
        let mode = policy.failure_percentage.as_ref()?;
        let (all, failed) = self.results.count(true, policy.interval_ms, now_ms);
        let judged =
            all >= u64::from(mode.request_volume) && members >= mode.minimum_hosts as usize;
        let too_often = failed * 100 >= all * u64::from(mode.threshold_percent);
        (judged && too_often).then_some(EjectionReason::FailurePercentage)
    }

    /// Counts a failure; says why it is one too many, if it is.
    pub(crate) fn failed(&self, policy: &Outlier, by_gateway: bool) -> Option<EjectionReason> {
        let failures = count_up(&self.failures);
        let gateway_failures = if by_gateway {
            count_up(&self.gateway_failures)
        } else {
            reset(&self.gateway_failures)
        };
        let over = |limit: Option<u32>, count: u32| limit.is_some_and(|limit| count >= limit);
        let counts = policy.consecutive_failures.is_some()
            || (by_gateway && policy.consecutive_gateway_failures.is_some());
        if counts && self.on_return.load(Ordering::Relaxed) {
            Some(EjectionReason::FailedOnReturn)
        } else if over(policy.consecutive_gateway_failures, gateway_failures) {
            Some(EjectionReason::ConsecutiveGatewayFailures)
        } else if over(policy.consecutive_failures, failures) {
            Some(EjectionReason::ConsecutiveFailures)
        } else {
            None
        }
    }

    /// Takes the endpoint out; the caller made sure that the cap allows it and that no other thread
    /// does the same.
    pub(crate) fn eject(&self, policy: &Outlier, reason: EjectionReason, now_ms: u64) -> Ejection {
        let back_for_ms = now_ms.saturating_sub(self.ejected_until_ms.load(Ordering::Relaxed));
        let forgiven = back_for_ms / policy.interval_ms.max(1);
        let count =
            (u64::from(self.ejections.load(Ordering::Relaxed)).saturating_sub(forgiven) + 1) as u32;
        let time_ms = policy
            .base_ejection_ms
            .saturating_mul(count.into())
            .min(policy.max_ejection_ms);
        let until_ms = now_ms.saturating_add(time_ms);
        self.ejections.store(count, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        self.gateway_failures.store(0, Ordering::Relaxed);
        self.results.forget();
        self.on_return.store(true, Ordering::Relaxed);
        self.probe_until_ms.store(0, Ordering::Relaxed);
        self.ejected_until_ms.store(until_ms, Ordering::Relaxed);
        self.changed();
        Ejection {
            until_ms,
            count,
            reason,
        }
    }

    /// Whoever sees the new count sees what was stored before.
    fn changed(&self) {
        self.changes
            .changed(block_of(self.slot.load(Ordering::Relaxed)));
    }
}

fn count_up(counter: &AtomicU32) -> u32 {
    counter.fetch_add(1, Ordering::Relaxed).saturating_add(1)
}

fn reset(counter: &AtomicU32) -> u32 {
    counter.store(0, Ordering::Relaxed);
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::tests::cluster;

    fn endpoint() -> EndpointShared {
        EndpointShared::new("10.0.0.1:1".parse().unwrap(), Arc::default(), 0, 0)
    }

    #[test]
    fn down_lasts_until_a_reconnect_had_its_time() {
        let (endpoint, cluster) = (endpoint(), cluster("a"));
        let reconnect_at_ms = endpoint.connect_failed(&cluster, 1_000, 7);
        assert!((1_050..=1_100).contains(&reconnect_at_ms));
        assert!(endpoint.is_down(reconnect_at_ms + cluster.connect_timeout_ms - 1));
        assert!(!endpoint.is_down(reconnect_at_ms + cluster.connect_timeout_ms));
        assert!(endpoint.connected());
        assert!(!endpoint.is_down(1_000) && !endpoint.connected());
    }

    #[test]
    fn waits_double_up_to_a_bound_and_start_again_after_a_connection() {
        let (endpoint, cluster) = (endpoint(), cluster("a"));
        let mut now_ms = 0;
        for bound_ms in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let at_ms = endpoint.connect_failed(&cluster, now_ms, now_ms);
            assert!(
                (now_ms + bound_ms / 2..=now_ms + bound_ms).contains(&at_ms),
                "{bound_ms}"
            );
            now_ms = at_ms;
        }
        endpoint.connected();
        assert!(endpoint.connect_failed(&cluster, now_ms, 1) <= now_ms + 100);
    }

    #[test]
    fn workers_that_fail_together_count_once() {
        let (endpoint, cluster) = (endpoint(), cluster("a"));
        let first = endpoint.connect_failed(&cluster, 0, 1);
        assert_eq!(endpoint.connect_failed(&cluster, 1, 99), first);
        assert_eq!(endpoint.connect_failures.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn only_changes_count_as_changes() {
        let endpoint = endpoint();
        let changes = || endpoint.changes.count();
        assert!(!endpoint.set_active_health(true));
        assert!(endpoint.set_active_health(false) && endpoint.check_failed());
        assert!(!endpoint.set_active_health(false));
        endpoint.connected();
        endpoint.succeeded(&cluster("a").outlier.unwrap(), 0);
        assert_eq!(changes(), 1);
        endpoint.connect_failed(&cluster("a"), 0, 0);
        endpoint.connect_failed(&cluster("a"), 200, 0);
        assert_eq!(changes(), 2);
    }

    proptest! {
        #[test]
        fn ejection_time_grows_with_the_count_and_is_bounded(
            gaps in prop::collection::vec(0..100_000_u64, 1..40),
        ) {
            let policy = cluster("a").outlier.unwrap();
            let endpoint = endpoint();
            let (mut now_ms, mut count) = (0, 0);
            for gap_ms in gaps {
                let ejection = endpoint.eject(&policy, EjectionReason::ConsecutiveFailures, now_ms);
                prop_assert!(ejection.count <= count + 1);
                let time_ms = (30_000 * u64::from(ejection.count)).min(300_000);
                prop_assert_eq!(ejection.until_ms, now_ms + time_ms);
                count = ejection.count;
                now_ms = ejection.until_ms + gap_ms;
            }
        }
    }
}
