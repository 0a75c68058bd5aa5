//! Bytes of a peer, whole and cut in pieces, to a server and a client: no panic, and no more bytes
//! used than were given.

#![no_main]

use gateway_h2::{Config, Connection, Events, PREFACE};
use libfuzzer_sys::fuzz_target;

const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Gives `input` in pieces of `piece` bytes, keeping what is not used.
fn feed(config: Config, input: &[u8], piece: usize) {
    let mut connection = Connection::new(config);
    let mut events = Events::new();
    let mut kept = Vec::new();
    for part in input.chunks(piece) {
        kept.extend_from_slice(part);
        match connection.receive(&kept, &mut events) {
            Ok(used) => drop(kept.drain(..used)),
            Err(_) => break,
        }
        let waiting = connection.output().len();
        connection.advance_output(waiting, &mut events);
        events.clear();
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, input)) = input.split_first() else {
        return;
    };
    let piece = usize::from(first) + 1;
    let from_server = [&SETTINGS, input].concat();
    let from_client = [&PREFACE[..], &from_server].concat();
    for piece in [piece, usize::MAX] {
        feed(Config::server(), &from_client, piece);
        feed(Config::client(), &from_server, piece);
    }
});
