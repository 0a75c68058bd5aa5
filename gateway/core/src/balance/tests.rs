use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ClusterHandle;
use crate::cluster::tests::cluster;
use crate::config::{EndpointConfig, EndpointSet, Health, LocalityConfig};
use crate::endpoint::Drain;

const H: Health = Health::Healthy;
const D: Health = Health::Draining;
const U: Health = Health::Unhealthy;

/// A locality named by `cluster_id`; its endpoints have the addresses 10.PRIORITY.LOCALITY.n.
fn locality(
    cluster_id: &str,
    at: u8,
    priority: u8,
    weight: u32,
    healths: &[Health],
) -> LocalityConfig {
    let endpoint = |(n, health): (u8, &Health)| EndpointConfig {
        address: ([10, priority, at, n], 80).into(),
        weight: 1,
        health: *health,
        peer: false,
        drain_grace_ms: Some(1_000),
    };
    LocalityConfig {
        cluster_id: cluster_id.into(),
        region: "r".into(),
        priority: priority.into(),
        weight,
        endpoints: (0..).zip(healths).map(endpoint).collect(),
    }
}

fn handle_of(
    config: Cluster,
    localities: Vec<LocalityConfig>,
    prev: Option<&ClusterHandle>,
    now_ms: u64,
) -> ClusterHandle {
    let set = EndpointSet {
        cluster: "a".into(),
        localities,
    };
    let handle = ClusterHandle::new(Arc::new(config), Source::Set(&set), prev, now_ms);
    handle.adopt();
    handle
}

fn handle(localities: Vec<LocalityConfig>) -> ClusterHandle {
    handle_of(cluster("a"), localities, None, 0)
}

/// One locality per priority.
fn tiers(healths: &[&[Health]]) -> ClusterHandle {
    let tier = |(priority, healths): (u8, &&[Health])| {
        locality(&format!("c{priority}"), 0, priority, 1, healths)
    };
    handle((0..).zip(healths).map(tier).collect())
}

const fn context(random: u64) -> PickContext<'static> {
    PickContext {
        now_ms: 0,
        random,
        tried: &[],
        tried_clusters: &[],
        outstanding: &|_| 0,
    }
}

/// Picks by `cluster_id`, in percent.
fn spread(handle: &ClusterHandle) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for random in 0..20_000 {
        let picked = handle.endpoints.pick(&context(random)).unwrap();
        *counts
            .entry(handle.endpoints.get(picked.index).cluster_id.to_string())
            .or_insert(0) += 1;
    }
    for count in counts.values_mut() {
        *count = (*count + 100) / 200;
    }
    counts
}

fn assert_spread(handle: &ClusterHandle, expected: &[(&str, u32)]) {
    let spread = spread(handle);
    assert_eq!(
        spread.keys().collect::<Vec<_>>(),
        expected.iter().map(|(name, _)| name).collect::<Vec<_>>()
    );
    for (name, percent) in expected {
        assert!(
            spread[*name].abs_diff(*percent) <= 1,
            "{spread:?} is not {expected:?}"
        );
    }
}

fn loads(handle: &ClusterHandle) -> Vec<(u32, u32, bool)> {
    handle
        .endpoints
        .loads(0)
        .iter()
        .map(|load| (load.available_percent, load.load_percent, load.panic))
        .collect()
}

#[test]
fn priorities_spill_as_in_envoys_table() {
    assert_eq!(
        loads(&tiers(&[&[H, H], &[H]])),
        [(100, 100, false), (100, 0, false)]
    );
    assert_eq!(
        loads(&tiers(&[&[H, U], &[H]])),
        [(50, 70, false), (100, 30, false)]
    );
    assert_spread(&tiers(&[&[H, U], &[H]]), &[("c0", 70), ("c1", 30)]);
    assert_eq!(
        loads(&tiers(&[&[U, U], &[H]])),
        [(0, 0, false), (100, 100, false)]
    );
    assert_eq!(
        loads(&tiers(&[&[H, U, U, U], &[H, U, U, U]])),
        [(25, 50, true), (25, 50, true)]
    );
}

#[test]
fn localities_share_by_weight_and_what_is_left_of_them() {
    let full = handle(vec![
        locality("a", 0, 0, 70, &[H, H]),
        locality("b", 1, 0, 30, &[H]),
    ]);
    assert_spread(&full, &[("a", 70), ("b", 30)]);
    let half = handle(vec![
        locality("a", 0, 0, 70, &[H, U]),
        locality("b", 1, 0, 30, &[H, H]),
    ]);
    assert_spread(&half, &[("a", 62), ("b", 38)]);
    let gone = handle(vec![
        locality("a", 0, 0, 70, &[U]),
        locality("b", 1, 0, 30, &[H; 4]),
    ]);
    assert_spread(&gone, &[("b", 100)]);
    let unweighted = handle(vec![
        locality("a", 0, 0, 0, &[H]),
        locality("b", 1, 0, 5, &[H]),
    ]);
    assert_spread(&unweighted, &[("b", 100)]);
}

#[test]
fn capacity_counts_not_the_number_of_endpoints() {
    let mut tier = locality("a", 0, 0, 1, &[H, U, U]);
    tier.endpoints[0].weight = 8;
    assert_eq!(
        loads(&handle(vec![tier, locality("b", 0, 1, 1, &[H])])),
        [(80, 100, false), (100, 0, false)]
    );
}

#[test]
fn when_everything_is_unhealthy_the_first_priority_takes_all() {
    let all = tiers(&[&[U, U], &[U]]);
    assert_eq!(loads(&all), [(0, 100, true), (0, 0, true)]);
    assert!(all.endpoints.pick(&context(1)).unwrap().panic);
    let mut off = cluster("a");
    off.panic_percent = 0;
    let off = handle_of(off, vec![locality("a", 0, 0, 1, &[U])], None, 0);
    assert_eq!(off.endpoints.pick(&context(1)), Err(PickError::Unavailable));
    assert_eq!(off.endpoints.loads(0)[0].load_percent, 0);
}

#[test]
fn nothing_configured_is_empty() {
    assert_eq!(
        handle(vec![]).endpoints.pick(&context(1)),
        Err(PickError::Empty)
    );
    let unweighted = handle(vec![locality("a", 0, 0, 0, &[H])]);
    assert_eq!(
        unweighted.endpoints.pick(&context(1)),
        Err(PickError::Empty)
    );
}

#[test]
fn a_rolling_update_does_not_spill_but_a_drain_does() {
    assert_eq!(
        loads(&tiers(&[&[H, D, D], &[H]])),
        [(100, 100, false), (100, 0, false)]
    );
    assert_eq!(
        loads(&tiers(&[&[D, D], &[H]])),
        [(0, 0, false), (100, 100, false)]
    );
    let half_drained = handle(vec![
        locality("a", 0, 0, 1, &[D]),
        locality("b", 1, 0, 1, &[H]),
        locality("c", 0, 1, 1, &[H]),
    ]);
    assert_spread(&half_drained, &[("b", 70), ("c", 30)]);
}

#[test]
fn draining_endpoints_serve_only_when_there_is_nothing_else() {
    let panic = tiers(&[&[D, U, U]]);
    let picks: Vec<_> = (0..200)
        .map(|random| panic.endpoints.pick(&context(random)).unwrap().index.0)
        .collect();
    assert!(!picks.contains(&0) && picks.contains(&1) && picks.contains(&2));
    let mut off = cluster("a");
    off.panic_percent = 0;
    let only = handle_of(off, vec![locality("a", 0, 0, 1, &[D])], None, 0);
    assert_eq!(
        only.endpoints
            .pick(&context(1))
            .map(|picked| picked.index.0),
        Ok(0)
    );
}

#[test]
fn what_is_known_to_be_down_is_panics_last_choice() {
    let handle = tiers(&[&[U, U]]);
    let shared = &handle.endpoints.endpoints()[0].shared;
    shared.connect_failed(&handle.config, 0, 1);
    assert!((0..100).all(|random| handle.endpoints.pick(&context(random)).unwrap().index.0 == 1));
    handle.endpoints.endpoints()[1]
        .shared
        .connect_failed(&handle.config, 0, 1);
    assert!((0..100).any(|random| handle.endpoints.pick(&context(random)).unwrap().index.0 == 0));
}

#[test]
fn when_everything_is_bad_the_first_priority_with_the_least_bad_takes_all() {
    assert_spread(&tiers(&[&[D], &[U]]), &[("c1", 100)]);
    let handle = tiers(&[&[U], &[U]]);
    assert_spread(&handle, &[("c0", 100)]);
    handle.endpoints.endpoints()[0]
        .shared
        .connect_failed(&handle.config, 0, 1);
    assert_spread(&handle, &[("c1", 100)]);
}

#[test]
fn in_panic_localities_share_by_weight_alone() {
    let bad = handle(vec![
        locality("a", 0, 0, 50, &[H, U, U, U, U, U]),
        locality("b", 1, 0, 50, &[U, U, U]),
    ]);
    assert_spread(&bad, &[("a", 50), ("b", 50)]);
}

#[test]
fn the_last_endpoint_of_many_is_not_rounded_away() {
    let mut config = cluster("a");
    config.panic_percent = 0;
    let mut healths = vec![U; 250];
    healths[7] = H;
    let handle = handle_of(config, vec![locality("a", 0, 0, 1, &healths)], None, 0);
    assert_eq!(
        handle
            .endpoints
            .pick(&context(1))
            .map(|picked| picked.index.0),
        Ok(7)
    );
}

#[test]
fn learned_health_moves_traffic_at_once_and_time_brings_it_back() {
    let handle = tiers(&[&[H], &[H]]);
    let priority = |now_ms| {
        handle
            .endpoints
            .pick(&PickContext {
                now_ms,
                ..context(5)
            })
            .unwrap()
            .priority
    };
    assert_eq!(priority(0), 0);
    let shared = &handle.endpoints.endpoints()[0].shared;
    let reconnect_at_ms = shared.connect_failed(&handle.config, 10, 1);
    assert_eq!(
        [
            priority(10),
            priority(reconnect_at_ms + 4_999),
            priority(reconnect_at_ms + 5_000)
        ],
        [1, 1, 0]
    );
    shared.set_active_health(false);
    assert_eq!(priority(10_000), 0, "health checks are not on");
    shared.connect_failed(&handle.config, 20_000, 1);
    assert_eq!(priority(20_000), 1);
    shared.connected();
    assert_eq!(priority(20_000), 0);
}

#[test]
fn active_health_counts_when_checks_are_on() {
    let mut config = cluster("a");
    config.health_check = true;
    let handle = handle_of(
        config,
        vec![locality("a", 0, 0, 1, &[H]), locality("b", 0, 1, 1, &[H])],
        None,
        0,
    );
    handle.endpoints.endpoints()[0]
        .shared
        .set_active_health(false);
    assert_spread(&handle, &[("b", 100)]);
    handle.endpoints.endpoints()[0]
        .shared
        .set_active_health(true);
    assert_spread(&handle, &[("a", 100)]);
}

#[test]
fn what_was_learned_and_when_a_drain_began_outlive_the_snapshot() {
    let first = tiers(&[&[H, D], &[H]]);
    first.endpoints.endpoints()[0]
        .shared
        .connect_failed(&first.config, 0, 1);
    let localities = vec![
        locality("c0", 0, 0, 9, &[H, D, D]),
        locality("c1", 0, 1, 1, &[H]),
    ];
    let second = handle_of(cluster("a"), localities, Some(&first), 500);
    assert!(Arc::ptr_eq(
        &first.endpoints.endpoints()[0].shared,
        &second.endpoints.endpoints()[0].shared
    ));
    assert_eq!(second.endpoints.loads(500)[0].load_percent, 0);
    let drains: Vec<_> = second
        .endpoints
        .endpoints()
        .iter()
        .map(|endpoint| endpoint.drain)
        .collect();
    let drain = |since_ms, deadline_ms| {
        Some(Drain {
            since_ms,
            deadline_ms: Some(deadline_ms),
        })
    };
    // The one that is new stands last.
    assert_eq!(drains, [None, drain(0, 1_000), None, drain(500, 1_500)]);
}

#[test]
fn a_retry_avoids_what_was_tried_at_whatever_priority() {
    let handle = tiers(&[&[H, H], &[H]]);
    let address = |at: usize| handle.endpoints.endpoints()[at].address;
    let pick = |tried: &[SocketAddr], clusters: &[Name], random| {
        let picked = handle
            .endpoints
            .pick(&PickContext {
                tried,
                tried_clusters: clusters,
                ..context(random)
            })
            .unwrap();
        (picked.index.0, picked.again)
    };
    for random in 0..50 {
        assert_eq!(pick(&[address(0)], &[], random), (1, false));
        assert_eq!(pick(&[address(0)], &["c0".into()], random), (2, false));
        assert_eq!(pick(&[address(0), address(1)], &[], random), (2, false));
        assert_eq!(
            pick(
                &[address(0), address(2)],
                &["c0".into(), "c1".into()],
                random
            ),
            (1, false)
        );
        assert!(pick(&[address(0), address(1), address(2)], &[], random).1);
    }
}

#[test]
fn round_robin_takes_turns() {
    let mut config = cluster("a");
    config.lb = LoadBalancing::RoundRobin;
    let handle = handle_of(config, vec![locality("a", 0, 0, 1, &[H; 5])], None, 77);
    for _ in 0..20 {
        let mut turn: Vec<_> = (0..5)
            .map(|random| handle.endpoints.pick(&context(random)).unwrap().index.0)
            .collect();
        turn.sort_unstable();
        assert_eq!(turn, [0, 1, 2, 3, 4]);
    }
}

#[test]
fn a_change_is_seen_by_the_next_pick_whatever_other_threads_do() {
    let mut config = cluster("a");
    config.health_check = true;
    let handle = handle_of(
        config,
        vec![
            locality("a", 0, 0, 1, &[H]),
            locality("b", 0, 1, 1, &[H; 3]),
        ],
        None,
        0,
    );
    let endpoints = handle.endpoints.endpoints();
    std::thread::scope(|scope| {
        for other in &endpoints[1..] {
            scope.spawn(move || {
                for round in 0..20_000 {
                    other.shared.set_active_health(round % 2 == 0);
                }
            });
        }
        for round in 0..20_000 {
            let healthy = round % 2 == 0;
            endpoints[0].shared.set_active_health(healthy);
            let picked = handle.endpoints.pick(&context(round)).unwrap();
            // When the others all look unhealthy too, panic may choose the first.
            assert!(picked.panic || (picked.index.0 == 0) == healthy);
        }
    });
}

/// Endpoints of localities with weight.
fn used(handle: &ClusterHandle) -> impl Iterator<Item = &Endpoint> {
    let table = &handle.endpoints;
    table
        .iter()
        .filter(|endpoint| table.localities[endpoint.locality as usize].weight > 0)
}

fn any_localities() -> impl Strategy<Value = Vec<LocalityConfig>> {
    let healths = prop::collection::vec(prop::sample::select(vec![H, H, D, U]), 0..4);
    let one = (0..3_u8, 0..3_u32, healths);
    prop::collection::vec(one, 0..5).prop_map(|parts| {
        let named = |(at, (priority, weight, healths)): (u8, (u8, u32, Vec<Health>))| {
            locality(&format!("c{at}"), at, priority, weight, &healths)
        };
        (0..).zip(parts).map(named).collect()
    })
}

proptest! {
    #[test]
    fn loads_sum_to_all_unless_nothing_can_be_picked(
        localities in any_localities(),
        panic_percent in 0..=100_u8,
        random: u64,
    ) {
        let mut config = cluster("a");
        config.panic_percent = panic_percent;
        let handle = handle_of(config, localities, None, 0);
        let sum: u32 = handle.endpoints.loads(0).iter().map(|load| load.load_percent).sum();
        let picked = handle.endpoints.pick(&context(random));
        prop_assert_eq!(sum, if picked.is_ok() { 100 } else { 0 });
    }

    #[test]
    fn a_pick_is_available_unless_in_panic(localities in any_localities(), random: u64) {
        let handle = handle(localities);
        if let Ok(picked) = handle.endpoints.pick(&context(random)) {
            let endpoint = handle.endpoints.get(picked.index);
            prop_assert!(picked.panic || endpoint.health == H);
            let only_draining = used(&handle).all(|endpoint| endpoint.health == D);
            prop_assert!(endpoint.health != D || only_draining);
        }
    }

    #[test]
    fn tried_endpoints_are_avoided_if_anything_else_is_available(
        localities in any_localities(),
        tried in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        random: u64,
    ) {
        let handle = handle(localities);
        let endpoints = handle.endpoints.endpoints();
        prop_assume!(!endpoints.is_empty());
        let tried: Vec<_> = tried.iter().map(|index| index.get(endpoints).address).collect();
        let context = PickContext { tried: &tried, ..context(random) };
        if let Ok(picked) = handle.endpoints.pick(&context) {
            let mut available = used(&handle).filter(|endpoint| endpoint.health == H);
            let was_tried = |endpoint: &Endpoint| tried.contains(&endpoint.address);
            prop_assert!(!picked.again || available.all(was_tried));
            prop_assert_eq!(picked.again, was_tried(handle.endpoints.get(picked.index)));
        }
    }

    #[test]
    fn the_same_arguments_give_the_same_answer(localities in any_localities(), random: u64) {
        let (one, other) = (handle(localities.clone()), handle(localities));
        let [one, other] = [one, other].map(|handle| handle.endpoints.pick(&context(random)));
        prop_assert_eq!(one, other);
    }
}
