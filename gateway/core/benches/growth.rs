//! What decisions cost as the configuration grows: routes from 10 to 10,000, endpoints from 10 to
//! 100,000.
//!
//! `cargo bench -p gateway-core`. Absolute numbers are of the machine; what matters is that a
//! lookup and a pick stay flat, that a change of one endpoint is applied in less than 5 ms (and what
//! workers follow of it is found in far less), and that
//! the first pick after a change of health (which makes the next view) stays far below 2 ms.

#![allow(missing_docs, clippy::unwrap_used)] // made by criterion's macros; a bench may panic

use std::fmt::Write;
use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use gateway_core::{HeaderLookup, PickContext, Snapshot, parse_update};

const LBS: [&str; 4] = ["least_request", "round_robin", "ring_hash", "maglev"];

struct NoHeaders;

impl HeaderLookup for NoHeaders {
    fn first(&self, _: &str) -> Option<&[u8]> {
        None
    }
}

fn apply(prev: &Snapshot, update: &str) -> Snapshot {
    Snapshot::apply(prev, parse_update(update.as_bytes()).unwrap(), 1).unwrap()
}

/// Services of ten methods each.
fn with_routes(routes: usize) -> Snapshot {
    let mut list = String::new();
    for n in 0..routes {
        let comma = if n == 0 { "" } else { "," };
        write!(
            list,
            r#"{comma}{{"name": "r{n}", "match": {{"path": {{"exact": "/pkg.Svc{}/M{}"}}, "grpc": true}},
                "action": {{"weighted": [{{"cluster": "a", "weight": 1}}]}}}}"#,
            n / 10,
            n % 10,
        )
        .unwrap();
    }
    apply(
        &Snapshot::default(),
        &format!(
            r#"{{"version": "1", "full": true, "clusters": [{{"name": "a"}}], "route_tables":
                [{{"name": "t", "virtual_hosts": [{{"name": "h", "hostnames": ["*.example.com"],
                "routes": [{list}]}}]}}]}}"#
        ),
    )
}

fn address(n: usize) -> String {
    format!("10.{}.{}.{}:80", n >> 16, (n >> 8) & 255, n & 255)
}

/// In four localities.
fn with_endpoints(endpoints: usize, lb: &str) -> Snapshot {
    let localities: Vec<_> = (0..4)
        .map(|part| {
            let own = (0..endpoints).filter(|n| n % 4 == part);
            let own: Vec<_> = own
                .map(|n| format!(r#"{{"address": "{}"}}"#, address(n)))
                .collect();
            format!(
                r#"{{"cluster_id": "c{part}", "region": "r", "priority": 0, "weight": 1,
                    "endpoints": [{}]}}"#,
                own.join(",")
            )
        })
        .collect();
    apply(
        &Snapshot::default(),
        &format!(
            r#"{{"version": "1", "full": true, "clusters": [{{"name": "a", "lb": "{lb}",
                "hash_on": [{{"header": "x-user"}}]}}],
                "endpoints": [{{"cluster": "a", "localities": [{}]}}]}}"#,
            localities.join(",")
        ),
    )
}

/// One endpoint goes, and comes back with another weight.
fn change(weight: u32) -> String {
    format!(
        r#"{{"version": "2", "full": false, "endpoint_deltas": [{{"cluster": "a", "localities":
            [{{"cluster_id": "c1", "region": "r", "priority": 0, "weight": 1,
               "endpoints": [{{"address": "{}", "weight": {weight}}}]}}], "removed": ["{}"]}}]}}"#,
        address(5),
        address(2),
    )
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    for routes in [10, 1_000, 10_000] {
        let snapshot = with_routes(routes);
        let table = snapshot.table("t").unwrap();
        let paths: Vec<_> = (0..routes)
            .map(|n| format!("/pkg.Svc{}/M{}", n / 10, n % 10))
            .collect();
        let mut at = 0;
        group.bench_function(BenchmarkId::from_parameter(routes), |bencher| {
            bencher.iter(|| {
                at = (at + 7) % paths.len();
                table.lookup(b"api.example.com", paths[at].as_bytes(), &NoHeaders, true)
            });
        });
    }
}

fn pick(criterion: &mut Criterion) {
    for lb in LBS {
        let mut group = criterion.benchmark_group(format!("pick/{lb}"));
        for endpoints in [10, 1_000, 100_000] {
            let snapshot = with_endpoints(endpoints, lb);
            let cluster = snapshot.cluster("a").unwrap();
            let mut random = 0_u64;
            group.bench_function(BenchmarkId::from_parameter(endpoints), |bencher| {
                bencher.iter(|| {
                    random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    let affinity = gateway_core::Affinity {
                        hash: cluster.config.lb.uses_keys().then_some(random),
                        pinned: None,
                    };
                    let context = context(1, random);
                    cluster.endpoints.pick_for(&context, affinity)
                });
            });
        }
    }
}

fn changes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change");
    for endpoints in [10, 1_000, 100_000] {
        let snapshot = with_endpoints(endpoints, "least_request");
        let changed = change(2);
        let id = BenchmarkId::new("apply", endpoints);
        group.bench_function(id, |bencher| {
            bencher.iter_batched(
                || snapshot.clone(),
                |snapshot| black_box(apply(&snapshot, &changed)),
                BatchSize::LargeInput,
            );
        });
        let cluster = snapshot.cluster("a").unwrap();
        let next = apply(&snapshot, &changed);
        let after = &next.cluster("a").unwrap().endpoints;
        let id = BenchmarkId::new("differences", endpoints);
        group.bench_function(id, |bencher| {
            bencher.iter(|| after.differences(&cluster.endpoints));
        });
        let shared = &cluster.endpoints.iter().next().unwrap().shared;
        let mut now_ms = 1;
        let id = BenchmarkId::new("pick_after_health", endpoints);
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                now_ms += 1;
                shared.connect_failed(&cluster.config, now_ms, 0);
                let away = cluster.endpoints.pick(&context(now_ms, now_ms));
                shared.connected();
                (away, cluster.endpoints.pick(&context(now_ms, now_ms)))
            });
        });
    }
}

const fn context(now_ms: u64, random: u64) -> PickContext<'static> {
    PickContext {
        now_ms,
        random,
        tried: &[],
        tried_clusters: &[],
        outstanding: &|_| 0,
    }
}

criterion_group!(benches, lookup, pick, changes);
criterion_main!(benches);
