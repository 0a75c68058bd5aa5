//! Load on the two sides of a proxy: calls, streams and idle connections before it, a server behind it.
//!
//! `bench-load serve|unary|pingpong|bulk|hold --name=value ...`; each load prints one line `name value ...` when it is
//! done. One thread, so that its own share of the machine can be told from the proxy's.

mod arguments;
mod connection;
mod hold;
mod load;
mod serve;

use arguments::Arguments;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let (command, arguments) = Arguments::read(std::env::args().skip(1))?;
    match command.as_str() {
        "serve" => serve::run(&arguments).await,
        "unary" => load::unary(&arguments).await,
        "pingpong" => load::pingpong(&arguments).await,
        "bulk" => load::bulk(&arguments).await,
        "hold" => hold::run(&arguments).await,
        other => Err(format!("unknown command `{other}`").into()),
    }
}
