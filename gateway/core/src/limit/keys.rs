//! Buckets by key, of bounded number.
//!
//! A key has eight places where its bucket can be. A place whose bucket is full again is free: a
//! new key takes it, and nobody loses anything. A key whose eight places are all in use shares one
//! bucket with all keys in that position: limited together, so that inventing keys neither opens
//! the limit nor shuts out those who came before.
//!
//! Of a global limit's keys it also keeps what all gateways must know: a name that is the same in
//! every gateway, the share of this one, and what was asked for. Shares that were set for keys not
//! seen here yet wait for them.
//!
//! Shared by all workers without waiting; only a key that is new to a global limit takes a lock.
//! Two workers that bring in the same key at one moment may give it two places; the second one is
//! free again soon. A worker that takes a place while another still counts there may count the
//! other's call: one call, once.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use hashbrown::HashMap;

use super::bucket::FullAt;
use crate::random::mix;

const PLACES: usize = 8;

/// The share of a key that has none of its own: that of the limit.
const OF_THE_LIMIT: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Keys {
    slots: Box<[Slot]>,
    /// One for each slot, of a global limit.
    shared: Box<[SharedKey]>,
    /// Shares set from outside, by name.
    assigned: RwLock<HashMap<u64, u32>>,
    others: FullAt,
}

#[derive(Debug, Default)]
struct Slot {
    /// 0: never used.
    key: AtomicU64,
    full_at_ns: FullAt,
}

/// What all gateways must know of a key.
#[derive(Debug)]
pub(super) struct SharedKey {
    /// The same in every gateway; 0: no key yet.
    name: AtomicU64,
    share: AtomicU32,
    passed: AtomicU32,
    refused: AtomicU32,
}

/// What was asked for with one key since this was last taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyDemand {
    /// Stands for the key's values; the same in every gateway.
    pub key: u64,
    /// Calls that passed.
    pub passed: u32,
    /// Calls that did not.
    pub refused: u32,
}

/// The bucket of a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub full_at: &'a FullAt,
    /// Of a global limit, when the key has a bucket of its own.
    pub shared: Option<&'a SharedKey>,
    /// Whether the bucket is the key's own.
    pub own: bool,
}

// === impl SharedKey ===

impl SharedKey {
    const fn new() -> Self {
        Self {
            name: AtomicU64::new(0),
            share: AtomicU32::new(OF_THE_LIMIT),
            passed: AtomicU32::new(0),
            refused: AtomicU32::new(0),
        }
    }

    /// The same in every gateway.
    pub(super) fn name(&self) -> u64 {
        self.name.load(Ordering::Relaxed)
    }

    /// In millionths.
    pub(super) fn share(&self, of_the_limit: u32) -> u32 {
        match self.share.load(Ordering::Relaxed) {
            OF_THE_LIMIT => of_the_limit,
            own => own,
        }
    }

    pub(super) fn count(&self, passed: bool) {
        let counter = if passed { &self.passed } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn is_asked(&self) -> bool {
        self.passed.load(Ordering::Relaxed) + self.refused.load(Ordering::Relaxed) > 0
    }

    fn begin(&self, name: u64, share: u32) {
        self.name.store(name, Ordering::Relaxed);
        self.share.store(share, Ordering::Relaxed);
        self.passed.store(0, Ordering::Relaxed);
        self.refused.store(0, Ordering::Relaxed);
    }

    fn take_demand(&self) -> Option<KeyDemand> {
        let demand = KeyDemand {
            key: self.name(),
            passed: self.passed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        };
        if demand.asked() == 0 {
            return None;
        }
        self.passed.fetch_sub(demand.passed, Ordering::Relaxed);
        self.refused.fetch_sub(demand.refused, Ordering::Relaxed);
        Some(demand)
    }
}

// === impl KeyDemand ===

impl KeyDemand {
    /// All calls.
    #[must_use]
    pub fn asked(&self) -> u64 {
        u64::from(self.passed) + u64::from(self.refused)
    }
}

// === impl Keys ===

impl Keys {
    /// For about so many keys at one time.
    pub(super) fn new(keys_max: u32, global: bool) -> Self {
        let slots = (keys_max as usize).max(PLACES).next_power_of_two();
        let shared = if global { slots } else { 0 };
        Self {
            slots: (0..slots).map(|_| Slot::default()).collect(),
            shared: (0..shared).map(|_| SharedKey::new()).collect(),
            assigned: RwLock::default(),
            others: FullAt::new(0),
        }
    }

    /// The bucket of a key (a hash of it that no client can foresee); `name` gives what it is
    /// called in all gateways.
    pub(super) fn place(&self, key: u64, now_ns: u64, name: impl FnOnce() -> u64) -> Place<'_> {
        let key = key.max(1);
        let first = (key as usize).wrapping_mul(PLACES) & (self.slots.len() - 1);
        let places = &self.slots[first..first + PLACES];
        let has = |slot: &Slot| slot.key.load(Ordering::Relaxed) == key;
        if let Some(at) = places.iter().position(has) {
            return self.own(first + at);
        }
        let take = |at: &usize| {
            let slot = &places[*at];
            let before = slot.key.load(Ordering::Relaxed);
            slot.full_at_ns.load(Ordering::Relaxed) <= now_ns
                && slot
                    .key
                    .compare_exchange(before, key, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
        };
        // What was asked for with a key is reported before the place is given away, if possible.
        let asked = |at: &usize| self.shared.get(first + at).is_some_and(SharedKey::is_asked);
        let unasked = (0..PLACES).find(|at| !asked(at) && take(at));
        let taken = unasked.or_else(|| (0..PLACES).find(|at| asked(at) && take(at)));
        let Some(at) = taken else {
            return Place {
                full_at: &self.others,
                shared: None,
                own: false,
            };
        };
        if let Some(shared) = self.shared.get(first + at) {
            let name = name();
            let assigned = self.assigned.read().unwrap_or_else(PoisonError::into_inner);
            shared.begin(name, assigned.get(&name).copied().unwrap_or(OF_THE_LIMIT));
        }
        self.own(first + at)
    }

    fn own(&self, at: usize) -> Place<'_> {
        Place {
            full_at: &self.slots[at].full_at_ns,
            shared: self.shared.get(at),
            own: true,
        }
    }

    /// How many keys have shares of their own.
    pub(super) fn assigned(&self) -> usize {
        let assigned = self.assigned.read().unwrap_or_else(PoisonError::into_inner);
        assigned.len()
    }

    /// Buckets of keys that have a name: of a global limit, all that were ever used.
    pub(super) fn named(&self) -> impl Iterator<Item = (&FullAt, &SharedKey)> {
        let slots = self.slots.iter().map(|slot| &slot.full_at_ns);
        slots.zip(&self.shared).filter(|(_, key)| key.name() != 0)
    }

    /// What was asked for by key since the last time, most first, at most `max`; of the others
    /// nothing is kept.
    pub(super) fn take_demand(&self, max: usize) -> Vec<KeyDemand> {
        let mut demand: Vec<_> = self
            .shared
            .iter()
            .filter_map(SharedKey::take_demand)
            .collect();
        demand.sort_by_key(|it| (std::cmp::Reverse(it.asked()), it.key));
        demand.truncate(max);
        demand
    }

    /// Sets the shares of keys by name; the others have that of the limit. `changed` is told of
    /// each key whose share was another, with its bucket, the old share and the new one.
    pub(super) fn assign(
        &self,
        shares: HashMap<u64, u32>,
        (limit_before, limit_now): (u32, u32),
        mut changed: impl FnMut(&FullAt, u32, u32),
    ) {
        for (bucket, shared) in self.named() {
            let next = shares.get(&shared.name()).copied().unwrap_or(OF_THE_LIMIT);
            let before = shared.share(limit_before);
            shared.share.store(next, Ordering::Relaxed);
            let now = shared.share(limit_now);
            if now != before {
                changed(bucket, before, now);
            }
        }
        changed(&self.others, limit_before, limit_now);
        let mut assigned = self
            .assigned
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *assigned = shares;
    }
}

/// What a key of these values is called in all gateways (FNV-1a, mixed). It need not be hidden from
/// clients: who knows another's values can send them.
pub(super) fn name_of(values: &[&[u8]]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    let hash = values.iter().fold(BASIS, |hash, value| {
        // Each with its length, so that values cannot run into each other.
        let hash = (value.len() as u64).to_le_bytes().iter().fold(hash, step);
        value.iter().fold(hash, step)
    });
    mix(hash).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limit::bucket::Rate;

    #[test]
    fn keys_past_the_bound_share_one_bucket() {
        let keys = Keys::new(8, false);
        let rate = Rate::new(2, 1_000, 1_000_000).unwrap();
        let take = |key, now_ns| {
            rate.take(keys.place(key, now_ns, || 1).full_at, now_ns)
                .is_ok()
        };
        for key in 1..=8 {
            assert!(take(key, 1));
        }
        let invented = (100..200).filter(|key| take(*key, 1)).count();
        assert_eq!(invented, 2, "a hundred keys pass like one");
        assert!(take(3, 1) && !take(3, 1), "who was there has its own still");
        // When the others are full again their places are free.
        let later_ns = 10_000_000_000;
        assert!(keys.place(500, later_ns, || 1).own);
    }

    #[test]
    fn a_share_waits_for_its_key_and_demand_is_taken_once() {
        let keys = Keys::new(8, true);
        let name = name_of(&[b"tenant"]);
        assert_ne!(name, name_of(&[b"tenan", b"t"]));
        keys.assign(
            HashMap::from([(name, 250_000)]),
            (WHOLE, WHOLE),
            |_, _, _| {},
        );
        let shared = keys.place(7, 1, || name).shared.unwrap();
        assert_eq!(
            shared.share(WHOLE),
            250_000,
            "it was set before the key came"
        );
        shared.count(true);
        shared.count(false);
        let other = keys.place(8, 1, || 9).shared.unwrap();
        other.count(true);
        let taken = keys.take_demand(1);
        let demand = KeyDemand {
            key: name,
            passed: 1,
            refused: 1,
        };
        assert_eq!(taken, [demand], "the one asked for most");
        assert!(keys.take_demand(8).is_empty());
        let mut seen = Vec::new();
        let note = |_: &FullAt, before, now| seen.push((before, now));
        keys.assign(HashMap::new(), (WHOLE, 500_000), note);
        assert_eq!(
            seen,
            [(250_000, 500_000), (WHOLE, 500_000), (WHOLE, 500_000)]
        );
    }

    const WHOLE: u32 = 1_000_000;

    proptest! {
        #[test]
        fn a_key_keeps_its_bucket_while_it_is_in_use(
            seeds in prop::collection::vec(any::<u64>(), 1..100),
        ) {
            let keys = Keys::new(64, false);
            let rate = Rate::new(1, 1_000, 1_000_000).unwrap();
            for (at, seed) in seeds.iter().enumerate() {
                let key = mix(*seed);
                let place = keys.place(key, 1, || 1);
                if place.own && rate.take(place.full_at, 1).is_ok() {
                    // One call a second was let pass: nobody with this key passes again.
                    for other in &seeds[..=at] {
                        keys.place(mix(*other), 1, || 1);
                    }
                    prop_assert!(rate.take(keys.place(key, 1, || 1).full_at, 1).is_err());
                }
            }
        }
    }
}
