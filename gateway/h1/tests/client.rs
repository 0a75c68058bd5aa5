//! A client's side: requests out, responses in, reuse, and what the end of the connection means.

#![allow(clippy::unwrap_used)]

mod support;

use gateway_h2::{OpenError, SendError, StreamRef};
use support::{Peer, fields};

fn ask(peer: &mut Peer, method: &str, more: &[(&str, &str)], end: bool) -> StreamRef {
    let stream = peer.connection.open(7).unwrap();
    let head = [
        (":method", method),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/x"),
    ];
    let list = [&head[..], more].concat();
    peer.connection
        .send_headers(stream, fields(&list), end)
        .unwrap();
    stream
}

#[test]
fn requests_on_the_wire() {
    let mut peer = Peer::client();
    let more = [
        ("cookie", "a=1"),
        ("te", "trailers"),
        ("cookie", "b=2"),
        ("x-one", "1"),
    ];
    ask(&mut peer, "GET", &more, true);
    assert_eq!(
        peer.output(),
        "GET /x HTTP/1.1\r\nhost: a\r\nx-one: 1\r\ncookie: a=1; b=2\r\nconnection: TE\r\nte: trailers\r\n\r\n"
    );
    assert_eq!(peer.connection.open(8), Err(OpenError::AtLimit));
    peer.give(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .unwrap();
    assert_eq!(
        peer.events,
        ["response :status=200|content-length=2", "data ok end"]
    );
    let stream = ask(&mut peer, "POST", &[], false);
    peer.connection.send_data(stream, b"hello", false).unwrap();
    peer.connection.send_data(stream, b"", true).unwrap();
    assert_eq!(
        peer.output(),
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    );
}

#[test]
fn a_request_keeps_to_its_length() {
    let mut peer = Peer::client();
    let stream = ask(&mut peer, "PUT", &[("content-length", "5")], false);
    let connection = &mut peer.connection;
    assert_eq!(
        connection.send_data(stream, b"toolong", true),
        Err(SendError::WrongState)
    );
    connection.send_data(stream, b"right", true).unwrap();
    assert_eq!(
        peer.output(),
        "PUT /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nright"
    );
}

#[test]
fn responses_without_bodies() {
    for (method, response) in [
        ("HEAD", &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"[..]),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "GET",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        ),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let mut peer = Peer::client();
        ask(&mut peer, method, &[], true);
        let _written = peer.output();
        peer.give(response).unwrap();
        assert!(peer.events[0].ends_with(" end"), "{:?}", peer.events);
        assert!(peer.connection.can_open());
    }
}

#[test]
fn a_response_without_a_length_ends_with_the_connection() {
    let mut peer = Peer::client();
    ask(&mut peer, "GET", &[], true);
    let _written = peer.output();
    peer.give(b"HTTP/1.1 200 OK\r\n\r\nsome").unwrap();
    peer.end();
    assert_eq!(peer.events, ["response :status=200", "data some end"]);
    assert!(!peer.connection.can_open());

    let mut torn = Peer::client();
    ask(&mut torn, "GET", &[], true);
    let _written = torn.output();
    torn.give(b"HTTP/1.1 200 OK\r\n\r\nsome").unwrap();
    torn.end_by(true);
    assert_eq!(
        torn.events,
        ["response :status=200", "data some"],
        "not whole"
    );
}

#[test]
fn interim_responses_come_before_the_response() {
    let mut peer = Peer::client();
    ask(&mut peer, "GET", &[], true);
    peer.give(
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    )
    .unwrap();
    assert_eq!(
        peer.events,
        [
            "interim :status=103|link=x",
            "response :status=200|content-length=0 end"
        ]
    );
}

#[test]
fn who_wants_to_close_is_not_asked_again() {
    for response in [
        &b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"[..],
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        let mut peer = Peer::client();
        ask(&mut peer, "GET", &[], true);
        let _written = peer.output();
        peer.give(response).unwrap();
        assert!(peer.connection.is_over());
    }
}

#[test]
fn what_may_be_asked_again_after_a_close() {
    let cases = [
        // Reused, and idempotent.
        (true, "GET", &b""[..], "reset REFUSED_STREAM"),
        (true, "PUT", b"", "reset REFUSED_STREAM"),
        // It may have been done.
        (true, "POST", b"", ""),
        // The answer has begun.
        (true, "GET", b"HTTP/1.1 2", ""),
        // A server that takes a connection and does nothing with it is no stale one.
        (false, "GET", b"", ""),
    ];
    for (reused, method, answer, expected) in cases {
        let mut peer = Peer::client();
        if reused {
            ask(&mut peer, "GET", &[], true);
            let _written = peer.output();
            peer.give(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        }
        ask(&mut peer, method, &[], true);
        let _written = peer.output();
        peer.give(answer).unwrap();
        let before = peer.events.len();
        peer.end();
        assert_eq!(peer.events[before..].concat(), expected, "{method}");
        assert!(peer.connection.is_over());
    }
    let mut unsent = Peer::client();
    ask(&mut unsent, "POST", &[], true);
    unsent.end();
    assert_eq!(unsent.events, ["reset REFUSED_STREAM"]);
}

#[test]
fn a_websocket_is_asked_for() {
    let mut peer = Peer::client();
    let stream = ask(&mut peer, "GET", &[("upgrade", "websocket")], false);
    assert_eq!(
        peer.output(),
        "GET /x HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
    );
    peer.give(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x01").unwrap();
    assert_eq!(
        peer.events,
        ["response :status=101|upgrade=websocket", "data \x01"]
    );
    peer.connection.send_data(stream, b"out", false).unwrap();
    assert_eq!(peer.output(), "out");
    peer.end();
    assert_eq!(peer.events[1], "data \x01 end");

    let mut refused = Peer::client();
    ask(&mut refused, "GET", &[("upgrade", "websocket")], false);
    let _written = refused.output();
    refused
        .give(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    assert!(refused.connection.can_open(), "the connection serves on");
}

#[test]
fn an_early_answer_ends_the_connection() {
    let mut peer = Peer::client();
    let stream = ask(&mut peer, "PUT", &[("content-length", "5")], false);
    let _written = peer.output();
    peer.give(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    assert!(!peer.connection.can_open());
    peer.connection.reset(stream);
    assert!(peer.connection.is_over());
}
