//! Buckets by key, of bounded number.
//!
//! A key has eight places where its bucket can be. A place whose bucket is full again is free: a
//! new key takes it, and nobody loses anything. A key whose eight places are all in use shares one
//! bucket with all keys in that position: limited together, so that inventing keys neither opens
//! the limit nor shuts out those who came before.
//!
//! Shared by all workers without waiting. Two workers that bring in the same key at one moment may
//! give it two places; the second one is free again soon.

use std::sync::atomic::{AtomicU64, Ordering};

use super::bucket::FullAt;

const PLACES: usize = 8;

#[derive(Debug)]
pub(super) struct Keys {
    slots: Box<[Slot]>,
    others: FullAt,
}

#[derive(Debug, Default)]
struct Slot {
    /// 0: never used.
    key: AtomicU64,
    full_at_ns: FullAt,
}

// === impl Keys ===

impl Keys {
    /// For about so many keys at one time.
    pub(super) fn new(keys_max: u32) -> Self {
        let slots = (keys_max as usize).max(PLACES).next_power_of_two();
        Self {
            slots: (0..slots).map(|_| Slot::default()).collect(),
            others: FullAt::new(0),
        }
    }

    /// The bucket of a key (a hash of it), and whether it is its own.
    pub(super) fn bucket(&self, key: u64, now_ns: u64) -> (&FullAt, bool) {
        let key = key.max(1);
        let first = (key as usize).wrapping_mul(PLACES) & (self.slots.len() - 1);
        let places = &self.slots[first..first + PLACES];
        let has = |slot: &&Slot| slot.key.load(Ordering::Relaxed) == key;
        if let Some(slot) = places.iter().find(has) {
            return (&slot.full_at_ns, true);
        }
        let taken = places.iter().find(|slot| {
            let before = slot.key.load(Ordering::Relaxed);
            slot.full_at_ns.load(Ordering::Relaxed) <= now_ns
                && slot
                    .key
                    .compare_exchange(before, key, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
        });
        taken.map_or((&self.others, false), |slot| (&slot.full_at_ns, true))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limit::bucket::Rate;
    use crate::random::mix;

    #[test]
    fn keys_past_the_bound_share_one_bucket() {
        let keys = Keys::new(8);
        let rate = Rate::new(2, 1_000, 1_000_000).unwrap();
        let take = |key, now_ns| rate.take(keys.bucket(key, now_ns).0, now_ns).is_ok();
        for key in 1..=8 {
            assert!(take(key, 1));
        }
        let invented = (100..200).filter(|key| take(*key, 1)).count();
        assert_eq!(invented, 2, "a hundred keys pass like one");
        assert!(take(3, 1) && !take(3, 1), "who was there has its own still");
        // When the others are full again their places are free.
        let later_ns = 10_000_000_000;
        assert!(keys.bucket(500, later_ns).1);
    }

    proptest! {
        #[test]
        fn a_key_keeps_its_bucket_while_it_is_in_use(
            seeds in prop::collection::vec(any::<u64>(), 1..100),
        ) {
            let keys = Keys::new(64);
            let rate = Rate::new(1, 1_000, 1_000_000).unwrap();
            for (at, seed) in seeds.iter().enumerate() {
                let key = mix(*seed);
                let (bucket, own) = keys.bucket(key, 1);
                if own && rate.take(bucket, 1).is_ok() {
                    // One call a second was let pass: nobody with this key passes again.
                    for other in &seeds[..=at] {
                        keys.bucket(mix(*other), 1);
                    }
                    prop_assert!(rate.take(keys.bucket(key, 1).0, 1).is_err());
                }
            }
        }
    }
}
