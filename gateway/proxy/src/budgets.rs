//! Retry budgets of a worker: one for each name, shared by all routes that give it.
//!
//! The matches and rules of one policy's route are many routes here, and each change of a route makes a new one; their
//! calls and retries count together all the same. A budget without routes stands for as long as it remembers, so that
//! a change of the configuration is no fresh start.

use std::collections::HashMap;

use gateway_core::{Name, RetryBudget, Route};
use slab::Slab;

/// See the module.
pub(crate) struct Budgets {
    /// Among how many the lowest rate is divided.
    workers: u32,
    keys: HashMap<(Name, Settings), usize>,
    entries: Slab<Entry>,
}

struct Entry {
    budget: RetryBudget,
    interval_ms: u64,
    routes: u32,
    used_ms: u64,
}

/// With others it is another budget, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Settings {
    percent: u8,
    interval_ms: u64,
    min_retries: u32,
    min_retries_interval_ms: u64,
}

// === impl Budgets ===

impl Budgets {
    pub fn new(workers: u32) -> Self {
        Self {
            workers,
            keys: HashMap::new(),
            entries: Slab::new(),
        }
    }

    /// The key of a route's budget; `None`: it has none.
    pub fn join(&mut self, route: &Route) -> Option<usize> {
        let policy = route.retry()?;
        let budget = policy.new_budget(self.workers)?;
        let config = policy.config();
        let settings = Settings {
            percent: config.budget_percent?,
            interval_ms: config.budget_interval_ms,
            min_retries: config.min_retries,
            min_retries_interval_ms: config.min_retries_interval_ms,
        };
        let name = config.budget_name.as_ref().unwrap_or(route.name());
        let entries = &mut self.entries;
        let key = *self
            .keys
            .entry((name.clone(), settings))
            .or_insert_with(|| {
                entries.insert(Entry {
                    budget,
                    interval_ms: settings.interval_ms,
                    routes: 0,
                    used_ms: 0,
                })
            });
        self.entries[key].routes += 1;
        Some(key)
    }

    /// A route is gone.
    pub fn leave(&mut self, key: usize) {
        self.entries[key].routes -= 1;
    }

    /// The budget, to count with.
    pub fn at(&mut self, key: usize, now_ms: u64) -> &mut RetryBudget {
        let entry = &mut self.entries[key];
        entry.used_ms = now_ms;
        &mut entry.budget
    }

    /// Forgets those that no route has and that remember nothing.
    pub fn prune(&mut self, now_ms: u64) {
        let entries = &mut self.entries;
        self.keys.retain(|_, key| {
            let entry = &entries[*key];
            let keep = entry.routes > 0 || now_ms < entry.used_ms + entry.interval_ms;
            if !keep {
                entries.remove(*key);
            }
            keep
        });
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}
