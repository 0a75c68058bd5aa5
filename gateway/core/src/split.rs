//! One draw by weight.

use crate::random::Draws;

/// A line of parts, each as long as its weight: a draw is a place on it.
#[derive(Debug, Clone)]
pub(crate) enum Split {
    /// All are of one weight, above 0: nothing to search, and nothing to keep in memory.
    Even { weight: u64, parts: usize },
    /// Running sums: a draw is a binary search.
    Sums(Vec<u64>),
}

impl Default for Split {
    fn default() -> Self {
        Self::Sums(Vec::new())
    }
}

impl Split {
    /// The sum of the weights must fit in 64 bits; the bounds of configured weights see to that.
    pub(crate) fn new(weights: impl Iterator<Item = u64>) -> Self {
        let running = weights.scan(0_u64, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        let sums: Vec<_> = running.collect();
        let weight = sums.first().copied().unwrap_or(0);
        let even = (1..).zip(&sums).all(|(parts, sum)| *sum == weight * parts);
        if weight > 0 && even {
            let parts = sums.len();
            Self::Even { weight, parts }
        } else {
            Self::Sums(sums)
        }
    }

    pub(crate) fn total(&self) -> u64 {
        match self {
            Self::Even { weight, parts } => weight * *parts as u64,
            Self::Sums(sums) => sums.last().copied().unwrap_or(0),
        }
    }

    /// A position, proportional to its weight; `None` when all weights are 0.
    pub(crate) fn pick(&self, random: u64) -> Option<usize> {
        let total = self.total();
        (total > 0).then(|| self.at(Draws::new(random).below(total)))
    }

    /// The position whose part of the line from 0 to [`Self::total`] has `place`.
    pub(crate) fn at(&self, place: u64) -> usize {
        match self {
            Self::Even { weight, .. } => (place / weight) as usize,
            Self::Sums(sums) => sums.partition_point(|sum| *sum <= place),
        }
    }

    /// Where the part of a position begins, and how long it is.
    pub(crate) fn part(&self, position: usize) -> (u64, u64) {
        match self {
            Self::Even { weight, .. } => (weight * position as u64, *weight),
            Self::Sums(sums) => {
                let start = if position == 0 { 0 } else { sums[position - 1] };
                (start, sums[position] - start)
            }
        }
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
        fn every_place_has_its_part(weights in proptest::collection::vec(0..4_u64, 0..8)) {
            let split = Split::new(weights.iter().copied());
            let mut place = 0;
            for (position, weight) in weights.iter().enumerate() {
                prop_assert_eq!(split.part(position), (place, *weight));
                for _ in 0..*weight {
                    prop_assert_eq!(split.at(place), position);
                    place += 1;
                }
            }
            prop_assert_eq!(split.total(), place);
        }

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
