//! A server's side: requests in, responses out, and the life of the connection between them.

#![allow(clippy::unwrap_used)]

mod support;

use gateway_h2::{Events, SendError};
use support::{Peer, fields};

const GET: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: example.com\r\nX-One:  1 \r\n\r\n";

fn answer(peer: &mut Peer, list: &[(&str, &str)], body: &[u8]) {
    let stream = peer.stream.unwrap();
    let connection = &mut peer.connection;
    connection
        .send_headers(stream, fields(list), body.is_empty())
        .unwrap();
    if !body.is_empty() {
        connection.send_data(stream, body, true).unwrap();
    }
}

#[test]
fn a_request_has_the_form_of_http2() {
    let mut peer = Peer::server();
    peer.give(GET).unwrap();
    let expected = "request :method=GET|:scheme=http|:authority=example.com|:path=/a?b|x-one=1 end";
    assert_eq!(peer.events, [expected]);
    answer(
        &mut peer,
        &[(":status", "200"), ("content-length", "2")],
        b"ok",
    );
    assert_eq!(
        peer.output(),
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    );
    assert!(!peer.connection.is_over());
    peer.give(GET).unwrap();
    assert_eq!(peer.events.len(), 2, "the connection serves on");
}

#[test]
fn fields_of_one_hop_end_here() {
    let mut peer = Peer::server();
    peer.give(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: 5\r\nX-Hop: 1\r\nTE: gzip, trailers\r\n\
          Upgrade: h2c\r\nProxy-Connection: x\r\nHTTP2-Settings: AAA\r\nX-Stays: 1\r\n\r\n",
    )
    .unwrap();
    let expected =
        "request :method=GET|:scheme=http|:authority=a|:path=/|x-stays=1|te=trailers end";
    assert_eq!(peer.events, [expected]);
}

#[test]
fn bodies_by_length_and_in_chunks() {
    let mut peer = Peer::server();
    peer.give(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
        .unwrap();
    assert_eq!(peer.events[1], "data hello end");
    answer(&mut peer, &[(":status", "204")], b"");
    peer.give(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n",
    )
    .unwrap();
    assert_eq!(peer.events[3..], ["data hello!", "trailers x-sum=1 end"]);
    assert_eq!(peer.output(), "HTTP/1.1 204 No Content\r\n\r\n");
}

#[test]
fn responses_without_a_length_go_in_chunks_with_trailers_for_those_who_ask() {
    for (te, last) in [
        ("TE: trailers\r\n", "0\r\nx-sum: 1\r\n\r\n"),
        ("", "0\r\n\r\n"),
    ] {
        let mut peer = Peer::server();
        peer.give(format!("GET / HTTP/1.1\r\nHost: a\r\n{te}\r\n").as_bytes())
            .unwrap();
        let stream = peer.stream.unwrap();
        let connection = &mut peer.connection;
        connection
            .send_headers(stream, fields(&[(":status", "200")]), false)
            .unwrap();
        connection.send_data(stream, b"hello", false).unwrap();
        let trailers = [("x-sum", "1"), ("content-length", "9")];
        connection
            .send_headers(stream, fields(&trailers), true)
            .unwrap();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        assert_eq!(peer.output(), format!("{head}{last}"));
    }
}

#[test]
fn an_http_1_0_client_gets_its_body_until_the_end() {
    let mut peer = Peer::server();
    peer.give(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(
        peer.events,
        ["request :method=GET|:scheme=http|:path=/ end"]
    );
    answer(&mut peer, &[(":status", "200")], b"all");
    assert_eq!(
        peer.output(),
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall"
    );
    assert!(peer.connection.is_over());
}

#[test]
fn answers_to_head_have_a_length_and_no_body() {
    let mut peer = Peer::server();
    peer.give(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    answer(
        &mut peer,
        &[(":status", "200"), ("content-length", "9")],
        b"unwanted!",
    );
    assert_eq!(
        peer.output(),
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
    );
    assert!(!peer.connection.is_over());
}

#[test]
fn the_next_request_waits_for_the_answer() {
    let mut peer = Peer::server();
    peer.give(&[GET, GET].concat()).unwrap();
    assert_eq!(peer.events.len(), 1);
    assert!(!peer.connection.takes_input());
    assert!(peer.connection.takes_more(100));
    assert!(!peer.connection.takes_more(16 << 10), "bounded");
    answer(&mut peer, &[(":status", "204")], b"");
    assert!(peer.connection.takes_input());
    peer.give(b"").unwrap();
    assert_eq!(peer.events.len(), 2);
}

#[test]
fn who_does_not_read_answers_is_not_asked_for_more() {
    let mut peer = Peer::server();
    peer.give(&GET.repeat(3)).unwrap();
    answer(&mut peer, &[(":status", "200")], &vec![b'x'; 70_000]);
    assert!(!peer.connection.takes_input());
    peer.give(b"").unwrap();
    assert_eq!(peer.events.len(), 1);
    let _written = peer.output();
    peer.give(b"").unwrap();
    assert_eq!(peer.events.len(), 2);
}

#[test]
fn a_client_that_waits_is_told_to_go_on() {
    let expecting =
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    let mut peer = Peer::server();
    peer.give(expecting).unwrap();
    assert!(!peer.events[0].contains("expect"), "it is settled here");
    assert!(peer.connection.wants_write());
    assert_eq!(peer.output(), "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(!peer.connection.wants_write(), "once");

    let mut peer = Peer::server();
    peer.give(expecting).unwrap();
    answer(&mut peer, &[(":status", "403")], b"");
    let text = peer.output();
    assert!(text.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{text}");
}

#[test]
fn a_body_that_nobody_wants_takes_the_connection_along() {
    let mut peer = Peer::server();
    peer.give(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\nsome")
        .unwrap();
    answer(&mut peer, &[(":status", "413")], b"");
    assert!(!peer.connection.is_over());
    peer.connection.reset(peer.stream.unwrap());
    assert!(peer.connection.is_over() && peer.connection.was_cut_off());
    assert!(peer.output().starts_with("HTTP/1.1 413"));
}

#[test]
fn the_small_rest_of_a_body_that_nobody_wants_is_dropped() {
    let heads = [
        "Content-Length: 9\r\n\r\nsome",
        "Transfer-Encoding: chunked\r\n\r\n9\r\nsome",
    ];
    for (head, rest) in heads
        .into_iter()
        .zip(["-rest", "-rest\r\n0\r\nX: y\r\n\r\n"])
    {
        let mut peer = Peer::server();
        peer.give(format!("PUT / HTTP/1.1\r\nHost: a\r\n{head}").as_bytes())
            .unwrap();
        answer(&mut peer, &[(":status", "413")], b"");
        let stream = peer.stream.unwrap();
        peer.connection.reset(stream);
        assert!(!peer.connection.is_live(stream) && peer.connection.stream_count() == 0);
        peer.give(rest.as_bytes()).unwrap();
        assert_eq!(peer.events.len(), 2, "{:?}", peer.events);
        peer.give(GET).unwrap();
        assert_eq!(peer.events.len(), 3, "the connection serves on");
    }
}

#[test]
fn an_endless_rest_is_not_dropped_for_ever() {
    let mut peer = Peer::server();
    peer.give(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    answer(&mut peer, &[(":status", "413")], b"");
    peer.connection.reset(peer.stream.unwrap());
    for _ in 0..65 {
        assert!(!peer.connection.is_over());
        let chunk = [&b"400\r\n"[..], &[b'x'; 0x400], b"\r\n"].concat();
        peer.give(&chunk).unwrap();
    }
    assert!(peer.connection.is_over() && peer.connection.was_cut_off());
}

#[test]
fn a_short_body_is_not_made_whole() {
    let mut peer = Peer::server();
    peer.give(GET).unwrap();
    let stream = peer.stream.unwrap();
    let head = [(":status", "200"), ("content-length", "9")];
    let connection = &mut peer.connection;
    connection
        .send_headers(stream, fields(&head), false)
        .unwrap();
    connection.send_data(stream, b"four", true).unwrap();
    assert!(connection.is_over());
    assert!(peer.output().ends_with("\r\n\r\nfour"));
}

#[test]
fn nothing_can_be_smuggled_into_a_response() {
    for (name, value) in [
        ("x", "a\r\nb: c"),
        ("x", "a\0"),
        ("x\r\ny", "a"),
        ("X", "\n"),
    ] {
        let mut peer = Peer::server();
        peer.give(GET).unwrap();
        let head = [(":status", "200"), (name, value)];
        let sent = peer
            .connection
            .send_headers(peer.stream.unwrap(), fields(&head), true);
        assert_eq!(sent, Err(SendError::WrongState), "{name:?}: {value:?}");
        assert_eq!(peer.output(), "", "nothing of it was written");
    }
}

#[test]
fn goodbye_is_said_with_the_next_answer() {
    let mut peer = Peer::server();
    peer.give(GET).unwrap();
    peer.connection.go_away(false);
    assert!(!peer.connection.is_over());
    answer(&mut peer, &[(":status", "204")], b"");
    assert_eq!(
        peer.output(),
        "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
    );
    assert!(peer.connection.is_over());

    let mut idle = Peer::server();
    idle.connection.go_away(false);
    assert!(idle.connection.is_over());

    let mut late = Peer::server();
    late.give(&GET[..10]).unwrap();
    late.connection.go_away(false);
    assert!(!late.connection.is_over(), "its request has begun to come");
}

#[test]
fn who_asks_while_goodbye_is_prepared_is_answered() {
    let mut peer = Peer::server();
    peer.give(GET).unwrap();
    let head = [(":status", "200"), ("content-length", "1")];
    let stream = peer.stream.unwrap();
    let sent = peer.connection.send_headers(stream, fields(&head), false);
    assert_eq!(sent, Ok(()));
    peer.connection.go_away(true);
    peer.connection.send_data(stream, b"x", true).unwrap();
    assert!(!peer.connection.is_over(), "its head could not say so");
    peer.output();

    peer.give(GET).unwrap();
    answer(&mut peer, &[(":status", "204")], b"");
    assert_eq!(
        peer.output(),
        "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
    );
    assert!(peer.connection.is_over());
}

#[test]
fn a_websocket_becomes_a_tunnel() {
    let ask = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
    let mut peer = Peer::server();
    peer.give(&[ask, &b"early"[..]].concat()).unwrap();
    let expected = "request :method=GET|:scheme=http|:authority=a|:path=/chat|upgrade=websocket";
    assert_eq!(peer.events, [expected]);
    let stream = peer.stream.unwrap();
    let head = [
        (":status", "101"),
        ("sec-websocket-accept", "x"),
        ("upgrade", "websocket"),
    ];
    peer.connection
        .send_headers(stream, fields(&head), false)
        .unwrap();
    assert_eq!(
        peer.output(),
        "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
    );
    peer.give(b" late").unwrap();
    assert_eq!(peer.events[1], "data early late");
    peer.connection.send_data(stream, b"out", false).unwrap();
    assert_eq!(peer.output(), "out");
    peer.connection.send_data(stream, b"", true).unwrap();
    assert!(peer.connection.is_over());

    let mut refused = Peer::server();
    refused.give(&[ask, GET].concat()).unwrap();
    answer(&mut refused, &[(":status", "403")], b"");
    refused.give(b"").unwrap();
    assert_eq!(refused.events.len(), 2, "the connection serves on");
}

#[test]
fn windows_stop_reading() {
    let mut connection = gateway_h1::Connection::new(gateway_h1::Config {
        window: 10,
        ..gateway_h1::Config::server()
    });
    let mut events = Events::new();
    let input = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n0123456789";
    connection.receive(input, &mut events).unwrap();
    assert!(!connection.takes_more(0));
    let Some(gateway_h2::Event::Data { stream, .. }) = events.iter().last() else {
        panic!("no data")
    };
    connection.release(*stream, 1);
    assert!(connection.takes_more(0));
}
