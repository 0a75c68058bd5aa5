//! How traffic spreads over priorities.
//!
//! Envoy's arithmetic in whole percent (its `priority` and `overprovisioning` pages), except that
//! what rounding leaves goes to the largest remainders, not all to the first priority.

/// How much of its traffic a part can take, in percent; at least 1 while anything is available, so
/// that the last endpoint of many is not rounded away.
pub(super) fn health_percent(available: u64, total: u64, overprovision_percent: u64) -> u64 {
    // Weights are at most 10^6 and the factor at most 10^3 (`config`): this holds for 10^10
    // endpoints.
    let health = (available * overprovision_percent)
        .checked_div(total)
        .unwrap_or(0);
    health.clamp(available.min(1), 100)
}

/// The share of each priority by its health: each takes what it can of what those before it left,
/// and a shortage is shared by all in proportion. Sums to 100, or to 0 when every health is 0.
pub(super) fn load_percents(healths: &[u64]) -> Vec<u64> {
    let sum: u64 = healths.iter().sum();
    if sum >= 100 {
        in_order(healths)
    } else {
        in_proportion(healths, sum)
    }
}

fn in_order(healths: &[u64]) -> Vec<u64> {
    let mut left = 100;
    let take = |health: &u64| {
        let load = left.min(*health);
        left -= load;
        load
    };
    healths.iter().map(take).collect()
}

fn in_proportion(healths: &[u64], sum: u64) -> Vec<u64> {
    if sum == 0 {
        return vec![0; healths.len()];
    }
    let mut loads: Vec<u64> = healths.iter().map(|health| health * 100 / sum).collect();
    let left = 100 - loads.iter().sum::<u64>();
    let mut by_remainder: Vec<usize> = (0..healths.len()).collect();
    by_remainder.sort_by_key(|at| std::cmp::Reverse(healths[*at] * 100 % sum));
    for at in by_remainder.into_iter().take(left as usize) {
        loads[at] += 1;
    }
    loads
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loads(healthy_percents: &[u64]) -> Vec<u64> {
        let healths: Vec<u64> = healthy_percents
            .iter()
            .map(|percent| health_percent(*percent, 100, 140))
            .collect();
        load_percents(&healths)
    }

    #[test]
    fn envoys_table_holds() {
        let table: [(&[u64], &[u64]); 10] = [
            (&[100, 100], &[100, 0]),
            (&[72, 100], &[100, 0]),
            (&[71, 100], &[99, 1]),
            (&[50, 100], &[70, 30]),
            (&[35, 100], &[49, 51]),
            (&[25, 100], &[35, 65]),
            (&[0, 100], &[0, 100]),
            (&[25, 25], &[50, 50]),
            (&[25, 25, 20], &[36, 36, 28]),
            (&[50, 20, 100], &[70, 28, 2]),
        ];
        for (healthy, expected) in table {
            assert_eq!(loads(healthy), expected, "{healthy:?}");
        }
        assert_eq!(loads(&[0, 0]), [0, 0]);
        assert!(loads(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn loads_are_conserved(healths in prop::collection::vec(0..=100_u64, 1..8)) {
            let loads = load_percents(&healths);
            let expected = if healths.iter().all(|health| *health == 0) { 0 } else { 100 };
            prop_assert_eq!(loads.iter().sum::<u64>(), expected);
            let mut pairs = loads.iter().zip(&healths);
            prop_assert!(pairs.all(|(load, health)| *health > 0 || *load == 0));
        }

        #[test]
        fn a_priority_gets_traffic_only_when_those_before_it_cannot_take_it(
            healths in prop::collection::vec(0..=100_u64, 2..8),
        ) {
            let loads = load_percents(&healths);
            for at in 1..loads.len() {
                let before: u64 = healths[..at].iter().sum();
                prop_assert!(loads[at] == 0 || before < 100);
            }
        }

        #[test]
        fn more_health_in_a_priority_never_moves_traffic_behind_it(
            healths in prop::collection::vec(0..=100_u64, 2..6),
            more in 0..100_u64,
        ) {
            let mut better = healths.clone();
            better[0] = (better[0] + more).min(100);
            // One percent of slack for the largest remainders.
            prop_assert!(load_percents(&better)[0] + 1 >= load_percents(&healths)[0]);
        }
    }
}
