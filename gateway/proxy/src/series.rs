//! Which counters a call of a client moves: by its method and by where it goes.
//!
//! Decides the labels: services and methods as `KnownMethods` has them, member cluster and region of the endpoint that
//! was chosen; and that there are no more than the bound allows (`SeriesBudget`): further ones count as `other`. Leaves
//! to others the numbers themselves (`stats`) and their names (Python).
//!
//! Invariants: a lock is taken when a method meets a place, or a code, for the first time; entries that the
//! configuration has no more go with their last call.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway_core::methods::{MethodType, OTHER};
use gateway_core::{KnownMethods, MethodLabels, Name};
use slab::Slab;

use crate::flow::Flow;
use crate::stats::{CODES, RegionCounters, RpcCounters, WorkerStats, code_index};

/// Series of one histogram: its buckets with the last one, sum and count.
const HISTOGRAM_SERIES: usize = crate::stats::LATENCY_BOUNDS_MS.len() + 3;
/// Beside the histogram: started, messages received and sent.
const RPC_SERIES: usize = HISTOGRAM_SERIES + 3;
/// Of a rule and a backend: with room for every code.
const RULE_SERIES: usize = HISTOGRAM_SERIES + CODES;
/// For the two sets of labels that are all `other`, whatever the bound.
const RESERVED: usize = RPC_SERIES + CODES + RULE_SERIES;
/// What remains of the bound for families by cluster: a fifth.
const CLUSTERS_PART: usize = 5;

/// Where a call went.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// The member cluster.
    pub cluster: Name,
    pub region: Name,
}

/// The labels of one set of counters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RpcLabels {
    pub method: MethodLabels,
    pub place: Place,
}

/// How many series all workers together may have. Series of one set of labels count once.
#[derive(Debug)]
pub(crate) struct SeriesBudget {
    max: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    series: usize,
    /// With the codes that were seen.
    rpc: HashMap<RpcLabels, u32>,
    rules: HashSet<(Name, Name)>,
}

/// A worker's way to its counters.
pub(crate) struct SeriesMemory {
    methods: Arc<KnownMethods>,
    /// By the method's position: keys of entries by place.
    by_method: Vec<Vec<(Place, usize)>>,
    entries: Slab<Entry>,
    budget: Arc<SeriesBudget>,
}

/// What a call counts in, by its key.
pub(crate) struct Entry {
    /// `None`: no call of gRPC.
    rpc: Option<Rpc>,
    pub region: Arc<RegionCounters>,
    calls: u32,
    live: bool,
}

struct Rpc {
    counters: Arc<RpcCounters>,
    /// `None`: they are those of everything else, for want of room.
    labels: Option<RpcLabels>,
    /// Codes for which there is no room.
    refused: u32,
}

// === impl Place ===

impl Place {
    /// Of calls that the gateway answered without an endpoint.
    pub fn none() -> Self {
        let none: Name = Arc::from("none");
        Self {
            cluster: none.clone(),
            region: none,
        }
    }

    fn is(&self, cluster: &Name, region: &Name) -> bool {
        self.cluster == *cluster && self.region == *region
    }
}

// === impl RpcLabels ===

impl RpcLabels {
    pub fn other() -> Self {
        let other: Name = Arc::from(OTHER);
        Self {
            method: MethodLabels {
                service: other.clone(),
                method: other.clone(),
                kind: MethodType::Unknown,
            },
            place: Place {
                cluster: other.clone(),
                region: other,
            },
        }
    }
}

// === impl SeriesBudget ===

impl SeriesBudget {
    pub fn new(max: usize) -> Self {
        Self {
            max,
            used: Mutex::default(),
        }
    }

    /// Room for the series of a method at a place.
    fn admit_rpc(&self, labels: &RpcLabels) -> bool {
        let room = self.room();
        let mut used = self.lock();
        let known = used.rpc.contains_key(labels);
        let fits = used.series + RPC_SERIES <= room;
        if fits && !known {
            used.series += RPC_SERIES;
            used.rpc.insert(labels.clone(), 0);
        }
        known || fits
    }

    /// Room for the series of a rule and its backend.
    pub fn admit_rule(&self, route: &Name, cluster: &Name) -> bool {
        let room = self.room();
        let key = (route.clone(), cluster.clone());
        let mut used = self.lock();
        let known = used.rules.contains(&key);
        let fits = used.series + RULE_SERIES <= room;
        if fits && used.rules.insert(key) {
            used.series += RULE_SERIES;
        }
        known || fits
    }

    fn admit_code(&self, labels: &RpcLabels, code: usize) -> bool {
        let room = self.room();
        let mut used = self.lock();
        let fits = used.series < room;
        let Some(codes) = used.rpc.get_mut(labels) else {
            return false;
        };
        let known = *codes & 1 << code != 0;
        if !known && fits {
            *codes |= 1 << code;
            used.series += 1;
        }
        known || fits
    }

    /// Gives back what the configuration has no more.
    pub fn retain(&self, rpc: impl Fn(&RpcLabels) -> bool, rules: impl Fn(&Name, &Name) -> bool) {
        let mut used = self.lock();
        used.rpc.retain(|labels, _| rpc(labels));
        used.rules.retain(|(route, cluster)| rules(route, cluster));
        let of_codes = |codes: &u32| RPC_SERIES + codes.count_ones() as usize;
        let rpc: usize = used.rpc.values().map(of_codes).sum();
        used.series = rpc + used.rules.len() * RULE_SERIES;
    }

    /// Series in use, and how many more there may be for clusters.
    pub fn used(&self) -> (usize, usize) {
        let used = self.lock().series + RESERVED;
        (used, self.max.saturating_sub(used))
    }

    fn room(&self) -> usize {
        (self.max - self.max / CLUSTERS_PART).saturating_sub(RESERVED)
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl SeriesMemory ===

impl SeriesMemory {
    pub fn new(budget: Arc<SeriesBudget>) -> Self {
        let mut memory = Self {
            methods: Arc::default(),
            by_method: Vec::new(),
            entries: Slab::new(),
            budget,
        };
        memory.forget();
        memory
    }

    /// The entry of a path (`None`: no call of gRPC) at a place, for one call more.
    pub fn enter(
        &mut self,
        path: Option<&[u8]>,
        (cluster, region): (&Name, &Name),
        stats: &WorkerStats,
    ) -> usize {
        // What is no gRPC stands behind all methods.
        let method = path.map_or(self.methods.len(), |path| self.methods.find(path));
        let known = self.by_method[method].iter();
        let mut known = known.filter(|(place, _)| place.is(cluster, region));
        let key = match known.next() {
            Some((_, key)) => *key,
            None => self.add(method, cluster, region, stats),
        };
        self.entries[key].calls += 1;
        key
    }

    fn add(&mut self, method: usize, cluster: &Name, region: &Name, stats: &WorkerStats) -> usize {
        let place = Place {
            cluster: cluster.clone(),
            region: region.clone(),
        };
        let rpc = (method < self.methods.len()).then(|| {
            let labels = RpcLabels {
                method: self.methods.labels(method).clone(),
                place: place.clone(),
            };
            let fits = self.budget.admit_rpc(&labels);
            Rpc {
                counters: if fits {
                    stats.rpc(&labels)
                } else {
                    Arc::clone(&stats.other_rpc)
                },
                labels: fits.then_some(labels),
                refused: 0,
            }
        });
        let key = self.entries.insert(Entry {
            rpc,
            region: stats.region(region),
            calls: 0,
            live: true,
        });
        self.by_method[method].push((place, key));
        key
    }

    /// A call goes elsewhere or is over.
    pub fn leave(&mut self, key: usize) {
        let entry = &mut self.entries[key];
        entry.calls -= 1;
        if entry.calls == 0 && !entry.live {
            self.entries.remove(key);
        }
    }

    pub fn at(&self, key: usize) -> &Entry {
        &self.entries[key]
    }

    /// A call has begun; what passed before it went anywhere counts now.
    pub fn begin(&self, key: usize, flow: &Flow, stats: &WorkerStats) {
        let entry = &self.entries[key];
        entry.region.request_bytes.add(flow.request.bytes);
        entry.region.response_bytes.add(flow.response.bytes);
        let Some(rpc) = &entry.rpc else { return };
        rpc.counters.started.add(1);
        let messages = u64::from(flow.request.messages);
        rpc.counters.msg_received.add(messages);
        let messages = u64::from(flow.response.messages);
        rpc.counters.msg_sent.add(messages);
        if rpc.labels.is_none() {
            stats.numbers.series_limited.add(1);
        }
    }

    /// Counts the end of a call.
    pub fn record(&mut self, key: usize, code: u32, latency_us: u64, stats: &WorkerStats) {
        let entry = &mut self.entries[key];
        entry.region.calls.add(1);
        let Some(rpc) = &mut entry.rpc else {
            return;
        };
        let code = code_index(code);
        let calls = &rpc.counters.calls;
        calls.record_latency(latency_us);
        if calls.has(code) {
            return calls.record_code(code);
        }
        let Some(labels) = &rpc.labels else {
            return calls.record_code(code);
        };
        if rpc.refused & 1 << code == 0 && self.budget.admit_code(labels, code) {
            return calls.record_code(code);
        }
        rpc.refused |= 1 << code;
        stats.other_rpc.calls.record_code(code);
        stats.numbers.series_limited.add(1);
    }

    /// Follows the names of a new configuration: entries are found anew, and counters by their labels. Whether there
    /// are others than before.
    pub fn follow(&mut self, methods: &Arc<KnownMethods>) -> bool {
        let others = !Arc::ptr_eq(methods, &self.methods);
        if others {
            self.methods = Arc::clone(methods);
            self.forget();
        }
        others
    }

    /// Finds all entries anew: methods or places have gone.
    pub fn forget(&mut self) {
        self.by_method = vec![Vec::new(); self.methods.len() + 1];
        self.entries.retain(|_, entry| {
            entry.live = false;
            entry.calls > 0
        });
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

// === impl Entry ===

impl Entry {
    /// The counters of gRPC, where the call is of it.
    pub fn rpc(&self) -> Option<&RpcCounters> {
        self.rpc.as_ref().map(|rpc| &*rpc.counters)
    }
}

#[cfg(test)]
mod tests {
    use super::{Flow, HISTOGRAM_SERIES, Place, RESERVED, RPC_SERIES, SeriesBudget, SeriesMemory};
    use crate::stats::{WorkerStats, sum};
    use gateway_core::config::PathMatch;
    use gateway_core::{KnownMethods, Name};
    use std::sync::Arc;

    fn known(paths: &[&str]) -> Arc<KnownMethods> {
        let paths: Vec<_> = paths
            .iter()
            .map(|path| PathMatch::Exact((*path).to_owned()))
            .collect();
        Arc::new(KnownMethods::new(paths.iter(), &[]))
    }

    /// A worker's memory and counters with so much room, and what they have in common with others.
    fn memory(max: usize) -> (SeriesMemory, Arc<WorkerStats>, Arc<SeriesBudget>) {
        let budget = Arc::new(SeriesBudget::new(max));
        let stats = Arc::new(WorkerStats::new(Arc::clone(&budget)));
        (SeriesMemory::new(Arc::clone(&budget)), stats, budget)
    }

    fn call(memory: &mut SeriesMemory, stats: &WorkerStats, path: &str, place: &str, code: u32) {
        let place: Name = place.into();
        let key = memory.enter(Some(path.as_bytes()), (&place, &place), stats);
        memory.begin(key, &Flow::default(), stats);
        memory.record(key, code, 500, stats);
        memory.leave(key);
    }

    fn labels(stats: &Arc<WorkerStats>) -> Vec<String> {
        let all = sum(&[Arc::clone(stats)]);
        let entries = all["rpc"].as_array().expect("is a list");
        let of = |entry: &serde_json::Value| {
            let word = |name| entry[name].as_str().expect("is a word").to_owned();
            [word("service"), word("method"), word("destination_cluster")].join(" ")
        };
        entries.iter().map(of).collect()
    }

    #[test]
    fn a_method_counts_by_place_and_unknown_ones_together() {
        let (mut memory, stats, budget) = memory(10_000);
        memory.follow(&known(&["/a.A/Get"]));
        for path in ["/a.A/Get", "/a.A/Get", "/a.A/X", "/a.A/Y", "/b.B/Get"] {
            call(&mut memory, &stats, path, "west", 0);
        }
        call(&mut memory, &stats, "/a.A/Get", "east", 14);
        let expected = [
            "a.A Get east",
            "a.A Get west",
            "a.A other west",
            "other other west",
        ];
        assert_eq!(labels(&stats), expected);
        let (used, _) = budget.used();
        assert_eq!(used, RESERVED + 4 * (RPC_SERIES + 1));
        let all = sum(&[stats]);
        assert_eq!(all["rpc"][1]["started"], 2);
        assert_eq!(all["rpc"][1]["codes"]["0"], 2);
        assert_eq!(all["regions"][1]["calls"], 5);
    }

    #[test]
    fn beyond_the_bound_all_labels_but_the_code_are_other() {
        let paths: Vec<String> = (0..100).map(|at| format!("/a.A/M{at}")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let (mut memory, stats, budget) = memory(1_000);
        memory.follow(&known(&paths));
        for path in &paths {
            call(&mut memory, &stats, path, "west", 0);
        }
        assert!(budget.used().0 <= 800, "{:?}", budget.used());
        let named = labels(&stats).len() - 1;
        assert_eq!(named, (800 - RESERVED) / (RPC_SERIES + 1));
        for path in &paths {
            call(&mut memory, &stats, path, "west", 5);
        }
        assert!(budget.used().0 <= 800, "{:?}", budget.used());
        let all = sum(&[Arc::clone(&stats)]);
        let entries = all["rpc"].as_array().expect("is a list");
        let other = entries.iter().find(|it| it["service"] == "other");
        let other = other.expect("is there");
        assert_eq!(other["started"], 2 * (100 - named));
        let total = |name: &str| -> u64 {
            let counts = entries.iter().filter_map(|it| it["codes"][name].as_u64());
            counts.sum()
        };
        assert_eq!((total("0"), total("5")), (100, 100), "no call is lost");
        let limited = stats.numbers.series_limited.get();
        assert!(limited >= 2 * (100 - named as u64), "{limited}");
    }

    #[test]
    fn churn_of_routes_and_places_leaves_nothing_behind() {
        let (mut memory, stats, budget) = memory(2_000);
        for round in 0..200 {
            let path = format!("/a.A{round}/Get");
            let methods = known(&[&path]);
            assert!(memory.follow(&methods));
            stats.retain_methods(&methods);
            let place: Name = format!("cluster-{round}").into();
            let held = memory.enter(Some(path.as_bytes()), (&place, &place), &stats);
            call(&mut memory, &stats, &path, &place, 0);
            memory.record(held, 0, 1, &stats);
            let gone = Place {
                cluster: place.clone(),
                region: place.clone(),
            };
            memory.forget();
            stats.forget_places(std::slice::from_ref(&gone), &[place]);
            budget.retain(
                |labels| methods.has(&labels.method) && labels.place != gone,
                |_, _| false,
            );
            assert_eq!(memory.len(), 1, "a call holds its entry");
            memory.record(held, 3, 1, &stats);
            memory.leave(held);
            assert_eq!(memory.len(), 0);
        }
        assert!(labels(&stats).iter().all(|it| it == "other other other"));
        assert_eq!(sum(&[stats])["regions"], serde_json::json!([]));
        assert_eq!(budget.used().0, RESERVED);
    }

    #[test]
    fn rules_share_the_room() {
        let (_, stats, budget) = memory(1_000);
        for at in 0..100 {
            let route: Name = format!("app/r{at}").into();
            stats.calls(&route, &"c".into()).record(0, 1);
        }
        assert!(budget.used().0 <= 800);
        let all = sum(&[stats]);
        let calls = all["calls"].as_array().expect("is a list");
        assert!((800 - RESERVED) / (HISTOGRAM_SERIES + 18) + 1 == calls.len());
        let other = calls.iter().find(|it| it["route"] == "other");
        assert_eq!(other.expect("is there")["codes"]["0"], 101 - calls.len());
    }
}
