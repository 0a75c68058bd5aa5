//! What one connection may use: sizes, windows, and the limits against abuse.
//!
//! Decides defaults and their reasons; enforcing them is the business of `connection` and `abuse`.

use crate::frame::{DEFAULT_MAX_FRAME_SIZE, DEFAULT_WINDOW, MAX_FRAME_SIZE, WINDOW_MAX};

/// A decoding table is never larger; the memory of a connection is to be small.
const HEADER_TABLE_MAX: u32 = 64 << 10;

/// Which end of the connection we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// We answer requests; the peer opens streams.
    Server,
    /// We send requests; the peer may not push.
    Client,
}

/// Sizes and limits of one connection; fixed for its life. Values out of bounds are moved into them.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which end we are.
    pub role: Role,
    /// Streams that the peer may have open at a time (server role; a client allows none).
    pub max_concurrent_streams: u32,
    /// Receive window of a new stream, bytes; at most 2^31-1. Bounds memory per unread stream.
    pub initial_stream_window: u32,
    /// Receive window of the connection, bytes; at least 65,535, at most 2^31-1.
    pub connection_window: u32,
    /// Largest frame payload we accept, bytes; 16,384 to 2^24-1. The caller's read buffer must hold
    /// this and the 9 bytes of a frame header.
    pub max_frame_size: u32,
    /// Largest decoded header list, bytes, counted as in RFC 9113 section 6.5.2 (32 more per field).
    pub max_header_list_size: u32,
    /// Largest dynamic table the peer's encoder may use, bytes; at most 64 KiB.
    pub header_table_size: u32,
    /// With this many bytes in the output, `send_data` queues in the stream instead.
    pub output_high_water: usize,
    /// Bytes that may wait in one stream's queue; above it `send_data` says `QueueFull`.
    pub stream_queue_max: usize,
    /// Limits against abuse.
    pub limits: AbuseLimits,
}

/// Budgets for frames that cost us more than they cost the peer.
///
/// Each is a token bucket: it starts full, a frame takes one token, and
/// [`crate::Connection::tick`] (once a second) fills it up again. An empty bucket ends the connection
/// with `ENHANCE_YOUR_CALM`. Values are far above what gRPC clients were seen to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbuseLimits {
    /// Streams per tick that the peer resets, or makes us reset by breaking a rule (server role;
    /// CVE-2023-44487 and CVE-2025-8671).
    pub resets: u32,
    /// CONTINUATION frames of one header block (CVE-2024-27316).
    pub continuations: u32,
    /// PING frames per tick; gRPC's bandwidth estimator sends one per round trip.
    pub pings: u32,
    /// SETTINGS frames per tick.
    pub settings: u32,
    /// DATA frames per tick that carry nothing and end nothing.
    pub empty_data: u32,
    /// `WINDOW_UPDATE` frames per tick; each frame that we send earns some back.
    pub window_updates: u32,
    /// PRIORITY frames, and frames of unknown types, per tick.
    pub ignored: u32,
    /// Bytes of answers (PING and SETTINGS acknowledgements, `RST_STREAM`, `WINDOW_UPDATE`) that may wait
    /// in the output for a peer that does not read.
    pub unread_answers: usize,
}

// === impl Config ===

impl Config {
    /// Defaults for a server.
    #[must_use]
    pub fn server() -> Self {
        Self::new(Role::Server)
    }

    /// Defaults for a client.
    #[must_use]
    pub fn client() -> Self {
        Self::new(Role::Client)
    }

    fn new(role: Role) -> Self {
        Self {
            role,
            max_concurrent_streams: 1024,
            initial_stream_window: 65_535,
            connection_window: 1 << 20,
            max_frame_size: 16_384,
            max_header_list_size: 64 << 10,
            header_table_size: 4096,
            output_high_water: 64 << 10,
            stream_queue_max: 1 << 20,
            limits: AbuseLimits::default(),
        }
    }
}

impl Config {
    /// Numbers that the protocol forbids, moved to the nearest that it allows.
    pub(crate) fn within_bounds(self) -> Self {
        Self {
            initial_stream_window: self.initial_stream_window.min(WINDOW_MAX),
            connection_window: self.connection_window.clamp(DEFAULT_WINDOW, WINDOW_MAX),
            max_frame_size: self
                .max_frame_size
                .clamp(DEFAULT_MAX_FRAME_SIZE, MAX_FRAME_SIZE),
            header_table_size: self.header_table_size.min(HEADER_TABLE_MAX),
            ..self
        }
    }
}

impl Default for AbuseLimits {
    fn default() -> Self {
        Self {
            resets: 1000,
            continuations: 32,
            pings: 1000,
            settings: 100,
            empty_data: 1000,
            window_updates: 10_000,
            ignored: 1000,
            unread_answers: 256 << 10,
        }
    }
}
