//! What a connection speaks: HTTP/2, or HTTP/1.1 with the same events.
//!
//! Decides nothing; everything behind it works with both. What only one of them has (PING, windows that widen, bytes that
//! wait with the caller) is harmless to ask of the other.

use gateway_h2::{
    ConnectionError, ErrorCode, Events, Field, OpenError, SendError, Sent, Stats, StreamRef,
};

/// See the module.
#[allow(clippy::large_enum_variant)] // HTTP/2 is the common case: it is not to cost another step through memory
pub(crate) enum Codec {
    H2(gateway_h2::Connection),
    H1(Box<gateway_h1::Connection>),
}

/// The same call on either.
macro_rules! either {
    ($codec:expr, $connection:ident => $call:expr) => {
        match $codec {
            Codec::H2($connection) => $call,
            Codec::H1($connection) => $call,
        }
    };
}

// === impl Codec ===

impl Codec {
    pub fn h2(config: gateway_h2::Config) -> Self {
        Self::H2(gateway_h2::Connection::new(config))
    }

    pub fn h1(config: gateway_h1::Config) -> Self {
        Self::H1(Box::new(gateway_h1::Connection::new(config)))
    }

    pub fn is_h1(&self) -> bool {
        matches!(self, Self::H1(_))
    }

    pub fn receive(&mut self, input: &[u8], events: &mut Events) -> Result<usize, ConnectionError> {
        either!(self, it => it.receive(input, events))
    }

    /// The peer's bytes have ended, `failed` when that was no clean end: a response of HTTP/1 may be whole by it, or its
    /// request fit to be sent elsewhere.
    pub fn end_of_input(&mut self, failed: bool, events: &mut Events) {
        if let Self::H1(h1) = self {
            h1.end_of_input(failed, events);
        }
    }

    pub fn open(&mut self, token: u64) -> Result<StreamRef, OpenError> {
        either!(self, it => it.open(token))
    }

    pub fn can_open(&self) -> bool {
        either!(self, it => it.can_open())
    }

    pub fn send_headers<'a>(
        &mut self,
        stream: StreamRef,
        fields: impl IntoIterator<Item = Field<'a>>,
        end_stream: bool,
    ) -> Result<(), SendError> {
        either!(self, it => it.send_headers(stream, fields, end_stream))
    }

    pub fn send_data(
        &mut self,
        stream: StreamRef,
        data: &[u8],
        end_stream: bool,
    ) -> Result<Sent, SendError> {
        either!(self, it => it.send_data(stream, data, end_stream))
    }

    pub fn reset(&mut self, stream: StreamRef, code: ErrorCode) {
        match self {
            Self::H2(h2) => h2.reset(stream, code),
            Self::H1(h1) => h1.reset(stream),
        }
    }

    /// True when HTTP/2 has told the peer.
    pub fn release(&mut self, stream: StreamRef, bytes: u32) -> bool {
        match self {
            Self::H2(h2) => h2.release(stream, bytes),
            Self::H1(h1) => {
                h1.release(stream, bytes);
                false
            }
        }
    }

    pub fn widen(&mut self, stream: StreamRef, most: u32) -> u32 {
        match self {
            Self::H2(h2) => h2.widen(stream, most),
            Self::H1(_) => 0,
        }
    }

    pub fn ping(&mut self, payload: [u8; 8]) {
        if let Self::H2(h2) = self {
            h2.ping(payload);
        }
    }

    pub fn go_away(&mut self, code: ErrorCode, graceful: bool, debug: &[u8]) {
        match self {
            Self::H2(h2) => h2.go_away(code, graceful, debug),
            Self::H1(h1) => h1.go_away(graceful),
        }
    }

    pub fn tick(&mut self) {
        if let Self::H2(h2) = self {
            h2.tick();
        }
    }

    pub fn is_live(&self, stream: StreamRef) -> bool {
        either!(self, it => it.is_live(stream))
    }

    pub fn queued(&self, stream: StreamRef) -> usize {
        either!(self, it => it.queued(stream))
    }

    pub fn queued_in_all(&self) -> usize {
        either!(self, it => it.queued_in_all())
    }

    /// All bytes that wait here.
    pub fn buffered(&self) -> usize {
        match self {
            Self::H2(h2) => h2.buffered(),
            Self::H1(h1) => h1.output().len(),
        }
    }

    /// The streams whose body bytes wait. Those of HTTP/1.1 wait in its output.
    pub fn waiting(&self) -> Vec<(StreamRef, usize)> {
        match self {
            Self::H2(h2) => h2.waiting().collect(),
            Self::H1(_) => Vec::new(),
        }
    }

    pub fn stream_count(&self) -> usize {
        either!(self, it => it.stream_count())
    }

    pub fn is_established(&self) -> bool {
        either!(self, it => it.is_established())
    }

    /// The peer has begun a header block and not ended it; `rest` is what `receive` has left over.
    pub fn is_amid_headers(&self, rest: &[u8]) -> bool {
        const HEADERS: u8 = 1;
        const CONTINUATION: u8 = 9;
        match self {
            Self::H2(h2) => {
                matches!(rest.get(3), Some(&HEADERS | &CONTINUATION)) || h2.is_amid_headers()
            }
            Self::H1(h1) => h1.is_amid_headers(),
        }
    }

    /// To be called before the output is taken, when the events of a turn are dealt with.
    pub fn before_write(&mut self) {
        if let Self::H1(h1) = self {
            h1.before_write();
        }
    }

    pub fn output(&self) -> &[u8] {
        either!(self, it => it.output())
    }

    pub fn advance_output(&mut self, bytes: usize, events: &mut Events) {
        either!(self, it => it.advance_output(bytes, events));
    }

    pub fn wants_write(&self) -> bool {
        either!(self, it => it.wants_write())
    }

    pub fn stats(&self) -> &Stats {
        either!(self, it => it.stats())
    }

    /// What `receive` has left over could be used now.
    pub fn takes_input(&self) -> bool {
        match self {
            Self::H2(_) => true,
            Self::H1(h1) => h1.takes_input(),
        }
    }

    /// The socket may be read, though `kept` bytes are left over. HTTP/2 has windows instead.
    pub fn takes_more(&self, kept: usize) -> bool {
        match self {
            Self::H2(_) => true,
            Self::H1(h1) => h1.takes_more(kept),
        }
    }

    /// The connection cannot be used any longer; HTTP/2 says that by GOAWAY and streams.
    pub fn is_over(&self) -> bool {
        match self {
            Self::H2(_) => false,
            Self::H1(h1) => h1.is_over(),
        }
    }

    /// The peer may still be writing what nobody reads.
    pub fn was_cut_off(&self) -> bool {
        match self {
            Self::H2(_) => false,
            Self::H1(h1) => h1.was_cut_off(),
        }
    }
}
