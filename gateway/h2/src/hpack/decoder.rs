//! Header blocks to header lists.
//!
//! Decoded bytes go straight into the caller's arena. A list over the limit stops being stored but
//! goes on being decoded, since later blocks refer to the table that this one changes; an index then
//! costs a look and no copy, so a small block that means a huge list is cheap (an "HPACK bomb").

use super::dynamic_table::DynamicTable;
use super::{DEFAULT_TABLE_SIZE, ENTRY_OVERHEAD, HpackError, huffman, integer, static_table};
use crate::event::{Events, FieldSpan, HeaderBlock};
use crate::header;

/// What a block held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoded {
    pub(crate) block: HeaderBlock,
    /// The list was over the limit; `block` holds only its beginning.
    pub(crate) too_large: bool,
}

#[derive(Debug)]
pub(crate) struct Decoder {
    table: DynamicTable,
    /// Largest size that the peer's size updates may name.
    size_limit: u32,
    list_limit: usize,
}

/// What to do with a literal field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Index,
    Plain,
    Never,
}

// === impl Decoder ===

impl Decoder {
    /// `table_size` is what our SETTINGS say; the default holds until they are acknowledged.
    pub(crate) fn new(table_size: u32, list_limit: usize) -> Self {
        let size_limit = table_size.max(DEFAULT_TABLE_SIZE);
        Self {
            table: DynamicTable::new(DEFAULT_TABLE_SIZE as usize, size_limit as usize),
            size_limit,
            list_limit,
        }
    }

    /// The peer has acknowledged our SETTINGS.
    pub(crate) fn confirm_table_size(&mut self, table_size: u32) {
        self.size_limit = table_size;
        if self.table.max_size() > table_size as usize {
            self.table.set_max_size(table_size as usize);
        }
    }

    /// Decodes one whole block into the arena of `events`.
    pub(crate) fn decode(
        &mut self,
        block: &[u8],
        events: &mut Events,
    ) -> Result<Decoded, HpackError> {
        let first = events.fields.len();
        let mut input = block;
        self.size_updates(&mut input)?;
        let mut list = List {
            size: 0,
            limit: self.list_limit,
        };
        while let Some(&byte) = input.first() {
            if byte & 0x80 != 0 {
                let index = integer::decode(&mut input, 7)?;
                self.indexed(index, &mut list, events)?;
            } else if byte & 0x40 != 0 {
                self.literal(&mut input, 6, Keep::Index, &mut list, events)?;
            } else if byte & 0x20 != 0 {
                return Err(HpackError("table size update inside a header block"));
            } else {
                let keep = if byte & 0x10 != 0 {
                    Keep::Never
                } else {
                    Keep::Plain
                };
                self.literal(&mut input, 4, keep, &mut list, events)?;
            }
        }
        let count = events.fields.len() - first;
        Ok(Decoded {
            block: HeaderBlock {
                first: first as u32,
                count: count as u32,
            },
            too_large: list.size > list.limit,
        })
    }

    fn size_updates(&mut self, input: &mut &[u8]) -> Result<(), HpackError> {
        while input.first().is_some_and(|byte| byte & 0xe0 == 0x20) {
            let size = integer::decode(input, 5)?;
            if size > self.size_limit {
                return Err(HpackError("table size update over the limit"));
            }
            self.table.set_max_size(size as usize);
        }
        Ok(())
    }

    #[inline]
    fn indexed(&self, index: u32, list: &mut List, events: &mut Events) -> Result<(), HpackError> {
        if index as usize <= static_table::LEN {
            let entry = static_table::get(index)?;
            let (name_len, value_len) = (u32::from(entry.name_len), u32::from(entry.value_len));
            if list.takes((name_len + value_len) as usize) {
                let start = u32::from(entry.start);
                events.fields.push(FieldSpan {
                    name_start: start,
                    name_len,
                    value_start: start + name_len,
                    value_len,
                    sensitive: false,
                    kind: entry.kind,
                    value_ok: true,
                });
            }
            return Ok(());
        }
        let age = index - static_table::LEN as u32 - 1;
        let entry = self
            .table
            .get(age)
            .ok_or(HpackError("header index out of range"))?;
        if list.takes(entry.text.len()) {
            let start = events.bytes.len() as u32;
            events.bytes.extend_from_slice(entry.text);
            events.fields.push(FieldSpan {
                name_start: start,
                name_len: entry.name_len as u32,
                value_start: start + entry.name_len as u32,
                value_len: (entry.text.len() - entry.name_len) as u32,
                sensitive: false,
                kind: entry.kind,
                value_ok: entry.value_ok,
            });
        }
        Ok(())
    }

    fn literal(
        &mut self,
        input: &mut &[u8],
        prefix_bits: u32,
        keep: Keep,
        list: &mut List,
        events: &mut Events,
    ) -> Result<(), HpackError> {
        let mark = events.bytes.len();
        let index = integer::decode(input, prefix_bits)?;
        let mut span = if index == 0 {
            let name_len = string(input, &mut events.bytes)?;
            let kind = header::classify(&events.bytes[mark..]);
            FieldSpan::named(mark as u32, name_len, kind)
        } else {
            self.name_at(index, events)?
        };
        span.value_start = events.bytes.len() as u32;
        span.value_len = string(input, &mut events.bytes)?;
        let bytes = &events.bytes[..];
        let (name, value) = (&bytes[span.name()], &bytes[span.value()]);
        span.value_ok = header::value_ok(value);
        span.sensitive = keep == Keep::Never;
        if keep == Keep::Index {
            self.table.insert(name, value, span.kind, span.value_ok);
        }
        if list.takes(name.len() + value.len()) {
            events.fields.push(span);
        } else {
            events.bytes.truncate(mark);
        }
        Ok(())
    }

    /// A span with the name of an entry, which is in the arena then.
    fn name_at(&self, index: u32, events: &mut Events) -> Result<FieldSpan, HpackError> {
        if index as usize <= static_table::LEN {
            let entry = static_table::get(index)?;
            return Ok(FieldSpan::named(
                u32::from(entry.start),
                u32::from(entry.name_len),
                entry.kind,
            ));
        }
        let age = index - static_table::LEN as u32 - 1;
        let entry = self
            .table
            .get(age)
            .ok_or(HpackError("header index out of range"))?;
        let start = events.bytes.len() as u32;
        events.bytes.extend_from_slice(entry.name());
        Ok(FieldSpan::named(start, entry.name_len as u32, entry.kind))
    }
}

/// The size of a list as RFC 9113 section 6.5.2 counts it.
struct List {
    size: usize,
    limit: usize,
}

// === impl List ===

impl List {
    /// Counts a field; says whether to store it.
    #[inline]
    fn takes(&mut self, text_len: usize) -> bool {
        self.size = self.size.saturating_add(text_len + ENTRY_OVERHEAD);
        self.size <= self.limit
    }
}

/// Appends a string literal (RFC 7541 section 5.2) to `out`, returns its length.
#[inline]
fn string(input: &mut &[u8], out: &mut Vec<u8>) -> Result<u32, HpackError> {
    let is_huffman = input.first().is_some_and(|byte| byte & 0x80 != 0);
    let len = integer::decode(input, 7)? as usize;
    let (text, rest) = input
        .split_at_checked(len)
        .ok_or(HpackError("header block cut off"))?;
    *input = rest;
    let start = out.len();
    if is_huffman {
        huffman::decode(text, out)?;
    } else {
        out.extend_from_slice(text);
    }
    Ok((out.len() - start) as u32)
}
