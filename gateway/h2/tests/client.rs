//! The client's end against a hand-made server.

mod support;

use gateway_h2::{Config, Connection, ErrorCode, Event, Events, Field, OpenError, SendError};
use support::*;

#[test]
fn opens_nothing_before_settings_and_no_more_than_they_allow() {
    let mut client = Probe {
        connection: Connection::new(Config::client()),
        events: Events::new(),
    };
    assert_eq!(client.connection.open(1), Err(OpenError::AtLimit));
    assert!(!client.connection.is_established());
    client
        .feed(&frame(SETTINGS, 0, 0, &setting(3, 1)))
        .expect("allowed");
    assert_eq!(client.take(), [Event::StreamsAvailable]);
    client.open(1, true);
    assert_eq!(client.connection.open(2), Err(OpenError::AtLimit));
    assert!(!client.connection.can_open());
    client
        .feed(&headers(1, &[(":status", "204")], true))
        .expect("allowed");
    let events = client.take();
    assert!(matches!(
        events[..],
        [
            Event::Response {
                token: 1,
                end_stream: true,
                ..
            },
            Event::StreamsAvailable
        ]
    ));
    assert!(client.connection.can_open());
    client
        .feed(&frame(SETTINGS, 0, 0, &setting(3, 0)))
        .expect("allowed");
    assert_eq!(client.connection.open(2), Err(OpenError::AtLimit));
    client
        .feed(&frame(SETTINGS, 0, 0, &setting(3, 5)))
        .expect("allowed");
    assert_eq!(client.take(), [Event::StreamsAvailable]);
}

#[test]
fn a_response_in_all_its_parts() {
    let mut client = Probe::client();
    let stream = client.open(9, false);
    client
        .feed_all(&[
            headers(1, &[(":status", "103"), ("link", "a")], false),
            headers(1, &[(":status", "200")], false),
            data(1, b"abc", false),
            headers(1, &[("grpc-status", "0")], true),
        ])
        .expect("allowed");
    let events = client.take();
    assert!(
        matches!(
            events[..],
            [
                Event::Response {
                    token: 9,
                    informational: true,
                    end_stream: false,
                    ..
                },
                Event::Response {
                    token: 9,
                    informational: false,
                    end_stream: false,
                    ..
                },
                Event::Data {
                    token: 9,
                    flow_len: 3,
                    ..
                },
                Event::Trailers { token: 9, .. },
            ]
        ),
        "{events:?}"
    );
    assert_eq!(
        client.connection.stream_count(),
        1,
        "our side has not ended"
    );
    client
        .connection
        .send_data(stream, b"", true)
        .expect("open");
    assert_eq!(client.connection.stream_count(), 0);
}

#[test]
fn malformed_responses() {
    let lists: [(&[(&str, &str)], bool); 7] = [
        (&[], true),
        (&[(":status", "20")], true),
        (&[(":status", "2000")], true),
        (&[(":status", "101")], false),
        (&[(":status", "103")], true),
        (&[(":status", "200"), (":path", "/")], true),
        (&[("x", "1"), (":status", "200")], true),
    ];
    for (list, end_stream) in lists {
        let mut client = Probe::client();
        let stream = client.open(3, true);
        client.output();
        client
            .feed(&headers(1, list, end_stream))
            .expect("the connection stays");
        let reset = Event::Reset {
            stream,
            token: 3,
            code: ErrorCode::ProtocolError,
            local: true,
        };
        assert_eq!(client.take(), [reset], "{list:?}");
        assert_eq!(client.reset_code(), (1, ErrorCode::ProtocolError));
    }
    let mut client = Probe::client();
    client.open(3, true);
    client
        .feed(&data(1, b"x", false))
        .expect("the connection stays");
    assert!(matches!(
        client.take()[..],
        [Event::Reset {
            code: ErrorCode::ProtocolError,
            ..
        }]
    ));
}

#[test]
fn a_response_to_head_may_announce_a_body_that_does_not_come() {
    let mut client = Probe::client();
    let stream = client.connection.open(1).expect("room");
    let fields = [(":method", "HEAD"), (":scheme", "http"), (":path", "/")];
    client.send(stream, &fields, true);
    let length = [(":status", "200"), ("content-length", "5")];
    client
        .feed_all(&[headers(1, &length, false), data(1, b"", true)])
        .expect("allowed");
    assert_eq!(client.take().len(), 2);
    client.open(2, true);
    client
        .feed(&headers(
            3,
            &[(":status", "304"), ("content-length", "5")],
            true,
        ))
        .expect("allowed");
    assert!(matches!(
        client.take()[..],
        [Event::Response { token: 2, .. }]
    ));
}

#[test]
fn goaway_gives_back_what_was_not_processed() {
    let mut client = Probe::client();
    for token in 1..=3 {
        client.open(token, true);
    }
    let mut payload = 3u32.to_be_bytes().to_vec();
    payload.extend(0u32.to_be_bytes());
    payload.extend(b"drain");
    client
        .feed(&frame(GOAWAY, 0, 0, &payload))
        .expect("allowed");
    let events: Vec<_> = client.events.iter().cloned().collect();
    let [
        Event::GoAway {
            last_stream_id: 3,
            code: ErrorCode::NoError,
            debug,
        },
        Event::Reset {
            token: 3,
            code: ErrorCode::RefusedStream,
            local: false,
            ..
        },
    ] = events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(client.events.bytes(debug), b"drain");
    client.events.clear();
    assert!(client.connection.is_going_away());
    assert_eq!(client.connection.open(4), Err(OpenError::GoingAway));
    client
        .feed(&headers(1, &[(":status", "200")], true))
        .expect("older streams go on");
    assert!(matches!(
        client.take()[..],
        [Event::Response { token: 1, .. }]
    ));
    assert_eq!(client.connection.stream_count(), 1);
}

#[test]
fn a_stream_reset_before_its_request_leaves_no_trace() {
    let mut client = Probe::client();
    let stream = client.connection.open(1).expect("room");
    client.connection.reset(stream, ErrorCode::Cancel);
    assert_eq!(client.output(), []);
    assert_eq!(client.connection.stream_count(), 0);
    let fields = [Field::new(b":method", b"GET")];
    assert_eq!(
        client.connection.send_headers(stream, fields, true),
        Err(SendError::Gone)
    );
    assert_eq!(client.open(2, true).id(), 3);
}

#[test]
fn a_server_that_breaks_the_rules_of_servers() {
    use ErrorCode::ProtocolError;
    for (what, bytes) in [
        (
            "push allowed by a server",
            frame(SETTINGS, 0, 0, &setting(2, 1)),
        ),
        ("push", frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])),
        (
            "a stream of its own",
            headers(2, &[(":status", "200")], true),
        ),
        (
            "a stream not opened",
            headers(7, &[(":status", "200")], true),
        ),
    ] {
        let mut client = Probe::client();
        client.open(1, true);
        client.output();
        assert_eq!(client.failure(&[bytes]), ProtocolError, "{what}");
    }
}

#[test]
fn secrets_stay_secret_on_the_way_through() {
    let mut server = Probe::server();
    let mut block = block(&REQUEST);
    block.extend([0x10, 1, b'k', 1, b'v']);
    server
        .feed(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block))
        .expect("allowed");
    let [Event::Request { headers, .. }] = server.events.iter().cloned().collect::<Vec<_>>()[..]
    else {
        panic!("no request")
    };
    let last = server.events.fields(headers).last().expect("five fields");
    assert_eq!(
        last,
        Field {
            name: b"k",
            value: b"v",
            sensitive: true
        }
    );
}
