//! Closed loops of calls and messages: as many at a time as there are streams, for as many as are asked.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use tokio::task::{JoinSet, LocalSet};

use crate::Outcome;
use crate::arguments::Arguments;
use crate::connection::{Way, message, request};
use crate::serve::{BULK_BYTES, send};

const SERVICE: &str = "/com.example.api.UserService";

struct Shape {
    way: Way,
    connections: usize,
    streams: usize,
    /// Calls, messages or bytes still to do, over all streams.
    left: Rc<Cell<usize>>,
    total: usize,
}

// === impl Shape ===

impl Shape {
    fn of(arguments: &Arguments) -> Outcome<Self> {
        let total = arguments.required("total")?.parse()?;
        Ok(Self {
            way: Way::of(arguments)?,
            connections: arguments.number("connections", 8)?,
            streams: arguments.number("streams", 16)?,
            left: Rc::new(Cell::new(total)),
            total,
        })
    }

    /// Runs `work` on each stream of each connection and prints the rate of what was done in all.
    async fn run<F, W>(self, work: F) -> Outcome
    where
        F: Fn(SendRequest<Bytes>, Rc<Cell<usize>>) -> W + Copy + 'static,
        W: Future<Output = Outcome> + 'static,
    {
        let local = LocalSet::new();
        local
            .run_until(async move {
                let mut ready = Vec::new();
                for _ in 0..self.connections {
                    ready.push(self.way.connect().await?);
                }
                let began = Instant::now();
                let mut tasks = JoinSet::new();
                for requests in &ready {
                    for _ in 0..self.streams {
                        let (requests, left) = (requests.clone(), Rc::clone(&self.left));
                        tasks.spawn_local(async move {
                            work(requests, left)
                                .await
                                .map_err(|error| error.to_string())
                        });
                    }
                }
                while let Some(done) = tasks.join_next().await {
                    done??;
                }
                let took_s = began.elapsed().as_secs_f64();
                println!("per_s {}", self.total as f64 / took_s);
                Ok(())
            })
            .await
    }
}

/// Takes up to `most` off what is left to do.
fn take(left: &Cell<usize>, most: usize) -> usize {
    let taken = left.get().min(most);
    left.set(left.get() - taken);
    taken
}

/// `--total` unary calls.
pub async fn unary(arguments: &Arguments) -> Outcome {
    Shape::of(arguments)?
        .run(|mut requests, left| async move {
            let content = message(13);
            while take(&left, 1) == 1 {
                requests = requests.ready().await?;
                let call = request(&format!("{SERVICE}/GetUser"))?;
                let (answer, mut out) = requests.send_request(call, false)?;
                out.send_data(content.clone(), true)?;
                let (head, mut body) = answer.await?.into_parts();
                while let Some(data) = body.data().await {
                    body.flow_control().release_capacity(data?.len())?;
                }
                // An answer without a message has its status in its headers.
                let trailers = body.trailers().await?.unwrap_or(head.headers);
                if trailers
                    .get("grpc-status")
                    .is_none_or(|status| status != "0")
                {
                    return Err(format!("a call failed: {trailers:?}").into());
                }
            }
            Ok(())
        })
        .await
}

/// `--total` messages to and fro, each answered before the next one.
pub async fn pingpong(arguments: &Arguments) -> Outcome {
    Shape::of(arguments)?
        .run(|mut requests, left| async move {
            let content = message(100);
            requests = requests.ready().await?;
            let (answer, mut out) =
                requests.send_request(request(&format!("{SERVICE}/Echo"))?, false)?;
            let mut body = answer.await?.into_body();
            while take(&left, 1) == 1 {
                send(content.clone(), &mut out).await?;
                let mut seen = 0;
                while seen < content.len() {
                    let data = body.data().await.ok_or("the stream ended early")??;
                    body.flow_control().release_capacity(data.len())?;
                    seen += data.len();
                }
            }
            out.send_data(Bytes::new(), true)?;
            Ok(())
        })
        .await
}

/// `--total` bytes from the server in messages of 64 KiB; with `--pause-ms` the reader stops for so long after each
/// `--pause-after` bytes.
pub async fn bulk(arguments: &Arguments) -> Outcome {
    let pause = Duration::from_millis(arguments.number("pause-ms", 0)?);
    let pause_after: usize = arguments.number("pause-after", 1 << 20)?;
    let shape = Shape::of(arguments)?;
    let each = shape.total / (shape.connections * shape.streams) / BULK_BYTES * BULK_BYTES;
    PACE.with(|pace| pace.set((each, pause, pause_after)));
    shape
        .run(|mut requests, _| async move {
            let (each, pause, pause_after) = PACE.with(Cell::get);
            requests = requests.ready().await?;
            let mut call = request(&format!("{SERVICE}/Source"))?;
            call.headers_mut().insert("x-bytes", each.into());
            let (answer, _) = requests.send_request(call, true)?;
            let mut body: RecvStream = answer.await?.into_body();
            let (mut seen, mut since_pause) = (0, 0);
            while let Some(data) = body.data().await {
                let size = data?.len();
                body.flow_control().release_capacity(size)?;
                seen += size;
                since_pause += size;
                if !pause.is_zero() && since_pause >= pause_after {
                    since_pause = 0;
                    tokio::time::sleep(pause).await;
                }
            }
            if seen == each {
                Ok(())
            } else {
                Err(format!("{seen} of {each} bytes").into())
            }
        })
        .await
}

thread_local! {
    static PACE: Cell<(usize, Duration, usize)> = const { Cell::new((0, Duration::ZERO, 0)) };
}
