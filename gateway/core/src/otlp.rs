//! OpenTelemetry's records as protobuf (opentelemetry-proto 1.x): spans and log records, one behind the other.
//!
//! Bytes go straight into the buffer that is handed over, out of borrowed text: nothing is built first, and nothing is
//! allocated but the buffer. A `ScopeSpans` or `ScopeLogs` message may be written in pieces, since protobuf messages
//! are joined by joining their bytes; whoever sends adds scope and resource.
//!
//! The length of a span or a line is known behind it: two bytes are left for it, which fit nearly all. Attributes are
//! many and short: their lengths are counted before.

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;
/// `AnyValue.string_value` and `AnyValue.int_value`, as they stand before their value.
const STRING_VALUE: u8 = 1 << 3 | BYTES;
const INT_VALUE: u8 = 3 << 3 | VARINT;

/// Longer texts are cut: what a client sends must not fill a collector.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// `Span.SpanKind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// A call that was taken.
    Server = 2,
    /// A try that was made.
    Client = 3,
}

/// What a span begins with.
#[derive(Debug, Clone, Copy)]
pub struct SpanHead<'a> {
    /// The trace.
    pub trace_id: u128,
    /// Its own id.
    pub span_id: u64,
    /// 0: the trace begins here.
    pub parent_id: u64,
    /// The parent came over the wire.
    pub parent_is_remote: bool,
    /// `tracestate` as it is passed on.
    pub state: &'a [u8],
    /// Its name.
    pub name: &'a str,
    /// Its kind.
    pub kind: SpanKind,
    /// Nanoseconds of the Unix epoch.
    pub start_ns: u64,
    /// Nanoseconds of the Unix epoch.
    pub end_ns: u64,
}

/// What a log record begins with.
#[derive(Debug, Clone, Copy)]
pub struct LogHead<'a> {
    /// Nanoseconds of the Unix epoch: when it happened.
    pub at_ns: u64,
    /// When it was written down.
    pub observed_ns: u64,
    /// It tells of a failure.
    pub is_error: bool,
    /// The text, if it is one; its attributes tell the same otherwise.
    pub body: Option<&'a str>,
    /// Trace and span, where there is a trace.
    pub span: Option<(u128, u64, bool)>,
}

/// Writes into a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

/// Attributes of the record that is being written.
#[derive(Debug)]
pub struct Attributes<'w, 'a> {
    writer: &'w mut Writer<'a>,
    field: u32,
}

/// Attributes of spans as they stand on the wire: encoded once, and copied into each span that has them.
#[derive(Debug, Clone, Default)]
pub struct ReadyAttributes {
    bytes: Vec<u8>,
}

/// As much of a text as is told, cut between characters.
#[must_use]
pub fn shortened(text: &str) -> &str {
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

// === impl Writer ===

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// `ScopeSpans.spans`; `rest` writes attributes, events and status.
    pub fn span(&mut self, head: &SpanHead<'_>, rest: impl FnOnce(&mut Self)) {
        // Whether the parent is remote is known: bit 8; that it is: bit 9.
        let remote = 0x100 | if head.parent_is_remote { 0x200 } else { 0 };
        self.message(2, |span| {
            span.bytes(1, &head.trace_id.to_be_bytes());
            span.bytes(2, &head.span_id.to_be_bytes());
            if !head.state.is_empty() {
                span.bytes(3, head.state);
            }
            if head.parent_id != 0 {
                span.bytes(4, &head.parent_id.to_be_bytes());
            }
            span.text(5, head.name);
            span.varint(6, head.kind as u64);
            span.fixed64(7, head.start_ns);
            span.fixed64(8, head.end_ns);
            rest(span);
            span.fixed32(16, 1 | remote);
        });
    }

    /// `Span.attributes`.
    pub const fn span_attributes(&mut self) -> Attributes<'_, 'a> {
        Attributes {
            writer: self,
            field: SPAN_ATTRIBUTES,
        }
    }

    /// `Span.attributes` that were encoded before.
    pub fn ready_attributes(&mut self, ready: &ReadyAttributes) {
        self.out.extend_from_slice(&ready.bytes);
    }

    /// `Span.events`.
    pub fn event(
        &mut self,
        name: &str,
        at_ns: u64,
        attributes: impl FnOnce(&mut Attributes<'_, 'a>),
    ) {
        self.message(11, |event| {
            event.fixed64(1, at_ns);
            event.text(2, name);
            attributes(&mut Attributes {
                writer: event,
                field: 3,
            });
        });
    }

    /// `Span.status` of a failure.
    pub fn failed(&mut self, message: &str) {
        const ERROR: u64 = 2;
        self.message(15, |status| {
            if !message.is_empty() {
                status.text(2, message);
            }
            status.varint(3, ERROR);
        });
    }

    /// `ScopeLogs.log_records`.
    pub fn log(&mut self, head: &LogHead<'_>, attributes: impl FnOnce(&mut Attributes<'_, 'a>)) {
        let (severity, word) = if head.is_error {
            (17, "ERROR")
        } else {
            (9, "INFO")
        };
        self.message(2, |log| {
            log.fixed64(1, head.at_ns);
            log.varint(2, severity);
            log.text(3, word);
            if let Some(body) = head.body {
                log.message(5, |value| value.text(1, body));
            }
            attributes(&mut Attributes {
                writer: log,
                field: 6,
            });
            if let Some((trace_id, span_id, sampled)) = head.span {
                log.fixed32(8, u32::from(sampled));
                log.bytes(9, &trace_id.to_be_bytes());
                if span_id != 0 {
                    log.bytes(10, &span_id.to_be_bytes());
                }
            }
            log.fixed64(11, head.observed_ns);
            log.text(12, "federation.call");
        });
    }

    fn tag(&mut self, field: u32, kind: u8) {
        self.raw_varint(u64::from(field << 3) | u64::from(kind));
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn varint(&mut self, field: u32, value: u64) {
        self.tag(field, VARINT);
        self.raw_varint(value);
    }

    fn fixed64(&mut self, field: u32, value: u64) {
        self.tag(field, FIXED64);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn fixed32(&mut self, field: u32, value: u32) {
        self.tag(field, FIXED32);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, BYTES);
        self.raw_varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, shortened(text).as_bytes());
    }

    /// A message that is likely to be long: two bytes are left for its length.
    fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.tag(field, BYTES);
        self.out.extend_from_slice(&[0; GUESS]);
        let start = self.out.len();
        write(self);
        let length = self.out.len() - start;
        let needed = varint_bytes(length);
        if needed != GUESS {
            if needed > GUESS {
                self.out.extend_from_slice(&[0; 10][..needed - GUESS]);
            }
            self.out
                .copy_within(start..start + length, start + needed - GUESS);
            self.out.truncate(start + needed - GUESS + length);
        }
        let (mut at, mut rest) = (start - GUESS, length);
        while rest >= 0x80 {
            self.out[at] = rest as u8 | 0x80;
            rest >>= 7;
            at += 1;
        }
        self.out[at] = rest as u8;
    }

    /// A `KeyValue` whose lengths are known before: `value` is the `AnyValue` message's one field, and its bytes
    /// after tag and length, if it has one. Inlined, since nearly all keys are constants, whose lengths are then, too.
    #[inline(always)]
    #[allow(clippy::inline_always)] // measured: 0.1 µs of a traced call
    fn pair(&mut self, field: u32, key: &str, tag: u8, text: Option<&str>, number: u64) {
        let value_bytes = match text {
            Some(text) => 1 + varint_bytes(text.len()) + text.len(),
            None => 1 + varint_bytes(number as usize),
        };
        let pair_bytes =
            1 + varint_bytes(key.len()) + key.len() + 1 + varint_bytes(value_bytes) + value_bytes;
        self.out.reserve(pair_bytes + 16);
        self.tag(field, BYTES);
        self.raw_varint(pair_bytes as u64);
        self.bytes(1, key.as_bytes());
        self.tag(2, BYTES);
        self.raw_varint(value_bytes as u64);
        self.out.push(tag);
        if let Some(text) = text {
            self.raw_varint(text.len() as u64);
            self.out.extend_from_slice(text.as_bytes());
        } else {
            self.raw_varint(number);
        }
    }
}

/// Bytes left for a message's length: enough for 128 to 16,383 bytes.
const GUESS: usize = 2;

/// `Span.attributes`.
const SPAN_ATTRIBUTES: u32 = 9;

/// Bytes of a number as protobuf writes it.
const fn varint_bytes(value: usize) -> usize {
    let bits = (usize::BITS - value.leading_zeros()) as usize;
    if bits <= 7 { 1 } else { bits.div_ceil(7) }
}

// === impl Attributes ===

impl Attributes<'_, '_> {
    /// A text.
    #[inline]
    pub fn text(&mut self, key: &str, value: &str) {
        let text = Some(shortened(value));
        self.writer
            .pair(self.field, shortened(key), STRING_VALUE, text, 0);
    }

    /// A number.
    #[inline]
    pub fn number(&mut self, key: &str, value: u64) {
        self.writer
            .pair(self.field, shortened(key), INT_VALUE, None, value);
    }
}

// === impl ReadyAttributes ===

impl ReadyAttributes {
    /// What `write` writes.
    #[must_use]
    pub fn new(write: impl FnOnce(&mut Attributes<'_, '_>)) -> Self {
        let mut ready = Self::default();
        ready.renew(write);
        ready
    }

    /// What `write` writes, in place of what was there; the memory stays.
    pub fn renew(&mut self, write: impl FnOnce(&mut Attributes<'_, '_>)) {
        self.bytes.clear();
        write(&mut Writer::new(&mut self.bytes).span_attributes());
    }

    /// Adds what another one has.
    pub fn join(&mut self, other: &Self) {
        self.bytes.extend_from_slice(&other.bytes);
    }
}

#[cfg(test)]
mod tests;
