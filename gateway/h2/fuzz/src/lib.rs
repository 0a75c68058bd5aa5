//! What the targets share: frames by hand, readers of the fuzzer's bytes, header lists as they came.

use gateway_h2::{AbuseLimits, Config, Connection, Event, Events, Field, HeaderBlock, PREFACE};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Name and value, as a peer sends or sees them.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// One frame as bytes.
pub fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![len[1], len[2], len[3], kind, flags];
    bytes.extend(id.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The whole frames at the front of `bytes`: kind, flags, stream, payload. Panics when they end amid one.
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, &[u8])> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let [l0, l1, l2, kind, flags, i0, i1, i2, i3] = *head;
        let len = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let id = u32::from_be_bytes([i0, i1, i2, i3]);
        let (payload, rest) = rest.split_at(len);
        found.push((kind, flags, id, payload));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a frame in the output");
    found
}

/// A header list without compression.
pub fn plain_block(fields: &Fields) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            integer(text.len(), &mut bytes);
            bytes.extend(text);
        }
    }
    bytes
}

/// A string's length, prefix of 7 bits (RFC 7541 section 5.1).
fn integer(value: usize, out: &mut Vec<u8>) {
    if value < 127 {
        return out.push(value as u8);
    }
    out.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        out.push((rest & 127) as u8 | 128);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Without budgets, so that long inputs are not cut short.
pub fn unlimited(base: Config) -> Config {
    let limits = AbuseLimits {
        resets: u32::MAX,
        continuations: u32::MAX,
        pings: u32::MAX,
        settings: u32::MAX,
        empty_data: u32::MAX,
        window_updates: u32::MAX,
        ignored: u32::MAX,
        unread_answers: usize::MAX,
    };
    Config { limits, ..base }
}

/// A server that has had the client's preface and SETTINGS.
pub fn server(config: Config) -> Connection {
    let mut connection = Connection::new(config);
    let hello = [&PREFACE[..], &frame(SETTINGS, 0, 0, &[])].concat();
    let used = connection.receive(&hello, &mut Events::new());
    assert_eq!(used, Ok(hello.len()));
    connection
}

/// The fields of a block.
pub fn fields(events: &Events, block: HeaderBlock) -> Fields {
    events
        .fields(block)
        .map(|field| (field.name.to_vec(), field.value.to_vec()))
        .collect()
}

/// The requests that a read brought.
pub fn requests(events: &Events) -> Vec<Fields> {
    let lists = events.iter().filter_map(|event| match event {
        Event::Request { headers, .. } => Some(fields(events, *headers)),
        _ => None,
    });
    lists.collect()
}

/// Sends a request on, as a gateway does, and says what the next server reads: none when it refuses it.
pub fn forwarded(list: &Fields) -> Option<Fields> {
    let mut client = Connection::new(Config::client());
    let mut events = Events::new();
    let hello = frame(SETTINGS, 0, 0, &[]);
    client.receive(&hello, &mut events).expect("SETTINGS");
    let stream = client.open(0).expect("room");
    let sent = list.iter().map(|(name, value)| Field::new(name, value));
    client.send_headers(stream, sent, true).expect("fresh");
    let mut next = Connection::new(Config::server());
    events.clear();
    next.receive(client.output(), &mut events)
        .expect("a connection that stands");
    requests(&events).pop()
}

/// Takes what an operation needs off the front of the fuzzer's bytes.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// 0 when nothing is left.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// At most `len` bytes.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
