//! What the protocol costs: header blocks written and read, DATA received, a whole unary exchange.
//!
//! `cargo bench -p gateway-h2`. Absolute numbers are of the machine. A block is written or read with the frame and the
//! stream that it opens, as the proxy does it: HPACK is not reachable by itself.

#![allow(missing_docs, clippy::unwrap_used)] // made by criterion's macros; a bench may panic

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gateway_h2::{Config, Connection, Event, Events, Field, StreamRef};

const BLOCKS: u32 = 1_000;
const MESSAGE: &[u8] = &[0, 0, 0, 0, 8, 10, 6, b'u', b's', b'e', b'r', b'-', b'1'];
/// Exchanges after which the budgets against abuse are filled up again, as each second does.
const TICK_AFTER: u32 = 1_000;

/// Two ends and what they hand each other.
struct Pair {
    client: Connection,
    server: Connection,
    events: Events,
}

impl Pair {
    fn new() -> Self {
        let mut config = Config::server();
        config.max_concurrent_streams = BLOCKS;
        let mut pair = Self {
            client: Connection::new(Config::client()),
            server: Connection::new(config),
            events: Events::new(),
        };
        for _ in 0..2 {
            pair.up();
            pair.down();
        }
        pair
    }

    /// What the client has to say goes to the server.
    fn up(&mut self) {
        pass(&mut self.client, &mut self.server, &mut self.events);
    }

    /// And back.
    fn down(&mut self) {
        pass(&mut self.server, &mut self.client, &mut self.events);
    }

    fn open(&mut self, tracing: &str, end: bool) -> StreamRef {
        let stream = self.client.open(1).unwrap();
        self.client
            .send_headers(stream, request(tracing), end)
            .unwrap();
        stream
    }
}

/// Everything that `from` has to say, to `to`; `events` are those of `to`.
fn pass(from: &mut Connection, to: &mut Connection, events: &mut Events) {
    events.clear();
    let output = from.output();
    let taken = to.receive(output, events).unwrap();
    assert_eq!(taken, output.len());
    from.advance_output(taken, &mut Events::new());
}

/// A gRPC request; `tracing` is what differs from call to call.
fn request(tracing: &str) -> impl Iterator<Item = Field<'_>> {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/com.example.api.UserService/GetUser"),
        (":authority", "grpc.example.com"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-python-asyncio/1.85.1 grpc-c/54.0.0"),
        ("grpc-accept-encoding", "identity, deflate, gzip"),
        ("x-request-id", tracing),
    ]
    .into_iter()
    .map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes()))
}

/// The same for every call, or new each time.
fn tracings(fresh: bool) -> Vec<String> {
    (0..BLOCKS)
        .map(|n| {
            format!(
                "0af7651916cd43dd8448eb211c80{:04x}",
                if fresh { n } else { 0 }
            )
        })
        .collect()
}

fn blocks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("headers");
    group.throughput(Throughput::Elements(BLOCKS.into()));
    for (name, fresh) in [("repeated", false), ("one_new_value", true)] {
        let tracings = tracings(fresh);
        group.bench_function(BenchmarkId::new("write", name), |bencher| {
            bencher.iter_batched_ref(
                Pair::new,
                |pair| {
                    for tracing in &tracings {
                        black_box(pair.open(tracing, true));
                    }
                },
                BatchSize::LargeInput,
            );
        });
        let mut writer = Pair::new();
        for tracing in &tracings {
            writer.open(tracing, true);
        }
        let written = writer.client.output().to_vec();
        group.bench_function(BenchmarkId::new("read", name), |bencher| {
            bencher.iter_batched_ref(
                Pair::new,
                |pair| {
                    pair.events.clear();
                    let taken = pair.server.receive(&written, &mut pair.events);
                    assert_eq!(taken.unwrap(), written.len());
                },
                BatchSize::LargeInput,
            );
        });
    }
}

fn data(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("data");
    for size in [100, 16_384] {
        let mut pair = Pair::new();
        let stream = pair.open("0", false);
        pair.up();
        let at_server = asked(&pair.events);
        let payload = vec![7; size];
        let mut sent = 0;
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("send_and_receive", size), |bencher| {
            bencher.iter(|| {
                pair.client.send_data(stream, &payload, false).unwrap();
                pair.up();
                pair.server.release(at_server, size as u32);
                if pair.server.wants_write() {
                    pair.down();
                }
                sent += 1;
                if sent % TICK_AFTER == 0 {
                    pair.client.tick();
                    pair.server.tick();
                }
            });
        });
    }
}

fn unary(criterion: &mut Criterion) {
    let mut pair = Pair::new();
    let head = [(":status", "200"), ("content-type", "application/grpc")];
    let mut done = 0;
    criterion.bench_function("unary", |bencher| {
        bencher.iter(|| {
            let stream = pair.open("0", false);
            pair.client.send_data(stream, MESSAGE, true).unwrap();
            pair.up();
            let asked = asked(&pair.events);
            let fields = head.map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes()));
            pair.server.send_headers(asked, fields, false).unwrap();
            pair.server.send_data(asked, MESSAGE, false).unwrap();
            let trailers = [Field::new(b"grpc-status", b"0")];
            pair.server.send_headers(asked, trailers, true).unwrap();
            pair.down();
            assert_eq!(pair.client.stream_count(), 0);
            done += 1;
            if done % TICK_AFTER == 0 {
                pair.client.tick();
                pair.server.tick();
            }
        });
    });
}

/// The stream of the request that has just come.
fn asked(events: &Events) -> StreamRef {
    events
        .iter()
        .find_map(|event| match event {
            Event::Request { stream, .. } => Some(*stream),
            _ => None,
        })
        .unwrap()
}

criterion_group!(benches, blocks, data, unary);
criterion_main!(benches);
