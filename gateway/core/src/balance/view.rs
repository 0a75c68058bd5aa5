//! What balancing does with the health of one moment; made once for each change of health.

use std::sync::atomic::Ordering;

use super::load::{health_percent, load_percents};
use super::pool::Pool;
use super::{EndpointIndex, EndpointTable, Picked, PriorityLoad};
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
    /// When an ejection or a down time that it counts ends.
    valid_until_ms: u64,
    /// By priority.
    pub(super) levels: Vec<Level>,
    /// Chooses a level; nothing to choose when nothing may be used.
    pub(super) loads: Split,
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
enum Condition {
    Available,
    /// Unhealthy or ejected: panic may use it.
    Suspect,
    /// Panic uses it last.
    Down,
    /// Used when there is nothing of the above in the table.
    Draining,
}

/// A locality with the conditions of its members.
struct Sight<'a> {
    position: usize,
    weight: u64,
    members: Vec<(EndpointIndex, &'a Endpoint, Condition)>,
    available: u64,
    total: u64,
}

/// Localities of one priority.
struct LevelSight<'a> {
    priority: u32,
    localities: Vec<Sight<'a>>,
}

// === impl View ===

impl View {
    pub(super) fn new(table: &EndpointTable, now_ms: u64) -> Self {
        // The count comes first: a change after it makes this view old, though it may be in it
        // already.
        let changes = table.changes.load(Ordering::Acquire);
        let mut valid_until_ms = u64::MAX;
        let mut sights: Vec<LevelSight<'_>> = Vec::new();
        for (position, locality) in table.localities.iter().enumerate() {
            let members = locality.members.iter().map(|index| {
                let endpoint = table.get(*index);
                let (condition, until_ms) =
                    condition(endpoint, table.settings.health_check, now_ms);
                valid_until_ms = valid_until_ms.min(until_ms);
                (*index, endpoint, condition)
            });
            let sight = Sight::new(position, locality.weight, members.collect());
            match sights
                .last_mut()
                .filter(|level| level.priority == locality.priority)
            {
                Some(level) => level.localities.push(sight),
                None => sights.push(LevelSight {
                    priority: locality.priority,
                    localities: vec![sight],
                }),
            }
        }
        let levels = levels(table, &sights);
        let loads = Split::new(levels.iter().map(|level| level.load.load_percent.into()));
        Self {
            changes,
            valid_until_ms,
            levels,
            loads,
        }
    }

    pub(super) const fn is_of(&self, changes: u64, now_ms: u64) -> bool {
        self.changes == changes && now_ms < self.valid_until_ms
    }
}

fn levels(table: &EndpointTable, sights: &[LevelSight<'_>]) -> Vec<Level> {
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
        for locality in &sight.localities {
            let usable = locality
                .members
                .iter()
                .filter(|(_, _, condition)| *condition <= worst);
            let mut usable = usable
                .map(|(index, endpoint, _)| (*index, endpoint.weight))
                .peekable();
            if usable.peek().is_some() {
                shares.push(if panic {
                    locality.weight
                } else {
                    locality.share(overprovision_percent)
                });
                pools.push(Pool::new(locality.position, usable));
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

impl<'a> Sight<'a> {
    fn new(
        position: usize,
        weight: u64,
        members: Vec<(EndpointIndex, &'a Endpoint, Condition)>,
    ) -> Self {
        let sum = |counts: &dyn Fn(Condition) -> bool| -> u64 {
            members
                .iter()
                .filter(|(_, _, condition)| counts(*condition))
                .map(|(_, endpoint, _)| u64::from(endpoint.weight))
                .sum()
        };
        let available = sum(&|condition| condition == Condition::Available);
        let staying = sum(&|condition| condition != Condition::Draining);
        let total = if staying > 0 { staying } else { sum(&|_| true) };
        Self {
            position,
            weight,
            members,
            available,
            total,
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
        self.localities
            .iter()
            .map(|locality| locality.available)
            .sum()
    }

    fn total(&self) -> u64 {
        self.localities.iter().map(|locality| locality.total).sum()
    }

    fn best(&self) -> Option<Condition> {
        self.localities
            .iter()
            .flat_map(|locality| &locality.members)
            .map(|(_, _, condition)| *condition)
            .min()
    }
}

/// The condition of an endpoint, and when time alone may change it.
fn condition(endpoint: &Endpoint, health_check: bool, now_ms: u64) -> (Condition, u64) {
    let shared = &endpoint.shared;
    let ejected_until_ms = shared.ejected_until_ms(now_ms);
    let down_until_ms = shared.down_until_ms(now_ms);
    let until_ms = ejected_until_ms
        .into_iter()
        .chain(down_until_ms)
        .min()
        .unwrap_or(u64::MAX);
    let unhealthy = endpoint.health == Health::Unhealthy || (health_check && shared.check_failed());
    let condition = if endpoint.health == Health::Draining {
        Condition::Draining
    } else if down_until_ms.is_some() {
        Condition::Down
    } else if unhealthy || ejected_until_ms.is_some() {
        Condition::Suspect
    } else {
        Condition::Available
    };
    (condition, until_ms)
}
