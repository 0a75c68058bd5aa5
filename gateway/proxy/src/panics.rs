//! A bug met on one connection, in tests alone: what it costs, and what it does not.

use std::time::Duration;

use gateway_proxy::{Notice, Runtime, Settings};
use serde_json::json;

#[allow(clippy::duplicate_mod, reason = "the integration tests have it too")]
#[path = "../tests/support/mod.rs"]
mod support;

use support::{answer_ok, apply_route, connect, endpoint, number, request, run, status_of, until};

const BUG: &[u8] = b"/test.Bug/Meet";

/// Panics for requests of this path.
pub(crate) fn provoke(path: &[u8]) {
    assert!(path != BUG, "a request met a bug");
}

/// Meets the bug on a connection of its own, which ends.
async fn meet_bug(gateway: std::net::SocketAddr) {
    let mut client = connect(gateway).await.ready().await.expect("has room");
    let mut head = request();
    *head.uri_mut() = "http://echo.test/test.Bug/Meet".parse().expect("is a URI");
    let (response, _stream) = client.send_request(head, true).expect("is sent");
    response.await.expect_err("the connection ends");
}

#[test]
fn a_panic_costs_its_connection_and_many_drain_the_gateway() {
    run(async {
        let (address, _) = endpoint(h2::server::Builder::new(), |_, _, respond| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer_ok(respond, b"");
        })
        .await;
        let runtime = Runtime::new(Settings {
            panics_max: 3,
            ..Settings::default()
        });
        runtime.start().expect("starts");
        let gateway = apply_route(&runtime, &json!({}), &json!(null), &[address]);
        let mut other = connect(gateway).await;
        assert_eq!(status_of(&mut other).await, "0");

        for panics in 1..3 {
            let mut under_way = other.clone();
            let (status, ()) = tokio::join!(status_of(&mut under_way), meet_bug(gateway));
            assert_eq!(status, "0", "a call of another connection goes on");
            assert_eq!(number(&runtime, "panics"), panics);
            assert_eq!(number(&runtime, "downstream_connections"), 1);
        }
        assert_eq!(number(&runtime, "calls_open"), 0);
        assert!(!runtime.drained());

        meet_bug(gateway).await;
        until(|| runtime.drained()).await;
        let told = runtime.notices(100);
        let gave_up = Notice::GaveUp { panics: 3 };
        assert_eq!(told.iter().filter(|it| **it == gave_up).count(), 1);
        runtime.stop();
    });
}
