//! What a connection tells its caller: events in order, and one arena for all header bytes of a read.
//!
//! The caller owns one [`Events`], hands it to every `receive` and `advance_output`, reads it and
//! clears it. After the first few reads nothing here allocates.
//!
//! Invariants: a [`HeaderBlock`] is valid for the [`Events`] it came from until `clear`; spans of one
//! block are contiguous; the arena begins with the text of HPACK's static table, which fields refer to.

use std::ops::Range;

use crate::error::ErrorCode;
use crate::header::NameKind;
use crate::hpack::static_table;

/// Handle of a stream: O(1) access by `slot`, guarded by `id` against reuse of the slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StreamRef {
    pub(crate) id: u32,
    pub(crate) slot: u32,
}

/// One header field, borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field<'a> {
    /// Lower-case name; pseudo headers with their colon.
    pub name: &'a [u8],
    /// Value without leading or trailing white space.
    pub value: &'a [u8],
    /// Must not enter a compression table, here and at every later hop (RFC 7541 section 7.1.3).
    pub sensitive: bool,
}

/// A decoded header block inside an [`Events`]; read it by [`Events::fields`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderBlock {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// Loose bytes inside an [`Events`]; read them by [`Events::bytes`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteSpan {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

/// What happened on the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A request opened a stream (server role). Its header block is validated; pseudo headers first.
    Request {
        /// The new stream. Its token is 0 in the events of this batch, also after `set_token`: keep
        /// its state by [`StreamRef::slot`].
        stream: StreamRef,
        /// The request's fields.
        headers: HeaderBlock,
        /// There is no body and no trailers.
        end_stream: bool,
    },
    /// Response headers (client role).
    Response {
        /// The stream.
        stream: StreamRef,
        /// The caller's key for it.
        token: u64,
        /// The response's fields, `:status` first.
        headers: HeaderBlock,
        /// There is no body and no trailers.
        end_stream: bool,
        /// A 1xx response: another `Response` follows.
        informational: bool,
    },
    /// Trailers; they end the peer's side of the stream.
    Trailers {
        /// The stream.
        stream: StreamRef,
        /// The caller's key for it.
        token: u64,
        /// The trailers' fields; no pseudo headers.
        headers: HeaderBlock,
    },
    /// Body bytes.
    Data {
        /// The stream.
        stream: StreamRef,
        /// The caller's key for it.
        token: u64,
        /// Where the payload lies in the slice that was given to `receive`, padding left out.
        range: Range<usize>,
        /// What the frame took from the stream's window (padding included): give it back by `release`.
        flow_len: u32,
        /// The peer's side has ended.
        end_stream: bool,
    },
    /// The stream is over, its slot is free, nothing more can be sent on it.
    Reset {
        /// The stream that was; calls with it do nothing.
        stream: StreamRef,
        /// The caller's key for it.
        token: u64,
        /// Why.
        code: ErrorCode,
        /// We found the fault and have queued `RST_STREAM`; otherwise the peer reset it.
        local: bool,
    },
    /// Body bytes that waited in the stream's queue have gone to the output.
    Drained {
        /// The stream; it may be gone by now when these were its last bytes.
        stream: StreamRef,
        /// The caller's key for it.
        token: u64,
        /// How many bytes.
        bytes: u32,
    },
    /// The peer will take no new streams. Streams of ours above `last_stream_id` follow as
    /// `Reset` with `RefusedStream`: the peer did nothing for them, they are safe to retry elsewhere.
    GoAway {
        /// Highest stream that the peer has worked on or may work on.
        last_stream_id: u32,
        /// Why.
        code: ErrorCode,
        /// The peer's words, for logs; at most 1 KiB is kept.
        debug: ByteSpan,
    },
    /// The peer answered our `ping`.
    PingAck {
        /// The bytes given to `ping`.
        payload: [u8; 8],
    },
    /// Client role: the peer's first SETTINGS have come, or there is room again after `open` said
    /// `AtLimit`.
    StreamsAvailable,
}

/// Events in order, with the bytes they refer to; reused by the caller for every read.
#[derive(Debug)]
pub struct Events {
    pub(crate) list: Vec<Event>,
    pub(crate) fields: Vec<FieldSpan>,
    pub(crate) bytes: Vec<u8>,
}

/// Where one field lies in the arena, and what the decoder found out about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldSpan {
    pub(crate) name_start: u32,
    pub(crate) name_len: u32,
    pub(crate) value_start: u32,
    pub(crate) value_len: u32,
    pub(crate) sensitive: bool,
    pub(crate) kind: NameKind,
    pub(crate) value_ok: bool,
}

/// Iterator over the fields of one block.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    spans: std::slice::Iter<'a, FieldSpan>,
    bytes: &'a [u8],
}

// === impl StreamRef ===

impl StreamRef {
    /// A handle made by another codec that tells its caller the same events; `slot` is the stream's place in its table.
    #[must_use]
    pub const fn new(id: u32, slot: u32) -> Self {
        Self { id, slot }
    }

    /// The stream id on the wire.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }

    /// The slot in the connection's stream table: small and dense, fit to index the caller's own
    /// table. Another stream gets it after this one has ended.
    #[must_use]
    pub fn slot(self) -> u32 {
        self.slot
    }
}

// === impl Field ===

impl<'a> Field<'a> {
    /// A field that may be indexed by compression.
    #[must_use]
    pub fn new(name: &'a [u8], value: &'a [u8]) -> Self {
        Self {
            name,
            value,
            sensitive: false,
        }
    }
}

// === impl HeaderBlock ===

impl HeaderBlock {
    /// Number of fields.
    #[must_use]
    pub fn len(self) -> usize {
        self.count as usize
    }

    /// There is no field.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.count == 0
    }
}

// === impl Events ===

impl Events {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            list: Vec::new(),
            fields: Vec::new(),
            bytes: static_table::TEXT.to_vec(),
        }
    }

    /// Forgets all events and header bytes, keeps the memory.
    pub fn clear(&mut self) {
        self.list.clear();
        self.fields.clear();
        self.bytes.truncate(static_table::TEXT.len());
    }

    /// The events since `clear`, oldest first.
    pub fn iter(&self) -> std::slice::Iter<'_, Event> {
        self.list.iter()
    }

    /// Number of events since `clear`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Nothing happened since `clear`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The fields of a block, in the order they came.
    #[must_use]
    pub fn fields(&self, block: HeaderBlock) -> Fields<'_> {
        let first = block.first as usize;
        let spans = self
            .fields
            .get(first..first + block.count as usize)
            .unwrap_or_default();
        Fields {
            spans: spans.iter(),
            bytes: &self.bytes,
        }
    }

    /// The value of the first field with this (lower-case) name.
    #[must_use]
    pub fn value(&self, block: HeaderBlock, name: &[u8]) -> Option<&[u8]> {
        self.fields(block)
            .find(|field| field.name == name)
            .map(|field| field.value)
    }

    /// Loose bytes (debug data of a GOAWAY).
    #[must_use]
    pub fn bytes(&self, span: ByteSpan) -> &[u8] {
        let start = span.start as usize;
        self.bytes
            .get(start..start + span.len as usize)
            .unwrap_or_default()
    }

    /// Appends an event: for codecs, this one and those of other versions of HTTP.
    pub fn push(&mut self, event: Event) {
        self.list.push(event);
    }

    /// An empty block at the end of the arena, to be filled by [`Events::add_field`] before anything else is added.
    #[must_use]
    pub fn start_block(&self) -> HeaderBlock {
        HeaderBlock {
            first: self.fields.len() as u32,
            count: 0,
        }
    }

    /// Appends a field to the last block; the name is put into lower case. Checking both is the codec's duty.
    pub fn add_field(&mut self, block: &mut HeaderBlock, name: &[u8], value: &[u8]) {
        let name_at = self.push_bytes(name);
        self.bytes[name_at.start as usize..].make_ascii_lowercase();
        let value_at = self.push_bytes(value);
        self.fields.push(FieldSpan {
            value_start: value_at.start,
            value_len: value_at.len,
            ..FieldSpan::named(name_at.start, name_at.len, NameKind::Regular)
        });
        block.count += 1;
    }

    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) -> ByteSpan {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        ByteSpan {
            start,
            len: bytes.len() as u32,
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

// === impl FieldSpan ===

impl FieldSpan {
    /// A field whose value is not known yet.
    pub(crate) fn named(name_start: u32, name_len: u32, kind: NameKind) -> Self {
        Self {
            name_start,
            name_len,
            value_start: 0,
            value_len: 0,
            sensitive: false,
            kind,
            value_ok: true,
        }
    }

    pub(crate) fn name(&self) -> Range<usize> {
        self.name_start as usize..(self.name_start + self.name_len) as usize
    }

    pub(crate) fn value(&self) -> Range<usize> {
        self.value_start as usize..(self.value_start + self.value_len) as usize
    }
}

// === impl Fields ===

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let span = self.spans.next()?;
        Some(Field {
            name: &self.bytes[span.name()],
            value: &self.bytes[span.value()],
            sensitive: span.sensitive,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.spans.size_hint()
    }
}

impl ExactSizeIterator for Fields<'_> {}
