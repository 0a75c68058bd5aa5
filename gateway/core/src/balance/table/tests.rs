use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cluster::tests::cluster;
use crate::{ClusterHandle, PickContext};

type Wanted = BTreeMap<u8, (u8, u32, Health)>;

/// One step: endpoints that go, and endpoints (by the last byte of their address) that are put, with
/// locality, weight and health.
#[derive(Debug, Clone)]
struct Step {
    gone: Vec<u8>,
    put: Vec<(u8, (u8, u32, Health))>,
    whole: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let health = prop::sample::select(vec![Health::Healthy, Health::Draining, Health::Unhealthy]);
    let put = prop::collection::vec((0..40_u8, (0..3_u8, 1..4_u32, health)), 0..12);
    let gone = prop::collection::vec(0..40_u8, 0..12);
    let step = (gone, put, any::<bool>());
    let step = step.prop_map(|(gone, put, whole)| Step { gone, put, whole });
    prop::collection::vec(step, 1..8)
}

fn address(n: u8) -> SocketAddr {
    ([10, 0, 0, n], 80).into()
}

fn localities(endpoints: impl Iterator<Item = (u8, (u8, u32, Health))>) -> Vec<LocalityConfig> {
    let mut localities: Vec<_> = (0..3_u8)
        .map(|at| LocalityConfig {
            cluster_id: format!("c{at}").into(),
            region: "r".into(),
            priority: u32::from(at / 2),
            weight: 1 + u32::from(at),
            endpoints: Vec::new(),
        })
        .collect();
    for (n, (at, weight, health)) in endpoints {
        localities[usize::from(at)].endpoints.push(EndpointConfig {
            address: address(n),
            weight,
            health,
            peer: n.is_multiple_of(2),
            drain_grace_ms: None,
        });
    }
    localities
}

fn set(wanted: &Wanted) -> EndpointSet {
    EndpointSet {
        cluster: "a".into(),
        localities: localities(wanted.iter().map(|(n, endpoint)| (*n, *endpoint))),
    }
}

fn apply(step: &Step, wanted: &mut Wanted, prev: Option<&ClusterHandle>, at: u64) -> ClusterHandle {
    let put: Wanted = step.put.iter().copied().collect();
    let gone = step.gone.iter().filter(|n| !put.contains_key(n));
    let gone: Vec<u8> = gone.copied().collect();
    wanted.retain(|n, _| !gone.contains(n));
    wanted.extend(&put);
    let delta = EndpointDelta {
        cluster: "a".into(),
        localities: localities(put.into_iter()),
        removed: gone.into_iter().map(address).collect(),
    };
    let set = set(wanted);
    let source = if step.whole || prev.is_none() {
        Source::Set(&set)
    } else {
        Source::Delta(&delta)
    };
    ClusterHandle::new(Arc::new(cluster("a")), source, prev, at)
}

fn fields(endpoint: &Endpoint) -> (SocketAddr, Name, u32, Health, bool) {
    let cluster_id = Name::clone(&endpoint.cluster_id);
    (
        endpoint.address,
        cluster_id,
        endpoint.weight,
        endpoint.health,
        endpoint.peer,
    )
}

fn sorted(handle: &ClusterHandle) -> Vec<(SocketAddr, Name, u32, Health, bool)> {
    let mut all: Vec<_> = handle.endpoints.iter().map(fields).collect();
    all.sort_by_key(|(address, ..)| *address);
    all
}

proptest! {
    #[test]
    fn changes_lead_where_a_whole_set_leads(steps in steps(), random: u64) {
        let mut wanted = Wanted::new();
        let mut before: Option<ClusterHandle> = None;
        for (at, step) in (1..).zip(&steps) {
            let after = apply(step, &mut wanted, before.as_ref(), at);
            after.adopt();
            let fresh = set(&wanted);
            let fresh = ClusterHandle::new(Arc::new(cluster("a")), Source::Set(&fresh), None, at);
            prop_assert_eq!(sorted(&after), sorted(&fresh));
            prop_assert_eq!(after.endpoints.loads(at), fresh.endpoints.loads(at));
            prop_assert_eq!(after.endpoints.peers(), fresh.endpoints.peers());
            prop_assert_eq!(after.shared.members(), wanted.len());
            for (slot, endpoint) in (0..).zip(after.endpoints.iter()) {
                prop_assert_eq!(after.endpoints.find(endpoint.address), Some(EndpointIndex(slot)));
            }
            // A change of health is seen wherever the endpoint has moved to.
            let context = PickContext {
                now_ms: at,
                random,
                tried: &[],
                tried_clusters: &[],
                outstanding: &|_| 0,
            };
            if let Ok(picked) = after.endpoints.pick(&context) {
                let shared = &after.endpoints.get(picked.index).shared;
                shared.connect_failed(&after.config, at, 1);
                let again = after.endpoints.pick(&context).unwrap();
                prop_assert!(again.panic || again.index != picked.index);
                shared.connected();
                // Available again, though drawn from a view made of old and new parts.
                let back = after.endpoints.pick(&context).unwrap();
                prop_assert_eq!(back.priority, picked.priority);
            }
            before = Some(after);
        }
    }

    #[test]
    fn who_follows_the_differences_has_the_table(steps in steps()) {
        let mut wanted = Wanted::new();
        let first = apply(&steps[0], &mut wanted, None, 1);
        first.adopt();
        let mut followed: Vec<_> = first.endpoints.iter().map(fields).collect();
        let mut before = first;
        for (at, step) in (2..).zip(&steps[1..]) {
            let after = apply(step, &mut wanted, Some(&before), at);
            after.adopt();
            let differences = after.endpoints.differences(&before.endpoints);
            let nobody = (address(0), Name::from(""), 0, Health::Healthy, false);
            followed.resize(after.endpoints.len(), nobody);
            for index in differences.changed {
                followed[index.0 as usize] = fields(after.endpoints.get(index));
            }
            let now: Vec<_> = after.endpoints.iter().map(fields).collect();
            prop_assert_eq!(&followed, &now);
            let gone = |address: &SocketAddr| after.endpoints.find(*address).is_none();
            prop_assert!(differences.gone.iter().all(gone));
            let lost = before.endpoints.iter().filter(|endpoint| gone(&endpoint.address));
            prop_assert_eq!(lost.count(), differences.gone.len());
            for endpoint in before.endpoints.iter() {
                if let Some(index) = after.endpoints.find(endpoint.address) {
                    prop_assert!(Arc::ptr_eq(&endpoint.shared, &after.endpoints.get(index).shared));
                }
            }
            before = after;
        }
    }
}
