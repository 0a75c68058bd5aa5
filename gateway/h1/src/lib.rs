//! HTTP/1.1 (RFC 9112) as a state machine: bytes in, events and bytes out, in the words of `gateway-h2`.
//!
//! Decides what the protocol decides: heads, body framing, keep-alive, `100-continue`, the switch to a WebSocket's bytes.
//! Leaves to its caller: sockets, clocks, TLS, and what requests mean. Tokens within a head are the `httparse` crate's
//! business; everything that tells one message from the next is judged here, and strictly: what two readers could take
//! for two different things is refused.
//!
//! - A connection has one stream at a time. A request that comes before the answer to the one before waits with the
//!   caller: [`Connection::receive`] does not use its bytes.
//! - Header lists have HTTP/2's form: pseudo headers first, names in lower case, nothing that concerns one hop alone.
//!   The exception is `upgrade: websocket`, which marks a stream that becomes a tunnel by the answer 101.
//! - Memory is bounded: a head by `max_head_bytes`, a body by `window` and the caller's read buffer, the output by
//!   `output_high_water` and `queue_max`.

mod chunked;
mod config;
mod connection;
mod fields;
mod framing;
mod head;
mod output;
mod refusal;

pub use config::Config;
pub use connection::Connection;
pub use gateway_h2::Role;
