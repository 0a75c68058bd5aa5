//! The choice for a retry: as the first choice goes, among what was not tried.
//!
//! Not the hot path: it looks at every endpoint that may be chosen.

use super::pool::Pool;
use super::view::{Level, View};
use super::{EndpointIndex, EndpointTable, PickContext, Picked};
use crate::random::Draws;
use crate::split::Split;

/// What is avoided, most wanted first; the last avoids nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Avoid {
    TriedAndTheirClusters,
    Tried,
    Nothing,
}

impl EndpointTable {
    pub(super) fn pick_untried(
        &self,
        view: &View,
        context: &PickContext<'_>,
        draws: &mut Draws,
    ) -> Option<Picked> {
        if view.loads.total() == 0 {
            return None;
        }
        let wishes = [Avoid::TriedAndTheirClusters, Avoid::Tried, Avoid::Nothing];
        wishes
            .into_iter()
            .find_map(|avoid| self.pick_avoiding(avoid, view, context, draws))
    }

    fn pick_avoiding(
        &self,
        avoid: Avoid,
        view: &View,
        context: &PickContext<'_>,
        draws: &mut Draws,
    ) -> Option<Picked> {
        let allowed = |index: &EndpointIndex| {
            let endpoint = self.get(*index);
            let tried = context.tried.contains(&endpoint.address);
            match avoid {
                Avoid::TriedAndTheirClusters => {
                    !tried && !context.tried_clusters.contains(&endpoint.cluster_id)
                }
                Avoid::Tried => !tried,
                Avoid::Nothing => true,
            }
        };
        let has_some = |pool: &Pool| pool.members.iter().any(allowed);
        let level_has_some = |level: &Level| level.pools.iter().any(has_some);
        let loads = view.levels.iter().map(|level| {
            if level_has_some(level) {
                level.load.load_percent.into()
            } else {
                0
            }
        });
        // A priority that gets nothing now still takes a retry when those that get something were
        // tried.
        let at = Split::new(loads)
            .pick(draws.next())
            .or_else(|| view.levels.iter().position(level_has_some))?;
        let level = &view.levels[at];
        let shares = level.pools.iter().enumerate();
        let shares = shares.map(|(at, pool)| {
            if has_some(pool) {
                level.shares.part(at).1
            } else {
                0
            }
        });
        let pool = &level.pools[Split::new(shares).pick(draws.next())?];
        let left = pool.members.iter().filter(|index| allowed(index));
        let left = Pool::new(
            pool.locality,
            left.map(|index| (*index, self.get(*index).weight)),
        );
        let index = left.members[left.least_request(draws, context.outstanding)];
        Some(level.picked(index, context.tried.contains(&self.get(index).address)))
    }
}
