//! Endpoints of one locality that may be chosen now, and the choice among them.
//!
//! They stand on a line, each as long as its weight: block by block, and inside a block the best
//! condition first, so that those of a condition or better are the beginning of each block's part.
//! A draw is a place on the line; finding who stands there is two binary searches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::EndpointIndex;
use super::view::Condition;
use crate::random::Draws;
use crate::split::Split;

/// Locality, condition, place and weight of an endpoint.
pub(super) type Member = (u32, Condition, EndpointIndex, u32);

/// The members of one locality in one block, by condition.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) locality: u32,
    block: u32,
    /// By condition, then by place.
    members: Vec<EndpointIndex>,
    weights: Split,
    /// For each condition: where the members that are worse begin.
    ends: [u32; Condition::COUNT],
}

/// Endpoints of one locality that may be chosen now; never empty.
#[derive(Debug)]
pub(super) struct Pool {
    /// Position of the locality in the table.
    pub(super) locality: usize,
    lanes: Vec<Arc<Lane>>,
    /// By lane.
    weights: Split,
    members: usize,
    /// The worst condition in it.
    pub(super) worst: Condition,
    /// Step of round robin through the line of weights: coprime to its length, so that as many
    /// turns as it is long visit every place once, and near the golden section of it, so that turns
    /// of one heavy endpoint lie apart.
    stride: u64,
}

/// Where an endpoint stands on a pool's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) index: EndpointIndex,
    pub(super) start: u64,
    pub(super) weight: u64,
}

// === impl Lane ===

impl Lane {
    /// `members` are of one locality (their first item), sorted.
    pub(super) fn new(block: u32, members: &[Member]) -> Self {
        let ends = Condition::ALL
            .map(|condition| members.partition_point(|(_, other, ..)| *other <= condition) as u32);
        Self {
            locality: members.first().map_or(0, |(locality, ..)| *locality),
            block,
            members: members.iter().map(|(.., index, _)| *index).collect(),
            weights: Split::new(members.iter().map(|(.., weight)| u64::from(*weight))),
            ends,
        }
    }

    /// How many are of this condition or better.
    pub(super) const fn count(&self, worst: Condition) -> usize {
        self.ends[worst as usize] as usize
    }

    /// The weight of these.
    pub(super) fn weight(&self, worst: Condition) -> u64 {
        match self.count(worst) {
            0 => 0,
            count => {
                let (start, weight) = self.weights.part(count - 1);
                start + weight
            }
        }
    }
}

// === impl Pool ===

impl Pool {
    /// The members of a locality up to a condition; `None` when there are none.
    pub(super) fn new(locality: usize, lanes: &[Arc<Lane>], worst: Condition) -> Option<Self> {
        let usable = lanes.iter().filter(|lane| lane.count(worst) > 0);
        let lanes: Vec<_> = usable.cloned().collect();
        let weights = Split::new(lanes.iter().map(|lane| lane.weight(worst)));
        let total = weights.total();
        let golden = (total * 618 / 1_000).max(1);
        let stride = (golden..total)
            .find(|stride| gcd(*stride, total) == 1)
            .unwrap_or(1);
        (!lanes.is_empty()).then(|| Self {
            locality,
            members: lanes.iter().map(|lane| lane.count(worst)).sum(),
            lanes,
            weights,
            worst,
            stride,
        })
    }

    /// How many endpoints it has.
    pub(super) const fn len(&self) -> usize {
        self.members
    }

    pub(super) fn total(&self) -> u64 {
        self.weights.total()
    }

    /// Who stands at a place on the line.
    pub(super) fn at(&self, place: u64) -> Place {
        let lane = self.weights.at(place);
        let (lane_start, _) = self.weights.part(lane);
        let lane = &self.lanes[lane];
        let member = lane.weights.at(place - lane_start);
        let (start, weight) = lane.weights.part(member);
        Place {
            index: lane.members[member],
            start: lane_start + start,
            weight,
        }
    }

    /// Where an endpoint stands, if it is in the pool. Looks at one block.
    pub(super) fn find(&self, index: EndpointIndex) -> Option<Place> {
        let block = super::block_of(index.0) as u32;
        let at = self.lanes.iter().position(|lane| lane.block == block)?;
        let lane = &self.lanes[at];
        let member = lane.members[..lane.count(self.worst)]
            .iter()
            .position(|member| *member == index)?;
        let (start, weight) = lane.weights.part(member);
        Some(Place {
            index,
            start: self.weights.part(at).0 + start,
            weight,
        })
    }

    /// One at random by weight, but none of `without` (in the order of their places) or `nor`;
    /// `None` when nobody else is there.
    pub(super) fn draw(
        &self,
        draws: &mut Draws,
        without: &[Place],
        nor: Option<Place>,
    ) -> Option<Place> {
        let closed: u64 = without.iter().chain(&nor).map(|place| place.weight).sum();
        let open = self.total() - closed;
        if open == 0 {
            return None;
        }
        let mut at = draws.below(open);
        let mut skip = |place: &Place| {
            if place.start <= at {
                at += place.weight;
            }
        };
        let mut nor = nor;
        for place in without {
            if let Some(before) = nor.take_if(|nor| nor.start < place.start) {
                skip(&before);
            }
            skip(place);
        }
        nor.iter().for_each(skip);
        Some(self.at(at))
    }

    pub(super) fn next_in_turn(&self, cursor: &AtomicU64) -> Place {
        let turn = cursor.fetch_add(1, Ordering::Relaxed);
        let total = self.total();
        let place = u128::from(turn % total) * u128::from(self.stride) % u128::from(total);
        self.at(place as u64)
    }
}

/// The less busy of two for their weight; the first of equals, which keeps an idle pool
/// proportional to weight.
pub(super) fn less_busy(first: Place, second: Place, load: &dyn Fn(EndpointIndex) -> u32) -> Place {
    let [first_load, second_load] = [first, second].map(|place| u64::from(load(place.index)));
    if first_load * second.weight <= second_load * first.weight {
        first
    } else {
        second
    }
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In lanes of three.
    fn pool(weights: &[u32]) -> Pool {
        let members: Vec<_> = (0..)
            .zip(weights)
            .map(|(at, weight)| (0, Condition::Available, EndpointIndex(at), *weight))
            .collect();
        let lanes = members
            .chunks(3)
            .map(|members| Arc::new(Lane::new(0, members)));
        let lanes: Vec<_> = lanes.collect();
        Pool::new(0, &lanes, Condition::Available).unwrap()
    }

    fn least_request(
        pool: &Pool,
        draws: &mut Draws,
        open: &dyn Fn(EndpointIndex) -> u32,
    ) -> EndpointIndex {
        let first = pool.draw(draws, &[], None).unwrap();
        let second = pool.draw(draws, &[], Some(first));
        second
            .map_or(first, |second| less_busy(first, second, open))
            .index
    }

    #[test]
    fn the_less_busy_of_two_is_taken_by_weight() {
        let open = |counts: [u32; 2]| move |index: EndpointIndex| counts[index.0 as usize];
        for seed in 0..100 {
            let mut draws = Draws::new(seed);
            let mut pick = |weights: [u32; 2], counts| {
                least_request(&pool(&weights), &mut draws, &open(counts)).0
            };
            assert_eq!(pick([1, 1], [3, 2]), 1);
            assert_eq!(pick([1, 3], [1, 2]), 1);
            assert_eq!(pick([1, 3], [1, 4]), 0);
        }
    }

    proptest! {
        #[test]
        fn turns_are_exactly_proportional(
            weights in prop::collection::vec(1..30_u32, 1..8),
            start: u32,
        ) {
            let pool = pool(&weights);
            let total: u32 = weights.iter().sum();
            // The cursor starts at a multiple, so that no turn is cut in two.
            let cursor = AtomicU64::new(u64::from(start) * u64::from(total));
            let mut counts = vec![0; weights.len()];
            for _ in 0..total {
                counts[pool.next_in_turn(&cursor).index.0 as usize] += 1;
            }
            prop_assert_eq!(counts, weights);
        }

        #[test]
        fn an_idle_pool_is_proportional_to_weight(
            weights in prop::collection::vec(1..20_u32, 1..8),
            seed: u64,
        ) {
            let pool = pool(&weights);
            let total = f64::from(weights.iter().sum::<u32>());
            let mut draws = Draws::new(seed);
            let mut counts = vec![0_u32; weights.len()];
            for _ in 0..10_000 {
                counts[least_request(&pool, &mut draws, &|_| 0).0 as usize] += 1;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                let expected = 10_000.0 * f64::from(*weight) / total;
                prop_assert!((f64::from(*count) - expected).abs() < 6.0 * expected.sqrt() + 1.0);
            }
        }

        #[test]
        fn a_busy_pool_fills_by_weight(
            weights in prop::collection::vec(1..6_u32, 2..6),
            seed: u64,
        ) {
            let pool = pool(&weights);
            let total: u32 = weights.iter().sum();
            let mut draws = Draws::new(seed);
            let mut open = vec![0_u32; weights.len()];
            for _ in 0..total * 200 {
                let at = least_request(&pool, &mut draws, &|index| open[index.0 as usize]);
                open[at.0 as usize] += 1;
            }
            for (open, weight) in open.iter().zip(&weights) {
                prop_assert!(open.abs_diff(weight * 200) <= 40, "{open} for {weight}");
            }
        }

        #[test]
        fn whom_a_draw_leaves_out_is_never_drawn(
            weights in prop::collection::vec(1..9_u32, 1..9),
            out in prop::collection::btree_set(0..9_u64, 0..5),
            nor: Option<prop::sample::Index>,
            seed: u64,
        ) {
            let pool = pool(&weights);
            let mut starts: Vec<u64> = vec![0];
            for weight in &weights {
                starts.push(starts.last().unwrap() + u64::from(*weight));
            }
            let place = |at: usize| pool.at(starts[at]);
            let without: Vec<_> = out
                .iter()
                .map(|at| *at as usize)
                .filter(|at| *at < weights.len())
                .map(place)
                .collect();
            let nor = nor
                .map(|nor| place(nor.index(weights.len())))
                .filter(|nor| !without.contains(nor));
            let mut draws = Draws::new(seed);
            for _ in 0..50 {
                let drawn = pool.draw(&mut draws, &without, nor);
                let left = weights.len() - without.len() - usize::from(nor.is_some());
                prop_assert_eq!(drawn.is_some(), left > 0);
                if let Some(drawn) = drawn {
                    prop_assert!(!without.contains(&drawn) && nor != Some(drawn));
                }
            }
        }
    }
}
