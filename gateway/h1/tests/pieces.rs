//! Properties: where reads cut the bytes changes nothing, what one end sends the other gets, noise does no harm.

#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use support::{Peer, fields};

const REQUESTS: [&[u8]; 4] = [
    b"GET /a?b HTTP/1.1\r\nHost: example.com\r\nX-One: 1\r\n\r\n",
    b"\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
];

/// The events of a request that comes in the given pieces, and of a second one behind it.
fn events(pieces: &[&[u8]]) -> Result<Vec<String>, &'static str> {
    let mut peer = Peer::server();
    for piece in pieces {
        peer.give(piece)?;
    }
    let stream = peer.stream.unwrap();
    let done = peer
        .connection
        .send_headers(stream, fields(&[(":status", "204")]), true);
    done.unwrap();
    peer.give(REQUESTS[0])?;
    Ok(peer.events)
}

#[test]
fn every_cut_gives_the_same_events() {
    for request in REQUESTS {
        let whole = events(&[request]).unwrap();
        for at in 1..request.len() {
            let (first, second) = request.split_at(at);
            assert_eq!(events(&[first, second]).as_ref(), Ok(&whole), "cut at {at}");
        }
        let single: Vec<&[u8]> = request.chunks(1).collect();
        assert_eq!(events(&single).as_ref(), Ok(&whole));
    }
}

fn token() -> impl Strategy<Value = String> {
    "x-[a-z0-9]{1,12}"
}

fn value() -> impl Strategy<Value = String> {
    "[!-~]([ -~]{0,20}[!-~])?"
}

proptest! {
    /// A request with a body and its response pass from one end to the other.
    #[test]
    fn round_trip(
        names in proptest::collection::vec((token(), value()), 0..8),
        body in proptest::collection::vec(proptest::collection::vec(b'a'..=b'z', 1..200), 0..6),
        with_length in any::<bool>(),
        cut in 1_usize..50,
    ) {
        let total: usize = body.iter().map(Vec::len).sum();
        let length = total.to_string();
        let mut head = vec![(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/p")];
        head.extend(names.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        if with_length {
            head.push(("content-length", &length));
        }
        let (mut client, mut server) = (Peer::client(), Peer::server());
        let stream = client.connection.open(1).unwrap();
        client.connection.send_headers(stream, fields(&head), false).unwrap();
        for part in &body {
            client.connection.send_data(stream, part, false).unwrap();
        }
        client.connection.send_data(stream, b"", true).unwrap();
        let wire = client.output();
        for piece in wire.as_bytes().chunks(cut) {
            server.give(piece).unwrap();
        }
        let text = body.concat();
        let list: Vec<String> = head.iter().filter(|it| it.0 != "content-length").map(|(n, v)| format!("{n}={v}")).collect();
        let got: Vec<&str> = server.events[0].strip_prefix("request ").unwrap().trim_end_matches(" end").split('|').filter(|it| !it.starts_with("content-length")).collect();
        prop_assert_eq!(got.join("|"), list.join("|"));
        let data: String = server.events[1..].iter().map(|it| it.trim_start_matches("data ").trim_end_matches("end").trim_end()).collect();
        prop_assert_eq!(data.as_bytes(), &text[..]);

        let answer = server.stream.unwrap();
        server.connection.send_headers(answer, fields(&[(":status", "200"), ("x-a", "1")]), false).unwrap();
        for part in &body {
            server.connection.send_data(answer, part, false).unwrap();
        }
        server.connection.send_data(answer, b"", true).unwrap();
        let wire = server.output();
        for piece in wire.as_bytes().chunks(cut) {
            client.give(piece).unwrap();
        }
        prop_assert!(client.connection.can_open(), "the connection can be used again");
        prop_assert!(client.events.last().unwrap().ends_with("end"));
    }

    /// Nothing that a client sends makes the server panic, use bytes that it was not given, or go on after a failure.
    #[test]
    fn noise_does_no_harm(
        which in 0_usize..4,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in 1_usize..40,
    ) {
        let mut bytes = REQUESTS[which].to_vec();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let outcome = |cut: usize| {
            let mut peer = Peer::server();
            let failed = bytes.chunks(cut).find_map(|piece| peer.give(piece).err());
            (peer.events, failed)
        };
        prop_assert_eq!(outcome(cut), outcome(bytes.len()));
    }
}
