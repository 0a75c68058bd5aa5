//! Counters: one set per worker, written by that worker alone, read by anyone at any time.
//!
//! A counter is a relaxed atomic that its single writer loads and stores: no locked instruction on the request
//! path. A lock is taken only when a route meets a cluster for the first time, and when somebody reads.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway_core::methods::OTHER;
use gateway_core::{Code, KnownMethods, Name, Outcome};
use serde_json::{Map, Value, json};

use crate::load::Loads;
use crate::series::{Place, RpcLabels, SeriesBudget};

/// Upper bounds of the latency buckets in milliseconds; one more bucket counts what is above.
pub const LATENCY_BOUNDS_MS: [u64; 14] = [
    1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 60_000,
];
/// gRPC status codes 0 to 16, and one for all other numbers.
pub(crate) const CODES: usize = 18;
/// Member clusters whose gateways' calls are told apart; further ones are `other`.
const PEERS_MAX: usize = 256;

/// A number that one thread counts.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Outcome and latency of the calls of one route on one cluster.
#[derive(Debug, Default)]
pub struct CallCounters {
    codes: [Counter; CODES],
    latency: [Counter; LATENCY_BOUNDS_MS.len() + 1],
    latency_us_sum: Counter,
}

/// Calls of one method to one place.
#[derive(Debug, Default)]
pub(crate) struct RpcCounters {
    pub started: Counter,
    pub msg_received: Counter,
    pub msg_sent: Counter,
    pub calls: CallCounters,
}

/// What passed to endpoints of one region.
#[derive(Debug, Default)]
pub(crate) struct RegionCounters {
    pub calls: Counter,
    pub request_bytes: Counter,
    pub response_bytes: Counter,
}

/// Calls of one peer's gateways.
#[derive(Debug, Default)]
pub(crate) struct PeerCounters {
    codes: [Counter; CODES],
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The plain numbers of one worker.
        #[derive(Debug, Default)]
        pub struct Numbers {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Numbers {
            fn each(&self, mut visit: impl FnMut(&'static str, u64)) {
                $(visit(stringify!($name), self.$name.get());)*
            }
        }
    };
}

numbers! {
    /// Downstream connections open now.
    downstream_connections,
    /// Downstream connections accepted.
    downstream_accepted,
    /// Downstream connections closed at once because of `max_connections`.
    downstream_refused,
    /// Times that the system gave no downstream connection (descriptors, memory) and a listener paused.
    accept_pauses,
    /// Downstream connections that failed before HTTP/2 began (TLS, silence).
    downstream_handshake_failures,
    /// Downstream connections asked to leave because they had no call for long.
    downstream_idle_closed,
    /// Downstream connections asked to leave because of their listener's maximum age.
    downstream_aged,
    /// Calls ended because the grace of their old connection was over.
    downstream_cut_calls,
    /// Downstream connections ended because their PINGs came more often than their listener allows.
    downstream_ping_limit_ended,
    /// Connections passed on without terminating TLS that are open now.
    passthrough_connections,
    /// Clients whose TLS is passed on, by server name.
    passthrough_accepted,
    /// Clients that asked for a server name that nobody has here.
    passthrough_unknown_names,
    /// Attempts to connect to an endpoint for such a client that failed.
    passthrough_connect_failures,
    /// Such clients that were closed because no endpoint could be reached.
    passthrough_failed,
    /// Such connections ended because nothing moved for long.
    passthrough_idle_closed,
    /// Bytes passed on from clients.
    passthrough_bytes_up,
    /// Bytes passed on to clients.
    passthrough_bytes_down,
    /// HTTP/1.x requests that got the refusal.
    http1_refused,
    /// Connections ended because the peer broke the protocol or a limit.
    protocol_errors,
    /// Of these: too many streams were reset, or brought to be.
    abuse_resets,
    /// Of these: too many CONTINUATION frames, or too much in them.
    abuse_continuations,
    /// Of these: too many PINGs.
    abuse_pings,
    /// Of these: too many SETTINGS.
    abuse_settings,
    /// Of these: too many empty DATA frames.
    abuse_empty_data,
    /// Of these: too many `WINDOW_UPDATE`s.
    abuse_window_updates,
    /// Of these: too many PRIORITY or unknown frames.
    abuse_ignored,
    /// Of these: answers that the peer does not read.
    abuse_unread_answers,
    /// Downstream connections ended because a header block did not end in time.
    slow_headers_ended,
    /// Streams of clients refused: over the limit, or after the last GOAWAY.
    streams_refused,
    /// Streams of clients reset because they broke a rule: malformed requests among them.
    stream_errors,
    /// Header lists of clients over the limit.
    header_lists_too_large,
    /// Bytes held now that wait for a peer, or that another try may need.
    buffered_bytes,
    /// Streams of clients ended because the worker held too much, theirs the most.
    buffer_overflow_streams,
    /// Connections ended for the same reason.
    buffer_overflow_connections,
    /// Calls open now.
    calls_open,
    /// Calls answered by the gateway itself.
    local_replies,
    /// Of these: calls over a rate limit of their route.
    rate_limited,
    /// Of these: calls turned away because the worker has more work than it can do.
    calls_shed,
    /// Further tries that were left out for the same reason.
    retries_shed,
    /// Upstream connections open now.
    upstream_connections,
    /// Upstream connections that came up.
    connects,
    /// Connection attempts that failed.
    connect_failures,
    /// Upstream connections that took the place of a spare descriptor, or found none.
    descriptor_shortages,
    /// Connections of either side declared dead by PING.
    liveness_deaths,
    /// Tries sent upstream.
    upstream_tries,
    /// Further tries by the route's retry policy.
    retries,
    /// Further tries that need no policy: nothing had been processed.
    transparent_retries,
    /// Tries that a policy would have allowed but the retry budget did not.
    retries_over_budget,
    /// Calls that failed because the pending queue was full.
    pending_overflows,
    /// Calls that failed because their cluster had `max_requests` open.
    request_overflows,
    /// Endpoints ejected by outlier detection.
    ejections,
    /// Calls delayed on purpose.
    faults_delayed,
    /// Calls refused on purpose.
    faults_aborted,
    /// Copies of calls sent to mirrors.
    mirror_copies,
    /// Copies given up: over a bound, without an endpoint, or of a request that never became whole.
    mirror_copies_dropped,
    /// Copies that their endpoint refused or lost.
    mirror_copies_failed,
    /// Deadlines that ended a call.
    deadlines_exceeded,
    /// Streams ended because their endpoint's drain grace was over.
    drained_streams,
    /// Trace contexts of callers that broke a rule: they are as if absent.
    trace_contexts_refused,
    /// Panics caught.
    panics,
    /// Calls and codes counted under other labels than their own, for want of room.
    series_limited,
    /// Tries that ended with status OK.
    tries_ok,
    /// Tries that ended with another status.
    tries_error,
    /// Tries for which no connection could be made.
    tries_connect_failure,
    /// Tries that the endpoint had not processed.
    tries_refused,
    /// Tries whose stream or connection broke.
    tries_reset,
    /// Tries that took longer than one may.
    tries_timeout,
    /// Tries given up because their call ended first.
    tries_abandoned,
    /// Further tries by policy after another status than OK.
    retries_error,
    /// The same when no connection could be made.
    retries_connect_failure,
    /// The same when the endpoint had not processed it.
    retries_refused,
    /// The same when the stream or its connection broke.
    retries_reset,
    /// The same when a try took longer than it may.
    retries_timeout,
    /// TLS with a client that came up.
    tls_client_ok,
    /// TLS with a client that failed.
    tls_client_failed,
    /// TLS with a client that took too long.
    tls_client_timeout,
    /// TLS towards a peer's gateway that came up.
    tls_peer_ok,
    /// The same that failed.
    tls_peer_failed,
    /// The same that took too long.
    tls_peer_timeout,
}

/// All counters of one worker.
#[derive(Debug)]
pub struct WorkerStats {
    /// Plain numbers.
    pub numbers: Numbers,
    /// Tries by where they go.
    pub loads: Loads,
    /// Of all calls for whose labels there is no room.
    pub other_rpc: Arc<RpcCounters>,
    budget: Arc<SeriesBudget>,
    named: Mutex<Named>,
}

#[derive(Debug, Default)]
struct Named {
    calls: BTreeMap<(Name, Name), Arc<CallCounters>>,
    answered: BTreeMap<String, Arc<Counter>>,
    rpc: BTreeMap<RpcLabels, Arc<RpcCounters>>,
    regions: BTreeMap<Name, Arc<RegionCounters>>,
    peers: BTreeMap<String, Arc<PeerCounters>>,
    /// Streams on draining endpoints, by cluster.
    drain_streams: BTreeMap<Name, u64>,
}

// === impl Counter ===

impl Counter {
    /// Adds; by the owning thread only.
    pub fn add(&self, count: u64) {
        let value = self.0.load(Ordering::Relaxed).wrapping_add(count);
        self.0.store(value, Ordering::Relaxed);
    }

    /// Subtracts (gauges); by the owning thread only.
    pub fn sub(&self, count: u64) {
        let value = self.0.load(Ordering::Relaxed).saturating_sub(count);
        self.0.store(value, Ordering::Relaxed);
    }

    /// Sets (gauges); by the owning thread only.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Numbers ===

impl Numbers {
    /// Counts the end of a try.
    pub fn count_try(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Answer(answer) if answer.code == Code::Ok => &self.tries_ok,
            Outcome::Answer(_) => &self.tries_error,
            Outcome::ConnectFailure => &self.tries_connect_failure,
            Outcome::Refused => &self.tries_refused,
            Outcome::Reset => &self.tries_reset,
            Outcome::Timeout => &self.tries_timeout,
        };
        counter.add(1);
    }

    /// Counts a further try by policy, after one that ended so.
    pub fn count_retry(&self, after: Outcome) {
        self.retries.add(1);
        let counter = match after {
            Outcome::Answer(_) => &self.retries_error,
            Outcome::ConnectFailure => &self.retries_connect_failure,
            Outcome::Refused => &self.retries_refused,
            Outcome::Reset => &self.retries_reset,
            Outcome::Timeout => &self.retries_timeout,
        };
        counter.add(1);
    }
}

// === impl CallCounters ===

impl CallCounters {
    /// Counts one finished call.
    pub fn record(&self, code: u32, latency_us: u64) {
        self.record_code(code_index(code));
        self.record_latency(latency_us);
    }

    /// Counts a code; `code` is of `code_index`.
    pub(crate) fn record_code(&self, code: usize) {
        self.codes[code].add(1);
    }

    pub(crate) fn record_latency(&self, latency_us: u64) {
        let bucket = LATENCY_BOUNDS_MS
            .iter()
            .position(|bound_ms| latency_us <= bound_ms * 1_000)
            .unwrap_or(LATENCY_BOUNDS_MS.len());
        self.latency[bucket].add(1);
        self.latency_us_sum.add(latency_us);
    }

    /// Whether the code was counted before.
    pub(crate) fn has(&self, code: usize) -> bool {
        self.codes[code].get() > 0
    }

    fn add_to(&self, total: &mut Totals) {
        for (sum, counter) in total.codes.iter_mut().zip(&self.codes) {
            *sum += counter.get();
        }
        for (sum, counter) in total.latency.iter_mut().zip(&self.latency) {
            *sum += counter.get();
        }
        total.latency_us_sum += self.latency_us_sum.get();
    }
}

// === impl PeerCounters ===

impl PeerCounters {
    /// Counts one finished call.
    pub fn record(&self, code: u32) {
        self.codes[code_index(code)].add(1);
    }
}

// === impl WorkerStats ===

impl WorkerStats {
    /// All zero, with room for series in common with other workers.
    #[must_use]
    pub(crate) fn new(budget: Arc<SeriesBudget>) -> Self {
        Self {
            numbers: Numbers::default(),
            loads: Loads::default(),
            other_rpc: Arc::default(),
            budget,
            named: Mutex::default(),
        }
    }

    /// The counters of a route on a cluster, made when they are new; without room those of all others.
    pub fn calls(&self, route: &Name, cluster: &Name) -> Arc<CallCounters> {
        let key = if self.budget.admit_rule(route, cluster) {
            (route.clone(), cluster.clone())
        } else {
            (Name::from(OTHER), Name::from(OTHER))
        };
        Arc::clone(self.named().calls.entry(key).or_default())
    }

    /// The counter of answers from a member cluster.
    pub fn answered(&self, cluster_id: &str) -> Arc<Counter> {
        let mut named = self.named();
        Arc::clone(named.answered.entry(cluster_id.to_owned()).or_default())
    }

    /// The counters of a method at a place, made when they are new.
    pub(crate) fn rpc(&self, labels: &RpcLabels) -> Arc<RpcCounters> {
        let mut named = self.named();
        Arc::clone(named.rpc.entry(labels.clone()).or_default())
    }

    /// The counters of a region, made when they are new.
    pub(crate) fn region(&self, region: &Name) -> Arc<RegionCounters> {
        let mut named = self.named();
        Arc::clone(named.regions.entry(region.clone()).or_default())
    }

    /// The counters of a member cluster that calls, made when they are new.
    pub(crate) fn peer(&self, cluster: &str) -> Arc<PeerCounters> {
        let mut named = self.named();
        let full = named.peers.len() >= PEERS_MAX && !named.peers.contains_key(cluster);
        let key = if full { OTHER } else { cluster };
        Arc::clone(named.peers.entry(key.to_owned()).or_default())
    }

    /// Tells how many streams are on draining endpoints.
    pub(crate) fn set_drain_streams(&self, streams: BTreeMap<Name, u64>) {
        self.named().drain_streams = streams;
    }

    /// Forgets routes that are gone, so that the list stays as long as the configuration.
    pub fn retain_routes(&self, routes: &HashSet<&str>) {
        let keep = |route: &str| is_kept(route) || routes.contains(route);
        self.named().calls.retain(|(route, _), _| keep(route));
    }

    /// Forgets backends that are gone.
    pub fn retain_clusters(&self, is_there: impl Fn(&str) -> bool) {
        let keep = |cluster: &str| is_kept(cluster) || is_there(cluster);
        self.named().calls.retain(|(_, cluster), _| keep(cluster));
    }

    /// Forgets methods that no route names any more.
    pub(crate) fn retain_methods(&self, methods: &KnownMethods) {
        let other = RpcLabels::other();
        let keep = |labels: &RpcLabels| *labels == other || methods.has(&labels.method);
        self.named().rpc.retain(|labels, _| keep(labels));
    }

    /// Forgets places that are gone, and with them regions that no place is in any more.
    pub(crate) fn forget_places(&self, gone: &[Place], regions: &[Name]) {
        let mut named = self.named();
        named.rpc.retain(|labels, _| !gone.contains(&labels.place));
        named.regions.retain(|region, _| !regions.contains(region));
    }

    fn named(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stands for what is not of the configuration, and always stays.
fn is_kept(name: &str) -> bool {
    name.is_empty() || name == OTHER
}

/// The place of a code among the counters.
pub(crate) fn code_index(code: u32) -> usize {
    (code as usize).min(CODES - 1)
}

#[derive(Default)]
struct Totals {
    codes: [u64; CODES],
    latency: [u64; LATENCY_BOUNDS_MS.len() + 1],
    latency_us_sum: u64,
}

#[derive(Default)]
struct RpcTotals {
    started: u64,
    msg_received: u64,
    msg_sent: u64,
    calls: Totals,
}

/// What all workers counted by name.
#[derive(Default)]
struct NamedTotals {
    calls: BTreeMap<(Name, Name), Totals>,
    answered: BTreeMap<String, u64>,
    rpc: BTreeMap<RpcLabels, RpcTotals>,
    regions: BTreeMap<Name, [u64; 3]>,
    peers: BTreeMap<String, [u64; CODES]>,
}

impl NamedTotals {
    fn add(&mut self, named: &Named) {
        for (key, counters) in &named.calls {
            counters.add_to(self.calls.entry(key.clone()).or_default());
        }
        for (cluster_id, counter) in &named.answered {
            *self.answered.entry(cluster_id.clone()).or_default() += counter.get();
        }
        for (labels, counters) in &named.rpc {
            self.add_rpc(labels, counters);
        }
        for (region, counters) in &named.regions {
            let totals = self.regions.entry(region.clone()).or_default();
            totals[0] += counters.calls.get();
            totals[1] += counters.request_bytes.get();
            totals[2] += counters.response_bytes.get();
        }
        for (cluster, counters) in &named.peers {
            let totals = self.peers.entry(cluster.clone()).or_insert([0; CODES]);
            for (sum, counter) in totals.iter_mut().zip(&counters.codes) {
                *sum += counter.get();
            }
        }
    }

    fn add_rpc(&mut self, labels: &RpcLabels, counters: &RpcCounters) {
        let totals = self.rpc.entry(labels.clone()).or_default();
        totals.started += counters.started.get();
        totals.msg_received += counters.msg_received.get();
        totals.msg_sent += counters.msg_sent.get();
        counters.calls.add_to(&mut totals.calls);
    }
}

/// The sum over all workers, as the JSON object that the owner reads.
pub fn sum(workers: &[Arc<WorkerStats>]) -> Map<String, Value> {
    let mut numbers: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut totals = NamedTotals::default();
    let other = RpcLabels::other();
    for worker in workers {
        worker
            .numbers
            .each(|name, value| *numbers.entry(name).or_default() += value);
        totals.add(&worker.named());
        let counters = &worker.other_rpc;
        if counters.started.get() > 0 || counters.calls.codes.iter().any(|it| it.get() > 0) {
            totals.add_rpc(&other, counters);
        }
    }
    let calls: Vec<Value> = totals.calls.iter().map(call_json).collect();
    let rpc: Vec<Value> = totals.rpc.iter().map(rpc_json).collect();
    let regions: Vec<Value> = totals.regions.iter().map(region_json).collect();
    let peers: Vec<Value> = totals
        .peers
        .iter()
        .map(|(cluster, codes)| json!({"source_cluster": cluster, "codes": codes_json(codes)}))
        .collect();
    let mut out = Map::new();
    out.insert("numbers".to_owned(), json!(numbers));
    out.insert("calls".to_owned(), Value::Array(calls));
    out.insert("answered".to_owned(), json!(totals.answered));
    out.insert("rpc".to_owned(), Value::Array(rpc));
    out.insert("regions".to_owned(), Value::Array(regions));
    out.insert("peer_calls".to_owned(), Value::Array(peers));
    out.insert("latency_bounds_ms".to_owned(), json!(LATENCY_BOUNDS_MS));
    out
}

/// Streams on draining endpoints of all workers, by cluster.
pub(crate) fn drain_streams(workers: &[Arc<WorkerStats>]) -> BTreeMap<Name, u64> {
    let mut all = BTreeMap::new();
    for worker in workers {
        for (cluster, streams) in &worker.named().drain_streams {
            *all.entry(cluster.clone()).or_default() += streams;
        }
    }
    all
}

fn call_json(((route, cluster), totals): (&(Name, Name), &Totals)) -> Value {
    json!({
        "route": &**route,
        "cluster": &**cluster,
        "codes": codes_json(&totals.codes),
        "latency": totals.latency,
        "latency_us_sum": totals.latency_us_sum,
    })
}

fn rpc_json((labels, totals): (&RpcLabels, &RpcTotals)) -> Value {
    json!({
        "service": &*labels.method.service,
        "method": &*labels.method.method,
        "type": labels.method.kind.word(),
        "destination_cluster": &*labels.place.cluster,
        "destination_region": &*labels.place.region,
        "started": totals.started,
        "msg_received": totals.msg_received,
        "msg_sent": totals.msg_sent,
        "codes": codes_json(&totals.calls.codes),
        "latency": totals.calls.latency,
        "latency_us_sum": totals.calls.latency_us_sum,
    })
}

fn region_json((region, totals): (&Name, &[u64; 3])) -> Value {
    let [calls, request_bytes, response_bytes] = totals;
    json!({
        "region": &**region,
        "calls": calls,
        "request_bytes": request_bytes,
        "response_bytes": response_bytes,
    })
}

fn codes_json(codes: &[u64; CODES]) -> BTreeMap<String, u64> {
    let codes = codes.iter().enumerate();
    let seen = codes.filter(|(_, count)| **count > 0);
    seen.map(|(code, count)| (code_key(code), *count)).collect()
}

fn code_key(code: usize) -> String {
    if code == CODES - 1 {
        "other".to_owned()
    } else {
        code.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::PEERS_MAX;
    use super::{WorkerStats, sum};
    use crate::series::SeriesBudget;
    use std::collections::HashSet;
    use std::sync::Arc;

    #[test]
    fn peers_beyond_the_bound_count_together() {
        let stats = WorkerStats::new(Arc::new(SeriesBudget::new(10_000)));
        for at in 0..PEERS_MAX + 50 {
            stats.peer(&format!("cluster-{at}")).record(0);
        }
        stats.peer("cluster-0").record(14);
        let all = sum(&[Arc::new(stats)]);
        let peers = all["peer_calls"].as_array().expect("is a list");
        assert_eq!(peers.len(), PEERS_MAX + 1);
        let of = |name| peers.iter().find(|it| it["source_cluster"] == name);
        assert_eq!(of("other").expect("is there")["codes"]["0"], 50);
        assert_eq!(of("cluster-0").expect("is there")["codes"]["14"], 1);
    }

    #[test]
    fn sums_over_workers_and_forgets_old_routes() {
        let budget = Arc::new(SeriesBudget::new(10_000));
        let workers = [(); 2].map(|()| Arc::new(WorkerStats::new(Arc::clone(&budget))));
        for worker in &workers {
            worker.calls(&"a".into(), &"c".into()).record(0, 1_500);
            worker
                .calls(&"b".into(), &"c".into())
                .record(99, 70_000_000);
            worker.numbers.connects.add(2);
            worker.answered("us-west-1").add(1);
        }
        let all = sum(&workers);
        assert_eq!(all["numbers"]["connects"], 4);
        assert_eq!(all["answered"]["us-west-1"], 2);
        assert_eq!(all["calls"][0]["codes"]["0"], 2);
        assert_eq!(all["calls"][0]["latency"][1], 2);
        assert_eq!(all["calls"][1]["codes"]["other"], 2);
        for worker in &workers {
            worker.retain_routes(&HashSet::from(["b"]));
        }
        assert_eq!(sum(&workers)["calls"].as_array().map(Vec::len), Some(1));
    }
}
