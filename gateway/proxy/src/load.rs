//! Load by place: what the tries of one cluster's calls come to at one member cluster, by tier.
//!
//! A place is told apart by cluster of the snapshot, member cluster, region and priority. Its counters are one set per
//! worker, written by that worker alone (`stats`); a pool holds those of its endpoint's place. A copy for a mirror is
//! no try. What a caller waited counts, from the beginning of the call to the end of the try.
//!
//! Bound: places of the configuration, and of endpoints that are gone as long as calls are open there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway_core::{Code, Endpoint, Outcome};
use serde_json::{Value, json};

use crate::stats::{Counter, WorkerStats};

/// Upper bounds of the latency buckets in microseconds; one more bucket counts what is above.
pub const BOUNDS_US: [u64; 31] = [
    100, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 20_000,
    30_000, 50_000, 75_000, 100_000, 150_000, 200_000, 300_000, 500_000, 750_000, 1_000_000,
    1_500_000, 2_000_000, 3_000_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Tries at one place.
#[derive(Debug, Default)]
pub struct LoadCounters {
    began: Counter,
    succeeded: Counter,
    failed: Counter,
    open: Counter,
    latency: [Counter; BOUNDS_US.len() + 1],
}

/// A pool's part in the load of its endpoint's place.
#[derive(Debug)]
pub(crate) struct PoolLoad {
    counters: Arc<LoadCounters>,
    /// Tries of this pool that are open.
    open: u64,
}

/// Cluster of the snapshot, member cluster, region, priority.
type Place = (String, String, String, u32);

/// The places of one worker.
#[derive(Debug, Default)]
pub struct Loads(Mutex<BTreeMap<Place, Arc<LoadCounters>>>);

// === impl LoadCounters ===

impl LoadCounters {
    fn add_to(&self, total: &mut Totals) {
        total.began += self.began.get();
        total.succeeded += self.succeeded.get();
        total.failed += self.failed.get();
        total.open += self.open.get();
        for (sum, counter) in total.latency.iter_mut().zip(&self.latency) {
            *sum += counter.get();
        }
    }
}

// === impl PoolLoad ===

impl PoolLoad {
    /// Of a pool without open tries.
    pub const fn new(counters: Arc<LoadCounters>) -> Self {
        Self { counters, open: 0 }
    }

    /// The endpoint belongs to another place from now on: what is open goes with it.
    pub fn moves_to(&mut self, counters: Arc<LoadCounters>) {
        if !Arc::ptr_eq(&self.counters, &counters) {
            self.counters.open.sub(self.open);
            counters.open.add(self.open);
            self.counters = counters;
        }
    }

    /// A try begins.
    pub fn began(&mut self) {
        self.open += 1;
        self.counters.began.add(1);
        self.counters.open.add(1);
    }

    /// A try was given up before it had a stream: it says nothing about the place.
    pub fn left(&mut self) {
        self.open = self.open.saturating_sub(1);
        self.counters.open.sub(1);
    }

    /// A try ended, so long after its call began. `None`: nobody waits for its outcome any more, so it is no failure.
    pub fn ended(&mut self, outcome: Option<Outcome>, latency_us: u64) {
        self.open = self.open.saturating_sub(1);
        self.counters.open.sub(1);
        if outcome.is_some_and(is_failure) {
            self.counters.failed.add(1);
        } else {
            self.counters.succeeded.add(1);
        }
        let bucket = BOUNDS_US.partition_point(|bound_us| *bound_us < latency_us);
        self.counters.latency[bucket].add(1);
    }
}

/// Statuses of HTTP below 500 are the service's answer to this client, as in `http_answer`.
const fn is_failure(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Answer(answer) => {
            !matches!(answer.code, Code::Ok) && !matches!(answer.http_status, 400..500)
        }
        _ => true,
    }
}

// === impl Loads ===

impl Loads {
    /// The counters of the place where an endpoint of `cluster` is, made when they are new.
    pub fn of(&self, cluster: &str, endpoint: &Endpoint) -> Arc<LoadCounters> {
        let place = (
            cluster.to_owned(),
            endpoint.cluster_id.to_string(),
            endpoint.region.to_string(),
            endpoint.priority,
        );
        Arc::clone(self.places().entry(place).or_default())
    }

    /// A call of `cluster` ended without any endpoint to try: it counts as failed at no place.
    pub fn unserved(&self, cluster: &str) {
        let nowhere = (cluster.to_owned(), String::new(), String::new(), 0);
        let mut places = self.places();
        let counters = places.entry(nowhere).or_default();
        counters.began.add(1);
        counters.failed.add(1);
    }

    /// Forgets places of a cluster that nobody holds any more.
    pub fn forget_unused(&self, cluster: &str) {
        self.places()
            .retain(|place, counters| place.0 != cluster || Arc::strong_count(counters) > 1);
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<Place, Arc<LoadCounters>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Totals {
    began: u64,
    succeeded: u64,
    failed: u64,
    open: u64,
    latency: [u64; BOUNDS_US.len() + 1],
}

/// The sum over workers, as the JSON object that the owner reads.
pub fn sum(workers: &[Arc<WorkerStats>]) -> Value {
    let mut all: BTreeMap<Place, Totals> = BTreeMap::new();
    let (mut calls_open, mut connections) = (0, 0);
    for worker in workers {
        for (place, counters) in &*worker.loads.places() {
            counters.add_to(all.entry(place.clone()).or_default());
        }
        calls_open += worker.numbers.calls_open.get();
        connections += worker.numbers.downstream_connections.get();
    }
    let places: Vec<Value> = all.iter().map(place_json).collect();
    json!({
        "calls_open": calls_open,
        "connections": connections,
        "latency_bounds_us": BOUNDS_US,
        "places": places,
    })
}

fn place_json(((cluster, cluster_id, region, priority), totals): (&Place, &Totals)) -> Value {
    json!({
        "cluster": cluster,
        "cluster_id": cluster_id,
        "region": region,
        "priority": priority,
        "began": totals.began,
        "succeeded": totals.succeeded,
        "failed": totals.failed,
        "open": totals.open,
        "latency": totals.latency,
    })
}

#[cfg(test)]
mod tests {
    use super::{LoadCounters, PoolLoad, is_failure};
    use gateway_core::outcome::Answer;
    use gateway_core::{Code, Outcome};
    use std::sync::Arc;

    const fn answer(code: Code, http_status: u16) -> Outcome {
        Outcome::Answer(Answer {
            code,
            http_status,
            by_gateway: false,
        })
    }

    #[test]
    fn open_tries_move_with_their_endpoint() {
        let (before, after) = (Arc::new(LoadCounters::default()), Arc::default());
        let mut pool = PoolLoad::new(Arc::clone(&before));
        pool.began();
        pool.began();
        pool.ended(Some(answer(Code::Ok, 200)), 100);
        pool.moves_to(Arc::clone(&after));
        assert_eq!((before.open.get(), after.open.get()), (0, 1));
        pool.ended(Some(Outcome::Reset), 70_000_000);
        assert_eq!((before.succeeded.get(), after.failed.get()), (1, 1));
        assert_eq!((before.latency[0].get(), after.latency[31].get()), (1, 1));
        assert_eq!(after.open.get(), 0);
    }

    #[test]
    fn what_a_failure_is() {
        assert!(is_failure(answer(Code::NotFound, 200)));
        assert!(is_failure(answer(Code::Unknown, 500)));
        assert!(is_failure(Outcome::Timeout));
        assert!(!is_failure(answer(Code::Unknown, 404)));
        assert!(!is_failure(answer(Code::Ok, 200)));
    }
}
