//! Which header lists are well formed, and what the others do (RFC 9113 sections 8.1 to 8.3).

mod support;

use gateway_h2::{Config, ErrorCode, Event};
use support::*;

/// RFC 9113 sections 8.2 and 8.3: each list is malformed, the stream ends, the connection stays.
#[test]
fn malformed_requests() {
    let with = |extra: &[(&'static str, &'static str)]| {
        let mut fields = REQUEST.to_vec();
        fields.extend(extra);
        fields
    };
    let without = |name: &str| {
        REQUEST
            .iter()
            .filter(|f| f.0 != name)
            .copied()
            .collect::<Vec<_>>()
    };
    let replaced = |name: &str, value: &'static str| {
        REQUEST
            .iter()
            .map(|f| if f.0 == name { (f.0, value) } else { *f })
            .collect::<Vec<_>>()
    };
    let lists = [
        with(&[("Upper", "1")]),
        with(&[("", "1")]),
        with(&[("a b", "1")]),
        with(&[("x", "a\rb")]),
        with(&[("x", "a\nb")]),
        with(&[("x", "a\0b")]),
        with(&[("x", " a")]),
        with(&[("x", "a\t")]),
        with(&[("connection", "close")]),
        with(&[("keep-alive", "1")]),
        with(&[("proxy-connection", "1")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "h2c")]),
        with(&[("te", "gzip")]),
        with(&[("x", "1"), (":path", "/")]),
        with(&[(":path", "/again")]),
        with(&[(":status", "200")]),
        with(&[(":unknown", "1")]),
        with(&[(":protocol", "websocket")]),
        with(&[("content-length", "x")]),
        with(&[("content-length", "1"), ("content-length", "2")]),
        with(&[("content-length", "1")]),
        without(":method"),
        without(":scheme"),
        without(":path"),
        replaced(":path", ""),
        replaced(":path", "a"),
        replaced(":path", "*"),
        replaced(":method", "CONNECT"),
        replaced(":method", "POST /other"),
        replaced(":path", "/a b"),
        replaced(":path", "/a#b"),
        replaced(":path", "/\u{e9}"),
        replaced(":scheme", "java script"),
        replaced(":authority", "user@host"),
        replaced(":authority", "back end"),
        replaced(":authority", "host/path"),
        with(&[("host", "a"), ("host", "b")]),
    ];
    let mut server = Probe::server();
    for (number, list) in lists.iter().enumerate() {
        let id = number as u32 * 2 + 1;
        server
            .feed(&headers(id, list, true))
            .expect("the connection stays");
        assert_eq!(server.take(), [], "{list:?}");
        assert_eq!(
            server.reset_code(),
            (id, ErrorCode::ProtocolError),
            "{list:?}"
        );
    }
    server.request(1001, true);
    assert_eq!(server.connection.stream_count(), 1);
}

#[test]
fn unusual_requests_that_are_well_formed() {
    let lists: [&[(&str, &str)]; 5] = [
        &[(":method", "OPTIONS"), (":scheme", "http"), (":path", "*")],
        &[(":method", "CONNECT"), (":authority", "a:1")],
        &[
            (":scheme", "http"),
            (":path", "/"),
            (":method", "GET"),
            ("te", "trailers"),
        ],
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            ("x", ""),
            ("x", "a\tb"),
        ],
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            ("x", "\u{e9}"),
            ("content-length", "0"),
        ],
    ];
    let mut server = Probe::server();
    for (number, list) in lists.iter().enumerate() {
        server
            .feed(&headers(number as u32 * 2 + 1, list, true))
            .expect("allowed");
        assert!(
            matches!(server.take()[..], [Event::Request { .. }]),
            "{list:?}"
        );
    }
}

#[test]
fn malformed_trailers_reset_a_known_stream() {
    for (fields, end_stream) in [(&[(":path", "/")], true), (&[("x", "1")], false)] {
        let mut server = Probe::server();
        let stream = server.request(1, false);
        server.connection.set_token(stream, 5);
        server
            .feed(&headers(1, fields, end_stream))
            .expect("the connection stays");
        let reset = Event::Reset {
            stream,
            token: 5,
            code: ErrorCode::ProtocolError,
            local: true,
        };
        assert_eq!(server.take(), [reset]);
        assert_eq!(server.reset_code(), (1, ErrorCode::ProtocolError));
        assert_eq!(server.connection.stream_count(), 0);
    }
}

#[test]
fn content_length_has_to_match_the_body() {
    let with_length = || {
        let mut fields = REQUEST.to_vec();
        fields.push(("content-length", "4"));
        headers(1, &fields, false)
    };
    for (body, last) in [
        (data(1, b"abc", true), None),
        (data(1, b"abcde", false), None),
        (data(1, b"abc", false), Some(trailers(1))),
    ] {
        let mut server = Probe::server();
        server.feed(&with_length()).expect("allowed");
        server.feed(&body).expect("the connection stays");
        if let Some(last) = last {
            server.feed(&last).expect("the connection stays");
        }
        let last = server.take().pop();
        assert!(
            matches!(last, Some(Event::Reset { local: true, .. })),
            "{last:?}"
        );
    }
    let mut server = Probe::server();
    server
        .feed_all(&[with_length(), data(1, b"ab", false), data(1, b"cd", true)])
        .expect("right");
    assert_eq!(server.take().len(), 3);
}

#[test]
fn a_list_too_large_is_no_request() {
    let mut server = Probe::server_with(Config {
        max_header_list_size: 300,
        ..Config::server()
    });
    let large = "v".repeat(300);
    let mut fields = REQUEST.to_vec();
    fields.push(("x", &large));
    server
        .feed(&headers(1, &fields, true))
        .expect("the connection stays");
    assert_eq!(server.take(), []);
    assert_eq!(server.reset_code(), (1, ErrorCode::EnhanceYourCalm));
    assert_eq!(server.connection.stats().header_lists_too_large, 1);
    server.request(3, true);
}
