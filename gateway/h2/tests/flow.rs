//! Windows in both directions, queues, and turns.

mod support;

use gateway_h2::{Config, ErrorCode, Event, SendError};
use support::*;

/// A client with a stream whose window is `window`.
fn client_with_window(window: u32) -> Probe {
    Probe::client_with(Config::client(), &setting(4, window))
}

fn data_lens(frames: &[Frame]) -> Vec<(u32, usize, bool)> {
    let data = frames.iter().filter(|f| f.kind == DATA);
    data.map(|f| (f.id, f.payload.len(), f.flags & END_STREAM != 0))
        .collect()
}

#[test]
fn what_the_window_does_not_allow_waits_and_follows() {
    let mut client = client_with_window(10);
    let stream = client.open(5, false);
    let sent = client
        .connection
        .send_data(stream, &[1; 25], false)
        .expect("open");
    assert_eq!((sent.written, sent.queued), (10, 15));
    client.send(stream, &[("x", "trailer")], true);
    assert_eq!(client.connection.queued(stream), 15);
    assert_eq!(
        client.connection.send_data(stream, b"x", true),
        Err(SendError::WrongState)
    );
    assert_eq!(data_lens(&client.output()), [(1, 10, false)]);
    client.feed(&window_update(1, 10)).expect("allowed");
    assert_eq!(
        client.take(),
        [Event::Drained {
            stream,
            token: 5,
            bytes: 10
        }]
    );
    client.feed(&window_update(1, 100)).expect("allowed");
    assert_eq!(
        client.take(),
        [Event::Drained {
            stream,
            token: 5,
            bytes: 5
        }]
    );
    let frames = client.output();
    assert_eq!(data_lens(&frames), [(1, 10, false), (1, 5, false)]);
    let last = frames.last().expect("trailers");
    assert_eq!((last.kind, last.flags), (HEADERS, END_HEADERS | END_STREAM));
}

#[test]
fn the_end_waits_behind_queued_bytes() {
    let mut client = client_with_window(0);
    let stream = client.open(5, false);
    client
        .connection
        .send_data(stream, b"ab", false)
        .expect("open");
    client
        .connection
        .send_data(stream, b"", true)
        .expect("open");
    client.output();
    client
        .feed(&frame(SETTINGS, 0, 0, &setting(4, 2)))
        .expect("allowed");
    assert_eq!(data_lens(&client.output()), [(1, 2, true)]);
}

#[test]
fn settings_can_take_a_window_below_zero() {
    let mut client = client_with_window(10);
    let stream = client.open(5, false);
    client
        .connection
        .send_data(stream, &[1; 10], false)
        .expect("open");
    client
        .feed(&frame(SETTINGS, 0, 0, &setting(4, 4)))
        .expect("allowed");
    client
        .connection
        .send_data(stream, &[1; 3], false)
        .expect("open");
    client.output();
    client.feed(&window_update(1, 6)).expect("allowed");
    assert_eq!(data_lens(&client.output()), [], "the window is 0 now");
    client.feed(&window_update(1, 2)).expect("allowed");
    assert_eq!(data_lens(&client.output()), [(1, 2, false)]);
}

#[test]
fn the_connection_window_holds_all_streams() {
    let mut client = client_with_window(1 << 20);
    let (first, second) = (client.open(1, false), client.open(2, false));
    let sent = client
        .connection
        .send_data(first, &vec![0; 100_000], true)
        .expect("open");
    assert_eq!(sent.written, 65_535);
    let sent = client
        .connection
        .send_data(second, &[0; 10], true)
        .expect("open");
    assert_eq!(sent.written, 0);
    client.output();
    assert_eq!(client.output(), []);
    client.feed(&window_update(0, 20_000)).expect("allowed");
    assert_eq!(
        data_lens(&client.output()),
        [(1, 16_384, false), (3, 10, true), (1, 3606, false)]
    );
}

#[test]
fn above_the_high_water_streams_take_turns() {
    let config = Config {
        output_high_water: 1,
        ..Config::client()
    };
    let mut client = Probe::client_with(config, &setting(4, 1 << 20));
    client.feed(&window_update(0, 1 << 20)).expect("allowed");
    let streams = [
        client.open(1, false),
        client.open(2, false),
        client.open(3, false),
    ];
    for stream in streams {
        let sent = client
            .connection
            .send_data(stream, &vec![0; 40_000], true)
            .expect("open");
        assert_eq!(sent.written, 0);
    }
    let mut order = Vec::new();
    while client.connection.wants_write() {
        order.extend(data_lens(&client.output()).into_iter().map(|(id, _, _)| id));
    }
    assert_eq!(order, [1, 3, 5, 1, 3, 5, 1, 3, 5]);
    let drained: u32 = client
        .take()
        .iter()
        .map(|event| match event {
            Event::Drained { bytes, .. } => *bytes,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(drained, 120_000);
}

#[test]
fn a_full_queue_takes_nothing() {
    let config = Config {
        stream_queue_max: 100,
        ..Config::client()
    };
    let mut client = Probe::client_with(config, &setting(4, 0));
    let stream = client.open(1, false);
    client
        .connection
        .send_data(stream, &[0; 90], false)
        .expect("fits");
    assert_eq!(
        client.connection.send_data(stream, &[0; 11], true),
        Err(SendError::QueueFull)
    );
    assert_eq!(client.connection.queued(stream), 90);
    client
        .connection
        .send_data(stream, &[0; 10], true)
        .expect("fits, and the state is as before");
}

#[test]
fn a_reset_drops_what_waits() {
    let mut client = client_with_window(0);
    let stream = client.open(1, false);
    client
        .connection
        .send_data(stream, &[0; 90], true)
        .expect("open");
    client.output();
    client.connection.reset(stream, ErrorCode::Cancel);
    client.feed(&window_update(0, 5)).expect("allowed");
    assert_eq!(client.reset_code(), (1, ErrorCode::Cancel));
    assert_eq!(
        (client.connection.queued(stream), client.take().len()),
        (0, 0)
    );
}

#[test]
fn a_window_opens_only_as_the_caller_releases() {
    let config = Config {
        initial_stream_window: 1000,
        ..Config::server()
    };
    let mut server = Probe::server_with(config);
    let stream = server.request(1, false);
    server.feed(&data(1, &[0; 1000], false)).expect("allowed");
    server.connection.release(stream, 499);
    assert_eq!(server.output(), [], "less than half is not worth a frame");
    server.connection.release(stream, 1);
    let frames = server.output();
    assert_eq!(
        (frames[0].kind, frames[0].id, frames[0].number()),
        (WINDOW_UPDATE, 1, 500)
    );
    server.connection.release(stream, 1_000_000);
    assert_eq!(
        server.output()[0].number(),
        500,
        "not more than was received"
    );
    server.feed(&data(1, &[0; 1000], false)).expect("allowed");
    server.take();
    server
        .feed(&data(1, &[0; 1], false))
        .expect("the connection stays");
    assert!(matches!(
        server.take()[..],
        [Event::Reset {
            code: ErrorCode::FlowControlError,
            ..
        }]
    ));
}

#[test]
fn a_window_is_widened_for_who_keeps_up() {
    let config = Config {
        initial_stream_window: 1000,
        ..Config::server()
    };
    let mut server = Probe::server_with(config);
    let stream = server.request(1, false);
    server.feed(&data(1, &[0; 600], false)).expect("allowed");
    assert!(!server.connection.release(stream, 400));
    assert!(server.connection.release(stream, 200));
    assert_eq!(server.connection.widen(stream, 5000), 1000, "twice as wide");
    assert_eq!(
        server.connection.widen(stream, 300),
        300,
        "not more than asked"
    );
    server.output();
    server.feed(&data(1, &[0; 2300], false)).expect("allowed");
    assert!(
        !server.connection.release(stream, 1149),
        "half of 2300 is due"
    );
    assert!(server.connection.release(stream, 1));
    server.feed(&data(1, b"", true)).expect("allowed");
    assert_eq!(
        server.connection.widen(stream, 300),
        0,
        "nothing comes any more"
    );
}

#[test]
fn after_the_end_no_window_is_given() {
    let mut server = Probe::server();
    let stream = server.request(1, false);
    server.feed(&data(1, &[0; 16_000], false)).expect("allowed");
    server.feed(&data(1, &[0; 16_384], false)).expect("allowed");
    server.feed(&data(1, &[0; 16_384], true)).expect("allowed");
    server.connection.release(stream, 48_768);
    assert_eq!(server.output(), []);
}

#[test]
fn the_connection_window_is_given_back_at_once() {
    let config = Config {
        connection_window: 65_535,
        initial_stream_window: 1 << 20,
        ..Config::server()
    };
    let mut server = Probe::server_with(config);
    server.request(1, false);
    for _ in 0..20 {
        server.feed(&data(1, &[0; 16_384], false)).expect("allowed");
    }
    let frames = server.output();
    assert!(frames.iter().all(|f| (f.kind, f.id) == (WINDOW_UPDATE, 0)));
    let given: u32 = frames.iter().map(Frame::number).sum();
    assert!(given > 20 * 16_384 - 32_768 && given <= 20 * 16_384);
    let mut server = Probe::server_with(Config {
        connection_window: 65_535,
        initial_stream_window: 1 << 20,
        ..Config::server()
    });
    server.request(1, false);
    let too_much = vec![data(1, &[0; 16_384], false); 5];
    assert_eq!(
        server.failure(&too_much),
        ErrorCode::FlowControlError,
        "in one go"
    );
}

#[test]
fn our_window_holds_from_the_acknowledgement_on() {
    let config = Config {
        initial_stream_window: 10,
        ..Config::server()
    };
    let mut server = Probe {
        connection: gateway_h2::Connection::new(config),
        events: gateway_h2::Events::new(),
    };
    server
        .feed_all(&[
            gateway_h2::PREFACE.to_vec(),
            frame(SETTINGS, 0, 0, &[]),
            request(1, false),
        ])
        .expect("allowed");
    server
        .feed(&data(1, &[0; 100], false))
        .expect("it does not know better");
    server.take();
    server.feed(&frame(SETTINGS, ACK, 0, &[])).expect("allowed");
    server
        .feed(&data(1, &[0; 1], false))
        .expect("the connection stays");
    assert!(matches!(
        server.take()[..],
        [Event::Reset {
            code: ErrorCode::FlowControlError,
            ..
        }]
    ));
}

#[test]
fn what_waits_is_counted_until_it_has_left() {
    let mut server = Probe::server_with(Config {
        output_high_water: 1,
        ..Config::server()
    });
    let streams = [1, 3, 5].map(|id| server.request(id, false));
    for stream in streams {
        server.send(stream, &[(":status", "200")], false);
        let sent = server.connection.send_data(stream, &[0; 1000], false);
        assert_eq!(sent.map(|sent| sent.queued), Ok(1000));
    }
    server.send(streams[2], &[("grpc-status", "0")], true);
    assert_eq!(server.connection.queued_in_all(), 3000);
    let beside = server.connection.output().len() + 3000;
    let trailers = server.connection.buffered() - beside;
    assert!((12..40).contains(&trailers), "{trailers} bytes");

    server.connection.reset(streams[0], ErrorCode::Cancel);
    assert_eq!(server.connection.queued_in_all(), 2000);
    server.feed(&rst(3, ErrorCode::Cancel)).expect("allowed");
    assert_eq!(server.connection.queued_in_all(), 1000);
    while !server.output().is_empty() {}
    assert_eq!(server.connection.queued_in_all(), 0);
    assert_eq!(server.connection.buffered(), 0);
}
