//! Requests that two readers could understand in two ways, and other broken ones: each is refused, with a status, and
//! nothing of it reaches the caller.

#![allow(clippy::unwrap_used)]

mod support;

use support::{Peer, fields};

fn refusal(request: &[u8]) -> (u16, Vec<String>) {
    let mut peer = Peer::server();
    let error = peer
        .give(request)
        .expect_err(&request.escape_ascii().to_string());
    let text = peer.output();
    assert!(text.contains("connection: close\r\n"), "{text}");
    assert!(text.ends_with(&format!("\r\n\r\n{error}\n")), "{text}");
    assert!(peer.connection.is_over());
    assert!(
        peer.give(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_err(),
        "it is over"
    );
    (text[9..12].parse().unwrap(), peer.events)
}

#[test]
fn heads_that_are_refused() {
    let cases: [(&[u8], u16); 37] = [
        // Lengths.
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        // Fields.
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\n Content-Length: 5\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\nContent-Length: 5\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\rContent-Length: 5\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX y: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n", 417),
        // Whom it is for.
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
        (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ];
    for (request, status) in cases {
        let (said, events) = refusal(request);
        assert_eq!(said, status, "{}", request.escape_ascii());
        assert!(events.is_empty(), "{}", request.escape_ascii());
    }
}

#[test]
fn what_is_too_large_is_refused_before_it_is_whole() {
    let long_target = [
        b"GET /",
        &vec![b'a'; 9_000][..],
        b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    .concat();
    assert_eq!(refusal(&long_target).0, 414);
    let endless = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ", &vec![b'a'; 40_000][..]].concat();
    assert_eq!(refusal(&endless).0, 431);
    let many = [
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        &b"X: 1\r\n".repeat(200)[..],
        b"\r\n",
    ]
    .concat();
    assert_eq!(refusal(&many).0, 431);
    let naming = [
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: ",
        &b"a,".repeat(10_000)[..],
        b"\r\n\r\n",
    ]
    .concat();
    assert_eq!(refusal(&naming).0, 431);
    let trailers = [
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        &vec![b'a'; 40_000][..],
    ]
    .concat();
    assert_eq!(refusal(&trailers).0, 431);
}

#[test]
fn a_target_in_absolute_form_must_fit() {
    let mut peer = Peer::server();
    peer.give(b"GET http://A.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .unwrap();
    assert_eq!(
        peer.events,
        ["request :method=GET|:scheme=http|:authority=A.example|:path=/x?y end"]
    );
}

#[test]
fn bodies_that_are_refused() {
    for body in [
        &b"5 \r\nhello\r\n0\r\n\r\n"[..],
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nHost: b\r\n\r\n",
        b"0\r\nX: 1\n\r\n",
        b"0\r\n X: 1\r\n\r\n",
    ] {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(
            refusal(&[head, body].concat()).0,
            400,
            "{}",
            body.escape_ascii()
        );
    }
}

#[test]
fn after_an_answer_has_begun_only_the_end_tells() {
    let mut peer = Peer::server();
    peer.give(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    let stream = peer.stream.unwrap();
    peer.connection
        .send_headers(stream, fields(&[(":status", "200")]), false)
        .unwrap();
    assert!(peer.give(b"nonsense").is_err());
    assert!(!peer.output().contains(" 400 "));
    assert!(peer.connection.is_over());
}

#[test]
fn responses_that_are_refused() {
    for response in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 99 What\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\nsurprise",
        b"HTTP/2 200 OK\r\n\r\n",
    ] {
        let mut peer = Peer::client();
        let stream = peer.connection.open(7).unwrap();
        let request = [(":method", "GET"), (":path", "/"), (":authority", "a")];
        peer.connection
            .send_headers(stream, fields(&request), true)
            .unwrap();
        let _written = peer.output();
        assert!(peer.give(response).is_err(), "{}", response.escape_ascii());
        assert!(!peer.connection.can_open());
    }
    let mut idle = Peer::client();
    assert!(
        idle.give(b"HTTP/1.1 200 OK\r\n\r\n").is_err(),
        "nobody asked"
    );
}

#[test]
fn interim_responses_are_bounded() {
    let mut peer = Peer::client();
    let stream = peer.connection.open(7).unwrap();
    let request = [(":method", "GET"), (":path", "/"), (":authority", "a")];
    peer.connection
        .send_headers(stream, fields(&request), true)
        .unwrap();
    let hint = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    assert!(peer.give(&hint.repeat(16)).is_ok());
    assert!(peer.give(hint).is_err());
}
