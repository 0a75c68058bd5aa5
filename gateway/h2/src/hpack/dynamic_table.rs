//! The dynamic table (RFC 7541 section 2.3.2): first in, first out, bounded in bytes.
//!
//! Entries are a ring; their bytes lie in one buffer, appended at its end and moved to its front when
//! it is full, once in a table's worth of insertions. An entry's place is an ever-growing offset
//! (wrapping), so moving changes one number and no entry.
//!
//! Invariants: `size` is the sum of the live entries' sizes and at most `max_size`; live bytes are
//! contiguous, oldest first.

use super::ENTRY_OVERHEAD;
use crate::header::NameKind;

/// One live entry, its text as one slice: the name, then the value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) text: &'a [u8],
    pub(super) name_len: usize,
    pub(super) kind: NameKind,
    pub(super) value_ok: bool,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    start: u32,
    name_len: u32,
    value_len: u32,
    kind: NameKind,
    value_ok: bool,
}

#[derive(Debug)]
pub(super) struct DynamicTable {
    places: Box<[Place]>,
    /// Entries ever inserted, wrapping; the newest is in ring place `inserted - 1`.
    inserted: u32,
    len: u32,
    bytes: Vec<u8>,
    /// Offset of `bytes[0]`.
    base: u32,
    size: usize,
    max_size: usize,
    /// Largest `max_size` that may ever be set.
    capacity: usize,
}

const VACANT: Place = Place {
    start: 0,
    name_len: 0,
    value_len: 0,
    kind: NameKind::Regular,
    value_ok: true,
};

// === impl Entry ===

impl<'a> Entry<'a> {
    pub(super) fn name(&self) -> &'a [u8] {
        &self.text[..self.name_len]
    }

    pub(super) fn value(&self) -> &'a [u8] {
        &self.text[self.name_len..]
    }
}

// === impl DynamicTable ===

impl DynamicTable {
    pub(super) fn new(max_size: usize, capacity: usize) -> Self {
        let places = (capacity / ENTRY_OVERHEAD).max(1).next_power_of_two();
        Self {
            places: vec![VACANT; places].into_boxed_slice(),
            inserted: 0,
            len: 0,
            bytes: Vec::new(),
            base: 0,
            size: 0,
            max_size: max_size.min(capacity),
            capacity,
        }
    }

    pub(super) fn max_size(&self) -> usize {
        self.max_size
    }

    pub(super) fn inserted(&self) -> u32 {
        self.inserted
    }

    /// The entry inserted as number `sequence` (the value of `inserted` right after) is still here;
    /// returns its age, 0 for the newest.
    #[inline]
    pub(super) fn age_of(&self, sequence: u32) -> Option<u32> {
        let age = self.inserted.wrapping_sub(sequence);
        (age < self.len).then_some(age)
    }

    /// The entry of this age, 0 for the newest.
    #[inline]
    pub(super) fn get(&self, age: u32) -> Option<Entry<'_>> {
        if age >= self.len {
            return None;
        }
        let place = self.place(self.inserted.wrapping_sub(1).wrapping_sub(age));
        let start = place.start.wrapping_sub(self.base) as usize;
        let end = start + (place.name_len + place.value_len) as usize;
        Some(Entry {
            text: &self.bytes[start..end],
            name_len: place.name_len as usize,
            kind: place.kind,
            value_ok: place.value_ok,
        })
    }

    /// Inserts a field, evicting old ones; one that is larger than the table empties it and is not
    /// kept (RFC 7541 section 4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], kind: NameKind, value_ok: bool) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        self.evict_to(self.max_size.saturating_sub(size));
        if size > self.max_size {
            return;
        }
        self.make_room(name.len() + value.len());
        let start = self.base.wrapping_add(self.bytes.len() as u32);
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        let mask = self.places.len() - 1;
        self.places[self.inserted as usize & mask] = Place {
            start,
            name_len: name.len() as u32,
            value_len: value.len() as u32,
            kind,
            value_ok,
        };
        self.inserted = self.inserted.wrapping_add(1);
        self.len += 1;
        self.size += size;
    }

    pub(super) fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size.min(self.capacity);
        self.evict_to(self.max_size);
    }

    fn place(&self, number: u32) -> &Place {
        &self.places[number as usize & (self.places.len() - 1)]
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            let oldest = self.place(self.inserted.wrapping_sub(self.len));
            self.size -= (oldest.name_len + oldest.value_len) as usize + ENTRY_OVERHEAD;
            self.len -= 1;
        }
    }

    /// Moves the live bytes to the front when `more` would not fit behind them.
    fn make_room(&mut self, more: usize) {
        if self.len == 0 {
            self.bytes.clear();
        } else if self.bytes.len() + more > 2 * self.capacity {
            let start = self.place(self.inserted.wrapping_sub(self.len)).start;
            self.bytes.drain(..start.wrapping_sub(self.base) as usize);
            self.base = start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// The ring against a plain list of owned strings.
        #[test]
        fn behaves_as_a_list(
            steps in prop::collection::vec((0usize..60, 0usize..60, prop::option::of(0usize..300)), 1..200)
        ) {
            let mut table = DynamicTable::new(256, 256);
            let mut model: VecDeque<(Vec<u8>, Vec<u8>)> = VecDeque::new();
            let mut max = 256;
            let size = |m: &VecDeque<(Vec<u8>, Vec<u8>)>| -> usize {
                m.iter().map(|(n, v)| n.len() + v.len() + 32).sum()
            };
            for (step, (name_len, value_len, resize)) in steps.into_iter().enumerate() {
                if let Some(new) = resize {
                    table.set_max_size(new);
                    max = new.min(256);
                    while size(&model) > max { model.pop_back(); }
                }
                let (name, value) = (vec![step as u8; name_len], vec![!(step as u8); value_len]);
                table.insert(&name, &value, NameKind::Regular, true);
                model.push_front((name, value));
                while size(&model) > max { model.pop_back(); }
                for (age, (name, value)) in model.iter().enumerate() {
                    let entry = table.get(age as u32).expect("live");
                    prop_assert_eq!((entry.name(), entry.value()), (&name[..], &value[..]));
                }
                prop_assert!(table.get(model.len() as u32).is_none());
                prop_assert!(table.bytes.len() <= 512);
            }
        }
    }
}
