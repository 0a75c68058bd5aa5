//! The server's end against a hand-made client: stream life, broken rules, GOAWAY.

mod support;

use gateway_h2::{Config, Connection, ErrorCode, Event, Events, Field, PREFACE, SendError};
use support::*;

const RESPONSE: [(&str, &str); 1] = [(":status", "200")];

#[test]
fn a_call_from_end_to_end() {
    let mut server = Probe::server();
    server.feed(&request(1, false)).expect("allowed");
    let Event::Request {
        stream,
        headers,
        end_stream: false,
    } = server.events.iter().next().cloned().expect("one")
    else {
        panic!("no request")
    };
    assert_eq!((stream.id(), server.connection.stream_count()), (1, 1));
    assert_eq!(server.text(headers)[2], (":path".into(), "/a.B/C".into()));
    assert_eq!(server.events.value(headers, b":authority"), Some(&b"a"[..]));
    server.events.clear();

    server.connection.set_token(stream, 77);
    let bytes = data(1, b"hello", false);
    server.feed(&bytes).expect("allowed");
    let events = server.take();
    let [
        Event::Data {
            token: 77,
            range,
            flow_len: 5,
            end_stream: false,
            ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(&bytes[range.clone()], b"hello");
    server.feed(&trailers(1)).expect("allowed");
    assert!(matches!(
        server.take()[..],
        [Event::Trailers { token: 77, .. }]
    ));

    server.send(stream, &RESPONSE, false);
    let sent = server
        .connection
        .send_data(stream, b"world", false)
        .expect("open");
    assert_eq!((sent.written, sent.queued), (5, 0));
    server.send(stream, &[("grpc-status", "0")], true);
    let kinds: Vec<_> = server.output().iter().map(|f| (f.kind, f.flags)).collect();
    assert_eq!(
        kinds,
        [
            (HEADERS, END_HEADERS),
            (DATA, 0),
            (HEADERS, END_HEADERS | END_STREAM)
        ]
    );
    assert_eq!(server.connection.stream_count(), 0);
    assert_eq!(
        server.connection.send_data(stream, b"x", true),
        Err(SendError::Gone)
    );
}

#[test]
fn padding_counts_for_the_window_and_is_cut_off() {
    let mut server = Probe::server();
    server.request(1, false);
    let bytes = frame(DATA, PADDED, 1, &[3, b'h', b'i', 0, 0, 0]);
    server.feed(&bytes).expect("allowed");
    let [
        Event::Data {
            range, flow_len: 6, ..
        },
    ] = &server.take()[..]
    else {
        panic!("no data")
    };
    assert_eq!(&bytes[range.clone()], b"hi");
}

#[test]
fn frames_may_come_byte_by_byte() {
    let mut all = PREFACE.to_vec();
    for part in [
        frame(SETTINGS, 0, 0, &[]),
        request(1, false),
        data(1, b"abc", true),
    ] {
        all.extend(part);
    }
    let (mut connection, mut events) = (Connection::new(Config::server()), Events::new());
    let mut kept: Vec<u8> = Vec::new();
    for byte in all {
        kept.push(byte);
        let used = connection.receive(&kept, &mut events).expect("allowed");
        kept.drain(..used);
    }
    assert!(kept.is_empty());
    assert_eq!(events.len(), 2);
}

#[test]
fn a_block_in_many_frames() {
    let mut server = Probe::server();
    let whole = block(&REQUEST);
    let mut bytes = frame(HEADERS, END_STREAM, 1, &whole[..3]);
    bytes.extend(frame(CONTINUATION, 0, 1, &[]));
    bytes.extend(frame(CONTINUATION, 0, 1, &whole[3..10]));
    bytes.extend(frame(CONTINUATION, END_HEADERS, 1, &whole[10..]));
    server.feed(&bytes).expect("allowed");
    let [
        Event::Request {
            headers,
            end_stream: true,
            ..
        },
    ] = server.events.iter().cloned().collect::<Vec<_>>()[..]
    else {
        panic!("no request")
    };
    assert_eq!(headers.len(), 4);
}

#[test]
fn a_large_block_goes_out_in_many_frames() {
    let mut server = Probe::server();
    let stream = server.request(1, true);
    let large = "~".repeat(40_000);
    server.send(stream, &[(":status", "200"), ("x", &large)], true);
    let frames = server.output();
    let shape: Vec<_> = frames
        .iter()
        .map(|f| (f.kind, f.flags, f.payload.len() <= 16_384))
        .collect();
    assert_eq!(
        shape,
        [
            (HEADERS, END_STREAM, true),
            (CONTINUATION, 0, true),
            (CONTINUATION, END_HEADERS, true)
        ]
    );
    let len: usize = frames.iter().map(|f| f.payload.len()).sum();
    assert!(len > 40_000);
}

#[test]
fn streams_above_the_limit_are_refused() {
    let mut server = Probe::server_with(Config {
        max_concurrent_streams: 2,
        ..Config::server()
    });
    let first = server.request(1, true);
    server.request(3, false);
    server
        .feed(&request(5, true))
        .expect("the connection stays");
    assert_eq!(server.reset_code(), (5, ErrorCode::RefusedStream));
    server.send(first, &RESPONSE, true);
    server.output();
    server.request(7, true);
    assert_eq!(server.connection.stats().streams_refused, 1);
}

/// RFC 9113 section 5.1: what ends the connection, and with which code.
#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn frames_that_end_the_connection() {
    use ErrorCode::{
        CompressionError, FlowControlError, FrameSizeError, ProtocolError, StreamClosed,
    };
    let finished = [request(1, true)];
    let cases: Vec<(&str, Vec<Vec<u8>>, ErrorCode)> = vec![
        ("DATA on stream 0", vec![data(0, b"", false)], ProtocolError),
        (
            "DATA on an idle stream",
            vec![data(1, b"x", false)],
            ProtocolError,
        ),
        ("HEADERS on stream 0", vec![request(0, true)], ProtocolError),
        ("an even id", vec![request(2, true)], ProtocolError),
        (
            "an id below the newest",
            vec![request(5, true), request(3, true)],
            ProtocolError,
        ),
        (
            "RST_STREAM idle",
            vec![rst(1, ErrorCode::Cancel)],
            ProtocolError,
        ),
        (
            "RST_STREAM size",
            vec![request(1, false), frame(RST_STREAM, 0, 1, &[0; 3])],
            FrameSizeError,
        ),
        (
            "WINDOW_UPDATE idle",
            vec![window_update(1, 1)],
            ProtocolError,
        ),
        (
            "WINDOW_UPDATE even",
            vec![window_update(2, 1)],
            ProtocolError,
        ),
        (
            "WINDOW_UPDATE of 0",
            vec![window_update(0, 0)],
            ProtocolError,
        ),
        (
            "WINDOW_UPDATE size",
            vec![frame(WINDOW_UPDATE, 0, 0, &[0; 5])],
            FrameSizeError,
        ),
        (
            "window overflow",
            vec![window_update(0, (1 << 31) - 1)],
            FlowControlError,
        ),
        (
            "SETTINGS on a stream",
            vec![frame(SETTINGS, 0, 1, &[])],
            ProtocolError,
        ),
        (
            "SETTINGS size",
            vec![frame(SETTINGS, 0, 0, &[0; 5])],
            FrameSizeError,
        ),
        (
            "SETTINGS ack with payload",
            vec![frame(SETTINGS, ACK, 0, &[0; 6])],
            FrameSizeError,
        ),
        (
            "PING size",
            vec![frame(PING, 0, 0, &[0; 7])],
            FrameSizeError,
        ),
        (
            "PING on a stream",
            vec![frame(PING, 0, 1, &[0; 8])],
            ProtocolError,
        ),
        (
            "GOAWAY size",
            vec![frame(GOAWAY, 0, 0, &[0; 7])],
            FrameSizeError,
        ),
        (
            "PUSH_PROMISE",
            vec![frame(PUSH_PROMISE, 4, 1, &[0; 4])],
            ProtocolError,
        ),
        (
            "PRIORITY on stream 0",
            vec![frame(PRIORITY, 0, 0, &[0; 5])],
            ProtocolError,
        ),
        (
            "CONTINUATION alone",
            vec![frame(CONTINUATION, 4, 1, &[])],
            ProtocolError,
        ),
        (
            "frame in a block",
            vec![frame(HEADERS, 0, 1, &block(&REQUEST)), data(1, b"", true)],
            ProtocolError,
        ),
        (
            "other stream in a block",
            vec![frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, 4, 3, &[])],
            ProtocolError,
        ),
        (
            "padding too long",
            vec![request(1, false), frame(DATA, PADDED, 1, &[2, 0])],
            ProtocolError,
        ),
        (
            "bad HPACK",
            vec![frame(HEADERS, END_HEADERS, 1, &[0x80])],
            CompressionError,
        ),
        (
            "frame too large",
            vec![frame(DATA, 0, 1, &[0; 16_385])],
            FrameSizeError,
        ),
    ];
    for (what, frames, code) in cases {
        assert_eq!(Probe::server().failure(&frames), code, "{what}");
    }
    for late in [data(1, b"x", true), trailers(1)] {
        let mut server = Probe::server();
        server.feed_all(&finished).expect("allowed");
        let [Event::Request { stream, .. }] = server.take()[..] else {
            panic!("no request")
        };
        server.send(stream, &RESPONSE, true);
        assert_eq!(
            server.failure(&[late]),
            StreamClosed,
            "after both sides ended"
        );
    }
}

#[test]
fn beginnings_that_end_the_connection() {
    let mut server = Connection::new(Config::server());
    assert_eq!(server.receive(&PREFACE[..20], &mut Events::new()), Ok(0));
    assert!(
        server
            .receive(b"GET / HTTP/1.1", &mut Events::new())
            .is_err()
    );
    let mut server = Connection::new(Config::server());
    let bytes = [PREFACE.to_vec(), frame(PING, 0, 0, &[0; 8])].concat();
    assert!(server.receive(&bytes, &mut Events::new()).is_err());
}

#[test]
fn frames_that_end_the_stream() {
    use ErrorCode::{FlowControlError, FrameSizeError, ProtocolError, StreamClosed};
    let cases: Vec<(&str, bool, Vec<u8>, ErrorCode)> = vec![
        (
            "DATA after the end",
            true,
            data(1, b"x", true),
            StreamClosed,
        ),
        ("HEADERS after the end", true, trailers(1), StreamClosed),
        (
            "WINDOW_UPDATE of 0",
            false,
            window_update(1, 0),
            ProtocolError,
        ),
        (
            "window overflow",
            false,
            window_update(1, (1 << 31) - 1),
            FlowControlError,
        ),
        (
            "PRIORITY size",
            false,
            frame(PRIORITY, 0, 1, &[0; 4]),
            FrameSizeError,
        ),
        (
            "depends on itself",
            false,
            frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]),
            ProtocolError,
        ),
    ];
    for (what, ended, bytes, code) in cases {
        let mut server = Probe::server();
        let stream = server.request(1, ended);
        server.feed(&bytes).expect("the connection stays");
        let reset = Event::Reset {
            stream,
            token: 0,
            code,
            local: true,
        };
        assert_eq!(server.take(), [reset], "{what}");
        assert_eq!(server.reset_code(), (1, code), "{what}");
    }
}

#[test]
fn what_was_on_its_way_when_we_reset_is_dropped() {
    let mut server = Probe::server();
    let stream = server.request(1, false);
    server.connection.reset(stream, ErrorCode::Cancel);
    assert_eq!(server.reset_code(), (1, ErrorCode::Cancel));
    server
        .feed_all(&[
            data(1, b"late", false),
            window_update(1, 5),
            trailers(1),
            rst(1, ErrorCode::Cancel),
            request(3, true),
        ])
        .expect("no fault");
    assert!(matches!(server.take()[..], [Event::Request { .. }]));
    assert_eq!(server.output(), []);
}

#[test]
fn nothing_may_follow_a_reset_from_both_sides() {
    let mut server = Probe::server();
    let stream = server.request(1, false);
    server.connection.reset(stream, ErrorCode::NoError);
    assert_eq!(server.reset_code(), (1, ErrorCode::NoError));
    server
        .feed_all(&[rst(1, ErrorCode::Cancel), data(1, b"x", false)])
        .expect("the connection stays");
    assert_eq!(server.reset_code(), (1, ErrorCode::StreamClosed));
    assert_eq!(server.take(), []);
}

#[test]
fn the_peer_resets() {
    let mut server = Probe::server();
    let stream = server.request(1, false);
    server
        .connection
        .send_data(stream, b"x", false)
        .expect_err("before headers");
    server.send(stream, &RESPONSE, false);
    server.feed(&rst(1, ErrorCode::Cancel)).expect("allowed");
    let reset = Event::Reset {
        stream,
        token: 0,
        code: ErrorCode::Cancel,
        local: false,
    };
    assert_eq!(server.take(), [reset]);
    server.output();
    server
        .feed(&data(1, b"x", false))
        .expect("the connection stays");
    assert_eq!(server.reset_code(), (1, ErrorCode::StreamClosed));
    server.connection.reset(stream, ErrorCode::Cancel);
    assert_eq!(server.output(), [], "a stale handle does nothing");
}

#[test]
fn going_away_gracefully_then_finally() {
    let mut server = Probe::server();
    server.request(1, true);
    server.connection.go_away(ErrorCode::NoError, true, b"bye");
    let away = server.output().remove(0);
    assert_eq!(
        (away.kind, &away.payload[..4], &away.payload[8..]),
        (GOAWAY, &[0x7f, 255, 255, 255][..], &b"bye"[..])
    );
    assert!(server.connection.is_going_away());
    server.request(3, true);
    server.connection.go_away(ErrorCode::NoError, false, b"");
    assert_eq!(server.output()[0].number(), 3);
    server
        .feed(&request(5, true))
        .expect("the connection stays");
    assert_eq!(server.take(), []);
    assert_eq!(server.reset_code(), (5, ErrorCode::RefusedStream));
    assert_eq!(server.connection.stream_count(), 2);
    server.connection.go_away(ErrorCode::NoError, true, b"");
    assert_eq!(server.output(), []);
}

#[test]
fn answers_to_ping_and_settings() {
    let mut server = Probe::server();
    server
        .feed_all(&[
            frame(PING, 0, 0, b"12345678"),
            frame(SETTINGS, 0, 0, &setting(99, 1)),
        ])
        .expect("allowed");
    let frames = server.output();
    assert_eq!(
        (frames[0].kind, frames[0].flags, &frames[0].payload[..]),
        (PING, ACK, &b"12345678"[..])
    );
    assert_eq!((frames[1].kind, frames[1].flags), (SETTINGS, ACK));
    server.connection.ping(*b"abcdefgh");
    server.output();
    server
        .feed(&frame(PING, ACK, 0, b"abcdefgh"))
        .expect("allowed");
    assert_eq!(
        server.take(),
        [Event::PingAck {
            payload: *b"abcdefgh"
        }]
    );
}

#[test]
fn informational_responses_come_before_the_response() {
    let mut server = Probe::server();
    let stream = server.request(1, true);
    server.send(stream, &[(":status", "103")], false);
    server.send(stream, &RESPONSE, false);
    let again = server
        .connection
        .send_headers(stream, [Field::new(b":status", b"200")], false);
    assert_eq!(again, Err(SendError::WrongState));
    server.send(stream, &[("grpc-status", "0")], true);
    assert_eq!(server.connection.stream_count(), 0);
}
