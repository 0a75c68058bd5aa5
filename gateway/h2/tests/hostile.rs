//! Random frames and random bytes, in both roles, with a caller that answers: an error or not, never
//! a panic, never more streams than allowed, and an output that a peer can read.

mod support;

use gateway_h2::{Config, Event, Field, PREFACE, StreamRef};
use proptest::prelude::*;
use support::{Probe, frame};

/// What the caller does with every stream it hears of.
fn answer(probe: &mut Probe, how: u8) {
    let streams: Vec<StreamRef> = probe
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Request { stream, .. }
            | Event::Data { stream, .. }
            | Event::Response { stream, .. }
            | Event::Trailers { stream, .. } => Some(*stream),
            _ => None,
        })
        .collect();
    probe.events.clear();
    for stream in streams {
        let fields = [Field::new(b":status", b"200"), Field::new(b"x-how", b"1")];
        let connection = &mut probe.connection;
        // Refusals are part of the game: the stream may be gone or in another state.
        match how % 5 {
            0 => drop(connection.send_headers(stream, fields, false)),
            1 => drop(connection.send_headers(stream, fields, true)),
            2 => drop(connection.send_data(stream, &[how; 300], false)),
            3 => drop(connection.send_data(stream, &[how; 3], true)),
            _ => connection.reset(stream, gateway_h2::ErrorCode::Cancel),
        }
        connection.release(stream, u32::from(how) * 10);
    }
}

fn random_frame() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![3 => 0u32..8, 1 => any::<u32>()];
    let payload = prop::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        2 => (0u8..11, any::<u8>(), id.clone(), payload)
            .prop_map(|(kind, flags, id, payload)| frame(kind, flags, id, &payload)),
        2 => (0u32..20, any::<bool>()).prop_map(|(id, end)| support::request(id * 2 + 1, end)),
        2 => (0u32..20, any::<bool>(), 0usize..500)
            .prop_map(|(id, end, len)| support::data(id * 2 + 1, &vec![0; len], end)),
        1 => (0u32..20).prop_map(|id| support::trailers(id * 2 + 1)),
        1 => (0u32..20).prop_map(|id| {
            support::headers(id * 2 + 1, &[(":status", "200")], id % 2 == 0)
        }),
        1 => (0u32..20, 0u32..3000).prop_map(|(id, more)| support::window_update(id, more)),
        1 => (1u8..7, 0u32..70_000)
            .prop_map(|(id, value)| frame(support::SETTINGS, 0, 0, &support::setting(id, value))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_frames(
        frames in prop::collection::vec((random_frame(), any::<u8>()), 1..60),
        is_server: bool,
    ) {
        let limit = 5;
        let mut probe = if is_server {
            Probe::server_with(Config { max_concurrent_streams: limit, ..Config::server() })
        } else {
            let mut probe = Probe::client_with(Config::client(), &[]);
            for token in 0..u64::from(limit) {
                probe.open(token, token % 2 == 0);
            }
            probe
        };
        for (bytes, how) in frames {
            if probe.feed(&bytes).is_err() {
                break;
            }
            prop_assert!(probe.connection.stream_count() <= limit as usize);
            answer(&mut probe, how);
            probe.output();
        }
        // Also behind an error: the GOAWAY, readable.
        probe.output();
    }

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400), has_preface: bool) {
        let mut probe = Probe::server();
        let lead: &[u8] = if has_preface { PREFACE } else { &[] };
        let used = probe.connection.receive(&[lead, &bytes].concat(), &mut probe.events);
        if let Ok(used) = used {
            prop_assert!(used <= lead.len() + bytes.len());
        }
        probe.output();
    }
}
