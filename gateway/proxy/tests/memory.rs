//! What peers can make a worker hold: bounded for a stream, for a connection, and for all together, and who pays.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway_proxy::{Runtime, Settings};
use h2::{Reason, client, server};
use serde_json::{Value, json};
use support::{answer_ok, apply_route, connect, endpoint, number, request, run, status_of, until};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const KIB: u64 = 1024;
const BUFFERS_MAX: u64 = 16 * KIB * KIB;
/// What one turn may read on top, and header lists and frame headers that are not the test's subject.
const SLACK: u64 = 5 * KIB * KIB;
/// Body of an answer that fits a stream's first window.
const UNREAD: &[u8] = &[0; 32 * 1024];

fn gateway(addresses: &[std::net::SocketAddr]) -> (Arc<Runtime>, std::net::SocketAddr) {
    let runtime = Runtime::new(Settings {
        buffers_max_bytes: BUFFERS_MAX,
        ..Settings::default()
    });
    runtime.start().expect("starts");
    let gateway = apply_route(&runtime, &json!({}), &Value::Null, addresses);
    (Arc::new(runtime), gateway)
}

/// A client that gives no window for answers.
async fn client_without_window(gateway: std::net::SocketAddr) -> client::SendRequest<Bytes> {
    let socket = TcpStream::connect(gateway).await.expect("connects");
    let made = client::Builder::new()
        .initial_window_size(0)
        .handshake(socket);
    let (send, connection) = made.await.expect("speaks HTTP/2");
    tokio::spawn(connection);
    send
}

#[test]
fn who_does_not_read_loses_streams_at_the_bound_and_nobody_else() {
    run(async {
        let answer = |_, request: http::Request<_>, respond| async move {
            let is_greedy = request.headers().contains_key("x-greedy");
            answer_ok(respond, if is_greedy { UNREAD } else { b"" });
        };
        let (address, _) = endpoint(server::Builder::new(), answer).await;
        let (runtime, gateway) = gateway(&[address]);

        // One that holds a little, and is within its rights.
        let mut modest = client_without_window(gateway).await;
        let kept = ask_greedily(&mut modest).await;
        until(|| number(&runtime, "buffered_bytes") > 30 * KIB).await;

        let mut unread = JoinSet::new();
        let mut most = 0;
        for _ in 0..3 {
            let client = client_without_window(gateway).await;
            for _ in 0..200 {
                let mut client = client.clone();
                unread.spawn(async move { end_of(&mut ask_greedily(&mut client).await).await });
            }
            most = most.max(number(&runtime, "buffered_bytes"));
            assert_eq!(status_of(&mut connect(gateway).await).await, "0");
        }
        until(|| {
            most = most.max(number(&runtime, "buffered_bytes"));
            number(&runtime, "buffer_overflow_streams") > 0
        })
        .await;
        assert!(most < BUFFERS_MAX + SLACK, "{most} bytes were held");
        assert_eq!(
            unread.join_next().await.expect("one ends").expect("runs"),
            Reason::ENHANCE_YOUR_CALM
        );
        assert_eq!(number(&runtime, "buffer_overflow_connections"), 0);
        assert!(
            tokio::time::timeout(Duration::from_millis(50), {
                let mut kept = kept;
                async move { end_of(&mut kept).await }
            })
            .await
            .is_err(),
            "it keeps what it has"
        );
    });
}

#[test]
fn requests_to_an_endpoint_that_does_not_read_hold_a_first_window_each() {
    run(async {
        const STREAMS: u64 = 100;
        let mut never_reads = server::Builder::new();
        never_reads.initial_window_size(0);
        let (address, seen) = endpoint(never_reads, |_, _, respond| async move {
            let _held = respond;
            std::future::pending::<()>().await;
        })
        .await;
        let (runtime, gateway) = gateway(&[address]);
        let client = connect(gateway).await;
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let mut ready = client.clone().ready().await.expect("has room");
            let (answer, mut stream) = ready.send_request(request(), false).expect("is sent");
            stream
                .send_data(Bytes::from(vec![0; 300 * 1024]), false)
                .expect("is taken");
            streams.push((answer, stream));
        }
        until(|| seen.requests.load(std::sync::atomic::Ordering::SeqCst) == 100).await;
        // The gateway holds each window once, and what a further try would need of it.
        until(|| number(&runtime, "buffered_bytes") > STREAMS * 60 * KIB).await;
        let held = number(&runtime, "buffered_bytes");
        assert!(
            held < STREAMS * (64 + 16 + 4) * KIB,
            "{held} bytes are held"
        );
        drop(streams);
        until(|| number(&runtime, "buffered_bytes") < 64 * KIB).await;
    });
}

#[test]
fn a_long_answer_passes_through_in_a_window_or_two() {
    run(async {
        const PART: &[u8] = &[0; 64 * 1024];
        const PARTS: usize = 256;
        let answer = |_, _, mut respond: server::SendResponse<Bytes>| async move {
            let head = http::Response::builder().header("content-type", "application/grpc");
            let head = head.body(()).expect("is a response");
            let mut stream = respond.send_response(head, false).expect("is sent");
            for _ in 0..PARTS {
                stream.reserve_capacity(PART.len());
                let mut left = PART.len();
                while left > 0 {
                    let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
                    let room = room.expect("goes on").expect("is open").min(left);
                    stream
                        .send_data(Bytes::from_static(&PART[..room]), false)
                        .expect("is taken");
                    left -= room;
                }
            }
            stream.send_data(Bytes::new(), true).expect("is taken");
        };
        let (address, _) = endpoint(server::Builder::new(), answer).await;
        let (runtime, gateway) = gateway(&[address]);
        let mut client = connect(gateway).await.ready().await.expect("has room");
        let (answer, _) = client.send_request(request(), true).expect("is sent");
        let mut body = answer.await.expect("is answered").into_body();
        let (mut taken, mut most) = (0, 0);
        while let Some(part) = body.data().await {
            let part = part.expect("arrives");
            if taken / PART.len() != (taken + part.len()) / PART.len() {
                most = most.max(number(&runtime, "buffered_bytes"));
            }
            taken += part.len();
            body.flow_control()
                .release_capacity(part.len())
                .expect("is owed");
        }
        assert_eq!(taken, PART.len() * PARTS);
        let window = u64::from(Settings::default().stream_window);
        assert!(most <= 2 * window, "{most} bytes were held");
    });
}

/// Asks for an answer larger than any window of a client that gives none.
async fn ask_greedily(client: &mut client::SendRequest<Bytes>) -> h2::RecvStream {
    let mut ready = client.clone().ready().await.expect("has room");
    let mut head = request();
    head.headers_mut()
        .insert("x-greedy", "1".parse().expect("is a value"));
    let (answer, _) = ready.send_request(head, true).expect("is sent");
    answer.await.expect("is answered").into_body()
}

/// The reason that an answer ends with early.
async fn end_of(answer: &mut h2::RecvStream) -> Reason {
    let end = answer.data().await.expect("an end");
    end.expect_err("no data fits").reason().expect("a reset")
}
