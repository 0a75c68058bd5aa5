//! Clients that do not speak gRPC, byte by byte: what they are told and when they are let go.

mod support;

use std::net::SocketAddr;

use serde_json::json;
use support::{gateway, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// GET http / on stream 1, from the static table, without `END_STREAM`.
const OPEN_GET: &[u8] = &[0, 0, 3, 1, 4, 0, 0, 0, 1, 0x82, 0x86, 0x84];
/// `WINDOW_UPDATE` of nothing on stream 1.
const NO_INCREMENT: &[u8] = &[0, 0, 4, 8, 0, 0, 0, 0, 1, 0, 0, 0, 0];

struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

async fn say(gateway: SocketAddr, words: &[&[u8]]) -> TcpStream {
    let mut client = TcpStream::connect(gateway).await.expect("is accepted");
    client.write_all(&words.concat()).await.expect("is sent");
    client
}

/// The next frame of stream 1.
async fn next_frame(client: &mut TcpStream) -> Frame {
    loop {
        let mut head = [0; 9];
        client.read_exact(&mut head).await.expect("a frame comes");
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        client.read_exact(&mut payload).await.expect("is whole");
        let (kind, stream) = (head[3], head[8]);
        if stream == 1 {
            return Frame { kind, payload };
        }
    }
}

/// The whole answer on stream 1.
async fn take_answer(client: &mut TcpStream) {
    assert_eq!(next_frame(client).await.kind, 1);
    let body = next_frame(client).await;
    assert_eq!(body.kind, 0);
    assert!(body.payload.starts_with(b"content-type must begin with"));
}

/// The code that stream 1 is reset with next.
async fn next_reset(client: &mut TcpStream) -> Vec<u8> {
    let reset = next_frame(client).await;
    assert_eq!(reset.kind, 3);
    reset.payload
}

async fn all(mut client: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("is closed");
    answer
}

#[test]
fn a_client_of_another_protocol_is_closed_without_a_word() {
    run(async {
        let (_runtime, gateway) = gateway(&json!({}), &[]);
        let words: [&[u8]; 3] = [
            b"INVALID CONNECTION PREFACE\r\n\r\n",
            b"\x16\x03\x01\x00\x05hello",
            b"GET /\r\n",
        ];
        for word in words {
            assert_eq!(all(say(gateway, &[word]).await).await, b"");
        }
    });
}

#[test]
fn an_http1_request_that_comes_in_parts_is_told_what_is_spoken_here() {
    run(async {
        let (_runtime, gateway) = gateway(&json!({}), &[]);
        let mut client = say(gateway, &[b"GET / HT"]).await;
        client
            .write_all(
                b"TP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nConnection: close\r\n\r\n",
            )
            .await
            .expect("is sent");
        assert!(all(client).await.starts_with(b"HTTP/1.1 505 "));
    });
}

#[test]
fn a_rule_broken_behind_an_early_refusal_is_told() {
    run(async {
        let (_runtime, gateway) = gateway(&json!({}), &[]);
        let mut client = say(gateway, &[PREFACE, EMPTY_SETTINGS, OPEN_GET]).await;
        take_answer(&mut client).await;
        client.write_all(NO_INCREMENT).await.expect("is sent");
        let protocol_error = [0, 0, 0, 1];
        assert_eq!(next_reset(&mut client).await, protocol_error);
    });
}

#[test]
fn a_refused_request_without_end_is_let_go() {
    run(async {
        let (_runtime, gateway) = gateway(&json!({}), &[]);
        let mut client = say(gateway, &[PREFACE, EMPTY_SETTINGS, OPEN_GET]).await;
        take_answer(&mut client).await;
        let no_error = [0; 4];
        assert_eq!(next_reset(&mut client).await, no_error);
    });
}
