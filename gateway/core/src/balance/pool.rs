//! Endpoints of one locality that may be chosen now, and the choice among them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::EndpointIndex;
use crate::random::Draws;
use crate::split::Split;

/// Endpoints of one locality that may be chosen now; never empty.
#[derive(Debug)]
pub(super) struct Pool {
    /// Position of the locality in the table.
    pub(super) locality: usize,
    pub(super) members: Vec<EndpointIndex>,
    weights: Split,
    /// Step of round robin through the line of weights: coprime to its length, so that as many
    /// turns as it is long visit every place once, and near the golden section of it, so that turns
    /// of one heavy endpoint lie apart.
    stride: u64,
}

impl Pool {
    /// The pool of some members and their weights; there is at least one.
    pub(super) fn new(
        locality: usize,
        members: impl Iterator<Item = (EndpointIndex, u32)>,
    ) -> Self {
        let (members, weights): (Vec<_>, Vec<_>) = members.unzip();
        let weights = Split::new(weights.into_iter().map(u64::from));
        let total = weights.total();
        let golden = (total * 618 / 1_000).max(1);
        let stride = (golden..total)
            .find(|stride| gcd(*stride, total) == 1)
            .unwrap_or(1);
        Self {
            locality,
            members,
            weights,
            stride,
        }
    }

    /// Two at random by weight, then the one with fewer requests for its weight; the first of
    /// equals, which keeps an idle pool proportional to weight.
    pub(super) fn least_request(
        &self,
        draws: &mut Draws,
        outstanding: &dyn Fn(EndpointIndex) -> u32,
    ) -> usize {
        if self.members.len() == 1 {
            return 0;
        }
        let first = self.weights.at(draws.below(self.weights.total()));
        let (start, first_weight) = self.weights.part(first);
        let place = draws.below(self.weights.total() - first_weight);
        let second = self.weights.at(if place < start {
            place
        } else {
            place + first_weight
        });
        let (_, second_weight) = self.weights.part(second);
        let [first_open, second_open] =
            [first, second].map(|at| u64::from(outstanding(self.members[at])));
        if first_open * second_weight <= second_open * first_weight {
            first
        } else {
            second
        }
    }

    pub(super) fn next_in_turn(&self, cursor: &AtomicU64) -> usize {
        let turn = cursor.fetch_add(1, Ordering::Relaxed);
        let total = self.weights.total();
        let place = u128::from(turn % total) * u128::from(self.stride) % u128::from(total);
        self.weights.at(place as u64)
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

    fn pool(weights: &[u32]) -> Pool {
        Pool::new(0, (0..).map(EndpointIndex).zip(weights.iter().copied()))
    }

    #[test]
    fn the_less_busy_of_two_is_taken_by_weight() {
        let open = |counts: [u32; 2]| move |index: EndpointIndex| counts[index.0 as usize];
        for seed in 0..100 {
            let mut draws = Draws::new(seed);
            assert_eq!(pool(&[1, 1]).least_request(&mut draws, &open([3, 2])), 1);
            assert_eq!(pool(&[1, 3]).least_request(&mut draws, &open([1, 2])), 1);
            assert_eq!(pool(&[1, 3]).least_request(&mut draws, &open([1, 4])), 0);
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
                counts[pool.next_in_turn(&cursor)] += 1;
            }
            prop_assert_eq!(counts, weights);
        }

        #[test]
        fn an_idle_pool_is_proportional_to_weight(
            weights in prop::collection::vec(1..20_u32, 1..6),
            seed: u64,
        ) {
            let pool = pool(&weights);
            let total = f64::from(weights.iter().sum::<u32>());
            let mut draws = Draws::new(seed);
            let mut counts = vec![0_u32; weights.len()];
            for _ in 0..10_000 {
                counts[pool.least_request(&mut draws, &|_| 0)] += 1;
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
                let at = pool.least_request(&mut draws, &|index| open[index.0 as usize]);
                open[at] += 1;
            }
            for (open, weight) in open.iter().zip(&weights) {
                prop_assert!(open.abs_diff(weight * 200) <= 40, "{open} for {weight}");
            }
        }
    }
}
