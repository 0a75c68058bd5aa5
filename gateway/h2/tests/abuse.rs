//! Floods end the connection with `ENHANCE_YOUR_CALM`; what a lively client does, does not.

mod support;

use gateway_h2::{AbuseLimits, Config, ErrorCode, Event};
use support::*;

/// A server with small budgets.
fn server() -> Probe {
    let limits = AbuseLimits {
        resets: 10,
        continuations: 3,
        pings: 10,
        settings: 10,
        empty_data: 10,
        window_updates: 10,
        ignored: 10,
        unread_answers: 1000,
    };
    Probe::server_with(Config {
        limits,
        ..Config::server()
    })
}

/// Feeds `frames` one after the other, the output written each time, until the connection ends.
fn flood(server: &mut Probe, mut next: impl FnMut(u32) -> Vec<u8>) -> u32 {
    for number in 0..1000 {
        if let Err(error) = server.feed(&next(number)) {
            assert_eq!(error.code, ErrorCode::EnhanceYourCalm);
            assert_eq!(server.connection.stats().abuse_ended, 1);
            return number;
        }
        server.output();
        server.take();
    }
    1000
}

#[test]
fn floods() {
    assert_eq!(flood(&mut server(), |_| frame(PING, 0, 0, &[0; 8])), 10);
    assert_eq!(
        flood(&mut server(), |_| frame(SETTINGS, 0, 0, &[])),
        9,
        "one was the greeting"
    );
    assert_eq!(flood(&mut server(), |_| frame(PRIORITY, 0, 9, &[0; 5])), 10);
    assert_eq!(flood(&mut server(), |_| frame(200, 0, 0, &[0; 5])), 10);
    assert_eq!(flood(&mut server(), |_| window_update(0, 1)), 10);
    let mut with_stream = server();
    with_stream.request(1, false);
    assert_eq!(flood(&mut with_stream, |_| data(1, b"", false)), 10);
}

#[test]
fn rapid_reset() {
    let both = |number: u32| {
        let id = number * 2 + 1;
        [request(id, true), rst(id, ErrorCode::Cancel)].concat()
    };
    assert_eq!(flood(&mut server(), both), 10);
}

/// The peer makes us reset (CVE-2025-8671).
#[test]
fn made_you_reset() {
    for fault in [
        window_update,
        |id, _| data(id, b"x", true),
        |id, _| frame(PRIORITY, 0, id, &[]),
    ] {
        let both = |number: u32| {
            let id = number * 2 + 1;
            [request(id, true), fault(id, 0)].concat()
        };
        assert_eq!(flood(&mut server(), both), 10);
    }
    let malformed = |number: u32| headers(number * 2 + 1, &[("x", "1")], true);
    assert_eq!(flood(&mut server(), malformed), 10);
}

#[test]
fn streams_over_the_limit() {
    let mut server = server();
    for number in 0..1024 {
        server
            .feed(&request(number * 2 + 1, false))
            .expect("allowed");
    }
    assert_eq!(
        flood(&mut server, |number| request(3000 + number * 2 + 1, false)),
        10
    );
}

#[test]
fn a_tick_fills_the_budgets() {
    let mut server = server();
    for _ in 0..20 {
        for _ in 0..10 {
            server.feed(&frame(PING, 0, 0, &[0; 8])).expect("allowed");
            server.output();
        }
        server.connection.tick();
    }
    assert_eq!(server.connection.stats().pings_received, 200);
}

#[test]
fn continuation_floods() {
    let mut many = server();
    many.feed(&frame(HEADERS, 0, 1, &[])).expect("allowed");
    assert_eq!(flood(&mut many, |_| frame(CONTINUATION, 0, 1, &[])), 3);
    let mut large = Probe::server();
    large.feed(&frame(HEADERS, 0, 1, &[])).expect("allowed");
    let frames = flood(&mut large, |_| frame(CONTINUATION, 0, 1, &[0; 16_384]));
    assert!(frames < 10, "{frames}");
}

#[test]
fn answers_nobody_reads() {
    let mut server = server();
    let error = (0..1000).find_map(|_| {
        server.connection.tick();
        server.feed(&frame(PING, 0, 0, &[0; 8])).err()
    });
    assert_eq!(
        error.map(|error| error.code),
        Some(ErrorCode::EnhanceYourCalm)
    );
    assert!(server.connection.output().len() < 2000);
}

/// A client that downloads a lot and gives back its window in small pieces is no flood.
#[test]
fn sending_earns_window_updates() {
    let mut server = server();
    let stream = server.request(1, true);
    server.send(stream, &[(":status", "200")], false);
    for _ in 0..500 {
        server
            .connection
            .send_data(stream, &[0; 100], false)
            .expect("open");
        server
            .feed_all(&[
                window_update(0, 50),
                window_update(1, 50),
                window_update(0, 50),
                window_update(1, 50),
            ])
            .expect("earned");
        server.output();
    }
}

/// Resets by an upstream are answers, not attacks.
#[test]
fn a_client_takes_any_number_of_resets() {
    let limits = AbuseLimits {
        resets: 1,
        ..AbuseLimits::default()
    };
    let mut client = Probe::client_with(
        Config {
            limits,
            ..Config::client()
        },
        &[],
    );
    for token in 0..50 {
        let stream = client.open(token, true);
        client
            .feed(&rst(stream.id(), ErrorCode::RefusedStream))
            .expect("allowed");
        assert!(matches!(
            client.take()[..],
            [Event::Reset { local: false, .. }]
        ));
    }
}
