//! The server behind the proxy. The method's name says what it does with a call.
//!
//! | method | answer |
//! |---|---|
//! | `Echo` | what comes, as it comes |
//! | `Source` | `x-bytes` bytes in messages of 64 KiB |
//! | `Hold` | headers, and then nothing |
//! | any other | one small message |

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::Outcome;
use crate::arguments::Arguments;
use crate::connection::message;

const WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
const STREAMS_MAX: u32 = 100_000;
pub const BULK_BYTES: usize = 64 << 10;

/// Serves on `--port` until it is ended.
pub async fn run(arguments: &Arguments) -> Outcome {
    let port: u16 = arguments.required("port")?.parse()?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    LocalSet::new()
        .run_until(async move {
            loop {
                let (tcp, _) = listener.accept().await?;
                tokio::task::spawn_local(async move {
                    if let Err(error) = connection(tcp).await {
                        eprintln!("a connection ended: {error}");
                    }
                });
            }
        })
        .await
}

async fn connection(tcp: TcpStream) -> Outcome {
    tcp.set_nodelay(true)?;
    let mut connection = h2::server::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .handshake::<_, Bytes>(tcp)
        .await?;
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        tokio::task::spawn_local(async move {
            // A call that its client gives up is no fault of the server.
            let _given_up = serve(request, respond).await;
        });
    }
    Ok(())
}

async fn serve(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Outcome {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default();
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(())?;
    let mut out = respond.send_response(head, false)?;
    match method {
        "Echo" => echo(request.into_body(), &mut out).await?,
        "Source" => {
            let bytes = request
                .headers()
                .get("x-bytes")
                .ok_or("x-bytes is missing")?;
            source(bytes.to_str()?.parse()?, &mut out).await?;
        }
        "Hold" => std::future::pending().await,
        _ => {
            read(request.into_body()).await?;
            out.send_data(message(13), false)?;
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    out.send_trailers(trailers)?;
    Ok(())
}

async fn read(mut body: RecvStream) -> Outcome {
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    Ok(())
}

async fn echo(mut body: RecvStream, out: &mut SendStream<Bytes>) -> Outcome {
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        send(data, out).await?;
    }
    Ok(())
}

async fn source(mut bytes: usize, out: &mut SendStream<Bytes>) -> Outcome {
    let whole = message(BULK_BYTES);
    while bytes > 0 {
        let part = whole.slice(..bytes.min(whole.len()));
        bytes -= part.len();
        send(part, out).await?;
    }
    Ok(())
}

/// Sends as the windows open: what is given to `h2` beyond them would pile up there.
pub async fn send(mut data: Bytes, out: &mut SendStream<Bytes>) -> Outcome {
    while !data.is_empty() {
        out.reserve_capacity(data.len());
        let room = std::future::poll_fn(|context| out.poll_capacity(context)).await;
        let room = room.ok_or("the stream has ended")??;
        out.send_data(data.split_to(room.min(data.len())), false)?;
    }
    Ok(())
}
