//! What a worker remembers for each route beside the snapshot: its retry budget and its counters.
//!
//! Entries are keyed by the route's place in memory and hold the route alive, so a place cannot be taken by another
//! route while the entry stands. A call holds its entry by a plain count: no atomic is touched for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gateway_core::{Name, RetryBudget, Route};
use slab::Slab;

use crate::stats::{CallCounters, WorkerStats};

/// Entries of all routes that calls have used.
pub(crate) struct RouteMemory {
    /// Among how many workers a route's lowest rate of retries is divided.
    workers: u32,
    keys: HashMap<usize, usize>,
    entries: Slab<RouteEntry>,
}

/// See the module.
pub(crate) struct RouteEntry {
    pub route: Arc<Route>,
    pub budget: Option<RetryBudget>,
    calls: u32,
    counters: Vec<(Name, Arc<CallCounters>)>,
    own_answers: Option<Arc<CallCounters>>,
}

// === impl RouteMemory ===

impl RouteMemory {
    pub fn new(workers: u32) -> Self {
        Self {
            workers,
            keys: HashMap::new(),
            entries: Slab::new(),
        }
    }

    /// The entry of a route, made when it is new; counts one more call.
    pub fn enter(&mut self, route: &Arc<Route>) -> usize {
        let place = Arc::as_ptr(route) as usize;
        let key = *self.keys.entry(place).or_insert_with(|| {
            let retry = route.retry();
            self.entries.insert(RouteEntry {
                route: Arc::clone(route),
                budget: retry.and_then(|retry| retry.new_budget(self.workers)),
                calls: 0,
                counters: Vec::new(),
                own_answers: None,
            })
        });
        self.entries[key].calls += 1;
        key
    }

    /// A call has ended.
    pub fn leave(&mut self, key: usize) {
        self.entries[key].calls -= 1;
    }

    pub fn get(&self, key: usize) -> &RouteEntry {
        &self.entries[key]
    }

    pub fn get_mut(&mut self, key: usize) -> &mut RouteEntry {
        &mut self.entries[key]
    }

    /// Forgets routes that are not among `live` ones; those with calls stay until the next time.
    pub fn prune(&mut self, live: &HashSet<*const Route>) {
        let keys = &mut self.keys;
        self.entries.retain(|_, entry| {
            let place = Arc::as_ptr(&entry.route);
            let keep = entry.calls > 0 || live.contains(&place);
            if !keep {
                keys.remove(&(place as usize));
            }
            keep
        });
    }
}

// === impl RouteEntry ===

impl RouteEntry {
    /// The counters of this route on a cluster.
    pub fn counters(&mut self, cluster: &Name, stats: &WorkerStats) -> &CallCounters {
        let found = self.counters.iter().position(|(name, _)| name == cluster);
        let at = found.unwrap_or_else(|| {
            let counters = stats.calls(self.route.name(), cluster);
            self.counters.push((cluster.clone(), counters));
            self.counters.len() - 1
        });
        &self.counters[at].1
    }

    /// The counters of calls that the gateway answered before a cluster was chosen.
    pub fn own_answers(&mut self, stats: &WorkerStats) -> &CallCounters {
        let route = &self.route;
        self.own_answers
            .get_or_insert_with(|| stats.calls(route.name(), ""))
    }
}

#[cfg(test)]
mod tests {
    use super::{RouteMemory, WorkerStats};
    use gateway_core::{Snapshot, parse_update};
    use std::collections::HashSet;
    use std::sync::Arc;

    #[test]
    fn a_route_that_is_gone_is_forgotten_although_every_worker_remembers_it() {
        let update = br#"{"version": "1", "full": true, "listeners": [], "clusters": [{"name": "c"}],
            "endpoints": [], "secrets": [], "route_tables": [{"name": "t", "virtual_hosts": [{"name": "h",
            "hostnames": ["*"], "routes": [{"name": "r", "match": {"path": {"prefix": "/"}}, "action": {"weighted": [
            {"cluster": "c", "weight": 1}]}}]}]}]}"#;
        let update = parse_update(update).expect("is an update");
        let snapshot = Snapshot::apply(&Snapshot::default(), update, 0).expect("fits");
        let table = snapshot.table("t").expect("is there");
        let route = table.routes().next().expect("is there");
        let mut workers = [RouteMemory::new(2), RouteMemory::new(2)];
        let live = HashSet::from([Arc::as_ptr(route)]);
        for memory in &mut workers {
            let key = memory.enter(route);
            memory
                .get_mut(key)
                .counters(&"c".into(), &WorkerStats::default());
            memory.prune(&HashSet::new());
            assert_eq!(memory.entries.len(), 1, "a call holds it");
            memory.leave(key);
            memory.prune(&live);
            assert_eq!(memory.entries.len(), 1, "the snapshot has it");
        }
        for memory in &mut workers {
            memory.prune(&HashSet::new());
            assert!(memory.entries.is_empty() && memory.keys.is_empty());
        }
    }
}
