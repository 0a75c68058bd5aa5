//! The streams of a connection: slots that are reused, a map from ids to slots, and a memory of how
//! recent streams ended.
//!
//! Invariants: a slot is live exactly when its id is in the map; the free list holds the others. No
//! step allocates once there were as many streams at a time before.

use crate::event::StreamRef;
use crate::stream::Stream;

#[derive(Debug)]
pub(crate) struct Store {
    slots: Vec<Stream>,
    free: Vec<u32>,
    ids: IdMap,
    past: History,
}

/// How a stream ended that is not live any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Past {
    /// Its opener went on to a higher id without using it.
    Skipped,
    Finished,
    ResetByPeer,
    ResetByUs,
    /// Too long ago to know.
    Forgotten,
}

/// Open addressing, linear probing, at most half full; removal moves followers back, so that no
/// tombstones gather. A peer that chooses colliding ids makes a look as long as its number of live
/// streams, which is bounded.
#[derive(Debug)]
struct IdMap {
    /// (id, slot); id 0 is vacant.
    places: Vec<(u32, u32)>,
    len: usize,
}

/// Two bits for each of the latest ids of one parity.
#[derive(Debug)]
struct History {
    bits: [u64; HISTORY_WORDS],
    newest: u32,
}

/// Slots that a quiet connection keeps.
const SLOTS_KEPT: usize = 16;
const PLACES_MIN: usize = 16;
const HISTORY_WORDS: usize = 64;
const HISTORY_LEN: u32 = HISTORY_WORDS as u32 * 32;

// === impl Store ===

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            ids: IdMap {
                places: vec![(0, 0); PLACES_MIN],
                len: 0,
            },
            past: History {
                bits: [0; HISTORY_WORDS],
                newest: 0,
            },
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len
    }

    /// The highest id used.
    pub(crate) fn newest_id(&self) -> u32 {
        self.past.newest
    }

    /// `id`, higher than all before, is used from now on, live or not.
    pub(crate) fn use_id(&mut self, id: u32) {
        self.past.advance_to(id);
    }

    pub(crate) fn insert(&mut self, id: u32, send_window: u32, recv_window: u32) -> StreamRef {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Stream::vacant());
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize].begin(id, send_window, recv_window);
        self.ids.insert(id, slot);
        StreamRef { id, slot }
    }

    pub(crate) fn remove(&mut self, stream: StreamRef, past: Past) {
        self.slots[stream.slot as usize].end();
        self.ids.remove(stream.id);
        self.free.push(stream.slot);
        self.past.set(stream.id, past);
    }

    #[inline]
    pub(crate) fn find(&self, id: u32) -> Option<StreamRef> {
        self.ids.get(id).map(|slot| StreamRef { id, slot })
    }

    #[inline]
    pub(crate) fn get(&self, stream: StreamRef) -> Option<&Stream> {
        self.slots
            .get(stream.slot as usize)
            .filter(|slot| slot.id == stream.id)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, stream: StreamRef) -> Option<&mut Stream> {
        self.slots
            .get_mut(stream.slot as usize)
            .filter(|slot| slot.id == stream.id)
    }

    /// How the stream `id`, used and not live, has ended.
    pub(crate) fn past(&self, id: u32) -> Past {
        self.past.get(id)
    }

    /// Says how a used stream ended that never was live.
    pub(crate) fn set_past(&mut self, id: u32, past: Past) {
        self.past.set(id, past);
    }

    /// The live stream in the slot of this number, if any; numbers end at `slot_count`.
    pub(crate) fn at(&mut self, slot: usize) -> Option<(StreamRef, &mut Stream)> {
        let stream = self.slots.get_mut(slot).filter(|stream| stream.id != 0)?;
        Some((
            StreamRef {
                id: stream.id,
                slot: slot as u32,
            },
            stream,
        ))
    }

    /// All live streams.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (StreamRef, &Stream)> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, stream)| stream.id != 0)
            .map(|(slot, stream)| {
                let (id, slot) = (stream.id, slot as u32);
                (StreamRef { id, slot }, stream)
            })
    }

    pub(crate) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// With no stream live: gives the memory of all slots back.
    pub(crate) fn shrink(&mut self) {
        if self.ids.len == 0 && self.slots.len() > SLOTS_KEPT {
            self.slots = Vec::new();
            self.free = Vec::new();
            self.ids.places = vec![(0, 0); PLACES_MIN];
        }
        self.slots.iter_mut().for_each(|slot| slot.queue.forget());
    }
}

// === impl IdMap ===

impl IdMap {
    #[inline]
    fn home(&self, id: u32) -> usize {
        // Fibonacci hashing: neighbours in time are spread evenly.
        let bits = self.places.len().trailing_zeros();
        (id.wrapping_mul(0x9e37_79b1) >> (32 - bits)) as usize
    }

    fn next(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }

    #[inline]
    fn get(&self, id: u32) -> Option<u32> {
        let mut place = self.home(id);
        loop {
            match self.places[place] {
                (0, _) => return None,
                (found, slot) if found == id => return Some(slot),
                _ => place = self.next(place),
            }
        }
    }

    fn insert(&mut self, id: u32, slot: u32) {
        if (self.len + 1) * 2 > self.places.len() {
            let larger = vec![(0, 0); self.places.len() * 2];
            for (id, slot) in std::mem::replace(&mut self.places, larger) {
                if id != 0 {
                    self.put(id, slot);
                }
            }
        }
        self.put(id, slot);
        self.len += 1;
    }

    fn put(&mut self, id: u32, slot: u32) {
        let mut place = self.home(id);
        while self.places[place].0 != 0 {
            place = self.next(place);
        }
        self.places[place] = (id, slot);
    }

    fn remove(&mut self, id: u32) {
        let mut hole = self.home(id);
        while self.places[hole].0 != id {
            hole = self.next(hole);
        }
        self.len -= 1;
        let mut place = hole;
        loop {
            place = self.next(place);
            let (follower, _) = self.places[place];
            if follower == 0 {
                break;
            }
            // It may move back unless its home lies behind the hole.
            let mask = self.places.len() - 1;
            let from_home = place.wrapping_sub(self.home(follower)) & mask;
            if from_home >= place.wrapping_sub(hole) & mask {
                self.places[hole] = self.places[place];
                hole = place;
            }
        }
        self.places[hole] = (0, 0);
    }
}

// === impl History ===

impl History {
    fn advance_to(&mut self, id: u32) {
        let skipped = ((id - self.newest) / 2).min(HISTORY_LEN);
        for back in 0..skipped {
            self.put(id.wrapping_sub(back * 2), 0);
        }
        self.newest = id;
    }

    fn get(&self, id: u32) -> Past {
        if (self.newest.saturating_sub(id)) / 2 >= HISTORY_LEN {
            return Past::Forgotten;
        }
        let (word, shift) = Self::place(id);
        match self.bits[word] >> shift & 3 {
            0 => Past::Skipped,
            1 => Past::Finished,
            2 => Past::ResetByPeer,
            _ => Past::ResetByUs,
        }
    }

    fn set(&mut self, id: u32, past: Past) {
        let code = match past {
            Past::Skipped => 0,
            Past::Finished => 1,
            Past::ResetByPeer => 2,
            Past::ResetByUs => 3,
            Past::Forgotten => return,
        };
        if (self.newest.saturating_sub(id)) / 2 < HISTORY_LEN {
            self.put(id, code);
        }
    }

    fn put(&mut self, id: u32, code: u64) {
        let (word, shift) = Self::place(id);
        self.bits[word] = self.bits[word] & !(3 << shift) | code << shift;
    }

    fn place(id: u32) -> (usize, u32) {
        let number = id / 2 % HISTORY_LEN;
        ((number / 32) as usize, number % 32 * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in prop::collection::vec((1u32..40, any::<bool>()), 1..300)) {
            let mut map = IdMap { places: vec![(0, 0); 16], len: 0 };
            let mut model = HashMap::new();
            for (step, (id, insert)) in steps.into_iter().enumerate() {
                let id = id * 0x1001;
                if insert && !model.contains_key(&id) {
                    map.insert(id, step as u32);
                    model.insert(id, step as u32);
                } else if !insert && model.remove(&id).is_some() {
                    map.remove(id);
                }
                for id in (1..40).map(|id| id * 0x1001) {
                    prop_assert_eq!(map.get(id), model.get(&id).copied());
                }
                prop_assert_eq!(map.len, model.len());
            }
        }
    }

    #[test]
    fn slots_are_reused_and_old_handles_are_dead() {
        let mut store = Store::new();
        store.use_id(1);
        let first = store.insert(1, 10, 10);
        store.remove(first, Past::Finished);
        store.use_id(3);
        let second = store.insert(3, 10, 10);
        assert_eq!(first.slot, second.slot);
        assert!(store.get(first).is_none());
        assert!(store.get(second).is_some());
        assert_eq!(store.find(1), None);
        assert_eq!(store.slot_count(), 1);
    }

    #[test]
    fn remembers_how_recent_streams_ended() {
        let mut store = Store::new();
        store.use_id(1);
        store.set_past(1, Past::ResetByUs);
        store.use_id(7);
        store.set_past(7, Past::Finished);
        assert_eq!(store.past(1), Past::ResetByUs);
        assert_eq!(store.past(3), Past::Skipped);
        assert_eq!(store.past(7), Past::Finished);
        store.use_id(7 + 2 * HISTORY_LEN);
        assert_eq!(store.past(7), Past::Forgotten);
        assert_eq!(store.past(9), Past::Skipped);
        store.use_id(2_000_000_001);
        assert_eq!(store.past(9), Past::Forgotten);
        assert_eq!(store.newest_id(), 2_000_000_001);
    }
}
