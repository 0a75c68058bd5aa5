//! Connections and streams that are open and say nothing.

use tokio::io::AsyncReadExt;
use tokio::task::LocalSet;

use crate::Outcome;
use crate::arguments::Arguments;
use crate::connection::{Way, request};

/// Opens `--connections` with `--streams` calls each, says `ready`, and holds them until its input ends.
pub async fn run(arguments: &Arguments) -> Outcome {
    let way = Way::of(arguments)?;
    let connections: usize = arguments.number("connections", 1)?;
    let streams: usize = arguments.number("streams", 0)?;
    LocalSet::new()
        .run_until(async move {
            let mut held = Vec::new();
            let mut calls = Vec::new();
            for _ in 0..connections {
                let mut requests = way.connect().await?;
                let mut answers = Vec::new();
                for _ in 0..streams {
                    requests = requests.ready().await?;
                    let call = request("/com.example.api.UserService/Hold")?;
                    answers.push(requests.send_request(call, false)?);
                }
                for (answer, out) in answers {
                    calls.push((answer.await?, out));
                }
                held.push(requests);
            }
            println!("ready {} {}", held.len(), calls.len());
            tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
            Ok(())
        })
        .await
}
