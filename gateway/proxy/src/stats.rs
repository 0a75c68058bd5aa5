//! Counters: one set per worker, written by that worker alone, read by anyone at any time.
//!
//! A counter is a relaxed atomic that its single writer loads and stores: no locked instruction on the request
//! path. A lock is taken only when a route meets a cluster for the first time, and when somebody reads.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use crate::load::Loads;

/// Upper bounds of the latency buckets in milliseconds; one more bucket counts what is above.
pub const LATENCY_BOUNDS_MS: [u64; 14] = [
    1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 60_000,
];
/// gRPC status codes 0 to 16, and one for all other numbers.
const CODES: usize = 18;

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
    /// Panics caught.
    panics,
}

/// All counters of one worker.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Plain numbers.
    pub numbers: Numbers,
    /// Tries by where they go.
    pub loads: Loads,
    named: Mutex<Named>,
}

#[derive(Debug, Default)]
struct Named {
    calls: BTreeMap<(String, String), Arc<CallCounters>>,
    answered: BTreeMap<String, Arc<Counter>>,
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

// === impl CallCounters ===

impl CallCounters {
    /// Counts one finished call.
    pub fn record(&self, code: u32, latency_us: u64) {
        self.codes[(code as usize).min(CODES - 1)].add(1);
        let bucket = LATENCY_BOUNDS_MS
            .iter()
            .position(|bound_ms| latency_us <= bound_ms * 1_000)
            .unwrap_or(LATENCY_BOUNDS_MS.len());
        self.latency[bucket].add(1);
        self.latency_us_sum.add(latency_us);
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

// === impl WorkerStats ===

impl WorkerStats {
    /// The counters of a route on a cluster, made when they are new.
    pub fn calls(&self, route: &str, cluster: &str) -> Arc<CallCounters> {
        let key = (route.to_owned(), cluster.to_owned());
        Arc::clone(self.named().calls.entry(key).or_default())
    }

    /// The counter of answers from a member cluster.
    pub fn answered(&self, cluster_id: &str) -> Arc<Counter> {
        let mut named = self.named();
        Arc::clone(named.answered.entry(cluster_id.to_owned()).or_default())
    }

    /// Forgets routes that are gone, so that the list stays as long as the configuration.
    pub fn retain_routes(&self, routes: &HashSet<&str>) {
        let keep = |route: &str| route.is_empty() || routes.contains(route);
        self.named().calls.retain(|(route, _), _| keep(route));
    }

    fn named(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Totals {
    codes: [u64; CODES],
    latency: [u64; LATENCY_BOUNDS_MS.len() + 1],
    latency_us_sum: u64,
}

/// The sum over all workers, as the JSON object that the owner reads.
pub fn sum(workers: &[Arc<WorkerStats>]) -> Map<String, Value> {
    let mut numbers: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut calls: BTreeMap<(String, String), Totals> = BTreeMap::new();
    let mut answered: BTreeMap<String, u64> = BTreeMap::new();
    for worker in workers {
        worker
            .numbers
            .each(|name, value| *numbers.entry(name).or_default() += value);
        let named = worker.named();
        for (key, counters) in &named.calls {
            counters.add_to(calls.entry(key.clone()).or_default());
        }
        for (cluster_id, counter) in &named.answered {
            *answered.entry(cluster_id.clone()).or_default() += counter.get();
        }
    }
    let calls: Vec<Value> = calls.iter().map(call_json).collect();
    let mut out = Map::new();
    out.insert("numbers".to_owned(), json!(numbers));
    out.insert("calls".to_owned(), Value::Array(calls));
    out.insert("answered".to_owned(), json!(answered));
    out.insert("latency_bounds_ms".to_owned(), json!(LATENCY_BOUNDS_MS));
    out
}

fn call_json(((route, cluster), totals): (&(String, String), &Totals)) -> Value {
    let codes: BTreeMap<String, u64> = totals
        .codes
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(code, count)| (code_key(code), *count))
        .collect();
    json!({
        "route": route,
        "cluster": cluster,
        "codes": codes,
        "latency": totals.latency,
        "latency_us_sum": totals.latency_us_sum,
    })
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
    use super::{WorkerStats, sum};
    use std::collections::HashSet;
    use std::sync::Arc;

    #[test]
    fn sums_over_workers_and_forgets_old_routes() {
        let workers = [Arc::new(WorkerStats::default()), Arc::default()];
        for worker in &workers {
            worker.calls("a", "c").record(0, 1_500);
            worker.calls("b", "c").record(99, 70_000_000);
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
