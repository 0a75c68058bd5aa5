//! Endpoints and clients on the `h2` crate: an HTTP/2 implementation that shares nothing with ours.

#![allow(dead_code, reason = "each test file uses its part")]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gateway_proxy::{Runtime, Settings};
use h2::server::SendResponse;
use h2::{RecvStream, client, server};
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

pub const DEADLINE: Duration = Duration::from_secs(20);

/// Counts what an endpoint saw.
#[derive(Default)]
pub struct Seen {
    pub connections: AtomicUsize,
    pub requests: AtomicUsize,
}

/// Runs a test body with a deadline.
pub fn run(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(DEADLINE, body)
            .await
            .expect("the test ends in time");
    });
}

/// Starts an endpoint; `answer` handles each request with its number, counted over all connections.
pub async fn endpoint<F, A>(builder: server::Builder, answer: A) -> (SocketAddr, Arc<Seen>)
where
    A: Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let seen = Arc::new(Seen::default());
    let counted = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            counted.connections.fetch_add(1, Ordering::SeqCst);
            let (builder, answer) = (builder.clone(), answer.clone());
            let seen = Arc::clone(&counted);
            tokio::spawn(async move {
                let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else {
                    return;
                };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let number = seen.requests.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(answer(number, request, respond));
                }
            });
        }
    });
    (address, seen)
}

/// The whole response of a gRPC call that worked.
pub fn answer_ok(mut respond: SendResponse<Bytes>, body: &'static [u8]) {
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .expect("is a response");
    if let Ok(mut stream) = respond.send_response(head, false) {
        let _gone = stream.send_data(Bytes::from_static(body), false);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().expect("is a value"));
        let _gone = stream.send_trailers(trailers);
    }
}

/// A started core with one route to `addresses`, and where its listener is.
pub fn gateway(cluster: &Value, addresses: &[SocketAddr]) -> (Runtime, SocketAddr) {
    gateway_with_retry(cluster, &Value::Null, addresses)
}

/// The same with a retry policy on the route.
pub fn gateway_with_retry(
    cluster: &Value,
    retry: &Value,
    addresses: &[SocketAddr],
) -> (Runtime, SocketAddr) {
    let runtime = Runtime::new(Settings::default());
    runtime.start().expect("starts");
    let address = apply_route(&runtime, cluster, retry, addresses);
    (runtime, address)
}

/// Has a core route everything to `addresses`; where its listener is.
pub fn apply_route(
    runtime: &Runtime,
    cluster: &Value,
    retry: &Value,
    addresses: &[SocketAddr],
) -> SocketAddr {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"address": address.to_string()}))
        .collect();
    let mut echo = json!({"name": "echo"});
    for (name, value) in cluster.as_object().expect("is an object") {
        echo[name] = value.clone();
    }
    let update = json!({
        "version": "1", "full": true,
        "listeners": [{"name": "in", "address": "127.0.0.1", "port": 0, "kind": "ingress", "route_table": "main"}],
        "route_tables": [{"name": "main", "virtual_hosts": [{"name": "all", "hostnames": ["*"], "routes": [{
            "name": "rule-0", "match": {"path": {"prefix": "/"}, "grpc": true},
            "action": {"weighted": [{"cluster": "echo", "weight": 1}]}, "retry": retry,
        }]}]}],
        "clusters": [echo],
        "endpoints": [{"cluster": "echo", "localities": [{
            "cluster_id": "here", "region": "r", "priority": 0, "weight": 1, "endpoints": endpoints,
        }]}],
    });
    let report = runtime
        .apply(update.to_string().as_bytes())
        .expect("is accepted");
    report.listeners[0].address.parse().expect("is an address")
}

/// A client on one connection.
pub async fn connect(address: SocketAddr) -> client::SendRequest<Bytes> {
    let socket = TcpStream::connect(address).await.expect("connects");
    let (send, connection) = client::handshake(socket).await.expect("speaks HTTP/2");
    tokio::spawn(connection);
    send
}

/// A gRPC request head.
pub fn request() -> Request<()> {
    Request::builder()
        .method("POST")
        .uri("http://echo.test/test.Echo/Unary")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("is a request")
}

/// Calls once; the `grpc-status` that came, from headers or trailers.
pub async fn status_of(client: &mut client::SendRequest<Bytes>) -> String {
    let mut ready = client.clone().ready().await.expect("has room");
    let (response, mut stream) = ready.send_request(request(), false).expect("is sent");
    // An answer that needs no message may have ended the stream by now.
    let _ended_early = stream.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), true);
    let response = response.await.expect("is answered");
    if let Some(status) = response.headers().get("grpc-status") {
        return status.to_str().expect("is text").to_owned();
    }
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let data = data.expect("arrives");
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.expect("arrive").expect("are there");
    trailers["grpc-status"]
        .to_str()
        .expect("is text")
        .to_owned()
}

/// One of the runtime's plain numbers.
pub fn number(runtime: &Runtime, name: &str) -> u64 {
    runtime.stats()["numbers"][name]
        .as_u64()
        .expect("is a number")
}

/// Waits until a condition holds; the test's deadline bounds it.
pub async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
