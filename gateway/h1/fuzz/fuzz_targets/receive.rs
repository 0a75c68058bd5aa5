//! Bytes of a peer, whole and cut in pieces, to a server and a client: no panic, no more bytes used than were given, and
//! the same data and the same failure however the bytes are cut.

#![no_main]

use gateway_h1::{Config, Connection};
use gateway_h2::{Event, Events, Field};
use libfuzzer_sys::fuzz_target;

/// What one end got: heads, body bytes, and whether it failed.
#[derive(PartialEq, Eq, Debug, Default)]
struct Got {
    heads: usize,
    body: Vec<u8>,
    ends: usize,
    failure: Option<&'static str>,
}

/// Gives `input` in pieces of `piece` bytes, keeping what is not used; each request is answered at once.
fn feed(mut connection: Connection, input: &[u8], piece: usize) -> Got {
    let mut got = Got::default();
    let mut events = Events::new();
    let mut kept = Vec::new();
    for part in input.chunks(piece) {
        kept.extend_from_slice(part);
        loop {
            events.clear();
            let outcome = connection.receive(&kept, &mut events);
            let mut asked = None;
            for event in &events {
                match event {
                    Event::Request {
                        stream, end_stream, ..
                    } => {
                        asked = Some(*stream);
                        got.heads += 1;
                        got.ends += usize::from(*end_stream);
                    }
                    Event::Response { .. } => got.heads += 1,
                    Event::Data {
                        stream,
                        range,
                        flow_len,
                        end_stream,
                        ..
                    } => {
                        got.body.extend_from_slice(&kept[range.clone()]);
                        got.ends += usize::from(*end_stream);
                        connection.release(*stream, *flow_len);
                    }
                    _ => {}
                }
            }
            match outcome {
                Ok(used) => drop(kept.drain(..used)),
                Err(error) => {
                    got.failure = Some(error.reason);
                    return got;
                }
            }
            let Some(stream) = asked else { break };
            let status = Field::new(b":status", b"204");
            let _gone = connection.send_headers(stream, [status], true);
            let waiting = connection.output().len();
            connection.advance_output(waiting, &mut events);
        }
    }
    got
}

fn client() -> Connection {
    let mut connection = Connection::new(Config::client());
    let stream = connection.open(1).expect("a new connection has room");
    let head = [
        Field::new(b":method", b"GET"),
        Field::new(b":authority", b"a"),
        Field::new(b":path", b"/"),
    ];
    connection
        .send_headers(stream, head, true)
        .expect("it is a request");
    let waiting = connection.output().len();
    connection.advance_output(waiting, &mut Events::new());
    connection
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, input)) = input.split_first() else {
        return;
    };
    let piece = usize::from(first) + 1;
    let whole = feed(Connection::new(Config::server()), input, usize::MAX);
    let cut = feed(Connection::new(Config::server()), input, piece);
    assert_eq!(whole, cut);
    let whole = feed(client(), input, usize::MAX);
    let cut = feed(client(), input, piece);
    assert_eq!(whole, cut);
});
