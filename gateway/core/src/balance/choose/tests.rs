use proptest::prelude::*;

use crate::balance::Source;
use crate::cluster::tests::cluster;
use crate::config::{
    Cluster, EndpointConfig, EndpointSet, Health, LoadBalancing, LocalityConfig, SlowStart,
};
use crate::outlier::record;
use crate::{Affinity, ClusterHandle, Code, Endpoint, Outcome, PickContext};

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// One locality for each number of endpoints, each its own priority.
fn set(sizes: &[u8]) -> EndpointSet {
    let locality = |(priority, size): (u8, &u8)| LocalityConfig {
        cluster_id: format!("c{priority}").into(),
        region: "r".into(),
        priority: priority.into(),
        weight: 1,
        endpoints: (0..*size)
            .map(|n| EndpointConfig {
                address: ([10, 0, priority, n], 80).into(),
                weight: 1,
                health: Health::Healthy,
                peer: false,
                drain_grace_ms: None,
            })
            .collect(),
    };
    EndpointSet {
        cluster: "a".into(),
        localities: (0..).zip(sizes).map(locality).collect(),
    }
}

fn handle(
    config: Cluster,
    sizes: &[u8],
    prev: Option<&ClusterHandle>,
    now_ms: u64,
) -> ClusterHandle {
    let handle = ClusterHandle::new(Arc::new(config), Source::Set(&set(sizes)), prev, now_ms);
    handle.adopt();
    handle
}

fn with(lb: LoadBalancing) -> Cluster {
    Cluster { lb, ..cluster("a") }
}

const fn at(now_ms: u64, random: u64) -> PickContext<'static> {
    PickContext {
        now_ms,
        random,
        tried: &[],
        tried_clusters: &[],
        outstanding: &|_| 0,
    }
}

fn pick(handle: &ClusterHandle, context: &PickContext<'_>, affinity: Affinity) -> Endpoint {
    let picked = handle.endpoints.pick_for(context, affinity).unwrap();
    handle.endpoints.get(picked.index).clone()
}

fn eject(handle: &ClusterHandle, at: usize, now_ms: u64) -> u64 {
    let endpoint = &handle.endpoints.endpoints()[at];
    let mut failures = (0..9).filter_map(|_| record(handle, endpoint, Outcome::Reset, now_ms));
    failures.next().unwrap().until_ms
}

#[test]
fn after_an_ejection_one_request_goes_first() {
    for lb in [LoadBalancing::LeastRequest, LoadBalancing::RoundRobin] {
        let handle = handle(with(lb), &[4], None, 0);
        let until_ms = eject(&handle, 0, 0);
        let back = handle.endpoints.endpoints()[0].address;
        let tries = |now_ms, seed: u64| {
            let addresses = (0..200_u64).map(|random| {
                let context = at(now_ms, seed + random);
                pick(&handle, &context, Affinity::default()).address
            });
            addresses.filter(|address| *address == back).count()
        };
        assert_eq!(tries(until_ms - 1, 0), 0, "{lb:?}");
        assert_eq!(tries(until_ms, 1_000), 1, "{lb:?}");
        assert_eq!(tries(until_ms + 999, 2_000), 0, "{lb:?}");
        assert_eq!(
            tries(until_ms + 1_000, 3_000),
            1,
            "the first one said nothing: {lb:?}"
        );
        let endpoint = &handle.endpoints.endpoints()[0];
        assert_eq!(
            record(
                &handle,
                endpoint,
                Outcome::status(Code::Ok),
                until_ms + 1_001
            ),
            None
        );
        assert!(tries(until_ms + 1_001, 4_000) > 20, "{lb:?}");
    }
}

#[test]
fn when_all_are_on_their_way_back_requests_still_go_somewhere() {
    let handle = handle(with(LoadBalancing::LeastRequest), &[1], None, 0);
    let until_ms = eject(&handle, 0, 0);
    for random in 0..20 {
        pick(&handle, &at(until_ms, random), Affinity::default());
    }
}

#[test]
fn a_new_endpoint_grows_into_its_share() {
    for lb in [LoadBalancing::LeastRequest, LoadBalancing::RoundRobin] {
        grows_into_its_share(lb);
    }
}

fn grows_into_its_share(lb: LoadBalancing) {
    let mut config = with(lb);
    config.slow_start = Some(SlowStart {
        window_ms: 10_000,
        min_percent: 10,
    });
    let first = handle(config.clone(), &[3], None, 1_000);
    let second = handle(config, &[4], Some(&first), 50_000);
    let new = second.endpoints.endpoints()[3].address;
    let percent = |now_ms: u64| {
        let picks = (0..20_000).map(|random| {
            pick(
                &second,
                &at(now_ms, random * 7 + now_ms),
                Affinity::default(),
            )
            .address
        });
        picks.filter(|address| *address == new).count() / 200
    };
    // Three with weight 100 and one with 10, 50, 100.
    assert!((2..=4).contains(&percent(50_000)), "{}", percent(50_000));
    assert!((12..=17).contains(&percent(55_000)), "{}", percent(55_000));
    assert!((23..=27).contains(&percent(60_000)), "{}", percent(60_000));
    // One that was away begins anew.
    let shared = &second.endpoints.endpoints()[3].shared;
    shared.connect_failed(&second.config, 70_000, 1);
    assert_eq!(percent(70_000), 0);
    shared.connected();
    assert!((2..=4).contains(&percent(70_001)));
    assert!(percent(80_001) > 20);
}

#[test]
fn endpoints_that_begin_together_share_at_once() {
    let mut config = with(LoadBalancing::LeastRequest);
    config.slow_start = Some(SlowStart {
        window_ms: 10_000,
        min_percent: 10,
    });
    let handle = handle(config, &[4], None, 1_000);
    let picks = (0..1_000).map(|n| pick(&handle, &at(1_000, n), Affinity::default()).address);
    assert_eq!(picks.collect::<BTreeSet<_>>().len(), 4);
}

#[test]
fn a_session_holds_to_its_endpoint_while_that_is_fit() {
    let handle = handle(cluster("a"), &[5, 1], None, 0);
    let pinned = handle.endpoints.endpoints()[2].address;
    let session = Affinity {
        pinned: Some(pinned),
        hash: None,
    };
    assert!((0..100).all(|n| pick(&handle, &at(0, n), session).address == pinned));
    let tried = PickContext {
        tried: &[pinned],
        ..at(0, 1)
    };
    assert_ne!(pick(&handle, &tried, session).address, pinned);
    let clusters = PickContext {
        tried_clusters: &["c0".into()],
        ..at(0, 1)
    };
    assert_ne!(pick(&handle, &clusters, session).address, pinned);
    handle.endpoints.endpoints()[2]
        .shared
        .connect_failed(&handle.config, 0, 1);
    assert_ne!(pick(&handle, &at(0, 1), session).address, pinned);
    let unknown = Affinity {
        pinned: Some("192.0.2.1:80".parse().unwrap()),
        hash: None,
    };
    pick(&handle, &at(0, 1), unknown);
}

#[test]
fn least_request_takes_a_load_that_speaks_of_time() {
    let handle = handle(with(LoadBalancing::PeakEwma), &[2], None, 0);
    let context = PickContext {
        outstanding: &|index| if index.0 == 0 { 50_000 } else { 900 },
        ..at(0, 0)
    };
    for random in 0..100 {
        let context = PickContext { random, ..context };
        assert_eq!(handle.endpoints.pick(&context).unwrap().index.0, 1);
    }
}

#[test]
fn an_endpoint_that_was_tried_twice_counts_once() {
    let handle = handle(cluster("a"), &[1, 2], None, 0);
    let address = |at: usize| handle.endpoints.endpoints()[at].address;
    let tried = [address(1), address(0), address(1)];
    let context = PickContext {
        tried: &tried,
        ..at(0, 1)
    };
    assert_eq!(
        pick(&handle, &context, Affinity::default()).address,
        address(2)
    );
}

proptest! {
    /// Same key, same endpoint: whatever the random number; and only the keys of an endpoint that
    /// fails move, and back when it is back.
    #[test]
    fn a_key_stays(
        maglev: bool,
        size in 2..9_u8,
        key: u64,
        randoms in prop::collection::vec(any::<u64>(), 4),
        out: prop::sample::Index,
    ) {
        let lb = if maglev { LoadBalancing::Maglev } else { LoadBalancing::RingHash };
        let handle = handle(with(lb), &[size, 2], None, 0);
        let affinity = Affinity { hash: Some(key), pinned: None };
        let home = pick(&handle, &at(0, 0), affinity).address;
        for random in &randoms {
            prop_assert_eq!(pick(&handle, &at(0, *random), affinity).address, home);
        }
        let retry = PickContext { tried: &[home], ..at(0, 0) };
        let second = pick(&handle, &retry, affinity).address;
        prop_assert_ne!(second, home);
        let out = &handle.endpoints.endpoints()[out.index(usize::from(size))];
        out.shared.connect_failed(&handle.config, 0, 1);
        let moved = pick(&handle, &at(0, 0), affinity).address;
        // With one of few gone, the priority below takes over a part too.
        prop_assert!(moved == home || out.address == home || size < 4);
        out.shared.connected();
        prop_assert_eq!(pick(&handle, &at(0, 7), affinity).address, home);
    }

    #[test]
    fn retries_reach_every_endpoint_before_any_twice(
        sizes in prop::collection::vec(1..7_u8, 1..4),
        lb in prop::sample::select(vec![
            LoadBalancing::LeastRequest, LoadBalancing::RoundRobin, LoadBalancing::RingHash,
        ]),
        random: u64,
    ) {
        let handle = handle(with(lb), &sizes, None, 0);
        let affinity = Affinity { hash: Some(random), pinned: None };
        let mut tried: Vec<SocketAddr> = Vec::new();
        for _ in 0..handle.endpoints.len() {
            let context = PickContext { tried: &tried, ..at(0, random) };
            let picked = handle.endpoints.pick_for(&context, affinity).unwrap();
            prop_assert!(!picked.again);
            tried.push(handle.endpoints.get(picked.index).address);
        }
        let distinct: BTreeSet<_> = tried.iter().collect();
        prop_assert_eq!(distinct.len(), handle.endpoints.len());
        let context = PickContext { tried: &tried, ..at(0, random) };
        prop_assert!(handle.endpoints.pick_for(&context, affinity).unwrap().again);
    }
}
