//! A hierarchical timer wheel: setting, cancelling and firing cost the same with ten timers or a million.
//!
//! Six levels of 64 slots, one millisecond at the lowest: 2^36 ms, over two years. Entries of a slot form a
//! doubly linked list inside one slab, so that a cancelled timer leaves at once (a call's deadline is cancelled
//! far more often than it fires). A `TimerId` carries a generation: cancelling twice, or after firing, is harmless.

use slab::Slab;

const LEVELS: usize = 6;
const SLOTS: usize = 64;
const NIL: u32 = u32::MAX;

/// Names one set timer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TimerId {
    key: u32,
    generation: u32,
}

struct Entry<T> {
    at_ms: u64,
    value: T,
    generation: u32,
    level: u8,
    slot: u8,
    previous: u32,
    next: u32,
}

/// Timers that hand back a value when their moment has come.
pub struct Wheel<T> {
    now_ms: u64,
    heads: [[u32; SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    entries: Slab<Entry<T>>,
    generation: u32,
}

struct Expiry {
    level: usize,
    slot: usize,
    at_ms: u64,
}

// === impl Wheel ===

impl<T> Wheel<T> {
    /// An empty wheel standing at `now_ms`.
    pub fn new(now_ms: u64) -> Self {
        Self {
            now_ms,
            heads: [[NIL; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            entries: Slab::new(),
            generation: 0,
        }
    }

    /// Fires `value` at `at_ms`, at the earliest one millisecond from now.
    pub fn set(&mut self, at_ms: u64, value: T) -> TimerId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let key = self.entries.insert(Entry {
            at_ms: at_ms.max(self.now_ms + 1),
            value,
            generation,
            level: 0,
            slot: 0,
            previous: NIL,
            next: NIL,
        }) as u32;
        self.link(key);
        TimerId { key, generation }
    }

    /// Takes a timer back; one that has fired already is left alone.
    pub fn cancel(&mut self, id: TimerId) {
        let live = self
            .entries
            .get(id.key as usize)
            .is_some_and(|entry| entry.generation == id.generation);
        if live {
            self.unlink(id.key);
            self.entries.remove(id.key as usize);
        }
    }

    /// Moves to `now_ms` and appends to `fired` all values whose moment has come.
    pub fn advance(&mut self, now_ms: u64, fired: &mut Vec<T>) {
        while let Some(expiry) = self.next_expiry() {
            if expiry.at_ms > now_ms {
                break;
            }
            self.now_ms = self.now_ms.max(expiry.at_ms);
            let mut key = std::mem::replace(&mut self.heads[expiry.level][expiry.slot], NIL);
            self.occupied[expiry.level] &= !(1 << expiry.slot);
            while key != NIL {
                let next = self.entries[key as usize].next;
                if self.entries[key as usize].at_ms <= self.now_ms {
                    fired.push(self.entries.remove(key as usize).value);
                } else {
                    self.link(key);
                }
                key = next;
            }
        }
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// No timer fires before this moment (it may be earlier than the first one: a cascade between levels).
    pub fn next_at_ms(&self) -> Option<u64> {
        self.next_expiry().map(|expiry| expiry.at_ms)
    }

    fn next_expiry(&self) -> Option<Expiry> {
        (0..LEVELS).find_map(|level| self.next_in_level(level))
    }

    fn next_in_level(&self, level: usize) -> Option<Expiry> {
        if self.occupied[level] == 0 {
            return None;
        }
        let slot_ms = 1_u64 << (6 * level);
        let level_ms = slot_ms * SLOTS as u64;
        let here = (self.now_ms / slot_ms % SLOTS as u64) as u32;
        let ahead = self.occupied[level].rotate_right(here).trailing_zeros();
        let slot = (ahead + here) as usize % SLOTS;
        let start = self.now_ms - self.now_ms % level_ms;
        let mut at_ms = start + slot as u64 * slot_ms;
        if at_ms <= self.now_ms {
            at_ms += level_ms;
        }
        Some(Expiry { level, slot, at_ms })
    }

    fn link(&mut self, key: u32) {
        let at_ms = self.entries[key as usize].at_ms;
        let differs = (self.now_ms ^ at_ms) | (SLOTS as u64 - 1);
        let level = ((63 - differs.leading_zeros() as usize) / 6).min(LEVELS - 1);
        let slot = (at_ms >> (6 * level)) as usize % SLOTS;
        let head = std::mem::replace(&mut self.heads[level][slot], key);
        let entry = &mut self.entries[key as usize];
        entry.level = level as u8;
        entry.slot = slot as u8;
        entry.previous = NIL;
        entry.next = head;
        if head != NIL {
            self.entries[head as usize].previous = key;
        }
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, key: u32) {
        let entry = &self.entries[key as usize];
        let (level, slot) = (entry.level as usize, entry.slot as usize);
        let (previous, next) = (entry.previous, entry.next);
        if previous == NIL {
            self.heads[level][slot] = next;
            if next == NIL {
                self.occupied[level] &= !(1 << slot);
            }
        } else {
            self.entries[previous as usize].next = next;
        }
        if next != NIL {
            self.entries[next as usize].previous = previous;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Wheel;

    fn fired(wheel: &mut Wheel<u64>, now_ms: u64) -> Vec<u64> {
        let mut out = Vec::new();
        wheel.advance(now_ms, &mut out);
        out.sort_unstable();
        out
    }

    #[test]
    fn fires_every_timer_once_and_never_early() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut wheel = Wheel::new(1_000);
        let mut expected: Vec<u64> = (0..5_000)
            .map(|_| 1_001 + random.u64(0..10_000_000))
            .collect();
        for at in &expected {
            wheel.set(*at, *at);
        }
        expected.sort_unstable();
        let mut seen = Vec::new();
        let mut now = 1_000;
        while let Some(next) = wheel.next_at_ms() {
            assert!(next > now);
            now = next + random.u64(0..50);
            let batch = fired(&mut wheel, now);
            assert!(batch.iter().all(|at| *at <= now));
            seen.extend(batch);
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_cancelled_timer_does_not_fire_and_a_stale_id_is_harmless() {
        let mut wheel = Wheel::new(0);
        let first = wheel.set(10, 10);
        wheel.set(10, 11);
        let third = wheel.set(70_000, 12);
        wheel.cancel(first);
        wheel.cancel(first);
        assert_eq!(fired(&mut wheel, 20), [11]);
        wheel.cancel(third);
        assert_eq!(wheel.next_at_ms(), None);
    }

    #[test]
    fn a_moment_in_the_past_fires_at_the_next_millisecond() {
        let mut wheel = Wheel::new(500);
        wheel.set(3, 1);
        assert!(fired(&mut wheel, 500).is_empty());
        assert_eq!(fired(&mut wheel, 501), [1]);
    }
}
