//! The static table (RFC 7541 appendix A) and a way to find a name in it.
//!
//! All its text lies in one constant, names directly followed by their values: an arena that begins
//! with this text can refer to static fields without copying them.

use super::HpackError;
use crate::header::NameKind;

/// Number of entries; dynamic indexes begin above.
pub(crate) const LEN: usize = ENTRIES.len();

struct Entry {
    name: &'static [u8],
    value: &'static [u8],
}

/// Where an entry lies in [`TEXT`].
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) start: u16,
    pub(crate) name_len: u8,
    pub(crate) value_len: u8,
    pub(crate) kind: NameKind,
}

const fn entry(name: &'static [u8], value: &'static [u8]) -> Entry {
    Entry { name, value }
}

#[rustfmt::skip]
const ENTRIES: [Entry; 61] = [
    entry(b":authority", b""),
    entry(b":method", b"GET"),
    entry(b":method", b"POST"),
    entry(b":path", b"/"),
    entry(b":path", b"/index.html"),
    entry(b":scheme", b"http"),
    entry(b":scheme", b"https"),
    entry(b":status", b"200"),
    entry(b":status", b"204"),
    entry(b":status", b"206"),
    entry(b":status", b"304"),
    entry(b":status", b"400"),
    entry(b":status", b"404"),
    entry(b":status", b"500"),
    entry(b"accept-charset", b""),
    entry(b"accept-encoding", b"gzip, deflate"),
    entry(b"accept-language", b""),
    entry(b"accept-ranges", b""),
    entry(b"accept", b""),
    entry(b"access-control-allow-origin", b""),
    entry(b"age", b""),
    entry(b"allow", b""),
    entry(b"authorization", b""),
    entry(b"cache-control", b""),
    entry(b"content-disposition", b""),
    entry(b"content-encoding", b""),
    entry(b"content-language", b""),
    entry(b"content-length", b""),
    entry(b"content-location", b""),
    entry(b"content-range", b""),
    entry(b"content-type", b""),
    entry(b"cookie", b""),
    entry(b"date", b""),
    entry(b"etag", b""),
    entry(b"expect", b""),
    entry(b"expires", b""),
    entry(b"from", b""),
    entry(b"host", b""),
    entry(b"if-match", b""),
    entry(b"if-modified-since", b""),
    entry(b"if-none-match", b""),
    entry(b"if-range", b""),
    entry(b"if-unmodified-since", b""),
    entry(b"last-modified", b""),
    entry(b"link", b""),
    entry(b"location", b""),
    entry(b"max-forwards", b""),
    entry(b"proxy-authenticate", b""),
    entry(b"proxy-authorization", b""),
    entry(b"range", b""),
    entry(b"referer", b""),
    entry(b"refresh", b""),
    entry(b"retry-after", b""),
    entry(b"server", b""),
    entry(b"set-cookie", b""),
    entry(b"strict-transport-security", b""),
    entry(b"transfer-encoding", b""),
    entry(b"user-agent", b""),
    entry(b"vary", b""),
    entry(b"via", b""),
    entry(b"www-authenticate", b""),
];

const TEXT_LEN: usize = text_len();
static TEXT_BYTES: [u8; TEXT_LEN] = text();
/// All names and values.
pub(crate) static TEXT: &[u8] = &TEXT_BYTES;
static SPANS: [Span; LEN] = spans();

const NAME_SLOTS: usize = 256;
/// Open addressing by the top bits of the name's hash: index of the first entry of that name, 0 is none.
static NAMES: [u8; NAME_SLOTS] = names();

/// The entry at `index`, 1 to 61.
#[inline]
pub(super) fn get(index: u32) -> Result<Span, HpackError> {
    // Index 0 wraps to a number that is not in the table.
    SPANS
        .get(index.wrapping_sub(1) as usize)
        .copied()
        .ok_or(HpackError("header index out of range"))
}

/// Index of the first entry with this name; `hash` is the name's.
#[inline]
pub(super) fn find_name(name: &[u8], hash: u32) -> Option<u32> {
    let mut slot = slot_of(hash);
    loop {
        let index = NAMES[slot];
        if index == 0 {
            return None;
        }
        if ENTRIES_BY_REF[usize::from(index) - 1].name == name {
            return Some(u32::from(index));
        }
        slot = (slot + 1) % NAME_SLOTS;
    }
}

/// Index of the entry with this value among those of the name whose first entry is `first`.
#[inline]
pub(super) fn find_value(first: u32, value: &[u8]) -> Option<u32> {
    let first_place = first as usize - 1;
    let same_name = &ENTRIES_BY_REF[first_place..first_place + values_of(first)];
    let position = same_name.iter().position(|entry| entry.value == value)?;
    Some(first + position as u32)
}

static ENTRIES_BY_REF: &[Entry; LEN] = &ENTRIES;

const fn slot_of(hash: u32) -> usize {
    (hash >> 24) as usize
}

/// How many entries share the name whose first entry this is.
const fn values_of(first: u32) -> usize {
    match first {
        2 | 4 | 6 => 2,
        8 => 7,
        _ => 1,
    }
}

const fn text_len() -> usize {
    let mut len = 0;
    let mut index = 0;
    while index < LEN {
        len += ENTRIES[index].name.len() + ENTRIES[index].value.len();
        index += 1;
    }
    len
}

const fn text() -> [u8; TEXT_LEN] {
    let mut text = [0; TEXT_LEN];
    let mut at = 0;
    let mut index = 0;
    while index < LEN {
        let mut part = 0;
        while part < 2 {
            let source = if part == 0 {
                ENTRIES[index].name
            } else {
                ENTRIES[index].value
            };
            let mut byte = 0;
            while byte < source.len() {
                text[at] = source[byte];
                at += 1;
                byte += 1;
            }
            part += 1;
        }
        index += 1;
    }
    text
}

const fn spans() -> [Span; LEN] {
    let mut spans = [Span {
        start: 0,
        name_len: 0,
        value_len: 0,
        kind: NameKind::Regular,
    }; LEN];
    let mut start = 0;
    let mut index = 0;
    while index < LEN {
        let (name, value) = (ENTRIES[index].name, ENTRIES[index].value);
        spans[index] = Span {
            start: start as u16,
            name_len: name.len() as u8,
            value_len: value.len() as u8,
            kind: kind_of(index as u32 + 1),
        };
        start += name.len() + value.len();
        index += 1;
    }
    spans
}

const fn kind_of(index: u32) -> NameKind {
    match index {
        1 => NameKind::Authority,
        2 | 3 => NameKind::Method,
        4 | 5 => NameKind::Path,
        6 | 7 => NameKind::Scheme,
        8..=14 => NameKind::Status,
        28 => NameKind::ContentLength,
        38 => NameKind::Host,
        57 => NameKind::ConnectionSpecific,
        _ => NameKind::Regular,
    }
}

/// `authorization`, `cookie`, `proxy-authorization`, `set-cookie`: values worth guessing, so they
/// never enter a table (RFC 7541 section 7.1.3).
#[inline]
pub(super) const fn is_secret(index: u32) -> bool {
    matches!(index, 23 | 32 | 49 | 55)
}

const fn names() -> [u8; NAME_SLOTS] {
    let mut slots = [0; NAME_SLOTS];
    let mut index = 0;
    while index < LEN {
        let name = ENTRIES[index].name;
        if index == 0 || !same(name, ENTRIES[index - 1].name) {
            let mut slot = slot_of(super::hash::hash(name));
            while slots[slot] != 0 {
                slot = (slot + 1) % NAME_SLOTS;
            }
            slots[slot] = index as u8 + 1;
        }
        index += 1;
    }
    slots
}

const fn same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header;

    #[test]
    fn every_entry_is_found_and_lies_in_the_text() {
        for index in 1..=LEN as u32 {
            let entry = &ENTRIES[index as usize - 1];
            let first =
                find_name(entry.name, super::super::hash::hash(entry.name)).expect("a name");
            assert_eq!(ENTRIES[first as usize - 1].name, entry.name);
            assert_eq!(find_value(first, entry.value), Some(index));
            let span = get(index).expect("in range");
            let middle = usize::from(span.start) + usize::from(span.name_len);
            assert_eq!(&TEXT[usize::from(span.start)..middle], entry.name);
            assert_eq!(
                &TEXT[middle..middle + usize::from(span.value_len)],
                entry.value
            );
            assert_eq!(span.kind, header::classify(entry.name));
            let secret: [&[u8]; 4] = [
                b"authorization",
                b"cookie",
                b"proxy-authorization",
                b"set-cookie",
            ];
            assert_eq!(is_secret(index), secret.contains(&entry.name));
        }
        assert!(get(0).is_err());
        assert!(get(62).is_err());
        assert_eq!(
            find_name(b"x-none", super::super::hash::hash(b"x-none")),
            None
        );
    }
}
