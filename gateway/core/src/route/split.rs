//! One draw by weight.

use crate::random::Draws;

/// Running sums of weights: a draw is a binary search.
#[derive(Debug, Clone, Default)]
pub(super) struct Split {
    sums: Vec<u64>,
}

impl Split {
    pub(super) fn new(weights: impl Iterator<Item = u32>) -> Self {
        let running = weights.scan(0_u64, |sum, weight| {
            *sum += u64::from(weight);
            Some(*sum)
        });
        Self {
            sums: running.collect(),
        }
    }

    /// A position, proportional to its weight; `None` when all weights are 0.
    pub(super) fn pick(&self, random: u64) -> Option<usize> {
        let total = *self.sums.last()?;
        if total == 0 {
            return None;
        }
        let drawn = Draws::new(random).below(total);
        Some(self.sums.partition_point(|sum| *sum <= drawn))
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
        fn draws_are_proportional_to_weight(weights in proptest::collection::vec(0..100_u32, 1..8), seed: u64) {
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let split = Split::new(weights.iter().copied());
            let mut draws = Draws::new(seed);
            let mut counts = vec![0_u32; weights.len()];
            for _ in 0..20_000 {
                counts[split.pick(draws.next()).unwrap()] += 1;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                let share = f64::from(*weight) / f64::from(total);
                // Six standard deviations of a binomial.
                let slack = 6.0 * (20_000.0 * share * (1.0 - share)).sqrt();
                prop_assert!((f64::from(*count) - 20_000.0 * share).abs() <= slack, "{counts:?} for {weights:?}");
            }
        }
    }
}
