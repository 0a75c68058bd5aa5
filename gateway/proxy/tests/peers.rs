//! The proxy between an independent HTTP/2 client and server: what RFC 9113 lets a peer do, and what may be repeated.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, server};
use serde_json::json;
use support::{
    answer_ok, connect, endpoint, gateway, gateway_with_retry, number, request, run, status_of,
    until,
};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::timeout;

#[test]
fn a_refused_stream_is_repeated_without_any_policy() {
    run(async {
        let (address, seen) = endpoint(
            server::Builder::new(),
            |number, _, mut respond| async move {
                if number < 2 {
                    respond.send_reset(Reason::REFUSED_STREAM);
                } else {
                    answer_ok(respond, b"");
                }
            },
        )
        .await;
        let (runtime, gateway) = gateway(&json!({}), &[address]);
        assert_eq!(status_of(&mut connect(gateway).await).await, "0");
        assert_eq!(seen.requests.load(Ordering::SeqCst), 3);
        assert_eq!(number(&runtime, "transparent_retries"), 2);
    });
}

#[test]
fn endless_refusals_end_with_unavailable() {
    run(async {
        let (address, seen) = endpoint(server::Builder::new(), |_, _, mut respond| async move {
            respond.send_reset(Reason::REFUSED_STREAM);
        })
        .await;
        let (_runtime, gateway) = gateway(&json!({}), &[address]);
        assert_eq!(status_of(&mut connect(gateway).await).await, "14");
        assert_eq!(seen.requests.load(Ordering::SeqCst), 4);
    });
}

#[test]
fn another_reset_is_not_repeated_without_a_policy() {
    run(async {
        let (address, seen) = endpoint(server::Builder::new(), |_, _, mut respond| async move {
            respond.send_reset(Reason::INTERNAL_ERROR);
        })
        .await;
        let (_runtime, gateway) = gateway(&json!({}), &[address]);
        assert_eq!(status_of(&mut connect(gateway).await).await, "13");
        assert_eq!(seen.requests.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn the_peers_stream_limit_is_obeyed_by_more_connections() {
    run(async {
        let release = Arc::new(Semaphore::new(0));
        let gate = Arc::clone(&release);
        let mut builder = server::Builder::new();
        builder.max_concurrent_streams(1);
        let (address, seen) = endpoint(builder, move |_, _, respond| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.expect("stays open").forget();
                answer_ok(respond, b"");
            }
        })
        .await;
        let (runtime, gateway) = gateway(&json!({"max_connections": 2}), &[address]);
        let client = connect(gateway).await;
        let calls: Vec<_> = (0..3)
            .map(|_| {
                let mut client = client.clone();
                tokio::spawn(async move { status_of(&mut client).await })
            })
            .collect();
        until(|| seen.requests.load(Ordering::SeqCst) == 2).await;
        until(|| number(&runtime, "calls_open") == 3).await;
        assert_eq!(seen.connections.load(Ordering::SeqCst), 2);
        release.add_permits(3);
        for call in calls {
            assert_eq!(call.await.expect("ends"), "0");
        }
        assert_eq!(seen.connections.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn an_endpoint_that_does_not_read_holds_its_client_back() {
    run(async {
        let release = Arc::new(Notify::new());
        let gate = Arc::clone(&release);
        let (address, _) = endpoint(server::Builder::new(), move |_, request, respond| {
            let gate = Arc::clone(&gate);
            async move {
                gate.notified().await;
                let mut body = request.into_body();
                while let Some(Ok(data)) = body.data().await {
                    let _ = body.flow_control().release_capacity(data.len());
                }
                answer_ok(respond, b"");
            }
        })
        .await;
        let (_runtime, gateway) = gateway(&json!({}), &[address]);
        let mut client = connect(gateway).await.ready().await.expect("has room");
        let (response, mut stream) = client.send_request(request(), false).expect("is sent");
        stream.reserve_capacity(8 << 20);
        let mut sent = 0;
        // Both windows and what sockets hold; without back-pressure all eight megabytes would pass.
        while let Ok(Some(Ok(room))) = tokio::time::timeout(
            std::time::Duration::from_millis(300),
            std::future::poll_fn(|context| stream.poll_capacity(context)),
        )
        .await
        {
            stream
                .send_data(Bytes::from(vec![0; room]), false)
                .expect("is sent");
            sent += room;
            stream.reserve_capacity(8 << 20);
        }
        assert!((65_535..2 << 20).contains(&sent), "sent {sent} bytes");
        release.notify_one();
        stream.send_data(Bytes::new(), true).expect("is sent");
        assert_eq!(response.await.expect("is answered").status(), 200);
    });
}

#[test]
fn a_request_that_is_no_grpc_gets_415() {
    run(async {
        let (_runtime, gateway) = gateway(&json!({}), &[]);
        let mut client = connect(gateway).await.ready().await.expect("has room");
        let mut head = request();
        head.headers_mut()
            .insert("content-type", "text/html".parse().expect("is a value"));
        let (response, _) = client.send_request(head, true).expect("is sent");
        assert_eq!(response.await.expect("is answered").status(), 415);
    });
}

#[test]
fn an_http_error_of_a_proxy_behind_becomes_a_grpc_status() {
    run(async {
        let (address, _) = endpoint(server::Builder::new(), |_, _, mut respond| async move {
            let head = http::Response::builder()
                .status(503)
                .body(())
                .expect("is one");
            if let Ok(mut stream) = respond.send_response(head, false) {
                let _gone = stream.send_data(Bytes::from_static(b"<html>"), true);
            }
        })
        .await;
        let (_runtime, gateway) = gateway(&json!({}), &[address]);
        assert_eq!(status_of(&mut connect(gateway).await).await, "14");
    });
}

fn response_head() -> http::Response<()> {
    http::Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .expect("is a response")
}

#[test]
fn an_endpoint_that_dies_between_headers_and_message_costs_no_call() {
    run(async {
        let (address, seen) = endpoint(
            server::Builder::new(),
            |number, request, mut respond| async move {
                let mut body = request.into_body();
                while let Some(Ok(_)) = body.data().await {}
                if number > 0 {
                    return answer_ok(respond, b"\0\0\0\0\0");
                }
                let mut stream = respond
                    .send_response(response_head(), false)
                    .expect("is sent");
                stream.send_reset(Reason::INTERNAL_ERROR);
            },
        )
        .await;
        let retry = json!({"on": ["reset"], "attempts": 1, "base_ms": 1});
        let (runtime, gateway) = gateway_with_retry(&json!({}), &retry, &[address]);
        assert_eq!(status_of(&mut connect(gateway).await).await, "0");
        assert_eq!(seen.requests.load(Ordering::SeqCst), 2);
        assert_eq!(number(&runtime, "retries"), 1);
    });
}

#[test]
fn headers_without_a_message_reach_the_client_all_the_same() {
    run(async {
        let release = Arc::new(Notify::new());
        let gate = Arc::clone(&release);
        let (address, _) = endpoint(server::Builder::new(), move |_, _, mut respond| {
            let gate = Arc::clone(&gate);
            async move {
                let mut stream = respond
                    .send_response(response_head(), false)
                    .expect("is sent");
                gate.notified().await;
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "5".parse().expect("is a value"));
                stream.send_trailers(trailers).expect("are sent");
            }
        })
        .await;
        let retry = json!({"on": ["reset"], "attempts": 1});
        let (_runtime, gateway) = gateway_with_retry(&json!({}), &retry, &[address]);
        let mut client = connect(gateway).await.ready().await.expect("has room");
        let (response, _) = client.send_request(request(), true).expect("is sent");
        let response = response.await.expect("headers come before the end");
        release.notify_one();
        let mut body = response.into_body();
        assert!(body.data().await.is_none());
        let trailers = body.trailers().await.expect("arrive").expect("are there");
        assert_eq!(trailers["grpc-status"], "5");
    });
}

#[test]
fn calls_wait_a_limited_time_for_a_connection_that_was_begun_before_them() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let (second, waits) = oneshot::channel();
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.expect("is dialled");
            let mut speaks = server::handshake(socket).await.expect("speaks HTTP/2");
            let _request = speaks.accept().await;
            drop(speaks);
            let _mute = listener.accept().await.expect("is dialled again");
            second.send(()).expect("is awaited");
            std::future::pending::<()>().await;
        });
        let cluster = json!({
            "connect_timeout_ms": 15_000,
            "keepalive": {"interval_ms": 100, "timeout_ms": 100},
        });
        let (_runtime, gateway) = gateway(&cluster, &[address]);
        let mut client = connect(gateway).await;
        assert_eq!(status_of(&mut client).await, "14");
        waits.await.expect("the endpoint is dialled again at once");
        let answer = timeout(Duration::from_secs(5), status_of(&mut client)).await;
        assert_eq!(answer.expect("patience ends long before"), "14");
    });
}

#[test]
fn the_authority_is_the_only_name_that_an_endpoint_sees() {
    run(async {
        let (address, _seen) = endpoint(server::Builder::new(), |_, request, respond| async move {
            assert!(!request.headers().contains_key("host"));
            assert_eq!(request.uri().host(), Some("echo.test"));
            answer_ok(respond, b"");
        })
        .await;
        let (_runtime, gateway) = gateway(&json!({}), &[address]);
        let mut client = connect(gateway).await.ready().await.expect("has room");
        let mut head = request();
        let other = "other.test".parse().expect("is a value");
        head.headers_mut().insert("host", other);
        let (response, _) = client.send_request(head, true).expect("is sent");
        assert_eq!(response.await.expect("is answered").status(), 200);
    });
}

#[test]
fn each_kind_of_grpc_is_answered_in_its_own_form() {
    run(async {
        let (_runtime, gateway) = gateway(&json!({}), &[]);
        let (grpc, web) = ("application/grpc", "application/grpc-web+proto");
        let plain = "text/plain; charset=utf-8";
        for (kind, status, form) in [
            ("application/grpc", 200, grpc),
            ("application/grpc+proto", 200, grpc),
            ("application/grpc;charset=utf-8", 200, grpc),
            ("application/grpc-web", 200, web),
            ("application/grpc-web+proto", 200, web),
            (
                "application/grpc-web-text",
                200,
                "application/grpc-web-text+proto",
            ),
            ("application/grpc-webs", 415, plain),
        ] {
            let mut client = connect(gateway).await.ready().await.expect("has room");
            let mut head = request();
            let value = kind.parse().expect("is a value");
            head.headers_mut().insert("content-type", value);
            let (response, _) = client.send_request(head, true).expect("is sent");
            let answer = response.await.expect("is answered");
            assert_eq!(answer.status(), status, "{kind}");
            assert_eq!(answer.headers()["content-type"], form, "{kind}");
        }
    });
}
