//! What a worker remembers for each route beside the snapshot: which retry budget it has, and its counters.
//!
//! Entries are keyed by the route's place in memory and hold the route alive, so a place cannot be taken by another
//! route while the entry stands. A call holds its entry by a plain count: no atomic is touched for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gateway_core::{Name, RetryBudget, RetryPolicy, Route};
use slab::Slab;

use crate::budgets::Budgets;
use crate::stats::{CallCounters, WorkerStats};

/// Entries of all routes that calls have used.
pub(crate) struct RouteMemory {
    budgets: Budgets,
    keys: HashMap<usize, usize>,
    entries: Slab<RouteEntry>,
}

/// See the module.
pub(crate) struct RouteEntry {
    pub route: Arc<Route>,
    /// Key of its retry budget.
    budget: Option<usize>,
    calls: u32,
    counters: Vec<(Name, Arc<CallCounters>)>,
    own_answers: Option<Arc<CallCounters>>,
}

// === impl RouteMemory ===

impl RouteMemory {
    pub fn new(workers: u32) -> Self {
        Self {
            budgets: Budgets::new(workers),
            keys: HashMap::new(),
            entries: Slab::new(),
        }
    }

    /// The entry of a route, made when it is new; counts one more call.
    pub fn enter(&mut self, route: &Arc<Route>) -> usize {
        let place = Arc::as_ptr(route) as usize;
        let key = *self.keys.entry(place).or_insert_with(|| {
            let budget = self.budgets.join(route);
            self.entries.insert(RouteEntry {
                route: Arc::clone(route),
                budget,
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

    /// Counts a call in its budget (not its retries).
    pub fn count_call(&mut self, key: usize, now_ms: u64) {
        if let Some(budget) = self.entries[key].budget {
            self.budgets.at(budget, now_ms).request(now_ms);
        }
    }

    /// What a retry is decided by.
    pub fn retrying(
        &mut self,
        key: usize,
        now_ms: u64,
    ) -> (Option<&RetryPolicy>, Option<&mut RetryBudget>) {
        let entry = &self.entries[key];
        let budget = entry.budget.map(|budget| self.budgets.at(budget, now_ms));
        (entry.route.retry(), budget)
    }

    /// Forgets counters of clusters that are gone: one that comes back under the name has new ones.
    pub fn forget_clusters(&mut self, gone: &HashSet<&str>) {
        for (_, entry) in &mut self.entries {
            entry.counters.retain(|(name, _)| !gone.contains(&**name));
        }
    }

    /// Forgets routes that are not among `live` ones; those with calls stay until the next time.
    pub fn prune(&mut self, live: &HashSet<*const Route>, now_ms: u64) {
        let (keys, budgets) = (&mut self.keys, &mut self.budgets);
        self.entries.retain(|_, entry| {
            let place = Arc::as_ptr(&entry.route);
            let keep = entry.calls > 0 || live.contains(&place);
            if !keep {
                keys.remove(&(place as usize));
                if let Some(budget) = entry.budget {
                    budgets.leave(budget);
                }
            }
            keep
        });
        self.budgets.prune(now_ms);
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
            .get_or_insert_with(|| stats.calls(route.name(), &Name::from("")))
    }
}

#[cfg(test)]
mod tests {
    use super::{RouteMemory, WorkerStats};
    use crate::series::SeriesBudget;
    use gateway_core::{Snapshot, parse_update};
    use std::collections::HashSet;
    use std::sync::Arc;

    /// Route `r` of table `t`, to cluster `c`.
    fn of_one_route() -> Snapshot {
        let update = br#"{"version": "1", "full": true, "listeners": [], "clusters": [{"name": "c"}],
            "endpoints": [], "secrets": [], "route_tables": [{"name": "t", "virtual_hosts": [{"name": "h",
            "hostnames": ["*"], "routes": [{"name": "r", "match": {"path": {"prefix": "/"}}, "action": {"weighted": [
            {"cluster": "c", "weight": 1}]}}]}]}]}"#;
        let update = parse_update(update).expect("is an update");
        Snapshot::apply(&Snapshot::default(), update, 0).expect("fits")
    }

    #[test]
    fn a_route_that_is_gone_is_forgotten_although_every_worker_remembers_it() {
        let snapshot = of_one_route();
        let table = snapshot.table("t").expect("is there");
        let route = table.routes().next().expect("is there");
        let mut workers = [RouteMemory::new(2), RouteMemory::new(2)];
        let live = HashSet::from([Arc::as_ptr(route)]);
        for memory in &mut workers {
            let budget = Arc::new(SeriesBudget::new(10_000));
            let key = memory.enter(route);
            memory
                .get_mut(key)
                .counters(&"c".into(), &WorkerStats::new(budget));
            memory.prune(&HashSet::new(), 0);
            assert_eq!(memory.entries.len(), 1, "a call holds it");
            memory.leave(key);
            memory.prune(&live, 0);
            assert_eq!(memory.entries.len(), 1, "the snapshot has it");
        }
        for memory in &mut workers {
            memory.prune(&HashSet::new(), 0);
            assert!(memory.entries.is_empty() && memory.keys.is_empty());
        }
    }

    #[test]
    fn a_cluster_that_comes_back_is_counted_where_it_is_shown() {
        let snapshot = of_one_route();
        let table = snapshot.table("t").expect("is there");
        let mut memory = RouteMemory::new(1);
        let key = memory.enter(table.routes().next().expect("is there"));
        let stats = WorkerStats::new(Arc::new(SeriesBudget::new(10_000)));
        let count = |memory: &mut RouteMemory| {
            let counters = memory.get_mut(key).counters(&"c".into(), &stats);
            counters.record(0, 1);
            stats.calls(&"r".into(), &"c".into()).has(0)
        };
        assert!(count(&mut memory));
        stats.retain_clusters(|_| false);
        memory.forget_clusters(&HashSet::from(["c"]));
        assert!(count(&mut memory));
    }

    #[test]
    fn a_changed_configuration_is_no_fresh_start_for_a_budget() {
        let snapshot = |weight: u32, percent: u32| {
            let update = format!(
                r#"{{"version": "1", "full": true, "listeners": [], "clusters": [{{"name": "c"}}],
                "endpoints": [], "secrets": [], "route_tables": [{{"name": "t", "virtual_hosts": [{{"name": "h",
                "hostnames": ["*"], "routes": [{{"name": "r", "match": {{"path": {{"prefix": "/"}}}},
                "action": {{"weighted": [{{"cluster": "c", "weight": {weight}}}]}},
                "retry": {{"on": ["reset"], "attempts": 1, "budget_percent": {percent}, "budget_name": "p",
                "min_retries": 1, "min_retries_interval_ms": 10000}}}}]}}]}}]}}"#
            );
            let update = parse_update(update.as_bytes()).expect("is an update");
            Snapshot::apply(&Snapshot::default(), update, 0).expect("fits")
        };
        let mut memory = RouteMemory::new(1);
        let mut takes = |snapshot: &Snapshot, now_ms| {
            let table = snapshot.table("t").expect("is there");
            let live: HashSet<_> = table.routes().map(Arc::as_ptr).collect();
            memory.prune(&live, now_ms);
            let key = memory.enter(table.routes().next().expect("is there"));
            memory.leave(key);
            let budget = memory.retrying(key, now_ms).1.expect("has one");
            (budget.take(now_ms), memory.budgets.len())
        };
        assert_eq!(takes(&snapshot(1, 20), 1), (true, 1));
        assert_eq!(takes(&snapshot(2, 20), 2), (false, 1), "it is the same");
        assert_eq!(takes(&snapshot(2, 30), 3), (true, 2), "it is another one");
        assert_eq!(
            takes(&snapshot(3, 30), 20_000),
            (true, 1),
            "all is forgotten"
        );
    }
}
