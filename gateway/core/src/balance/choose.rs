//! One choice: from the view of the moment to an endpoint.
//!
//! Where nothing was tried before and nothing wants care, this is a draw of the priority, one of
//! the locality, and two of endpoints. An endpoint that is new or back takes its share slowly
//! (`slow_start`) or, after an ejection, one request at a time: such a one is drawn and put back.

use std::net::SocketAddr;

use super::pool::{Place, Pool, less_busy};
use super::view::{Condition, Level, View};
use super::{Affinity, EndpointIndex, EndpointTable, PickContext, Picked};
use crate::config::LoadBalancing;
use crate::random::{Draws, mix};
use crate::split::Split;

/// How often an endpoint that wants care is put back before the next one is looked for in order.
const DRAWS_MAX: usize = 4;
/// How many are looked at in order before one is taken in spite.
const LOOKS_MAX: usize = 64;

/// Make the draws of a key for priority and locality independent of each other.
const PRIORITY: u64 = 1;
const LOCALITY: u64 = 2;

/// What is avoided, most wanted first; the last avoids nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Avoid {
    TriedAndTheirClusters,
    Tried,
    Nothing,
}

/// A pick under way.
pub(super) struct Choice<'a> {
    table: &'a EndpointTable,
    view: &'a View,
    context: &'a PickContext<'a>,
    affinity: Affinity,
    draws: Draws,
}

impl<'a> Choice<'a> {
    pub(super) const fn new(
        table: &'a EndpointTable,
        view: &'a View,
        context: &'a PickContext<'a>,
        affinity: Affinity,
    ) -> Self {
        Self {
            table,
            view,
            context,
            affinity,
            draws: Draws::new(context.random),
        }
    }

    /// Chooses, for a request that goes there.
    pub(super) fn pick(&mut self) -> Option<Picked> {
        let picked = self.choose()?;
        if self.view.careful {
            let endpoint = self.table.get(picked.index);
            endpoint.shared.tried(self.context.now_ms);
        }
        Some(picked)
    }

    /// Chooses, and tells nobody.
    pub(super) fn choose(&mut self) -> Option<Picked> {
        self.pinned().or_else(|| {
            if self.context.tried.is_empty() && self.context.tried_clusters.is_empty() {
                self.fresh()
            } else {
                self.untried()
            }
        })
    }

    /// The endpoint that a session holds to, while it is fit for new requests.
    fn pinned(&self) -> Option<Picked> {
        let index = self.table.find(self.affinity.pinned?)?;
        let endpoint = self.table.get(index);
        let tried = self.context.tried.contains(&endpoint.address)
            || self.context.tried_clusters.contains(&endpoint.cluster_id);
        let fit = self.view.condition(index) == Some(Condition::Available);
        let (level, _) = self.view.pools[endpoint.locality as usize]?;
        (fit && !tried).then(|| self.view.levels[level].picked(index, false))
    }

    fn fresh(&mut self) -> Option<Picked> {
        let level = &self.view.levels[self.view.loads.pick(self.share_draw(PRIORITY))?];
        let pool = &level.pools[level.shares.pick(self.share_draw(LOCALITY))?];
        let index = self.out_of(pool, &[])?;
        Some(level.picked(index, false))
    }

    /// The choice for a retry: as the first choice goes, among what was not tried. A priority that
    /// gets nothing now still takes a retry when those that get something were tried.
    fn untried(&mut self) -> Option<Picked> {
        if self.view.loads.total() == 0 {
            return None;
        }
        [Avoid::TriedAndTheirClusters, Avoid::Tried, Avoid::Nothing]
            .into_iter()
            .find_map(|avoid| self.avoiding(avoid))
    }

    fn avoiding(&mut self, avoid: Avoid) -> Option<Picked> {
        let view = self.view;
        let tried = match avoid {
            Avoid::Nothing => Vec::new(),
            _ => self.tried_places(),
        };
        let has_some = |pool: &Pool| {
            let out = tried
                .iter()
                .filter(|(locality, _)| *locality == pool.locality);
            pool.len() > out.count()
                && !(avoid == Avoid::TriedAndTheirClusters && self.is_tried(pool))
        };
        let level_has_some = |level: &Level| level.pools.iter().any(has_some);
        let loads = view.levels.iter().map(|level| {
            let load = u64::from(level.load.load_percent);
            if level_has_some(level) { load } else { 0 }
        });
        let loads = Split::new(loads);
        let shares = |level: &Level| {
            let shares = level.pools.iter().enumerate().map(|(at, pool)| {
                if has_some(pool) {
                    level.shares.part(at).1
                } else {
                    0
                }
            });
            Split::new(shares)
        };
        let first = view.levels.iter().position(level_has_some);
        let all_shares: Vec<_> = view.levels.iter().map(shares).collect();
        let at = loads.pick(self.share_draw(PRIORITY)).or(first)?;
        let level = &view.levels[at];
        let pool = &level.pools[all_shares[at].pick(self.share_draw(LOCALITY))?];
        let of_pool = tried
            .iter()
            .filter(|(locality, _)| *locality == pool.locality);
        let without: Vec<Place> = of_pool.map(|(_, place)| *place).collect();
        let index = self.out_of(pool, &without)?;
        let again = self.context.tried.contains(&self.address(index));
        Some(level.picked(index, again))
    }

    /// Where the tried endpoints stand, once each, by locality and in the order of their places.
    fn tried_places(&self) -> Vec<(usize, Place)> {
        let place = |address: &SocketAddr| {
            let index = self.table.find(*address)?;
            let locality = self.table.get(index).locality as usize;
            let (level, pool) = self.view.pools[locality]?;
            let place = self.view.levels[level].pools[pool].find(index)?;
            Some((locality, place))
        };
        let mut places: Vec<_> = self.context.tried.iter().filter_map(place).collect();
        places.sort_unstable_by_key(|(locality, place)| (*locality, place.start));
        places.dedup_by_key(|(locality, place)| (*locality, place.start));
        places
    }

    /// Whether the pool's cluster is known not to be able.
    fn is_tried(&self, pool: &Pool) -> bool {
        let cluster_id = &self.table.localities[pool.locality].cluster_id;
        self.context.tried_clusters.contains(cluster_id)
    }

    /// For priority and locality: the key decides, if there is one, so that it stays where it is.
    fn share_draw(&mut self, salt: u64) -> u64 {
        let draw = self.affinity.hash.map(|hash| mix(hash ^ salt));
        draw.unwrap_or_else(|| self.draws.next())
    }

    fn out_of(&mut self, pool: &Pool, without: &[Place]) -> Option<EndpointIndex> {
        let hashed = self.affinity.hash.and_then(|hash| {
            let ring = self.table.rings.get(pool.locality)?;
            let usable = |index: EndpointIndex| {
                self.view.condition(index) <= Some(pool.worst)
                    && without.iter().all(|place| place.index != index)
            };
            ring.find(hash, usable)
        });
        match (hashed, self.table.settings.lb) {
            (Some(index), _) => Some(index),
            (None, LoadBalancing::RoundRobin) if without.is_empty() => {
                Some(self.in_turn(pool).index)
            }
            (None, _) => {
                let first = self.draw(pool, without, None)?;
                if pool.len() == 1 {
                    return Some(first.index);
                }
                let second = self.draw(pool, without, Some(first));
                let load = self.context.outstanding;
                let chosen = second.map_or(first, |second| less_busy(first, second, load));
                Some(chosen.index)
            }
        }
    }

    fn in_turn(&mut self, pool: &Pool) -> Place {
        let cursor = &self.table.localities[pool.locality].cursor;
        let mut place = pool.next_in_turn(cursor);
        if self.view.careful {
            for _ in 0..LOOKS_MAX.min(pool.len()) {
                if self.may_be_tried(place) && self.is_warm_enough(place) {
                    break;
                }
                place = pool.next_in_turn(cursor);
            }
        }
        place
    }

    /// A draw that leaves out those that want care, most of the time.
    fn draw(&mut self, pool: &Pool, without: &[Place], nor: Option<Place>) -> Option<Place> {
        let mut place = pool.draw(&mut self.draws, without, nor)?;
        if !self.view.careful {
            return Some(place);
        }
        for _ in 1..DRAWS_MAX {
            if self.may_be_tried(place) && self.is_warm_enough(place) {
                return Some(place);
            }
            place = pool.draw(&mut self.draws, without, nor)?;
        }
        let drawn = place;
        for _ in 0..LOOKS_MAX.min(pool.len()) {
            let free = !without.contains(&place) && nor != Some(place);
            if free && self.may_be_tried(place) {
                return Some(place);
            }
            place = pool.at((place.start + place.weight) % pool.total());
        }
        // For the second of two nobody is better than one that waits for its first result.
        nor.is_none().then_some(drawn)
    }

    fn may_be_tried(&self, place: Place) -> bool {
        let endpoint = self.table.get(place.index);
        endpoint.shared.may_be_tried(self.context.now_ms)
    }

    /// Drawn by its share of what it will take when it is warm.
    fn is_warm_enough(&mut self, place: Place) -> bool {
        let settings = &self.table.settings;
        let since_ms = self.table.get(place.index).shared.since_ms();
        let percent = settings.warm_percent(since_ms, self.context.now_ms);
        percent >= 100 || self.draws.below(100) < percent
    }

    fn address(&self, index: EndpointIndex) -> SocketAddr {
        self.table.get(index).address
    }
}

#[cfg(test)]
mod tests;
