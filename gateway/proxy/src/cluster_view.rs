//! What metrics tell of one cluster at the moment.

use std::collections::BTreeMap;

use gateway_core::outlier::EjectionReason;
use gateway_core::{Breaker, ClusterHandle, Name};
use serde_json::{Value, json};

/// Series that every cluster has: its tier, panic, what waits, streams on draining endpoints.
const SERIES: usize = 4;

/// See the module.
pub(crate) struct ClusterView {
    pub name: Name,
    /// The lowest priority that takes traffic.
    tier: Option<u32>,
    panic: bool,
    pending: u32,
    drain_streams: u64,
    ejections: BTreeMap<&'static str, u64>,
    /// Those that were ever met.
    breakers: BTreeMap<&'static str, (u64, bool)>,
}

// === impl ClusterView ===

impl ClusterView {
    pub fn of(cluster: &ClusterHandle, streams: &mut BTreeMap<Name, u64>, now_ms: u64) -> Self {
        let shared = &cluster.shared;
        let loads = cluster.endpoints.loads(now_ms);
        let mut taking = loads.iter().filter(|it| it.load_percent > 0);
        let ejections = EjectionReason::ALL.iter();
        let ejections = ejections.map(|it| (it.reason(), shared.ejections(*it)));
        let breakers = Breaker::ALL.iter();
        let breakers = breakers.map(|it| (it.word(), shared.breaker(*it)));
        Self {
            name: cluster.config.name.clone(),
            panic: taking.clone().any(|it| it.panic),
            tier: taking.next().map(|it| it.priority),
            pending: shared.pending(),
            drain_streams: streams.remove(&cluster.config.name).unwrap_or_default(),
            ejections: ejections.filter(|(_, count)| *count > 0).collect(),
            breakers: breakers.filter(|(_, (opened, _))| *opened > 0).collect(),
        }
    }

    /// Whether it is other than a cluster at rest.
    pub fn is_notable(&self) -> bool {
        let waits = self.pending > 0 || self.drain_streams > 0;
        let had = !self.ejections.is_empty() || !self.breakers.is_empty();
        waits || had || self.panic || self.tier != Some(0)
    }

    /// How many series it takes.
    pub fn series(&self) -> usize {
        SERIES + self.ejections.len() + 2 * self.breakers.len()
    }

    pub fn json(&self) -> Value {
        let breakers = self.breakers.iter();
        let breakers: BTreeMap<_, _> = breakers
            .map(|(word, (opened, full))| (*word, json!({"opened": opened, "full": full})))
            .collect();
        json!({
            "name": &*self.name,
            "tier": self.tier.map_or(-1, i64::from),
            "panic": self.panic,
            "pending": self.pending,
            "drain_streams": self.drain_streams,
            "ejections": self.ejections,
            "breakers": breakers,
        })
    }
}
