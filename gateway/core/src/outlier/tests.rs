use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::balance::Source;
use crate::cluster::tests::cluster;
use crate::config::{EndpointConfig, EndpointSet, FailurePercentage, Health, LocalityConfig};

const OK: Outcome = Outcome::status(Code::Ok);

fn handle(endpoints: u16, peer: bool, max_ejection_percent: u8) -> ClusterHandle {
    let mut config = cluster("a");
    config.outlier.as_mut().unwrap().max_ejection_percent = max_ejection_percent;
    let endpoint = |n| EndpointConfig {
        address: ([10, 0, 0, 1], 1 + n).into(),
        weight: 1,
        health: Health::Healthy,
        peer,
        drain_grace_ms: None,
    };
    let locality = LocalityConfig {
        cluster_id: "c".into(),
        region: "r".into(),
        priority: 0,
        weight: 1,
        endpoints: (0..endpoints).map(endpoint).collect(),
    };
    let set = EndpointSet {
        cluster: "a".into(),
        localities: vec![locality],
    };
    let handle = ClusterHandle::new(Arc::new(config), Source::Set(&set), None, 0);
    handle.adopt();
    handle
}

fn record_at(handle: &ClusterHandle, at: usize, outcome: Outcome, now_ms: u64) -> Option<Ejection> {
    record(handle, &handle.endpoints.endpoints()[at], outcome, now_ms)
}

#[test]
fn outcomes_are_judged_as_documented() {
    use Verdict::*;
    let below_http = [
        Outcome::ConnectFailure,
        Outcome::Reset,
        Outcome::Timeout,
        Outcome::Refused,
    ];
    assert_eq!(
        below_http.map(|outcome| judge(outcome, false)),
        [GatewayFailure, GatewayFailure, GatewayFailure, Nothing]
    );
    assert_eq!(
        below_http.map(|outcome| judge(outcome, true)),
        [Nothing, Nothing, Nothing, Nothing]
    );
    for number in 0..=16 {
        let code = Code::from_number(number).unwrap();
        let of = |by_gateway, peer| {
            judge(
                Outcome::Answer(Answer {
                    code,
                    http_status: 200,
                    by_gateway,
                }),
                peer,
            )
        };
        let expected = match number {
            1 | 4 | 8 => [Nothing, Nothing, Nothing],
            13 | 15 => [Failure, Success, Success],
            14 => [GatewayFailure, Success, GatewayFailure],
            _ => [Success, Success, Success],
        };
        assert_eq!(
            [of(false, false), of(false, true), of(true, true)],
            expected,
            "{}",
            code.name()
        );
    }
    let unknown = Answer {
        code: Code::Unknown,
        http_status: 500,
        by_gateway: false,
    };
    assert_eq!(judge(Outcome::Answer(unknown), false), Failure);
}

#[test]
fn failures_in_a_row_eject_and_a_success_starts_over() {
    let handle = handle(4, false, 50);
    for _ in 0..10 {
        for outcome in [Outcome::Reset, Outcome::Reset, OK] {
            assert_eq!(record_at(&handle, 0, outcome, 0), None);
        }
    }
    let internal = Outcome::status(Code::Internal);
    let ejections: Vec<_> = (0..6).map(|_| record_at(&handle, 0, internal, 0)).collect();
    assert_eq!(ejections[..4], [None; 4]);
    let reason = EjectionReason::ConsecutiveFailures;
    assert_eq!(
        ejections[4],
        Some(Ejection {
            until_ms: 30_000,
            count: 1,
            reason
        })
    );
    assert_eq!(ejections[5], None, "it is out already");
}

#[test]
fn other_failures_interrupt_gateway_failures_but_not_failures() {
    let handle = handle(4, false, 50);
    let internal = Outcome::status(Code::Internal);
    let mixed = [Outcome::Reset, Outcome::Reset, internal, Outcome::Reset];
    assert!(
        mixed
            .iter()
            .all(|outcome| record_at(&handle, 0, *outcome, 0).is_none())
    );
    let reason = record_at(&handle, 0, Outcome::Reset, 0).map(|ejection| ejection.reason);
    assert_eq!(reason, Some(EjectionReason::ConsecutiveFailures));
}

#[test]
fn one_failure_on_return_ejects_for_longer_and_a_success_ends_probation() {
    let handle = handle(4, false, 50);
    for _ in 0..3 {
        let _ = record_at(&handle, 0, Outcome::Reset, 0);
    }
    let again = record_at(&handle, 0, Outcome::Reset, 30_000).unwrap();
    assert_eq!(
        (again.reason, again.until_ms, again.count),
        (EjectionReason::FailedOnReturn, 90_000, 2)
    );
    assert_eq!(record_at(&handle, 0, OK, 90_000), None);
    assert_eq!(record_at(&handle, 0, Outcome::Reset, 90_000), None);
}

#[test]
fn time_forgives_ejections() {
    let handle = handle(4, false, 50);
    let eject = |now_ms| {
        let _ = record_at(&handle, 0, OK, now_ms);
        (0..3)
            .find_map(|_| record_at(&handle, 0, Outcome::ConnectFailure, now_ms))
            .unwrap()
            .count
    };
    assert_eq!([eject(0), eject(30_000), eject(90_000)], [1, 2, 3]);
    assert_eq!(eject(180_000 + 10_000), 3, "one interval forgives one");
    assert_eq!(eject(1_000_000), 1);
}

#[test]
fn without_a_policy_nothing_is_ejected() {
    let mut handle = handle(1, false, 50);
    Arc::make_mut(&mut handle.config).outlier = None;
    assert!((0..50).all(|_| record_at(&handle, 0, Outcome::Reset, 0).is_none()));
}

#[test]
fn one_may_be_ejected_whatever_the_cap() {
    let handle = handle(3, false, 0);
    let fail = |at| (0..9).find_map(|_| record_at(&handle, at, Outcome::Reset, 0));
    assert!(fail(0).is_some());
    assert!(fail(1).is_none());
    assert!(
        record_at(&handle, 1, Outcome::Reset, 30_000).is_some(),
        "the first is back, so there is room"
    );
}

proptest! {
    #[test]
    fn ejections_never_exceed_the_cap(
        endpoints in 1..12_u16,
        percent in 0..=100_u8,
        steps in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..4_000_u64, 0..5_u8),
            1..300,
        ),
    ) {
        let handle = handle(endpoints, false, percent);
        let cap = (usize::from(endpoints) * usize::from(percent) / 100).max(1);
        let mut now_ms = 0;
        for (at, wait_ms, kind) in steps {
            now_ms += wait_ms;
            let outcome = if kind == 0 { OK } else { Outcome::Reset };
            let _ = record_at(&handle, at.index(endpoints.into()), outcome, now_ms);
            prop_assert!(handle.shared.ejected(now_ms) <= cap);
        }
    }
}

#[test]
fn threads_that_fail_together_stay_below_the_cap() {
    let handle = handle(8, false, 25);
    std::thread::scope(|scope| {
        for at in 0..8 {
            let handle = &handle;
            scope.spawn(move || {
                for _ in 0..1_000 {
                    let _ = record_at(handle, at, Outcome::Reset, 0);
                }
            });
        }
    });
    assert_eq!(handle.shared.ejected(0), 2);
}

#[test]
fn one_thread_decides_at_a_time() {
    let handle = handle(2, false, 100);
    let (one, other) = (
        &handle.endpoints.endpoints()[0],
        &handle.endpoints.endpoints()[1],
    );
    let inner = || handle.shared.eject_within(2, &other.shared, 0, || ());
    let outer = handle.shared.eject_within(2, &one.shared, 0, inner);
    assert_eq!(outer, Some(None));
    assert_eq!(
        handle.shared.eject_within(2, &other.shared, 0, || ()),
        Some(())
    );
}

#[test]
fn a_peer_whose_connections_die_is_down_and_not_ejected() {
    let handle = handle(2, true, 50);
    let lost = [Outcome::Reset, Outcome::ConnectFailure];
    for outcome in lost.into_iter().cycle().take(50) {
        assert_eq!(record_at(&handle, 0, outcome, 0), None);
    }
}

#[test]
fn a_peer_is_not_ejected_for_what_the_service_behind_it_answers() {
    let handle = handle(2, true, 50);
    let answer = |by_gateway| {
        Outcome::Answer(Answer {
            code: Code::Unavailable,
            http_status: 200,
            by_gateway,
        })
    };
    assert!((0..50).all(|_| record_at(&handle, 0, answer(false), 0).is_none()));
    assert!((0..3).any(|_| record_at(&handle, 0, answer(true), 0).is_some()));
}

fn by_share(minimum_hosts: u32) -> ClusterHandle {
    let mut config = cluster("a");
    let policy = config.outlier.as_mut().unwrap();
    policy.consecutive_failures = None;
    policy.consecutive_gateway_failures = None;
    policy.failure_percentage = Some(FailurePercentage {
        threshold_percent: 50,
        request_volume: 10,
        minimum_hosts,
    });
    let before = handle(4, false, 50);
    let handle = ClusterHandle::new(Arc::new(config), Source::Same, Some(&before), 0);
    handle.adopt();
    handle
}

#[test]
fn failures_that_are_a_large_share_eject() {
    let cluster = by_share(4);
    let results = |at, now_ms| {
        let mut ejected = None;
        for n in 0..10 {
            let outcome = if n % 2 == 0 { OK } else { Outcome::Reset };
            ejected = ejected.or(record_at(&cluster, at, outcome, now_ms));
        }
        ejected
    };
    let ejection = results(0, 5).unwrap();
    assert_eq!(ejection.reason, EjectionReason::FailurePercentage);
    // Too few in each of two windows.
    for now_ms in [9_999, 10_000] {
        for _ in 0..9 {
            assert_eq!(record_at(&cluster, 1, Outcome::Reset, now_ms), None);
        }
    }
    let few = by_share(5);
    for _ in 0..100 {
        assert_eq!(record_at(&few, 0, Outcome::Reset, 1), None);
    }
}

#[test]
fn a_small_share_of_failures_does_not_eject() {
    let cluster = by_share(1);
    for n in 0..1_000 {
        let outcome = if n % 3 == 2 { Outcome::Reset } else { OK };
        assert_eq!(record_at(&cluster, 0, outcome, 7), None, "{n}");
    }
}
