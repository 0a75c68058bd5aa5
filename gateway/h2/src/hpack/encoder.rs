//! Header lists to header blocks.
//!
//! What is indexed: a pair when it is sent the second time in a while, a name when it is sent the
//! first time. So what every request repeats costs one byte, and what is different each time (request
//! ids, deadlines) does not push it out of the table. Secrets are never indexed.
//!
//! Entries are found by hash through two small tables that forget: a slot holds the last entry with
//! that hash, an evicted entry is noticed by its number. A forgotten entry costs compression only.

use super::dynamic_table::DynamicTable;
use super::{DEFAULT_TABLE_SIZE, ENTRY_OVERHEAD, hash, huffman, integer, static_table};
use crate::event::Field;
use crate::header::NameKind;

const SLOTS: usize = 256;
const SEEN: usize = 64;
/// Values that are not indexed are packed only when they are longer: a `traceparent` would be 13 bytes shorter, for 70 ns.
const PLAIN_MAX: usize = 64;

/// Last entry with a hash: its number in the table, 0 is none.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u32,
    sequence: u32,
}

#[derive(Debug)]
pub(crate) struct Encoder {
    table: DynamicTable,
    pairs: Box<[Slot; SLOTS]>,
    names: Box<[Slot; SLOTS]>,
    /// Hashes of pairs sent lately without being indexed.
    seen: [u32; SEEN],
    /// Smallest size since the last block, when sizes have changed since (RFC 7541 section 4.2).
    smallest_size: Option<u32>,
}

// === impl Encoder ===

impl Encoder {
    pub(crate) fn new() -> Self {
        let size = DEFAULT_TABLE_SIZE as usize;
        Self {
            table: DynamicTable::new(size, size),
            pairs: Box::new([Slot::default(); SLOTS]),
            names: Box::new([Slot::default(); SLOTS]),
            seen: [0; SEEN],
            smallest_size: None,
        }
    }

    /// The peer's SETTINGS allow this much; more than the default is not used.
    pub(crate) fn set_table_size(&mut self, size: u32) {
        let size = size.min(DEFAULT_TABLE_SIZE);
        if size as usize != self.table.max_size() {
            self.smallest_size = Some(
                self.smallest_size
                    .map_or(size, |smallest| smallest.min(size)),
            );
            self.table.set_max_size(size as usize);
        }
    }

    /// Appends the block for `fields`.
    pub(crate) fn encode<'a>(
        &mut self,
        fields: impl IntoIterator<Item = Field<'a>>,
        out: &mut Vec<u8>,
    ) {
        if let Some(smallest) = self.smallest_size.take() {
            let size = self.table.max_size() as u32;
            if smallest < size {
                integer::encode(smallest, 5, 0x20, out);
            }
            integer::encode(size, 5, 0x20, out);
        }
        for field in fields {
            self.field(field, out);
        }
    }

    fn field(&mut self, field: Field<'_>, out: &mut Vec<u8>) {
        let Field {
            name,
            value,
            sensitive,
        } = field;
        let name_hash = hash::hash(name);
        let fixed = static_table::find_name(name, name_hash);
        if sensitive || fixed.is_some_and(static_table::is_secret) {
            let index = fixed.or_else(|| self.find_name(name, name_hash));
            return literal(index, 4, 0x10, name, value, out);
        }
        if let Some(index) = fixed.and_then(|first| static_table::find_value(first, value)) {
            return integer::encode(index, 7, 0x80, out);
        }
        let pair_hash = hash::pair(name_hash, hash::hash(value));
        if let Some(index) = self.find_pair(name, value, pair_hash) {
            return integer::encode(index, 7, 0x80, out);
        }
        let index = fixed.or_else(|| self.find_name(name, name_hash));
        if self.is_worth_indexing(index.is_none(), name, value, pair_hash) {
            literal(index, 6, 0x40, name, value, out);
            self.insert(name, value, name_hash, pair_hash);
        } else {
            // What is short and other each time (trace contexts, request ids, deadlines) is not worth the time.
            integer::encode(index.unwrap_or(0), 4, 0, out);
            if index.is_none() {
                string(name, out);
            }
            if value.len() <= PLAIN_MAX {
                plain(value, out);
            } else {
                string(value, out);
            }
        }
    }

    /// Second time, or a new name; never so large that it would push half of the table out.
    fn is_worth_indexing(&mut self, new_name: bool, name: &[u8], value: &[u8], hash: u32) -> bool {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        if size > self.table.max_size() / 2 {
            return false;
        }
        let seen = &mut self.seen[hash as usize % SEEN];
        let again = *seen == hash;
        *seen = hash;
        again || new_name
    }

    fn insert(&mut self, name: &[u8], value: &[u8], name_hash: u32, pair_hash: u32) {
        self.table.insert(name, value, NameKind::Regular, true);
        let sequence = self.table.inserted();
        self.pairs[pair_hash as usize % SLOTS] = Slot {
            hash: pair_hash,
            sequence,
        };
        self.names[name_hash as usize % SLOTS] = Slot {
            hash: name_hash,
            sequence,
        };
    }

    #[inline]
    fn find_pair(&self, name: &[u8], value: &[u8], hash: u32) -> Option<u32> {
        let age = self.age(&self.pairs, hash)?;
        let entry = self.table.get(age)?;
        (entry.value() == value && entry.name() == name).then_some(dynamic_index(age))
    }

    #[inline]
    fn find_name(&self, name: &[u8], hash: u32) -> Option<u32> {
        let age = self.age(&self.names, hash)?;
        (self.table.get(age)?.name() == name).then_some(dynamic_index(age))
    }

    #[inline]
    fn age(&self, slots: &[Slot; SLOTS], hash: u32) -> Option<u32> {
        let slot = slots[hash as usize % SLOTS];
        if slot.hash == hash {
            self.table.age_of(slot.sequence)
        } else {
            None
        }
    }
}

const fn dynamic_index(age: u32) -> u32 {
    static_table::LEN as u32 + 1 + age
}

fn literal(
    index: Option<u32>,
    prefix_bits: u32,
    pattern: u8,
    name: &[u8],
    value: &[u8],
    out: &mut Vec<u8>,
) {
    integer::encode(index.unwrap_or(0), prefix_bits, pattern, out);
    if index.is_none() {
        string(name, out);
    }
    string(value, out);
}

/// Huffman when that is shorter.
fn string(text: &[u8], out: &mut Vec<u8>) {
    let packed = huffman::encoded_len(text);
    if packed < text.len() {
        integer::encode(packed as u32, 7, 0x80, out);
        huffman::encode(text, out);
    } else {
        plain(text, out);
    }
}

fn plain(text: &[u8], out: &mut Vec<u8>) {
    integer::encode(text.len() as u32, 7, 0, out);
    out.extend_from_slice(text);
}
