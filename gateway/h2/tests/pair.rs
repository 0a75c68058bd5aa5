//! Two connections wired to each other in memory, under random chunking and scheduling.
//!
//! The client opens streams and sends bodies; the server sends every byte back, releasing its window
//! when the test says so. Progress is lost at random: nothing is carried, written, released or sent for
//! a while, in either direction, also at the very end. Whatever the order:
//! - nobody deadlocks: once progress is possible, everything ends in a bounded number of rounds;
//! - nobody overruns a window: each end's book of what it gave the other is kept apart from the engines,
//!   and no engine finds a fault in the other;
//! - no stream leaks: none is left, no byte waits, and as many as allowed can be opened again;
//! - all bytes arrive once and in order.

use std::collections::HashMap;

use gateway_h2::{
    Config, Connection, ErrorCode, Event, Events, Field, PREFACE, SendError, StreamRef,
};
use proptest::prelude::*;

const SETTLE_ROUNDS: usize = 200_000;

/// What the caller of either end keeps for a stream.
#[derive(Default)]
struct Call {
    /// Client: bytes still to send. Server: nothing.
    to_send: usize,
    sent: usize,
    received: usize,
    /// Bytes whose window is not released yet.
    held: u32,
    trailers: bool,
    /// Both sides have ended, or it was reset.
    over: bool,
    was_reset: bool,
}

struct End {
    connection: Connection,
    events: Events,
    /// Bytes that have come and are not used up.
    inbox: Vec<u8>,
    calls: HashMap<u64, Call>,
    streams: HashMap<u64, StreamRef>,
    /// Server: the token of the stream in each slot.
    slots: HashMap<u32, u64>,
    drained: usize,
    queued: usize,
}

struct Wire {
    client: End,
    server: End,
    next_token: u64,
    up: Book,
    down: Book,
}

/// What one end may send, by the frames that the other has sent it.
struct Book {
    /// Bytes of the preface that are still to come, and of a frame that has not come whole.
    preface_left: usize,
    partial: Vec<u8>,
    initial: i64,
    connection: i64,
    streams: HashMap<u32, i64>,
}

/// What still makes progress in a round, a bit for each.
#[derive(Clone, Copy, Debug)]
struct Progress(u8);

/// One step of the schedule.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open { body: usize, trailers: bool },
    Send { nth: usize, len: usize },
    ToServer { len: usize },
    ToClient { len: usize },
    ServerReleases { nth: usize, len: u32 },
    ClientReleases { nth: usize, len: u32 },
    ClientResets { nth: usize },
    ServerResets { nth: usize },
    Ping,
}

/// The byte that stands at `at` of the body of `token`.
fn body_byte(token: u64, at: usize) -> u8 {
    (token as usize * 31 + at * 7 + at / 251) as u8
}

fn body(token: u64, from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| body_byte(token, at)).collect()
}

impl End {
    fn new(config: Config) -> Self {
        Self {
            connection: Connection::new(config),
            events: Events::new(),
            inbox: Vec::new(),
            calls: HashMap::new(),
            streams: HashMap::new(),
            slots: HashMap::new(),
            drained: 0,
            queued: 0,
        }
    }

    fn nth(&self, nth: usize) -> Option<u64> {
        let mut live: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, call)| !call.over)
            .map(|(token, _)| *token)
            .collect();
        live.sort_unstable();
        (!live.is_empty()).then(|| live[nth % live.len()])
    }

    fn release(&mut self, token: u64, len: u32) {
        let (Some(call), Some(stream)) = (self.calls.get_mut(&token), self.streams.get(&token))
        else {
            return;
        };
        let len = len.min(call.held);
        call.held -= len;
        self.connection.release(*stream, len);
    }

    fn reset(&mut self, token: u64) {
        let (Some(call), Some(stream)) = (self.calls.get_mut(&token), self.streams.get(&token))
        else {
            return;
        };
        call.over = true;
        call.was_reset = true;
        self.connection.reset(*stream, ErrorCode::Cancel);
    }

    fn send(&mut self, token: u64, bytes: &[u8], end: bool) {
        match self.connection.send_data(self.streams[&token], bytes, end) {
            Ok(sent) => {
                assert_eq!(sent.written + sent.queued, bytes.len());
                self.queued += sent.queued;
            }
            Err(error) => self.check_gone(error),
        }
    }

    fn send_last(&mut self, token: u64, name: &[u8], value: &[u8]) {
        let fields = [Field::new(name, value)];
        if let Err(error) = self
            .connection
            .send_headers(self.streams[&token], fields, true)
        {
            self.check_gone(error);
        }
    }

    /// A stream that was reset in this very batch of events is gone before its older events are seen.
    fn check_gone(&self, error: SendError) {
        assert!(self.connection.stats().resets_received > 0, "{error}");
        assert_eq!(error, SendError::Gone);
    }
}

impl Book {
    /// Of an end whose peer is configured like this.
    fn new(peer: &Config, preface_left: usize) -> Self {
        Self {
            preface_left,
            partial: Vec::new(),
            initial: i64::from(peer.initial_stream_window),
            connection: 65_535,
            streams: HashMap::new(),
        }
    }

    fn stream(&mut self, id: u32) -> &mut i64 {
        self.streams.entry(id).or_insert(self.initial)
    }

    /// Takes bytes of this end: its DATA must fit, its updates are for the other.
    fn take(&mut self, bytes: &[u8], other: &mut Self) {
        let skipped = self.preface_left.min(bytes.len());
        self.preface_left -= skipped;
        self.partial.extend_from_slice(&bytes[skipped..]);
        while let Some(head) = self.partial.first_chunk::<9>() {
            let [l0, l1, l2, kind, _, i0, i1, i2, i3] = *head;
            let len = u32::from_be_bytes([0, l0, l1, l2]) as usize;
            if self.partial.len() < 9 + len {
                break;
            }
            let frame: Vec<u8> = self.partial.drain(..9 + len).collect();
            let id = u32::from_be_bytes([i0, i1, i2, i3]);
            match (kind, id) {
                (DATA, _) => self.spend(id, i64::try_from(len).expect("small")),
                (WINDOW_UPDATE, 0) => other.connection += increment(&frame),
                (WINDOW_UPDATE, _) => *other.stream(id) += increment(&frame),
                _ => {}
            }
        }
    }

    fn spend(&mut self, id: u32, len: i64) {
        self.connection -= len;
        assert!(self.connection >= 0, "the connection's window is overrun");
        let window = self.stream(id);
        *window -= len;
        assert!(
            *window >= 0 || len == 0,
            "the window of stream {id} is overrun"
        );
    }
}

const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 8;

fn increment(frame: &[u8]) -> i64 {
    let bytes = frame[9..13].try_into().expect("four bytes");
    i64::from(u32::from_be_bytes(bytes))
}

impl Progress {
    fn has(self, bit: u8) -> bool {
        self.0 >> bit & 1 == 1
    }
}

impl Wire {
    fn new(client: Config, server: Config) -> Self {
        Self {
            up: Book::new(&server, PREFACE.len()),
            down: Book::new(&client, 0),
            client: End::new(client),
            server: End::new(server),
            next_token: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Open { body, trailers } => self.open(body, trailers),
            Step::Send { nth, len } => {
                if let Some(token) = self.client.nth(nth) {
                    self.client_sends(token, len);
                }
            }
            Step::ToServer { len } => self.carry_up(len),
            Step::ToClient { len } => self.carry_down(len),
            Step::ServerReleases { nth, len } => {
                if let Some(token) = self.server.nth(nth) {
                    self.server.release(token, len);
                }
            }
            Step::ClientReleases { nth, len } => {
                if let Some(token) = self.client.nth(nth) {
                    self.client.release(token, len);
                }
            }
            Step::ClientResets { nth } => {
                if let Some(token) = self.client.nth(nth) {
                    self.client.reset(token);
                }
            }
            Step::ServerResets { nth } => {
                if let Some(token) = self.server.nth(nth) {
                    self.server.reset(token);
                }
            }
            Step::Ping => {
                self.client.connection.ping([1; 8]);
                self.server.connection.ping([2; 8]);
            }
        }
    }

    fn open(&mut self, body: usize, trailers: bool) {
        let token = self.next_token;
        let can = self.client.connection.can_open();
        let Ok(stream) = self.client.connection.open(token) else {
            assert!(!can);
            return;
        };
        assert!(can);
        self.next_token += 1;
        let number = token.to_string();
        let fields = [
            Field::new(b":method", b"POST"),
            Field::new(b":scheme", b"http"),
            Field::new(b":path", b"/echo"),
            Field::new(b"x-token", number.as_bytes()),
        ];
        let ends = body == 0 && !trailers;
        self.client
            .connection
            .send_headers(stream, fields, ends)
            .expect("fresh");
        let call = Call {
            to_send: body,
            trailers: trailers && body > 0,
            ..Call::default()
        };
        self.client.calls.insert(token, call);
        self.client.streams.insert(token, stream);
        if body == 0 && trailers {
            self.client
                .connection
                .send_data(stream, b"", true)
                .expect("open");
        }
    }

    fn client_sends(&mut self, token: u64, len: usize) {
        let call = self.client.calls.get_mut(&token).expect("known");
        let len = len.min(call.to_send);
        if len == 0 {
            return;
        }
        let bytes = body(token, call.sent, len);
        call.to_send -= len;
        call.sent += len;
        let is_last = call.to_send == 0;
        let trailers = call.trailers;
        self.client.send(token, &bytes, is_last && !trailers);
        if is_last && trailers {
            self.client.send_last(token, b"x-sum", b"1");
        }
    }

    fn carry_up(&mut self, len: usize) {
        carry(
            &mut self.client,
            &mut self.server,
            len,
            (&mut self.up, &mut self.down),
            Self::at_server,
            Self::at_client,
        );
    }

    fn carry_down(&mut self, len: usize) {
        carry(
            &mut self.server,
            &mut self.client,
            len,
            (&mut self.down, &mut self.up),
            Self::at_client,
            Self::at_server,
        );
    }

    fn at_server(server: &mut End, event: &Event, input: &[u8], events: &Events) {
        match event {
            Event::Request {
                stream,
                headers,
                end_stream,
            } => {
                let value = events.value(*headers, b"x-token").expect("sent");
                let token: u64 = std::str::from_utf8(value)
                    .expect("digits")
                    .parse()
                    .expect("number");
                server.slots.insert(stream.slot(), token);
                server.streams.insert(token, *stream);
                server.calls.insert(
                    token,
                    Call {
                        over: *end_stream,
                        ..Call::default()
                    },
                );
                let fields = [Field::new(b":status", b"200")];
                let result = server.connection.send_headers(*stream, fields, *end_stream);
                if let Err(error) = result {
                    server.check_gone(error);
                }
            }
            Event::Data {
                stream,
                range,
                end_stream,
                ..
            } => {
                if server.take_data(event) {
                    let token = server.slots[&stream.slot()];
                    server.send(token, &input[range.clone()], *end_stream);
                }
            }
            Event::Trailers {
                stream,
                token,
                headers,
            } => {
                let token = server.key(*stream, *token);
                if server.take_end(token) {
                    assert_eq!(events.value(*headers, b"x-sum"), Some(&b"1"[..]));
                    server.send_last(token, b"grpc-status", b"0");
                }
            }
            other => server.take_other(other),
        }
    }

    fn at_client(client: &mut End, event: &Event, input: &[u8], events: &Events) {
        match event {
            Event::Response {
                token,
                headers,
                end_stream,
                ..
            } => {
                assert_eq!(events.value(*headers, b":status"), Some(&b"200"[..]));
                if *end_stream {
                    client.take_end(*token);
                }
            }
            Event::Data { token, range, .. } => {
                let from = client.calls[token].received;
                if client.take_data(event) {
                    assert_eq!(input[range.clone()], body(*token, from, range.len()));
                }
            }
            Event::Trailers { token, .. } => {
                client.take_end(*token);
            }
            other => client.take_other(other),
        }
    }

    /// One round of what still makes progress.
    fn round(&mut self, progress: Progress) {
        let mut tokens: Vec<u64> = self.client.calls.keys().copied().collect();
        tokens.sort_unstable();
        for token in tokens {
            if progress.has(0) && !self.client.calls[&token].over {
                self.client_sends(token, usize::MAX);
            }
            if progress.has(1) {
                self.client.release(token, u32::MAX);
            }
            if progress.has(2) {
                self.server.release(token, u32::MAX);
            }
        }
        if progress.has(3) {
            self.carry_up(usize::MAX);
        }
        if progress.has(4) {
            self.carry_down(usize::MAX);
        }
        // Half a frame here and there.
        if progress.has(5) {
            self.carry_up(7);
            self.carry_down(11);
        }
    }

    /// Goes on, with everything released, until nothing moves.
    fn settle(&mut self) {
        for _ in 0..SETTLE_ROUNDS {
            self.round(Progress(0b111));
            let ends = [&self.client.connection, &self.server.connection];
            if ends.iter().all(|end| !end.wants_write()) {
                assert!(self.client.inbox.is_empty() && self.server.inbox.is_empty());
                return;
            }
            self.round(Progress(0b1_1000));
        }
        panic!("it does not come to an end");
    }

    /// The same again on the same connection: whatever a stream held is free.
    fn check_nothing_leaked(&mut self, streams: u32) {
        let before = self.next_token;
        for _ in 0..streams {
            self.open(100, true);
        }
        assert_eq!(self.next_token - before, u64::from(streams), "room is lost");
        self.settle();
        self.check_all_arrived();
        for end in [&self.client.connection, &self.server.connection] {
            assert_eq!(
                (end.queued_in_all(), end.buffered()),
                (0, 0),
                "bytes are left"
            );
        }
    }

    fn check_all_arrived(&self) {
        assert_eq!(
            self.client.connection.stream_count(),
            0,
            "client streams left"
        );
        assert_eq!(
            self.server.connection.stream_count(),
            0,
            "server streams left"
        );
        for (token, call) in &self.client.calls {
            assert!(call.over, "call {token} did not end");
            if !call.was_reset {
                assert_eq!(call.received, call.sent, "call {token} lost bytes");
            }
        }
        let resets = self
            .client
            .calls
            .values()
            .filter(|call| call.was_reset)
            .count();
        if resets == 0 {
            assert_eq!(self.client.drained, self.client.queued);
            assert_eq!(self.server.drained, self.server.queued);
        }
    }
}

impl End {
    /// Counts body bytes; false when the stream is over for us.
    fn take_data(&mut self, event: &Event) -> bool {
        let Event::Data {
            stream,
            token,
            range,
            flow_len,
            end_stream,
        } = event
        else {
            return false;
        };
        let token = self.key(*stream, *token);
        let call = self.calls.get_mut(&token).expect("known");
        if call.over {
            return false;
        }
        call.received += range.len();
        call.held += flow_len;
        call.over = *end_stream;
        true
    }

    /// A server finds its calls by slot.
    fn key(&self, stream: StreamRef, token: u64) -> u64 {
        self.slots.get(&stream.slot()).copied().unwrap_or(token)
    }

    fn take_end(&mut self, token: u64) -> bool {
        let call = self.calls.get_mut(&token).expect("known");
        !std::mem::replace(&mut call.over, true)
    }

    fn take_other(&mut self, event: &Event) {
        match event {
            Event::Reset {
                stream,
                token,
                code,
                local,
            } => {
                let token = self.key(*stream, *token);
                assert!(!local, "a fault: {event:?}");
                assert_eq!(*code, ErrorCode::Cancel);
                let call = self.calls.get_mut(&token).expect("known");
                call.over = true;
                call.was_reset = true;
            }
            Event::Drained { bytes, .. } => self.drained += *bytes as usize,
            Event::PingAck { .. } | Event::StreamsAvailable => {}
            other => panic!("not expected: {other:?}"),
        }
    }
}

type Handler = fn(&mut End, &Event, &[u8], &Events);

/// Moves up to `len` bytes of `from`'s output to `to`, which takes what it can.
fn carry(
    from: &mut End,
    to: &mut End,
    len: usize,
    (book, other): (&mut Book, &mut Book),
    at_to: Handler,
    at_from: Handler,
) {
    let len = len.min(from.connection.output().len());
    book.take(&from.connection.output()[..len], other);
    to.inbox.extend_from_slice(&from.connection.output()[..len]);
    let mut events = std::mem::take(&mut from.events);
    from.connection.advance_output(len, &mut events);
    events
        .iter()
        .for_each(|event| at_from(from, event, &[], &events));
    events.clear();
    from.events = events;

    let mut events = std::mem::take(&mut to.events);
    let inbox = std::mem::take(&mut to.inbox);
    let used = to
        .connection
        .receive(&inbox, &mut events)
        .expect("no fault");
    events
        .iter()
        .for_each(|event| at_to(to, event, &inbox, &events));
    to.inbox.extend_from_slice(&inbox[used..]);
    events.clear();
    to.events = events;
}

fn step(with_resets: bool) -> impl Strategy<Value = Step> {
    let len = prop_oneof![1usize..20, 1usize..2000, 1usize..60_000];
    let resets = u32::from(with_resets);
    prop_oneof![
        3 => (prop_oneof![Just(0usize), 1usize..50, 1usize..30_000], any::<bool>())
            .prop_map(|(body, trailers)| Step::Open { body, trailers }),
        6 => (0usize..8, len.clone()).prop_map(|(nth, len)| Step::Send { nth, len }),
        6 => len.clone().prop_map(|len| Step::ToServer { len }),
        6 => len.clone().prop_map(|len| Step::ToClient { len }),
        2 => (0usize..8, 0u32..50_000).prop_map(|(nth, len)| Step::ServerReleases { nth, len }),
        2 => (0usize..8, 0u32..50_000).prop_map(|(nth, len)| Step::ClientReleases { nth, len }),
        resets => (0usize..8).prop_map(|nth| Step::ClientResets { nth }),
        resets => (0usize..8).prop_map(|nth| Step::ServerResets { nth }),
        1 => Just(Step::Ping),
    ]
}

fn config(base: Config) -> impl Strategy<Value = Config> {
    (
        1u32..10,
        prop_oneof![40u32..300, 40u32..100_000],
        prop_oneof![Just(65_535u32), 65_535u32..1_000_000],
        0u32..5000,
        prop_oneof![1usize..100, 1usize..100_000],
    )
        .prop_map(
            move |(streams, window, connection_window, table, high_water)| Config {
                max_concurrent_streams: streams,
                initial_stream_window: window,
                connection_window,
                header_table_size: table,
                output_high_water: high_water,
                // Windows of a few bytes make very many small frames.
                limits: gateway_h2::AbuseLimits {
                    window_updates: u32::MAX,
                    ..base.limits
                },
                ..base.clone()
            },
        )
}

fn run(client: Config, server: Config, steps: Vec<Step>, stalls: Vec<Progress>) {
    let streams = server.max_concurrent_streams;
    let mut wire = Wire::new(client, server);
    for step in steps {
        wire.step(step);
    }
    for progress in stalls {
        wire.round(progress);
    }
    wire.settle();
    wire.check_all_arrived();
    wire.check_nothing_leaked(streams);
}

fn stalls() -> impl Strategy<Value = Vec<Progress>> {
    prop::collection::vec((0u8..64).prop_map(Progress), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everything_arrives(
        client in config(Config::client()),
        server in config(Config::server()),
        steps in prop::collection::vec(step(false), 1..150),
        stalls in stalls(),
    ) {
        run(client, server, steps, stalls);
    }

    #[test]
    fn nothing_is_left_when_streams_are_reset(
        client in config(Config::client()),
        server in config(Config::server()),
        steps in prop::collection::vec(step(true), 1..150),
        stalls in stalls(),
    ) {
        run(client, server, steps, stalls);
    }
}
