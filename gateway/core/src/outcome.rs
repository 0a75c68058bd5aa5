//! How one try ended, in the words that ejection and retry judge by.

use crate::Code;

/// The end of one try at one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered; `OK` is an answer too.
    Answer(Answer),
    /// No connection: refused, unreachable, TLS failed, or nothing within `connect_timeout_ms`.
    ConnectFailure,
    /// Not processed for sure: `REFUSED_STREAM`, GOAWAY below the stream, closed before it was
    /// sent.
    Refused,
    /// The stream or its connection broke.
    Reset,
    /// Our own per-try timer fired.
    Timeout,
}

/// A gRPC status with what is needed to judge it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// From trailers, headers, or mapped from HTTP.
    pub code: Code,
    /// The HTTP status that came.
    pub http_status: u16,
    /// A peer gateway made this answer itself (`x-federation-reason`).
    pub by_gateway: bool,
}

impl Outcome {
    /// An answer with HTTP status 200 from the service itself.
    #[must_use]
    pub const fn status(code: Code) -> Self {
        Self::Answer(Answer {
            code,
            http_status: 200,
            by_gateway: false,
        })
    }
}
