//! The connection: bytes of the peer in, events out; calls of the caller in, bytes out.
//!
//! Decides what frames mean together: stream life, windows, GOAWAY, settings. `receive` takes frames,
//! `control` those that steer, `headers` header blocks; `send` makes frames. Leaves bytes to `frame`, `hpack` and `output`.
//!
//! Invariants:
//! - A stream with queued bytes and an open window stands in `round` exactly once.
//! - Header blocks are encoded and decoded in the order of the wire, also those nobody wants.
//! - After an error every `receive` gives the same error; sending does no harm.

mod control;
mod headers;
mod receive;
mod send;

use std::collections::VecDeque;

use crate::PREFACE;
use crate::abuse::Budgets;
use crate::config::{Config, Role};
use crate::error::{ConnectionError, ErrorCode, OpenError};
use crate::event::{Event, Events, StreamRef};
use crate::frame::{DEFAULT_MAX_FRAME_SIZE, DEFAULT_WINDOW, Kind, Setting, WINDOW_MAX};
use crate::hpack::{Decoder, Encoder};
use crate::output::Output;
use crate::stats::Stats;
use crate::store::{Past, Store};

pub use send::Sent;

/// One HTTP/2 connection, either role.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    streams: Store,
    output: Output,
    encoder: Encoder,
    decoder: Decoder,
    /// The header block that CONTINUATION frames go on with.
    partial: headers::Partial,
    peer: PeerSettings,
    phase: Phase,
    /// Our SETTINGS have been acknowledged.
    settings_acked: bool,
    send_window: i64,
    recv_window: i64,
    /// Bytes of the connection's window not given back yet.
    recv_owed: u32,
    /// Streams that can send, next one first.
    round: VecDeque<StreamRef>,
    /// Body bytes that wait in all streams.
    queued: usize,
    /// Bytes of the trailers that wait behind them.
    queued_trailers: usize,
    /// Client: the id that `open` gives next.
    next_id: u32,
    away_sent: AwaySent,
    /// A GOAWAY of the peer named this last stream.
    away_received: Option<u32>,
    /// Client: tell the caller when there is room.
    waits_for_room: bool,
    budgets: Budgets,
    stats: Stats,
    failed: Option<ConnectionError>,
}

/// What the peer's SETTINGS say, as far as it binds us.
#[derive(Debug)]
struct PeerSettings {
    initial_window: u32,
    max_frame_size: u32,
    max_concurrent_streams: u32,
}

/// How far the peer's beginning has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Preface,
    FirstSettings,
    Established,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AwaySent {
    No,
    Graceful,
    /// New streams above this id are refused.
    Final(u32),
}

/// Places in the round that a quiet connection keeps.
const ROUND_KEPT: usize = 64;
/// Frames larger than this take the line from other streams for too long.
const SEND_FRAME_MAX: u32 = 64 << 10;

// === impl Connection ===

impl Connection {
    /// A new connection; preface and SETTINGS are in `output()` already.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let config = config.within_bounds();
        let list_limit = config.max_header_list_size as usize;
        let mut connection = Self {
            streams: Store::new(),
            output: Output::default(),
            encoder: Encoder::new(),
            decoder: Decoder::new(config.header_table_size, list_limit),
            partial: headers::Partial::default(),
            peer: PeerSettings {
                initial_window: DEFAULT_WINDOW,
                max_frame_size: DEFAULT_MAX_FRAME_SIZE,
                max_concurrent_streams: u32::MAX,
            },
            phase: if config.role == Role::Server {
                Phase::Preface
            } else {
                Phase::FirstSettings
            },
            settings_acked: false,
            send_window: i64::from(DEFAULT_WINDOW),
            recv_window: i64::from(config.connection_window),
            recv_owed: 0,
            round: VecDeque::new(),
            queued: 0,
            queued_trailers: 0,
            next_id: 1,
            away_sent: AwaySent::No,
            away_received: None,
            waits_for_room: config.role == Role::Client,
            budgets: Budgets::new(&config.limits),
            stats: Stats::default(),
            failed: None,
            config,
        };
        connection.greet();
        connection
    }

    /// The first bytes of this side (RFC 9113 section 3.4).
    fn greet(&mut self) {
        let config = &self.config;
        let role_setting = match config.role {
            Role::Server => Setting::MaxConcurrentStreams(config.max_concurrent_streams),
            Role::Client => Setting::EnablePush(0),
        };
        if config.role == Role::Client {
            self.output.raw(PREFACE);
        }
        let settings = [
            role_setting,
            Setting::HeaderTableSize(config.header_table_size),
            Setting::InitialWindowSize(config.initial_stream_window),
            Setting::MaxFrameSize(config.max_frame_size),
            Setting::MaxHeaderListSize(config.max_header_list_size),
        ];
        let mut payload = [0; 30];
        for (place, setting) in payload.chunks_exact_mut(6).zip(settings) {
            place.copy_from_slice(&setting.to_bytes());
        }
        self.output.frame(Kind::Settings, 0, 0, &payload);
        let more = config.connection_window - DEFAULT_WINDOW;
        if more > 0 {
            self.output
                .frame(Kind::WindowUpdate, 0, 0, &more.to_be_bytes());
        }
    }

    /// Opens a stream (client role). Requests go out in the order of `open`: the next call on the
    /// connection that sends headers must be `send_headers` for this stream.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&mut self, token: u64) -> Result<StreamRef, OpenError> {
        if self.is_going_away() || self.failed.is_some() || self.config.role == Role::Server {
            return Err(OpenError::GoingAway);
        }
        if self.next_id > WINDOW_MAX {
            return Err(OpenError::IdsExhausted);
        }
        if !self.has_room() {
            self.waits_for_room = true;
            return Err(OpenError::AtLimit);
        }
        let id = self.next_id;
        self.next_id += 2;
        self.streams.use_id(id);
        let stream = self
            .streams
            .insert(id, self.peer.initial_window, self.stream_window());
        if let Some(state) = self.streams.get_mut(stream) {
            state.token = token;
        }
        self.stats.streams_opened += 1;
        Ok(stream)
    }

    /// Sets the caller's key, repeated in later events of the stream. Events that are there already
    /// keep what they have: behind a `Request` in the same batch the token is still 0, and there a
    /// server finds its state by [`StreamRef::slot`], which no other stream has before this one's
    /// last event.
    pub fn set_token(&mut self, stream: StreamRef, token: u64) {
        if let Some(state) = self.streams.get_mut(stream) {
            state.token = token;
        }
    }

    /// Sends a PING of our own; [`Event::PingAck`] brings `payload` back.
    pub fn ping(&mut self, payload: [u8; 8]) {
        self.output.frame(Kind::Ping, 0, 0, &payload);
    }

    /// Sends GOAWAY. `graceful` asks the peer to leave and still takes every stream that it opens
    /// meanwhile; a later call without it names the last stream taken, and newer ones are refused.
    /// A second call of the same kind, or a graceful one after a final one, does nothing.
    pub fn go_away(&mut self, code: ErrorCode, graceful: bool, debug: &[u8]) {
        let last_stream_id = match (self.away_sent, graceful) {
            (AwaySent::No, true) => {
                self.away_sent = AwaySent::Graceful;
                WINDOW_MAX
            }
            (AwaySent::No | AwaySent::Graceful, false) => {
                let last = self.last_peer_stream();
                self.away_sent = AwaySent::Final(last);
                last
            }
            (AwaySent::Graceful, true) | (AwaySent::Final(_), _) => return,
        };
        self.write_go_away(last_stream_id, code, debug);
    }

    /// The stream has not ended. A request and its reset may come in one batch of events: then it has already.
    #[must_use]
    pub fn is_live(&self, stream: StreamRef) -> bool {
        self.streams.get(stream).is_some()
    }

    /// Body bytes that wait in all streams.
    #[must_use]
    pub fn queued_in_all(&self) -> usize {
        self.queued
    }

    /// All bytes that wait here: for the socket, for windows, and for the rest of a header block.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.output.len() + self.queued + self.queued_trailers + self.partial.len()
    }

    /// The streams whose body bytes wait, in no order, each with how many.
    pub fn waiting(&self) -> impl Iterator<Item = (StreamRef, usize)> {
        let all = self.streams.iter();
        all.map(|(stream, state)| (stream, state.queue.len()))
            .filter(|(_, bytes)| *bytes > 0)
    }

    /// A header block of the peer has begun and not ended.
    #[must_use]
    pub fn is_amid_headers(&self) -> bool {
        self.partial.is_open()
    }

    /// A second has passed: refills the budgets of [`crate::AbuseLimits`]. A connection that has no stream and
    /// nothing to write gives back what busier times took.
    pub fn tick(&mut self) {
        self.budgets.tick();
        if self.streams.len() == 0 && self.output.is_empty() {
            self.output.shrink();
            self.partial.shrink();
            self.streams.shrink();
            self.round.shrink_to(ROUND_KEPT);
        }
    }

    /// Bytes to write.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.as_slice()
    }

    /// `bytes` of `output()` were written. Below `output_high_water` streams with queued bytes go on,
    /// in turn, which gives `Drained` events.
    pub fn advance_output(&mut self, bytes: usize, events: &mut Events) {
        self.output.advance(bytes);
        if self.failed.is_none() {
            self.flush(events);
            self.announce_room(events);
        }
    }

    /// There are bytes to write.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.output.is_empty()
    }

    /// Live streams.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// The peer's first SETTINGS have come.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.phase == Phase::Established
    }

    /// The peer or we sent GOAWAY (also a graceful one).
    #[must_use]
    pub fn is_going_away(&self) -> bool {
        self.away_sent != AwaySent::No || self.away_received.is_some()
    }

    /// `open` would succeed now.
    #[must_use]
    pub fn can_open(&self) -> bool {
        self.config.role == Role::Client
            && !self.is_going_away()
            && self.failed.is_none()
            && self.next_id <= WINDOW_MAX
            && self.has_room()
    }

    /// Body bytes waiting in the stream's queue.
    #[must_use]
    pub fn queued(&self, stream: StreamRef) -> usize {
        self.streams
            .get(stream)
            .map_or(0, |state| state.queue.len())
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn has_room(&self) -> bool {
        self.phase == Phase::Established
            && self.streams.len() < self.peer.max_concurrent_streams as usize
    }

    fn announce_room(&mut self, events: &mut Events) {
        if self.waits_for_room && self.can_open() {
            self.waits_for_room = false;
            events.push(Event::StreamsAvailable);
        }
    }

    /// The window that the peer gives a new stream of its own reckoning: ours holds once it is
    /// acknowledged (RFC 9113 section 6.9.2).
    fn stream_window(&self) -> u32 {
        if self.settings_acked {
            self.config.initial_stream_window
        } else {
            DEFAULT_WINDOW
        }
    }

    fn last_peer_stream(&self) -> u32 {
        if self.config.role == Role::Server {
            self.streams.newest_id()
        } else {
            0
        }
    }

    fn write_go_away(&mut self, last_stream_id: u32, code: ErrorCode, debug: &[u8]) {
        let debug = &debug[..debug.len().min(DEFAULT_MAX_FRAME_SIZE as usize - 8)];
        let mut payload = Vec::with_capacity(8 + debug.len());
        payload.extend_from_slice(&last_stream_id.to_be_bytes());
        payload.extend_from_slice(&code.to_u32().to_be_bytes());
        payload.extend_from_slice(debug);
        self.output.frame(Kind::GoAway, 0, 0, &payload);
    }

    fn write_reset(&mut self, id: u32, code: ErrorCode) {
        self.output
            .answer(Kind::RstStream, 0, id, &code.to_u32().to_be_bytes());
        self.stats.resets_sent += 1;
    }

    /// Frees a stream's slot and takes it out of the round.
    fn remove(&mut self, stream: StreamRef, past: Past) {
        let Some(state) = self.streams.get(stream) else {
            return;
        };
        self.queued -= state.queue.len();
        self.queued_trailers -= state.queue.trailers_len();
        if state.in_round {
            self.round.retain(|other| *other != stream);
        }
        self.streams.remove(stream, past);
    }

    fn remove_if_finished(&mut self, stream: StreamRef) {
        if self
            .streams
            .get(stream)
            .is_some_and(crate::stream::Stream::is_finished)
        {
            self.remove(stream, Past::Finished);
        }
    }
}
