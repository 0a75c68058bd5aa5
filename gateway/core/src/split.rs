//! One draw by weight.

use crate::random::Draws;

/// Running sums of weights: a draw is a binary search.
#[derive(Debug, Clone, Default)]
pub(crate) struct Split {
    sums: Vec<u64>,
}

impl Split {
    /// The sum of the weights must fit in 64 bits; the bounds of configured weights see to that.
    pub(crate) fn new(weights: impl Iterator<Item = u64>) -> Self {
        let running = weights.scan(0_u64, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self {
            sums: running.collect(),
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0)
    }

    /// A position, proportional to its weight; `None` when all weights are 0.
    pub(crate) fn pick(&self, random: u64) -> Option<usize> {
        let total = self.total();
        (total > 0).then(|| self.at(Draws::new(random).below(total)))
    }

    /// The position whose part of the line from 0 to [`Self::total`] has `place`.
    pub(crate) fn at(&self, place: u64) -> usize {
        self.sums.partition_point(|sum| *sum <= place)
    }

    /// Where the part of a position begins, and how long it is.
    pub(crate) fn part(&self, position: usize) -> (u64, u64) {
        let start = if position == 0 {
            0
        } else {
            self.sums[position - 1]
        };
        (start, self.sums[position] - start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_weight_no_choice() {
        assert_eq!(Split::new([].into_iter()).pick(7), None);
        assert_eq!(Split::new([0, 0].into_iter()).pick(7), None);
    }

    proptest! {
        #[test]
        fn draws_are_proportional_to_weight(
            weights in proptest::collection::vec(0..100_u64, 1..8),
            seed: u64,
        ) {
            let total: u64 = weights.iter().sum();
            prop_assume!(total > 0);
            let split = Split::new(weights.iter().copied());
            let mut draws = Draws::new(seed);
            let mut counts = vec![0_u32; weights.len()];
            for _ in 0..20_000 {
                counts[split.pick(draws.next()).unwrap()] += 1;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                let share = *weight as f64 / total as f64;
                // Six standard deviations of a binomial.
                let slack = 6.0 * (20_000.0 * share * (1.0 - share)).sqrt();
                let off = (f64::from(*count) - 20_000.0 * share).abs();
                prop_assert!(off <= slack, "{counts:?} for {weights:?}");
            }
        }
    }
}
