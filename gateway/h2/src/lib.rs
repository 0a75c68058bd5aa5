//! HTTP/2 (RFC 9113) and HPACK (RFC 7541) as a state machine: bytes in, events and bytes out.
//!
//! Decides everything the protocol decides: framing, header compression, flow control, stream states,
//! limits against abuse. Leaves to its caller: sockets, clocks, TLS, and what requests mean.
//!
//! - One read of the socket goes to [`Connection::receive`]; it yields all complete frames as
//!   [`Events`]. One write of the socket takes [`Connection::output`].
//! - Nothing allocates per frame or per stream once a connection is warm.
//! - Memory is bounded: per stream by its receive window and `stream_queue_max`, per connection by
//!   `max_concurrent_streams`, the two header tables, `output_high_water` and `unread_answers`.

mod abuse;
mod config;
mod connection;
mod error;
mod event;
mod frame;
mod header;
mod hpack;
mod output;
mod stats;
mod store;
mod stream;

pub use config::{AbuseLimits, Config, Role};
pub use connection::{Connection, Sent};
pub use error::{Abuse, ConnectionError, ErrorCode, OpenError, SendError};
pub use event::{ByteSpan, Event, Events, Field, Fields, HeaderBlock, StreamRef};
pub use stats::Stats;

/// What parts of a message may consist of, the same in every version of HTTP.
pub mod syntax {
    pub use crate::header::{is_authority, is_path, is_token, parse_length, value_ok};
}

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
