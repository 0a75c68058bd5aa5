//! A list of operations on two connections that are wired to each other: whatever the callers do, in
//! whatever order, neither side may find a fault in the other.

#![no_main]

use gateway_h2::{Config, Connection, ErrorCode, Event, Events, Field, StreamRef};
use libfuzzer_sys::fuzz_target;

struct End {
    connection: Connection,
    events: Events,
    inbox: Vec<u8>,
    streams: Vec<StreamRef>,
    /// Ids of streams whose response headers were sent.
    answered: Vec<u32>,
}

impl End {
    fn new(config: Config) -> Self {
        let connection = Connection::new(config);
        Self {
            connection,
            events: Events::new(),
            inbox: Vec::new(),
            streams: Vec::new(),
            answered: Vec::new(),
        }
    }

    fn stream(&self, nth: u8) -> Option<StreamRef> {
        self.streams.iter().rev().nth(usize::from(nth % 8)).copied()
    }
}

fn carry(from: &mut End, to: &mut End, len: usize) {
    let len = len.min(from.connection.output().len());
    to.inbox.extend_from_slice(&from.connection.output()[..len]);
    from.connection.advance_output(len, &mut from.events);
    from.events.clear();
    let used = to
        .connection
        .receive(&to.inbox, &mut to.events)
        .expect("a peer without faults");
    to.inbox.drain(..used);
    for event in to.events.iter() {
        match event {
            Event::Request { stream, .. } => to.streams.push(*stream),
            Event::Reset { local, .. } => assert!(!local, "a fault on a stream"),
            _ => {}
        }
    }
    to.events.clear();
}

/// Response headers, or trailers once those were sent.
fn respond(server: &mut End, nth: u8, is_last: bool) {
    let Some(stream) = server.stream(nth) else {
        return;
    };
    let is_trailers = server.answered.contains(&stream.id());
    let field = if is_trailers {
        Field::new(b"grpc-status", b"0")
    } else {
        Field::new(b":status", b"200")
    };
    if server
        .connection
        .send_headers(stream, [field], is_trailers || is_last)
        .is_ok()
    {
        server.answered.push(stream.id());
    }
}

/// One operation; what is refused (a stream that is gone, a wrong state) is part of the game.
fn operate(client: &mut End, server: &mut End, operation: [u8; 3]) {
    let [what, nth, amount] = operation;
    let len = usize::from(amount) * 40;
    let end = if what & 0x80 == 0 {
        &mut *client
    } else {
        &mut *server
    };
    let is_last = what & 0x40 != 0;
    match what & 7 {
        0 => {
            if let Ok(stream) = client.connection.open(u64::from(nth)) {
                let fields = [
                    Field::new(b":method", b"POST"),
                    Field::new(b":scheme", b"http"),
                    Field::new(b":path", b"/"),
                ];
                client
                    .connection
                    .send_headers(stream, fields, is_last)
                    .expect("fresh");
                client.streams.push(stream);
            }
        }
        1 => carry(client, server, len),
        2 => carry(server, client, len),
        other => {
            let Some(stream) = end.stream(nth) else {
                return;
            };
            match other {
                3 => respond(server, nth, is_last),
                4 => drop(
                    end.connection
                        .send_data(stream, &vec![amount; len], is_last),
                ),
                5 => drop(end.connection.release(stream, len as u32)),
                6 => end.connection.reset(stream, ErrorCode::Cancel),
                _ => end.connection.ping([amount; 8]),
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&[windows, water], operations)) = input.split_first_chunk::<2>() else {
        return;
    };
    let config = |base: Config| Config {
        initial_stream_window: u32::from(windows) * 50 + 50,
        output_high_water: usize::from(water) * 100 + 1,
        max_concurrent_streams: 4,
        ..base
    };
    let mut client = End::new(config(Config::client()));
    let mut server = End::new(config(Config::server()));
    for operation in operations.as_chunks::<3>().0.iter().take(500) {
        operate(&mut client, &mut server, *operation);
    }
});
