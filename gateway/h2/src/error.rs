//! Errors of this crate and the error codes of RFC 9113 section 7.
//!
//! Decides which words a failure has; where a failure ends (the stream or the whole connection) is
//! decided at the place that meets it. `reason` texts are constants: they name the violated rule,
//! never bytes of the peer.

use std::fmt;

/// An HTTP/2 error code (RFC 9113 section 7). Codes nobody registered are kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorCode {
    /// Not an error: graceful end.
    NoError,
    /// The peer broke the protocol.
    ProtocolError,
    /// The sender failed inside.
    InternalError,
    /// The peer sent more than its window.
    FlowControlError,
    /// SETTINGS were not acknowledged in time.
    SettingsTimeout,
    /// A frame for a stream that has ended.
    StreamClosed,
    /// A frame of a forbidden size.
    FrameSizeError,
    /// Refused before any work was done: safe to retry.
    RefusedStream,
    /// No longer wanted.
    Cancel,
    /// The header compression state is lost.
    CompressionError,
    /// The TCP connection of a CONNECT broke.
    ConnectError,
    /// The peer causes more load than it may.
    EnhanceYourCalm,
    /// The transport is not safe enough.
    InadequateSecurity,
    /// HTTP/1.1 is wanted instead.
    Http11Required,
    /// A code outside the registry.
    Other(u32),
}

/// The connection cannot go on: a GOAWAY with `code` is in the output, write it and close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionError {
    /// Code that the GOAWAY carries.
    pub code: ErrorCode,
    /// The rule that was broken, for logs and counters.
    pub reason: &'static str,
    /// The limit against abuse that was used up, when it was one.
    pub abuse: Option<Abuse>,
}

/// A limit against abuse: see [`crate::AbuseLimits`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abuse {
    /// Streams reset, by the peer or because of it.
    Resets,
    /// CONTINUATION frames of a block, or its size.
    Continuations,
    /// PING frames.
    Pings,
    /// SETTINGS and GOAWAY frames.
    Settings,
    /// Empty DATA frames.
    EmptyData,
    /// `WINDOW_UPDATE` frames.
    WindowUpdates,
    /// PRIORITY and unknown frames.
    Ignored,
    /// Answers that the peer does not read.
    UnreadAnswers,
}

/// Why [`crate::Connection::open`] gave no stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// The peer allows no more streams now, or its first SETTINGS have not come yet.
    /// [`crate::Event::StreamsAvailable`] follows when there is room.
    AtLimit,
    /// The peer or we sent GOAWAY, or the connection failed.
    GoingAway,
    /// All 2^30 stream ids are used up; take a new connection.
    IdsExhausted,
}

/// Why something could not be sent on a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// The stream is over (reset, finished, or its slot belongs to another stream by now).
    Gone,
    /// Not allowed in this state: body before headers, anything after the end.
    WrongState,
    /// The stream's queue is at `stream_queue_max`; nothing was taken.
    QueueFull,
}

// === impl ErrorCode ===

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn to_u32(self) -> u32 {
        match self {
            Self::NoError => 0,
            Self::ProtocolError => 1,
            Self::InternalError => 2,
            Self::FlowControlError => 3,
            Self::SettingsTimeout => 4,
            Self::StreamClosed => 5,
            Self::FrameSizeError => 6,
            Self::RefusedStream => 7,
            Self::Cancel => 8,
            Self::CompressionError => 9,
            Self::ConnectError => 10,
            Self::EnhanceYourCalm => 11,
            Self::InadequateSecurity => 12,
            Self::Http11Required => 13,
            Self::Other(code) => code,
        }
    }

    /// The code for a number from the wire.
    #[must_use]
    pub const fn from_u32(code: u32) -> Self {
        match code {
            0 => Self::NoError,
            1 => Self::ProtocolError,
            2 => Self::InternalError,
            3 => Self::FlowControlError,
            4 => Self::SettingsTimeout,
            5 => Self::StreamClosed,
            6 => Self::FrameSizeError,
            7 => Self::RefusedStream,
            8 => Self::Cancel,
            9 => Self::CompressionError,
            10 => Self::ConnectError,
            11 => Self::EnhanceYourCalm,
            12 => Self::InadequateSecurity,
            13 => Self::Http11Required,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::NoError => "NO_ERROR",
            Self::ProtocolError => "PROTOCOL_ERROR",
            Self::InternalError => "INTERNAL_ERROR",
            Self::FlowControlError => "FLOW_CONTROL_ERROR",
            Self::SettingsTimeout => "SETTINGS_TIMEOUT",
            Self::StreamClosed => "STREAM_CLOSED",
            Self::FrameSizeError => "FRAME_SIZE_ERROR",
            Self::RefusedStream => "REFUSED_STREAM",
            Self::Cancel => "CANCEL",
            Self::CompressionError => "COMPRESSION_ERROR",
            Self::ConnectError => "CONNECT_ERROR",
            Self::EnhanceYourCalm => "ENHANCE_YOUR_CALM",
            Self::InadequateSecurity => "INADEQUATE_SECURITY",
            Self::Http11Required => "HTTP_1_1_REQUIRED",
            Self::Other(code) => return write!(f, "error code {code:#x}"),
        };
        f.write_str(name)
    }
}

// === impl ConnectionError ===

impl ConnectionError {
    pub(crate) const fn new(code: ErrorCode, reason: &'static str) -> Self {
        Self {
            code,
            reason,
            abuse: None,
        }
    }

    pub(crate) const fn protocol(reason: &'static str) -> Self {
        Self::new(ErrorCode::ProtocolError, reason)
    }

    pub(crate) const fn frame_size(reason: &'static str) -> Self {
        Self::new(ErrorCode::FrameSizeError, reason)
    }

    pub(crate) const fn calm(abuse: Abuse, reason: &'static str) -> Self {
        Self {
            code: ErrorCode::EnhanceYourCalm,
            reason,
            abuse: Some(abuse),
        }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "HTTP/2 connection ended with {}: {}",
            self.code, self.reason
        )
    }
}

impl std::error::Error for ConnectionError {}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtLimit => "cannot open a stream: the peer allows no more now",
            Self::GoingAway => "cannot open a stream: the connection is going away",
            Self::IdsExhausted => "cannot open a stream: all stream ids are used",
        })
    }
}

impl std::error::Error for OpenError {}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "cannot send: the stream is over",
            Self::WrongState => "cannot send: the stream is not in a state for it",
            Self::QueueFull => "cannot send: the stream's queue is full",
        })
    }
}

impl std::error::Error for SendError {}
