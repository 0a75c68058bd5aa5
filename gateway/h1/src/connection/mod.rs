//! The connection: bytes of the peer in, events out; calls of the caller in, bytes out.
//!
//! Decides the life of the one exchange that a connection has at a time, and whether another one may follow. `receive`
//! takes messages apart, `send` makes them.
//!
//! ```text
//!   receiving: Head ─▶ Body ─▶ Trailers ─▶ Ended          sending: Head ─▶ Body ─▶ Ended
//!                └▶ Switch ─(101)─▶ Tunnel                            └─(101)─▶ Tunnel
//! ```
//! When both sides have ended the next exchange may begin, or the connection is over (`is_last`). An exchange that is
//! given up takes the connection along: nobody could tell where the next message begins.
//!
//! Invariants: `live` is set from the first byte of meaning of an exchange to its end; after `over` nothing is taken and
//! only what is in the output is still to be written.

mod receive;
mod send;

use gateway_h2::{ConnectionError, ErrorCode, Event, Events, OpenError, Role, Stats, StreamRef};

use crate::chunked::Chunked;
use crate::config::Config;
use crate::head::Scan;
use crate::output::Output;
use crate::refusal::Refusal;

/// One HTTP/1.1 connection, either role.
#[allow(clippy::struct_excessive_bools)] // independent facts; the states are `Recv` and `Send`
#[derive(Debug)]
pub struct Connection {
    config: Config,
    output: Output,
    stats: Stats,
    recv: Recv,
    send: Send,
    scan: Scan,
    /// An empty line before a request line was passed over.
    passed_empty_line: bool,
    live: Option<Exchange>,
    last_id: u32,
    /// The next answer says that it is the last.
    is_leaving: bool,
    /// No exchange follows the present one.
    is_last: bool,
    over: bool,
    /// The peer was cut off in the middle of its message: it may still be writing.
    cut_off: bool,
    failed: Option<ConnectionError>,
}

/// Rest of a body that is rather read and dropped than answered by the end of the connection.
const DISCARD_MAX: u64 = 64 << 10;

/// How far the peer's message has come.
#[derive(Clone, Debug)]
enum Recv {
    Head,
    Length(u64),
    Chunked(Chunked),
    /// The response lasts as long as the connection.
    UntilEnd,
    Trailers,
    Ended,
    /// Bytes behind a request for a WebSocket, before its answer.
    Switch,
    Tunnel,
}

/// How far our message has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Send {
    Head,
    Length(u64),
    Chunked,
    UntilEnd,
    /// There is no body, whatever the caller gives (answers to HEAD).
    Nothing,
    /// A request for a WebSocket was sent.
    Switch,
    Ended,
    Tunnel,
}

/// A request and its response.
#[allow(clippy::struct_excessive_bools)] // independent facts about one exchange
#[derive(Clone, Debug)]
struct Exchange {
    stream: StreamRef,
    token: u64,
    is_head: bool,
    /// RFC 9110 section 9.2.2: sending it twice does what sending it once does.
    is_idempotent: bool,
    /// The client understands HTTP/1.1.
    is_1_1: bool,
    takes_trailers: bool,
    upgrade: bool,
    /// The client waits for 100 before its body.
    expects: bool,
    /// It had its answer while it waited: whether its body comes is for it to choose.
    may_skip_body: bool,
    /// The caller is done; so many bytes of the body may still come to be dropped.
    discards: Option<u64>,
    informational: u32,
    /// Body bytes that the caller has not released.
    unreleased: u32,
    /// Some of the request has left.
    is_sent: bool,
    /// Something of the response has come.
    is_answered: bool,
}

// === impl Connection ===

impl Connection {
    /// A new connection; nothing is written before the first message.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            output: Output::default(),
            stats: Stats::default(),
            recv: Recv::Head,
            send: Send::Head,
            scan: Scan::default(),
            passed_empty_line: false,
            live: None,
            last_id: u32::MAX,
            is_leaving: false,
            is_last: false,
            over: false,
            cut_off: false,
            failed: None,
        }
    }

    /// Begins an exchange (client role); its request is to be sent next.
    ///
    /// # Errors
    /// `AtLimit` while there is one already, `GoingAway` when none may follow.
    pub fn open(&mut self, token: u64) -> Result<StreamRef, OpenError> {
        if self.config.role == Role::Server || self.is_going_away() {
            return Err(OpenError::GoingAway);
        }
        if !self.can_open() {
            return Err(OpenError::AtLimit);
        }
        let stream = self.begin();
        if let Some(live) = &mut self.live {
            live.token = token;
        }
        Ok(stream)
    }

    fn begin(&mut self) -> StreamRef {
        // Odd, as clients' streams are in HTTP/2.
        self.last_id = self.last_id.wrapping_add(2);
        let stream = StreamRef::new(self.last_id, 0);
        self.live = Some(Exchange {
            stream,
            token: 0,
            is_head: false,
            is_idempotent: false,
            is_1_1: true,
            takes_trailers: false,
            upgrade: false,
            expects: false,
            may_skip_body: false,
            discards: None,
            informational: 0,
            unreleased: 0,
            is_sent: false,
            is_answered: false,
        });
        (self.recv, self.send) = (Recv::Head, Send::Head);
        self.passed_empty_line = false;
        self.stats.streams_opened += 1;
        stream
    }

    /// `open` would succeed now.
    #[must_use]
    pub fn can_open(&self) -> bool {
        self.config.role == Role::Client
            && self.live.is_none()
            && !self.is_going_away()
            && self.output.is_empty()
    }

    /// Sets the caller's key, repeated in later events of the stream.
    pub fn set_token(&mut self, stream: StreamRef, token: u64) {
        if let Some(live) = self.exchange(stream) {
            live.token = token;
        }
    }

    /// The exchange has not ended.
    #[must_use]
    pub fn is_live(&self, stream: StreamRef) -> bool {
        let live = self.live.as_ref();
        live.is_some_and(|live| live.stream == stream && live.discards.is_none())
    }

    /// Gives the exchange up. What was not sent or read to its end takes the connection along, but for the small rest of
    /// a request that has its answer: that is dropped as it comes.
    pub fn reset(&mut self, stream: StreamRef) {
        let may_discard = self.may_discard();
        let Some(live) = self.exchange(stream) else {
            return;
        };
        if may_discard {
            live.discards = Some(DISCARD_MAX);
            return;
        }
        self.cut_off = !matches!(self.recv, Recv::Ended);
        self.live = None;
        self.over = true;
    }

    fn may_discard(&self) -> bool {
        let is_small = match &self.recv {
            Recv::Length(left) => *left <= DISCARD_MAX,
            Recv::Chunked(_) | Recv::Trailers => true,
            _ => false,
        };
        let answered = self.config.role == Role::Server && self.send == Send::Ended;
        let waits = self.live.as_ref().is_some_and(|live| live.may_skip_body);
        is_small && answered && !waits && !self.is_last
    }

    /// Drops body bytes that nobody wants any more; true when there are such.
    fn discard(&mut self, len: u64) -> bool {
        let Some(live) = &mut self.live else {
            return false;
        };
        let Some(left) = &mut live.discards else {
            return false;
        };
        let is_too_much = *left < len;
        *left = left.saturating_sub(len);
        self.cut_off |= is_too_much;
        self.over |= is_too_much;
        true
    }

    /// Gives back `bytes` of body: more may be read.
    pub fn release(&mut self, stream: StreamRef, bytes: u32) {
        if let Some(live) = self.exchange(stream) {
            live.unreleased = live.unreleased.saturating_sub(bytes);
        }
    }

    /// Takes no further exchange: the answer to the present one says so, or to the one whose head has begun to come; an
    /// idle connection is over. `graceful` is for clients that may be asking just now (server role): the next answer
    /// says that it is the last, and nothing ends before.
    pub fn go_away(&mut self, graceful: bool) {
        if graceful {
            self.is_leaving = true;
            return;
        }
        self.is_last = true;
        self.over |= self.stream_count() == 0 && !self.is_amid_headers();
    }

    /// No exchange follows the present one.
    #[must_use]
    pub fn is_going_away(&self) -> bool {
        self.is_last || self.over || self.failed.is_some()
    }

    /// Once the output is written the connection is to be closed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over || self.failed.is_some()
    }

    /// The peer may still be writing a message that nobody reads: closing at once could cost it our last words.
    #[must_use]
    pub fn was_cut_off(&self) -> bool {
        self.cut_off || self.failed.is_some()
    }

    /// The first request has come whole (server role).
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.stats.streams_opened > 0
    }

    /// The peer has begun a head or trailers and not ended them.
    #[must_use]
    pub fn is_amid_headers(&self) -> bool {
        self.scan.is_amid()
    }

    /// Exchanges under way: none or one.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        let live = self.live.as_ref();
        usize::from(live.is_some_and(|live| live.discards.is_none()))
    }

    /// `receive` would use bytes that it has left over before.
    #[must_use]
    pub fn takes_input(&self) -> bool {
        match &self.recv {
            Recv::Ended | Recv::Switch => self.over || self.live.is_none(),
            Recv::Head if self.config.role == Role::Server => {
                self.over || self.output.len() < self.config.output_high_water
            }
            _ => self.has_window(),
        }
    }

    /// More may be read from the socket, beside `kept` bytes that `receive` has left over.
    #[must_use]
    pub fn takes_more(&self, kept: usize) -> bool {
        self.has_window() && (self.takes_input() || kept < self.config.pipeline_max)
    }

    fn has_window(&self) -> bool {
        let live = self.live.as_ref();
        live.is_none_or(|live| live.unreleased < self.config.window)
    }

    /// Bytes to write.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.as_slice()
    }

    /// There are bytes to write, or will be by `before_write`.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.output.is_empty() || self.live.as_ref().is_some_and(|live| live.expects)
    }

    /// To be called before the output is written, when the events are dealt with: a client that waits for it is told to
    /// go on with its body, unless it has its answer already.
    pub fn before_write(&mut self) {
        if let Some(live) = &mut self.live
            && std::mem::take(&mut live.expects)
        {
            self.output
                .buffer()
                .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    /// `bytes` of `output()` were written.
    pub fn advance_output(&mut self, bytes: usize, events: &mut Events) {
        let before = self.queued_in_all();
        self.output.advance(bytes);
        let drained = before - self.queued_in_all();
        let Some(live) = &mut self.live else { return };
        live.is_sent |= bytes > 0;
        if drained > 0 {
            events.push(Event::Drained {
                stream: live.stream,
                token: live.token,
                bytes: drained as u32,
            });
        }
    }

    /// Bytes beyond what a socket takes soon.
    #[must_use]
    pub fn queued_in_all(&self) -> usize {
        let high_water = self.config.output_high_water;
        self.output.len().saturating_sub(high_water)
    }

    /// The same for the stream.
    #[must_use]
    pub fn queued(&self, stream: StreamRef) -> usize {
        if self.is_live(stream) {
            self.queued_in_all()
        } else {
            0
        }
    }

    /// Counters, as far as they mean something here.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn exchange(&mut self, stream: StreamRef) -> Option<&mut Exchange> {
        let live = self.live.as_mut();
        live.filter(|live| live.stream == stream && live.discards.is_none())
    }

    /// Ends the exchange once both sides have.
    fn end_if_done(&mut self) {
        if !matches!(self.recv, Recv::Ended) || self.send != Send::Ended {
            return;
        }
        self.live = None;
        // A client whose request is answered before it has left cannot tell whether the server reads on.
        let answered_early = self.config.role == Role::Client && !self.output.is_empty();
        if self.is_last || answered_early {
            self.over = true;
        } else {
            (self.recv, self.send) = (Recv::Head, Send::Head);
        }
    }

    /// A server that has not begun its answer says what is wrong with the request.
    fn fail(&mut self, refusal: Refusal) -> ConnectionError {
        let may_answer = self.config.role == Role::Server && self.send == Send::Head;
        if may_answer && !self.over {
            refusal.write(self.output.buffer());
        }
        self.stats.header_lists_too_large += u64::from(refusal.status == 431);
        let error = refusal.as_error();
        if let Some(live) = &mut self.live {
            live.expects = false;
        }
        self.failed = Some(error);
        error
    }

    /// What the end of the peer's bytes means for the exchange (client role); `failed` when it is no clean end. A
    /// response without a length is whole. A request of which nothing has left, or which is idempotent and met a
    /// connection that the server was closing (RFC 9112 section 9.3.1), is reset with `RefusedStream`: it may be sent
    /// elsewhere without asking anyone. Else there is no event: the response is lost with the connection.
    pub fn end_of_input(&mut self, failed: bool, events: &mut Events) {
        self.over = true;
        let Some(live) = &self.live else { return };
        let (stream, token) = (live.stream, live.token);
        let is_reused = self.stats.streams_opened > 1;
        let is_unheard = !live.is_answered && !self.scan.is_amid();
        if matches!(self.recv, Recv::UntilEnd | Recv::Tunnel) && !failed {
            events.push(Event::Data {
                stream,
                token,
                range: 0..0,
                flow_len: 0,
                end_stream: true,
            });
        } else if is_unheard && (!live.is_sent || (is_reused && live.is_idempotent)) {
            events.push(Event::Reset {
                stream,
                token,
                code: ErrorCode::RefusedStream,
                local: false,
            });
        } else {
            return;
        }
        self.live = None;
    }
}
