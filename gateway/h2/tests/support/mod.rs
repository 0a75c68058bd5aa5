//! What the tests share: frames by hand, and readable events.

#![allow(dead_code, reason = "each test file uses its part")]

use gateway_h2::{
    Config, Connection, ConnectionError, ErrorCode, Event, Events, Field, HeaderBlock, PREFACE,
    StreamRef,
};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

/// One frame as bytes.
pub fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut bytes = vec![len[1], len[2], len[3], kind, flags];
    bytes.extend(id.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block without compression.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            if text.len() < 127 {
                bytes.push(text.len() as u8);
            } else {
                let rest = text.len() - 127;
                bytes.extend([127, (rest & 127) as u8 | 128, (rest >> 7 & 127) as u8 | 128]);
                bytes.push((rest >> 14) as u8);
            }
            bytes.extend(text.bytes());
        }
    }
    bytes
}

pub const REQUEST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/a.B/C"),
    (":authority", "a"),
];

/// A HEADERS frame with a whole block.
pub fn headers(id: u32, fields: &[(&str, &str)], end_stream: bool) -> Vec<u8> {
    frame(
        HEADERS,
        END_HEADERS | u8::from(end_stream),
        id,
        &block(fields),
    )
}

pub fn request(id: u32, end_stream: bool) -> Vec<u8> {
    headers(id, &REQUEST, end_stream)
}

pub fn trailers(id: u32) -> Vec<u8> {
    headers(id, &[("x-sum", "1")], true)
}

pub fn data(id: u32, payload: &[u8], end_stream: bool) -> Vec<u8> {
    frame(DATA, u8::from(end_stream), id, payload)
}

pub fn rst(id: u32, code: ErrorCode) -> Vec<u8> {
    frame(RST_STREAM, 0, id, &code.to_u32().to_be_bytes())
}

pub fn window_update(id: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, id, &increment.to_be_bytes())
}

pub fn setting(id: u8, value: u32) -> Vec<u8> {
    let mut bytes = vec![0, id];
    bytes.extend(value.to_be_bytes());
    bytes
}

/// A frame taken from an output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub id: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The number that `RST_STREAM` or `WINDOW_UPDATE` carries.
    pub fn number(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().expect("four bytes"))
    }
}

/// One connection, and a hand-made peer.
pub struct Probe {
    pub connection: Connection,
    pub events: Events,
}

impl Probe {
    /// A server whose peer has greeted; what it said so far is thrown away.
    pub fn server() -> Self {
        Self::server_with(Config::server())
    }

    pub fn server_with(config: Config) -> Self {
        let mut probe = Self {
            connection: Connection::new(config),
            events: Events::new(),
        };
        let mut hello = PREFACE.to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &[]));
        hello.extend(frame(SETTINGS, ACK, 0, &[]));
        probe.feed(&hello).expect("a good beginning");
        probe.output();
        probe.events.clear();
        probe
    }

    /// A client whose peer has greeted.
    pub fn client() -> Self {
        Self::client_with(Config::client(), &[])
    }

    pub fn client_with(config: Config, settings: &[u8]) -> Self {
        let mut probe = Self {
            connection: Connection::new(config),
            events: Events::new(),
        };
        let mut hello = frame(SETTINGS, 0, 0, settings);
        hello.extend(frame(SETTINGS, ACK, 0, &[]));
        probe.feed(&hello).expect("a good beginning");
        assert_eq!(probe.take(), [Event::StreamsAvailable]);
        probe.output();
        probe
    }

    /// Opens a stream with a request (client).
    pub fn open(&mut self, token: u64, end_stream: bool) -> StreamRef {
        let stream = self.connection.open(token).expect("room");
        let fields = REQUEST
            .iter()
            .map(|(n, v)| Field::new(n.as_bytes(), v.as_bytes()));
        self.connection
            .send_headers(stream, fields, end_stream)
            .expect("fresh");
        stream
    }

    /// Sends fields on a stream.
    pub fn send(&mut self, stream: StreamRef, fields: &[(&str, &str)], end_stream: bool) {
        let fields = fields
            .iter()
            .map(|(n, v)| Field::new(n.as_bytes(), v.as_bytes()));
        self.connection
            .send_headers(stream, fields, end_stream)
            .expect("allowed");
    }

    /// Gives whole frames.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        let used = self.connection.receive(bytes, &mut self.events)?;
        assert_eq!(used, bytes.len(), "whole frames are used up");
        Ok(())
    }

    pub fn feed_all(&mut self, frames: &[Vec<u8>]) -> Result<(), ConnectionError> {
        self.feed(&frames.concat())
    }

    /// The events since the last call.
    pub fn take(&mut self) -> Vec<Event> {
        let events = self.events.iter().cloned().collect();
        self.events.clear();
        events
    }

    /// The stream of the only event, a request.
    pub fn request(&mut self, id: u32, end_stream: bool) -> StreamRef {
        self.feed(&request(id, end_stream)).expect("allowed");
        match self.take()[..] {
            [Event::Request { stream, .. }] => stream,
            ref other => panic!("no request: {other:?}"),
        }
    }

    pub fn text(&self, block: HeaderBlock) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.events
            .fields(block)
            .map(|field| (text(field.name), text(field.value)))
            .collect()
    }

    /// The frames in the output, which is written.
    pub fn output(&mut self) -> Vec<Frame> {
        let frames = parse(self.connection.output());
        let len = self.connection.output().len();
        self.connection.advance_output(len, &mut self.events);
        frames
    }

    /// The code of the only frame in the output, `RST_STREAM`.
    pub fn reset_code(&mut self) -> (u32, ErrorCode) {
        match &self.output()[..] {
            [frame] if frame.kind == RST_STREAM => (frame.id, ErrorCode::from_u32(frame.number())),
            other => panic!("no single RST_STREAM: {other:?}"),
        }
    }

    /// Feeds frames that end the connection; returns the code, which the GOAWAY has too.
    pub fn failure(&mut self, frames: &[Vec<u8>]) -> ErrorCode {
        let error = self.feed_all(frames).expect_err("a broken rule");
        let last = self.output().pop().expect("a GOAWAY");
        assert_eq!(last.kind, GOAWAY);
        let code = u32::from_be_bytes(last.payload[4..8].try_into().expect("four bytes"));
        assert_eq!(ErrorCode::from_u32(code), error.code);
        assert_eq!(self.feed(&[]).expect_err("stays"), error);
        error.code
    }
}

/// Cuts an output into frames.
pub fn parse(mut bytes: &[u8]) -> Vec<Frame> {
    bytes = bytes.strip_prefix(&PREFACE[..]).unwrap_or(bytes);
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let (payload, rest) = rest.split_at(len);
        frames.push(Frame {
            kind: head[3],
            flags: head[4],
            id,
            payload: payload.to_vec(),
        });
        bytes = rest;
    }
    assert!(bytes.is_empty(), "output ends between frames");
    frames
}
