//! What balancing does with the health of one moment.
//!
//! It has a part for each block of endpoints, and sums over the parts. After a change of health the
//! next view looks at the blocks that changed and takes the other parts as they were, so a change
//! costs the same among ten endpoints and among 100,000.

use std::sync::Arc;

use super::load::{health_percent, load_percents};
use super::members::Block;
use super::pool::{Lane, Pool};
use super::{EndpointIndex, EndpointTable, Picked, PriorityLoad, block_of};
use crate::config::Health;
use crate::endpoint::Endpoint;
use crate::split::Split;

/// Parts of one in a locality's share.
const SHARE_SCALE: u64 = 10_000;

/// The priorities, their shares, and whom they can choose from, at one moment.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The cluster's count of changes that it was made for.
    changes: u64,
    /// When time alone changes something.
    valid_until_ms: u64,
    /// By block of the table.
    parts: Vec<Arc<Part>>,
    /// By priority.
    pub(super) levels: Vec<Level>,
    /// Chooses a level; nothing to choose when nothing may be used.
    pub(super) loads: Split,
    /// For each locality of the table: its level and its pool, if it can be chosen from.
    pub(super) pools: Vec<Option<(usize, usize)>>,
    /// Some endpoints want care: they are new, or back from an ejection.
    pub(super) careful: bool,
}

/// The endpoints of one block.
#[derive(Debug)]
struct Part {
    /// The count of changes of the block that it was made for.
    changes: u32,
    valid_until_ms: u64,
    lanes: Vec<Arc<Lane>>,
    conditions: Vec<Condition>,
    careful: bool,
}

/// One priority.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) load: PriorityLoad,
    /// One for each locality that has someone to choose.
    pub(super) pools: Vec<Pool>,
    /// Chooses a pool.
    pub(super) shares: Split,
}

/// Whether an endpoint can be used, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition {
    Available,
    /// Unhealthy or ejected: panic may use it.
    Suspect,
    /// Panic uses it last.
    Down,
    /// Used when there is nothing of the above in the table.
    Draining,
}

/// A locality with the conditions of its members.
struct Sight {
    locality: usize,
    weight: u64,
    lanes: Vec<Arc<Lane>>,
    available: u64,
    total: u64,
    /// The best condition in it.
    best: Option<Condition>,
}

/// Localities of one priority.
struct LevelSight<'a> {
    priority: u32,
    localities: &'a [Sight],
}

// === impl Condition ===

impl Condition {
    pub(super) const COUNT: usize = 4;
    pub(super) const ALL: [Self; Self::COUNT] =
        [Self::Available, Self::Suspect, Self::Down, Self::Draining];

    /// Of an endpoint, and when time alone may change it.
    fn of(endpoint: &Endpoint, health_check: bool, now_ms: u64) -> (Self, u64) {
        let shared = &endpoint.shared;
        let ejected_until_ms = shared.ejected_until_ms(now_ms);
        let down_until_ms = shared.down_until_ms(now_ms);
        let until_ms = ejected_until_ms.into_iter().chain(down_until_ms).min();
        let unhealthy =
            endpoint.health == Health::Unhealthy || (health_check && shared.check_failed());
        let condition = if endpoint.health == Health::Draining {
            Self::Draining
        } else if down_until_ms.is_some() {
            Self::Down
        } else if unhealthy || ejected_until_ms.is_some() {
            Self::Suspect
        } else {
            Self::Available
        };
        (condition, until_ms.unwrap_or(u64::MAX))
    }
}

// === impl Part ===

impl Part {
    fn new(table: &EndpointTable, block: usize, now_ms: u64) -> Self {
        // The count comes first: a change after it makes this part old, though it may be in it
        // already.
        let changes = table.changes.of_block(block);
        let members = &table.members.blocks()[block];
        let mut valid_until_ms = u64::MAX;
        let mut careful = false;
        let mut conditions = Vec::with_capacity(members.len());
        let mut sorted = Vec::with_capacity(members.len());
        for (index, endpoint) in table.members.indexes_of(block).zip(members.iter()) {
            let (condition, until_ms) =
                Condition::of(endpoint, table.settings.health_check, now_ms);
            let since_ms = endpoint
                .shared
                .seen(condition == Condition::Available, now_ms);
            let warm_at_ms = table.settings.warm_at_ms(since_ms);
            let warming = condition == Condition::Available && now_ms < warm_at_ms;
            careful |= warming || endpoint.shared.is_on_return();
            valid_until_ms = valid_until_ms.min(until_ms);
            if warming {
                valid_until_ms = valid_until_ms.min(warm_at_ms);
            }
            conditions.push(condition);
            sorted.push((endpoint.locality, condition, index, endpoint.weight));
        }
        sorted.sort_unstable();
        let of_one = sorted.chunk_by(|(one, ..), (other, ..)| one == other);
        let lanes = of_one.map(|of_one| Arc::new(Lane::new(block as u32, of_one)));
        Self {
            changes,
            valid_until_ms,
            lanes: lanes.collect(),
            conditions,
            careful,
        }
    }

    fn is_of(&self, changes: u32, now_ms: u64) -> bool {
        self.changes == changes && now_ms < self.valid_until_ms
    }
}

// === impl View ===

impl View {
    /// `before` is an older view with the blocks that it was made of: its parts are used again
    /// where neither the block nor its health changed.
    pub(super) fn new(
        table: &EndpointTable,
        now_ms: u64,
        before: Option<(&Self, &[Block])>,
    ) -> Self {
        // The count comes first, see `Part::new`.
        let changes = table.changes.count();
        let blocks = table.members.blocks().iter().enumerate();
        let parts = blocks.map(|(at, block)| {
            let old = before.and_then(|(view, blocks)| {
                let same = Arc::ptr_eq(blocks.get(at)?, block);
                view.parts.get(at).filter(|_| same)
            });
            old.filter(|part| part.is_of(table.changes.of_block(at), now_ms))
                .map_or_else(|| Arc::new(Part::new(table, at, now_ms)), Arc::clone)
        });
        let parts: Vec<_> = parts.collect();
        let sights = sights(table, &parts);
        let by_priority =
            sights.chunk_by(|one, other| table.priority_of(one) == table.priority_of(other));
        let levels: Vec<_> = by_priority
            .map(|localities| LevelSight {
                priority: table.priority_of(&localities[0]),
                localities,
            })
            .collect();
        let levels = choose_levels(table, &levels);
        let mut pools = vec![None; table.localities.len()];
        for (at, level) in levels.iter().enumerate() {
            for (pool_at, pool) in level.pools.iter().enumerate() {
                pools[pool.locality] = Some((at, pool_at));
            }
        }
        Self {
            changes,
            valid_until_ms: parts
                .iter()
                .map(|part| part.valid_until_ms)
                .min()
                .unwrap_or(u64::MAX),
            loads: Split::new(levels.iter().map(|level| level.load.load_percent.into())),
            careful: parts.iter().any(|part| part.careful),
            levels,
            pools,
            parts,
        }
    }

    pub(super) const fn is_of(&self, changes: u64, now_ms: u64) -> bool {
        self.changes == changes && now_ms < self.valid_until_ms
    }

    pub(super) fn condition(&self, index: EndpointIndex) -> Option<Condition> {
        let block = block_of(index.0);
        let first = super::members::first_of(block);
        let part = self.parts.get(block)?;
        part.conditions.get((index.0 - first) as usize).copied()
    }
}

/// The localities that have weight and endpoints, by priority.
fn sights(table: &EndpointTable, parts: &[Arc<Part>]) -> Vec<Sight> {
    let mut lanes: Vec<Vec<Arc<Lane>>> = vec![Vec::new(); table.localities.len()];
    for lane in parts.iter().flat_map(|part| &part.lanes) {
        lanes[lane.locality as usize].push(Arc::clone(lane));
    }
    let weights = table.localities.iter().map(|locality| locality.weight);
    let mut sights: Vec<_> = (0..)
        .zip(weights)
        .zip(lanes)
        .filter(|((_, weight), lanes)| *weight > 0 && !lanes.is_empty())
        .map(|((locality, weight), lanes)| Sight::new(locality, weight, lanes))
        .collect();
    sights.sort_by_key(|sight| table.priority_of(sight));
    sights
}

fn choose_levels(table: &EndpointTable, sights: &[LevelSight<'_>]) -> Vec<Level> {
    let settings = &table.settings;
    let health = |level: &LevelSight<'_>| {
        health_percent(
            level.available(),
            level.total(),
            settings.overprovision_percent,
        )
    };
    let healths: Vec<u64> = sights.iter().map(health).collect();
    let short = healths.iter().sum::<u64>() < 100;
    let mut loads = load_percents(&healths);
    let best = sights.iter().filter_map(LevelSight::best).min();
    let last_resort = loads.iter().all(|load| *load == 0)
        && (settings.panic_percent > 0 || best == Some(Condition::Draining));
    if last_resort {
        // Everything is bad: the first priority that has the least bad takes it all.
        if let Some(at) = sights.iter().position(|level| level.best() == best) {
            loads[at] = 100;
        }
    }
    let level = |(level, load): (&LevelSight<'_>, u64)| {
        let in_panic = level.available() * 100 < settings.panic_percent * level.total();
        let panic = (short && in_panic) || (last_resort && load > 0);
        Level::new(level, load, panic, settings.overprovision_percent)
    };
    sights.iter().zip(loads).map(level).collect()
}

// === impl Level ===

impl Level {
    fn new(sight: &LevelSight<'_>, load: u64, panic: bool, overprovision_percent: u64) -> Self {
        let worst = if panic {
            sight
                .best()
                .map_or(Condition::Available, |best| best.max(Condition::Suspect))
        } else {
            Condition::Available
        };
        let mut pools = Vec::new();
        let mut shares = Vec::new();
        for locality in sight.localities {
            if let Some(pool) = Pool::new(locality.locality, &locality.lanes, worst) {
                shares.push(if panic {
                    locality.weight
                } else {
                    locality.share(overprovision_percent)
                });
                pools.push(pool);
            }
        }
        let available_percent = (sight.available() * 100)
            .checked_div(sight.total())
            .unwrap_or(0) as u32;
        let load = PriorityLoad {
            priority: sight.priority,
            available_percent,
            load_percent: load as u32,
            panic,
        };
        Self {
            load,
            pools,
            shares: Split::new(shares.into_iter()),
        }
    }

    pub(super) const fn picked(&self, index: EndpointIndex, again: bool) -> Picked {
        Picked {
            index,
            priority: self.load.priority,
            panic: self.load.panic,
            again,
        }
    }
}

// === impl Sight, LevelSight ===

impl Sight {
    fn new(locality: usize, weight: u64, lanes: Vec<Arc<Lane>>) -> Self {
        let sum = |worst| -> u64 { lanes.iter().map(|lane| lane.weight(worst)).sum() };
        let staying = sum(Condition::Down);
        let mut conditions = Condition::ALL.into_iter();
        let best = conditions.find(|worst| lanes.iter().any(|lane| lane.count(*worst) > 0));
        Self {
            locality,
            weight,
            available: sum(Condition::Available),
            total: if staying > 0 {
                staying
            } else {
                sum(Condition::Draining)
            },
            best,
            lanes,
        }
    }

    /// Its part of the priority's traffic: its weight, less what it cannot take. At least 1 while
    /// it can take any.
    fn share(&self, overprovision_percent: u64) -> u64 {
        let takes = self.available * overprovision_percent * (SHARE_SCALE / 100) / self.total;
        (self.weight * takes.min(SHARE_SCALE)).max(1)
    }
}

impl LevelSight<'_> {
    fn available(&self) -> u64 {
        let available = self.localities.iter().map(|locality| locality.available);
        available.sum()
    }

    fn total(&self) -> u64 {
        self.localities.iter().map(|locality| locality.total).sum()
    }

    fn best(&self) -> Option<Condition> {
        self.localities
            .iter()
            .filter_map(|locality| locality.best)
            .min()
    }
}

impl EndpointTable {
    fn priority_of(&self, sight: &Sight) -> u32 {
        self.localities[sight.locality].priority
    }
}
