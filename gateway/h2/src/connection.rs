//! The connection: bytes of the peer in, events out; calls of the caller in, bytes out.

use crate::config::Config;
use crate::error::{ConnectionError, ErrorCode, OpenError, SendError};
use crate::event::{Events, Field, StreamRef};
use crate::stats::Stats;

/// What became of the bytes given to [`Connection::send_data`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Bytes that went to the output at once.
    pub written: usize,
    /// Bytes that wait in the stream; `Drained` events report them later.
    pub queued: usize,
}

/// One HTTP/2 connection, either role.
#[derive(Debug)]
pub struct Connection {
    _config: Config,
}

impl Connection {
    /// A new connection; preface and SETTINGS are in `output()` already.
    #[must_use]
    pub fn new(_config: Config) -> Self {
        unimplemented!()
    }
    /// Takes bytes from the peer and appends what they mean to `events`. Returns how many bytes were
    /// used; the caller keeps the rest (a partial frame) and gives it again with more. Ranges in
    /// `Data` events are relative to this `input`.
    ///
    /// # Errors
    /// The connection is over; a GOAWAY is in the output. Events before the fault are in `events`.
    pub fn receive(
        &mut self,
        _input: &[u8],
        _events: &mut Events,
    ) -> Result<usize, ConnectionError> {
        unimplemented!()
    }
    /// Opens a stream (client role); the next call on it must be `send_headers`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&mut self, _token: u64) -> Result<StreamRef, OpenError> {
        unimplemented!()
    }
    /// Sets the caller's key, repeated in later events of the stream.
    pub fn set_token(&mut self, _stream: StreamRef, _token: u64) {
        unimplemented!()
    }
    /// Sends request or response headers, 1xx, or trailers (`end_stream`, after data).
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_headers<'a>(
        &mut self,
        _stream: StreamRef,
        _fields: impl IntoIterator<Item = Field<'a>>,
        _end_stream: bool,
    ) -> Result<(), SendError> {
        unimplemented!()
    }
    /// Sends body bytes, or queues what does not fit.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_data(
        &mut self,
        _stream: StreamRef,
        _data: &[u8],
        _end_stream: bool,
    ) -> Result<Sent, SendError> {
        unimplemented!()
    }
    /// Ends a stream at once: RST_STREAM unless both sides had ended; queued bytes are dropped.
    pub fn reset(&mut self, _stream: StreamRef, _code: ErrorCode) {
        unimplemented!()
    }
    /// Gives back `bytes` of the stream's receive window.
    pub fn release(&mut self, _stream: StreamRef, _bytes: u32) {
        unimplemented!()
    }
    /// Sends a PING of our own.
    pub fn ping(&mut self, _payload: [u8; 8]) {
        unimplemented!()
    }
    /// Sends GOAWAY: graceful (all ids still allowed) or final (no new streams after this).
    pub fn go_away(&mut self, _code: ErrorCode, _graceful: bool, _debug: &[u8]) {
        unimplemented!()
    }
    /// A second has passed: refills the budgets of [`crate::AbuseLimits`].
    pub fn tick(&mut self) {
        unimplemented!()
    }
    /// Bytes to write.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        unimplemented!()
    }
    /// `bytes` of `output()` were written; queued bodies move up.
    pub fn advance_output(&mut self, _bytes: usize, _events: &mut Events) {
        unimplemented!()
    }
    /// There are bytes to write.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        unimplemented!()
    }
    /// Live streams.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        unimplemented!()
    }
    /// The peer's first SETTINGS have come.
    #[must_use]
    pub fn is_established(&self) -> bool {
        unimplemented!()
    }
    /// The peer or we sent GOAWAY (also a graceful one).
    #[must_use]
    pub fn is_going_away(&self) -> bool {
        unimplemented!()
    }
    /// `open` would succeed now.
    #[must_use]
    pub fn can_open(&self) -> bool {
        unimplemented!()
    }
    /// Body bytes waiting in the stream's queue.
    #[must_use]
    pub fn queued(&self, _stream: StreamRef) -> usize {
        unimplemented!()
    }
    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        unimplemented!()
    }
}
