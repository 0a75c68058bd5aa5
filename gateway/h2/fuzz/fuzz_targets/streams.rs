//! Frames of a client and calls of the server's owner in any order, against the client's book of the connection:
//! every frame that comes out is allowed in the state its stream is in and fits the windows, a client within its
//! own windows is never told otherwise, and at the end no stream is left.

#![no_main]

use std::collections::HashMap;

use gateway_h2::{Config, Connection, ConnectionError, ErrorCode, Event, Events, Field, StreamRef};
use gateway_h2_fuzz::{
    ACK, DATA, END_HEADERS, END_STREAM, Fields, GOAWAY, HEADERS, Input, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, frames, plain_block, server, unlimited,
};
use libfuzzer_sys::fuzz_target;

const STREAMS_MAX: u32 = 6;
const STEPS_MAX: usize = 300;
const DEFAULT_WINDOW: i64 = 65_535;
const WINDOW_MAX: i64 = (1 << 31) - 1;

/// What the client knows of a stream.
#[derive(Default)]
struct Known {
    /// The client's side is open.
    sends: bool,
    /// Headers of the response have come.
    answered: bool,
    /// The server's side has ended, by END_STREAM or a reset of either.
    done: bool,
    /// What the server may send, and what the client may.
    to_client: i64,
    to_server: i64,
}

/// The client's book, and the server it is of.
struct Game {
    server: Connection,
    events: Events,
    seen: usize,
    written: usize,
    known: HashMap<u32, Known>,
    live: Vec<StreamRef>,
    next_id: u32,
    initial_window: i64,
    stream_window: i64,
    acked: bool,
    to_client: i64,
    to_server: i64,
}

fn request() -> Vec<u8> {
    let list = [(":method", "POST"), (":scheme", "http"), (":path", "/")];
    let list: Fields = list.map(|it| (it.0.into(), it.1.into())).to_vec();
    plain_block(&list)
}

impl Game {
    fn new(window: u32, high_water: usize) -> Self {
        let config = unlimited(Config {
            max_concurrent_streams: STREAMS_MAX,
            initial_stream_window: window,
            connection_window: 70_000,
            output_high_water: high_water,
            stream_queue_max: 20_000,
            ..Config::server()
        });
        let mut game = Self {
            server: server(config),
            events: Events::new(),
            seen: 0,
            written: 0,
            known: HashMap::new(),
            live: Vec::new(),
            next_id: 1,
            initial_window: DEFAULT_WINDOW,
            stream_window: i64::from(window),
            acked: false,
            to_client: DEFAULT_WINDOW,
            to_server: DEFAULT_WINDOW,
        };
        game.read_output();
        game
    }

    fn nth(&self, nth: u8) -> Option<StreamRef> {
        self.live.iter().rev().nth(usize::from(nth % 8)).copied()
    }

    // --- the client ---

    /// Gives the server a frame; false when that ended the connection.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        let used = self.server.receive(bytes, &mut self.events);
        self.take_events();
        self.read_output();
        assert!(self.server.stream_count() <= STREAMS_MAX as usize);
        used.map(|used| assert_eq!(used, bytes.len()))
    }

    fn opens(&mut self, ends: bool) -> Result<(), ConnectionError> {
        let id = self.next_id;
        self.next_id += 2;
        let to_server = if self.acked {
            self.stream_window
        } else {
            DEFAULT_WINDOW
        };
        let known = Known {
            sends: !ends,
            to_client: self.initial_window,
            to_server,
            ..Known::default()
        };
        self.known.insert(id, known);
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.feed(&frame(HEADERS, flags, id, &request()))
    }

    fn sends(&mut self, id: u32, len: usize, ends: bool) -> Result<(), ConnectionError> {
        let cost = len as i64;
        let Some(known) = self.known.get_mut(&id).filter(|it| it.sends) else {
            return Ok(());
        };
        // What was sent to a stream that is over still costs the connection's window.
        let fits = known.to_server >= cost && self.to_server >= cost;
        known.to_server -= cost;
        self.to_server -= cost;
        known.sends = !ends;
        let flags = if ends { END_STREAM } else { 0 };
        let outcome = self.feed(&frame(DATA, flags, id, &vec![7; len]));
        if let Err(error) = outcome {
            assert!(!fits, "DATA within the windows: {error:?}");
        }
        outcome
    }

    fn opens_window(&mut self, id: u32, increment: u32) -> Result<(), ConnectionError> {
        let more = i64::from(increment);
        // A wrong one costs the stream that it is for: only one for the connection, or for a stream that
        // was never opened, costs the connection.
        let may = if id == 0 {
            self.to_client += more;
            increment > 0 && self.to_client <= WINDOW_MAX
        } else {
            let known = self.known.get_mut(&id);
            known.map(|known| known.to_client += more).is_some()
        };
        let outcome = self.feed(&frame(WINDOW_UPDATE, 0, id, &increment.to_be_bytes()));
        assert_eq!(outcome.is_ok(), may, "{outcome:?}");
        outcome
    }

    fn sets_window(&mut self, window: u32) -> Result<(), ConnectionError> {
        let change = i64::from(window) - self.initial_window;
        self.initial_window = i64::from(window);
        self.known
            .values_mut()
            .for_each(|it| it.to_client += change);
        let value = window.to_be_bytes();
        self.feed(&frame(SETTINGS, 0, 0, &[&[0, 4], &value[..]].concat()))
    }

    fn acknowledges(&mut self) -> Result<(), ConnectionError> {
        if !self.acked {
            self.acked = true;
            let change = self.stream_window - DEFAULT_WINDOW;
            self.known
                .values_mut()
                .for_each(|it| it.to_server += change);
        }
        self.feed(&frame(SETTINGS, ACK, 0, &[]))
    }

    fn resets(&mut self, id: u32) -> Result<(), ConnectionError> {
        let Some(known) = self.known.get_mut(&id) else {
            return Ok(());
        };
        known.sends = false;
        known.done = true;
        self.feed(&frame(RST_STREAM, 0, id, &8u32.to_be_bytes()))
    }

    // --- what the server says ---

    fn take_events(&mut self) {
        for event in self.events.iter() {
            match event {
                Event::Request { stream, .. } => self.live.push(*stream),
                Event::Reset { stream, .. } => self.live.retain(|it| it != stream),
                _ => {}
            }
        }
        self.events.clear();
    }

    /// Judges the frames that came out since the last time.
    fn read_output(&mut self) {
        let output = self.server.output();
        let new = output[self.seen - self.written..].to_vec();
        self.seen += new.len();
        for (kind, flags, id, payload) in frames(&new) {
            self.judge(kind, flags, id, payload);
        }
    }

    fn judge(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        if id == 0 {
            match kind {
                WINDOW_UPDATE => self.to_server += increment(payload),
                SETTINGS | PING | GOAWAY => {}
                _ => panic!("a frame of kind {kind} on the connection"),
            }
            return;
        }
        let known = self
            .known
            .get_mut(&id)
            .expect("a stream that the client opened");
        match kind {
            HEADERS => {
                assert!(!known.done && (!known.answered || flags & END_STREAM != 0));
                known.answered = true;
            }
            DATA => {
                assert!(known.answered && !known.done);
                let len = payload.len() as i64;
                known.to_client -= len;
                self.to_client -= len;
                assert!(
                    len == 0 || known.to_client >= 0,
                    "the stream's window is overrun"
                );
                assert!(
                    len == 0 || self.to_client >= 0,
                    "the connection's window is overrun"
                );
            }
            WINDOW_UPDATE => {
                assert!(known.sends, "a window for a client that sends no more");
                known.to_server += increment(payload);
                assert!(known.to_server <= WINDOW_MAX);
            }
            RST_STREAM => {
                known.sends = false;
                known.done = true;
            }
            _ => panic!("a frame of kind {kind} on a stream"),
        }
        known.done |= flags & END_STREAM != 0 && matches!(kind, HEADERS | DATA);
    }

    // --- the server's owner ---

    fn answers(&mut self, stream: StreamRef, ends: bool) {
        let name = if self.is_answered(stream) {
            Field::new(b"grpc-status", b"0")
        } else {
            Field::new(b":status", b"200")
        };
        // Refusals are part of the game: the stream may be in another state.
        let _refused = self.server.send_headers(stream, [name], ends);
        self.read_output();
    }

    fn is_answered(&self, stream: StreamRef) -> bool {
        self.known.get(&stream.id()).is_some_and(|it| it.answered)
    }

    fn writes(&mut self, len: usize) {
        let len = len.min(self.server.output().len());
        self.written += len;
        self.server.advance_output(len, &mut self.events);
        self.take_events();
        self.read_output();
    }

    fn step(&mut self, input: &mut Input<'_>) -> Result<(), ConnectionError> {
        let (what, nth, amount) = (input.byte(), input.byte(), input.word());
        let id = u32::from(nth % 16) * 2 + 1;
        let ends = what & 0x80 != 0;
        match what & 15 {
            0 | 1 => self.opens(ends)?,
            2 => self.sends(id, usize::from(amount % 16_385), ends)?,
            3 => self.opens_window(id * u32::from(nth & 0x80 != 0), u32::from(amount))?,
            4 => self.sets_window(u32::from(amount))?,
            5 => self.acknowledges()?,
            6 => self.resets(id)?,
            7 => self.feed(&frame(PING, 0, 0, &[nth; 8]))?,
            8 => self.writes(usize::from(amount)),
            9 => self.server.tick(),
            _ => self.own(what, nth, amount, ends),
        }
        Ok(())
    }

    fn own(&mut self, what: u8, nth: u8, amount: u16, ends: bool) {
        let Some(stream) = self.nth(nth) else { return };
        match what & 15 {
            10 => self.answers(stream, ends),
            11 | 12 => {
                let body = vec![5; usize::from(amount % 8_192)];
                let _refused = self.server.send_data(stream, &body, ends);
            }
            13 => drop(self.server.release(stream, u32::from(amount))),
            14 => drop(self.server.widen(stream, u32::from(amount))),
            _ => self.server.reset(stream, ErrorCode::Cancel),
        }
        self.read_output();
    }

    /// Both sides finish what they began.
    fn finish(&mut self) -> Result<(), ConnectionError> {
        self.acknowledges()?;
        let ids: Vec<u32> = self.known.keys().copied().collect();
        for id in &ids {
            let room = (WINDOW_MAX - self.known[id].to_client).min(WINDOW_MAX);
            if !self.known[id].done && room > 0 {
                self.opens_window(*id, room as u32)?;
            }
        }
        let room = WINDOW_MAX - self.to_client;
        if room > 0 {
            self.opens_window(0, room as u32)?;
        }
        for stream in self.live.clone() {
            self.answers(stream, false);
            let _ended_before = self.server.send_data(stream, &[], true);
            self.read_output();
        }
        for id in &ids {
            self.sends(*id, 0, true)?;
        }
        while self.server.wants_write() {
            self.writes(usize::MAX);
        }
        assert_eq!(self.server.stream_count(), 0, "a stream is left");
        assert_eq!(self.server.queued_in_all(), 0, "bytes are left");
        assert_eq!(self.server.buffered(), 0, "bytes are left");
        for (id, known) in &self.known {
            assert!(known.done, "stream {id} has no end");
        }
        Ok(())
    }
}

fn increment(payload: &[u8]) -> i64 {
    let bytes = payload.try_into().expect("four bytes");
    i64::from(u32::from_be_bytes(bytes))
}

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let window = u32::from(input.word()) * 2;
    let mut game = Game::new(window, usize::from(input.word()) + 1);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            let _over = game.finish();
            return;
        }
        if game.step(&mut input).is_err() {
            return;
        }
    }
});
