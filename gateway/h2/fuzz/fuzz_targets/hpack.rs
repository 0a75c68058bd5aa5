//! Compressed header blocks, one after the other on one connection: whole or cut into CONTINUATION frames
//! they mean the same, no list is larger than allowed, and what is read survives being sent on.

#![no_main]

use gateway_h2::{Config, Connection, ConnectionError, Events};
use gateway_h2_fuzz::{
    CONTINUATION, END_HEADERS, END_STREAM, Fields, HEADERS, Input, forwarded, frame, requests,
    server, unlimited,
};
use libfuzzer_sys::fuzz_target;

const LIST_MAX: u32 = 4096;

/// The smallest request in the static table, so that the fuzzer's fields have one to follow.
const REQUEST: [u8; 3] = [0x83, 0x86, 0x84];

fn connection(table_size: u8) -> Connection {
    server(unlimited(Config {
        header_table_size: u32::from(table_size) * 32,
        max_header_list_size: LIST_MAX,
        ..Config::server()
    }))
}

/// Frames for a block, cut after every `piece` bytes.
fn block(id: u32, content: &[u8], piece: usize) -> Vec<u8> {
    let mut pieces: Vec<_> = content.chunks(piece.max(1)).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    let last = pieces.len() - 1;
    let frames = pieces.into_iter().enumerate().map(|(at, part)| {
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        let ends_stream = if at == 0 { END_STREAM } else { 0 };
        let ends = if at == last { END_HEADERS } else { 0 };
        frame(kind, ends_stream | ends, id, part)
    });
    frames.collect::<Vec<_>>().concat()
}

fn read(connection: &mut Connection, bytes: &[u8]) -> Result<Vec<Fields>, ConnectionError> {
    let mut events = Events::new();
    let used = connection.receive(bytes, &mut events)?;
    assert_eq!(used, bytes.len(), "whole frames are used up");
    let found = requests(&events);
    let waiting = connection.output().len();
    connection.advance_output(waiting, &mut events);
    Ok(found)
}

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let table_size = input.byte();
    let mut whole = connection(table_size);
    let mut cut = connection(table_size);
    let mut id = 1;
    while !input.is_empty() {
        let (len, piece) = (usize::from(input.byte()), usize::from(input.byte() % 64));
        let content = [&REQUEST[..], input.bytes(len)].concat();
        let in_one = read(&mut whole, &block(id, &content, usize::MAX));
        let in_many = read(&mut cut, &block(id, &content, piece));
        assert_eq!(in_one, in_many, "cutting a block changes its meaning");
        let Ok(lists) = in_one else {
            return;
        };
        for list in lists {
            let size: usize = list.iter().map(|it| it.0.len() + it.1.len() + 32).sum();
            assert!(size <= LIST_MAX as usize, "a list of {size} bytes");
            assert_eq!(forwarded(&list), Some(list));
        }
        id += 2;
    }
});
