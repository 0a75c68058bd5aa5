//! Consistent hashing: a key goes to the same endpoint on every gateway, and stays there when
//! others come and go.
//!
//! Both forms are made of membership and weight alone. Health is looked at when an endpoint is
//! chosen: the key of one that is not usable goes to the next one, and comes back with it.
//!
//! - `ring_hash`: each endpoint has points on a circle, by weight; the first at or after the key
//!   takes it. A choice is a binary search; an endpoint that comes or goes moves its own keys only.
//! - `maglev` (Eisenbud et al., NSDI 2016): a table of slots that endpoints fill in turns, by
//!   weight. A choice is one look; shares are more even than on the ring, and a change moves a few
//!   keys of others too.
//!
//! They are made anew when the endpoints change, in time that grows with their number: not for
//! clusters of very many endpoints that change all the time.

use super::EndpointIndex;
use crate::config::LoadBalancing;
use crate::hash::hash_address;
use crate::random::mix;

use std::net::SocketAddr;

/// Points of a ring, at least, while there are fewer endpoints; Envoy's default.
const POINTS_MIN: u64 = 1_024;
/// Points of one endpoint, at most: bounds memory where weights differ by much.
const POINTS_EACH_MAX: u64 = 4_096;

/// The endpoints of one locality, arranged for keys.
#[derive(Debug, Default)]
pub(super) enum Ring {
    /// No keys are used.
    #[default]
    None,
    /// Ascending.
    Points(Vec<(u64, EndpointIndex)>),
    Slots(Vec<EndpointIndex>),
}

/// An endpoint with its address and weight.
pub(super) type Node = (EndpointIndex, SocketAddr, u32);

impl Ring {
    /// `table_size` is the number of slots of a Maglev table, a prime.
    pub(super) fn new(lb: LoadBalancing, table_size: u32, nodes: &mut [Node]) -> Self {
        // By address: what a key gets must not depend on the order in which endpoints came.
        nodes.sort_unstable_by_key(|(_, address, _)| *address);
        match lb {
            _ if nodes.is_empty() => Self::None,
            LoadBalancing::RingHash => Self::Points(points(nodes)),
            LoadBalancing::Maglev => Self::Slots(slots(nodes, table_size as usize)),
            LoadBalancing::LeastRequest | LoadBalancing::PeakEwma | LoadBalancing::RoundRobin => {
                Self::None
            }
        }
    }

    /// The first usable endpoint for a key.
    pub(super) fn find(
        &self,
        key: u64,
        usable: impl Fn(EndpointIndex) -> bool,
    ) -> Option<EndpointIndex> {
        let in_turn = |start: usize, len: usize| (start..len).chain(0..start);
        match self {
            Self::None => None,
            Self::Points(points) => {
                let start = points.partition_point(|(point, _)| *point < key);
                in_turn(start, points.len())
                    .map(|at| points[at].1)
                    .find(|index| usable(*index))
            }
            Self::Slots(slots) => {
                let start = (key % slots.len() as u64) as usize;
                in_turn(start, slots.len())
                    .map(|at| slots[at])
                    .find(|index| usable(*index))
            }
        }
    }
}

fn points(nodes: &[Node]) -> Vec<(u64, EndpointIndex)> {
    let total: u64 = nodes.iter().map(|(.., weight)| u64::from(*weight)).sum();
    // Powers of two: an endpoint that comes or goes seldom changes how many points others have.
    let wanted = 2 * POINTS_MIN.max(nodes.len() as u64).next_power_of_two();
    let total = total.next_power_of_two();
    let mut points = Vec::with_capacity(wanted as usize);
    for (index, address, weight) in nodes {
        let share = (u64::from(*weight) * wanted).div_ceil(total);
        let number = share.clamp(1, POINTS_EACH_MAX);
        let seed = hash_address(1, *address);
        points.extend((0..number).map(|n| (mix(seed ^ mix(n)), *index)));
    }
    points.sort_unstable();
    points
}

fn slots(nodes: &[Node], size: usize) -> Vec<EndpointIndex> {
    let heaviest = nodes.iter().map(|(.., weight)| *weight).max().unwrap_or(1);
    let mut slots = vec![None; size];
    let mut left = size;
    // Each endpoint goes through all slots in an order of its own.
    let mut turns: Vec<_> = nodes
        .iter()
        .map(|(_, address, _)| {
            let start = hash_address(2, *address) as usize % size;
            let step = hash_address(3, *address) as usize % (size - 1) + 1;
            (start, step)
        })
        .collect();
    // An endpoint takes a slot in as many of the rounds as its share of the heaviest weight.
    let mut credits = vec![0_u64; nodes.len()];
    while left > 0 {
        for (at, (index, _, weight)) in nodes.iter().enumerate() {
            credits[at] += u64::from(*weight);
            if credits[at] < u64::from(heaviest) || left == 0 {
                continue;
            }
            credits[at] -= u64::from(heaviest);
            let (slot, step) = &mut turns[at];
            while slots[*slot].is_some() {
                *slot = (*slot + *step) % size;
            }
            slots[*slot] = Some(*index);
            left -= 1;
        }
    }
    slots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLOTS: u32 = 65_537;
    const FORMS: [LoadBalancing; 2] = [LoadBalancing::RingHash, LoadBalancing::Maglev];

    fn nodes(weights: &[u32]) -> Vec<Node> {
        let node = |(at, weight): (u32, &u32)| {
            let address = ([10, 0, (at >> 8) as u8, at as u8], 80).into();
            (EndpointIndex(at), address, *weight)
        };
        (0..).zip(weights).map(node).collect()
    }

    fn counts(ring: &Ring, of: usize) -> Vec<u32> {
        let mut counts = vec![0; of];
        for key in 0..20_000 {
            counts[ring.find(mix(key), |_| true).unwrap().0 as usize] += 1;
        }
        counts
    }

    #[test]
    fn keys_spread_by_weight() {
        for (lb, slack) in [
            (LoadBalancing::RingHash, 0.35),
            (LoadBalancing::Maglev, 0.08),
        ] {
            let counts = counts(&Ring::new(lb, SLOTS, &mut nodes(&[1, 1, 2])), 3);
            for (count, share) in counts.iter().zip([5_000.0, 5_000.0, 10_000.0]) {
                assert!(
                    (f64::from(*count) / share - 1.0).abs() < slack,
                    "{lb:?} {counts:?}"
                );
            }
        }
    }

    #[test]
    fn an_endpoint_that_goes_moves_its_own_keys_and_few_others() {
        for (lb, moved_max) in [(LoadBalancing::RingHash, 0), (LoadBalancing::Maglev, 600)] {
            let all = Ring::new(lb, SLOTS, &mut nodes(&[1; 10]));
            let fewer = Ring::new(lb, SLOTS, &mut nodes(&[1; 10])[..9]);
            let moved = (0..20_000).filter(|key| {
                let [one, other] = [&all, &fewer].map(|ring| ring.find(mix(*key), |_| true));
                one != other && one != Some(EndpointIndex(9))
            });
            assert!(moved.count() <= moved_max, "{lb:?}");
        }
    }

    #[test]
    fn no_endpoints_no_choice() {
        for lb in FORMS {
            assert_eq!(Ring::new(lb, SLOTS, &mut []).find(7, |_| true), None);
            assert_eq!(
                Ring::new(lb, SLOTS, &mut nodes(&[1; 3])).find(7, |_| false),
                None
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn order_of_arrival_does_not_matter(
            weights in prop::collection::vec(1..20_u32, 1..12),
            shuffle: u64,
            key: u64,
        ) {
            for lb in FORMS {
                let mut other = nodes(&weights);
                other.sort_by_key(|(index, ..)| mix(shuffle ^ u64::from(index.0)));
                let one = Ring::new(lb, SLOTS, &mut nodes(&weights)).find(key, |_| true);
                prop_assert_eq!(one, Ring::new(lb, SLOTS, &mut other).find(key, |_| true));
            }
        }

        #[test]
        fn only_keys_of_the_unusable_move(
            weights in prop::collection::vec(1..20_u32, 2..12),
            out: prop::sample::Index,
            key: u64,
        ) {
            let out = EndpointIndex(out.index(weights.len()) as u32);
            for lb in FORMS {
                let ring = Ring::new(lb, SLOTS, &mut nodes(&weights));
                let home = ring.find(key, |_| true);
                let now = ring.find(key, |index| index != out);
                prop_assert!(now.is_some() && now != Some(out));
                prop_assert!(home == now || home == Some(out));
            }
        }
    }
}
