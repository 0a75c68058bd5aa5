//! Answers that the gateway makes itself.
//!
//! A call of gRPC gets proper gRPC: HTTP 200, one header frame with `grpc-status` and a percent-encoded `grpc-message`
//! that says what was attempted and why it failed. Any other request gets a status of HTTP and the same words as plain
//! text. Towards a peer gateway it also carries the reason as one word, so that the peer can tell "that cluster cannot"
//! from the service's own answer.

use gateway_core::limit::Limited;
use gateway_core::{Code, status};

use crate::headers::HeaderList;

/// The mark on answers towards peers.
pub(crate) const REASON_HEADER: &[u8] = b"x-federation-reason";
/// All names with it are the federation's own: removed from clients' requests and from endpoints' responses.
pub(crate) const FEDERATION_PREFIX: &[u8] = b"x-federation-";

/// What a client is told that calls gRPC over HTTP/1.
pub(crate) const HTTP2_REQUIRED: &str = "HTTP/2 required: gRPC needs HTTP/2. \
Use a gRPC client, or HTTP/2 with prior knowledge (for example `curl --http2-prior-knowledge`), or HTTPS with ALPN `h2`. \
gRPC-Web (`application/grpc-web`) works over HTTP/1.1, too.\n";

/// A whole answer for a client that speaks HTTP/1 where gateways speak to each other.
pub(crate) const HTTP1_REFUSAL: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\n\
content-type: text/plain; charset=utf-8\r\n\
content-length: 90\r\n\
connection: close\r\n\
\r\n\
HTTP/2 required: gateways speak HTTP/2 to each other; clients have listeners of their own\n";

/// The one method of grpc.health.v1 that a gateway answers its peers itself.
pub(crate) const HEALTH_CHECK_PATH: &[u8] = b"/grpc.health.v1.Health/Check";
/// `HealthCheckResponse { status: SERVING }` as a gRPC message.
pub(crate) const HEALTH_SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 1];
/// `HealthCheckResponse { status: NOT_SERVING }` as a gRPC message.
pub(crate) const HEALTH_NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 2];

macro_rules! reasons {
    ($($name:ident $word:literal $flag:literal,)*) => {
        /// Why the gateway answered itself, or ended a call.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Reason {
            $($name,)*
        }

        impl Reason {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word on the wire, in logs and in metrics.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The short code in access logs; those that Envoy has too mean the same there.
            pub const fn flag(self) -> &'static str {
                match self { $(Self::$name => $flag,)* }
            }
        }
    };
}

reasons! {
    NoRoute "no_route" "NR",
    Misdirected "misdirected" "MD",
    RouteReply "route_reply" "RR",
    Redirect "redirect" "-",
    Preflight "preflight" "-",
    MediaType "media_type" "MT",
    NoWeight "no_weight" "NW",
    NoEndpoints "no_endpoints" "NE",
    NoAvailableEndpoint "no_available_endpoint" "UH",
    ConnectFailure "connect_failure" "UF",
    PendingOverflow "pending_overflow" "UO",
    RequestOverflow "request_overflow" "UO",
    Reset "reset" "UR",
    RetryBudget "retry_budget" "RB",
    Deadline "deadline" "UT",
    StreamAge "stream_age" "SA",
    Idle "idle" "SI",
    Drained "drained" "DN",
    Shutdown "shutdown" "SD",
    ConnectionAge "connection_age" "CA",
    BadRequest "bad_request" "BR",
    RateLimit "rate_limit" "RL",
    Fault "fault" "FI",
    Overload "overload" "OM",
    Cancelled "cancelled" "DC",
    BufferOverflow "buffer_overflow" "BO",
}

impl Reason {
    /// Whether it kept a call from its service: neither what a route says nor what the client wants does.
    pub const fn is_fault(self) -> bool {
        !matches!(
            self,
            Self::RouteReply | Self::Redirect | Self::Preflight | Self::Cancelled
        )
    }
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    /// It is a call of gRPC.
    Grpc,
    /// It is a call of gRPC-Web, and its response goes in base64 or not.
    Web { text: bool },
    /// A status of HTTP, and words.
    Http,
    /// A status of HTTP without words: `HEAD`.
    HttpHead,
}

/// A status to answer with.
#[derive(Debug)]
pub(crate) struct Reply {
    pub code: Code,
    /// For requests that are not gRPC.
    pub http_status: u16,
    pub message: String,
    pub reason: Reason,
    /// When it may be worth another try, for whoever can wait.
    pub retry_after_ms: Option<u64>,
}

// === impl Reason ===

impl Reason {
    /// From a peer's mark.
    pub fn parse(word: &[u8]) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|reason| reason.word().as_bytes() == word)
    }
}

/// Whether a peer's mark says that no endpoint has seen the call: another cluster may be asked without any policy.
pub(crate) fn says_unprocessed(word: &[u8]) -> bool {
    const UNPROCESSED: [Reason; 8] = [
        Reason::NoRoute,
        Reason::NoWeight,
        Reason::NoEndpoints,
        Reason::NoAvailableEndpoint,
        Reason::ConnectFailure,
        Reason::PendingOverflow,
        Reason::RequestOverflow,
        Reason::Overload,
    ];
    UNPROCESSED
        .iter()
        .any(|reason| reason.word().as_bytes() == word)
}

// === impl Form ===

impl Form {
    /// A call of gRPC in either protocol.
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::Web { .. })
    }

    /// The media type of a response without a message.
    fn content_type(self) -> &'static [u8] {
        match self {
            Self::Web { text: false } => b"application/grpc-web+proto",
            Self::Web { text: true } => b"application/grpc-web-text+proto",
            Self::Grpc | Self::Http | Self::HttpHead => b"application/grpc",
        }
    }
}

// === impl Reply ===

impl Reply {
    pub fn new(code: Code, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            code,
            http_status: http_status(code, reason),
            message: message.into(),
            reason,
            retry_after_ms: None,
        }
    }

    /// A rate limit of the route does not let the call pass.
    pub fn limited(route: &str, limited: &Limited) -> Self {
        let (limit, wait_ms) = (&limited.limit, limited.retry_after_ms);
        let message =
            format!("rule `{route}`: over the rate limit `{limit}`, free in {wait_ms} ms");
        Self {
            retry_after_ms: Some(wait_ms),
            ..Self::new(Code::ResourceExhausted, Reason::RateLimit, message)
        }
    }

    pub fn unavailable(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, reason, message)
    }

    /// The same with another status of HTTP.
    pub fn with_http(self, http_status: Option<u16>) -> Self {
        Self {
            http_status: http_status.unwrap_or(self.http_status),
            ..self
        }
    }

    /// Writes the header frame of a response of HTTP; `body` stands for its text.
    pub fn head(&self, body: &str, marked: bool, out: &mut HeaderList) {
        out.clear();
        out.add(b":status", self.http_status.to_string().as_bytes());
        out.add(b"content-type", b"text/plain; charset=utf-8");
        out.add(b"content-length", body.len().to_string().as_bytes());
        if let Some(wait_ms) = self.retry_after_ms {
            out.add(
                b"retry-after",
                wait_ms.div_ceil(1_000).to_string().as_bytes(),
            );
        }
        if marked {
            out.add(REASON_HEADER, self.reason.word().as_bytes());
        }
    }

    /// The text of a response of HTTP.
    pub fn text(&self) -> String {
        format!("{}\n", self.message)
    }

    /// Writes the one header frame of a response without a body.
    pub fn trailers_only(&self, form: Form, marked: bool, out: &mut HeaderList) {
        out.clear();
        out.add(b":status", b"200");
        out.add(b"content-type", form.content_type());
        self.append_status(marked, out);
    }

    /// Writes trailers for a response that has begun.
    pub fn trailers(&self, marked: bool, out: &mut HeaderList) {
        out.clear();
        self.append_status(marked, out);
    }

    fn append_status(&self, marked: bool, out: &mut HeaderList) {
        let mut message = Vec::with_capacity(self.message.len() + 16);
        status::encode_message(&self.message, &mut message);
        out.add(b"grpc-status", self.code.digits().as_bytes());
        out.add(b"grpc-message", &message);
        if let Some(wait_ms) = self.retry_after_ms {
            let seconds = wait_ms.div_ceil(1_000).to_string();
            out.add(b"retry-after", seconds.as_bytes());
            out.add(b"grpc-retry-pushback-ms", wait_ms.to_string().as_bytes());
        }
        if marked {
            out.add(REASON_HEADER, self.reason.word().as_bytes());
        }
    }
}

/// What the gateway's own answer is in HTTP.
fn http_status(code: Code, reason: Reason) -> u16 {
    match reason {
        Reason::NoRoute => 404,
        Reason::Misdirected => 421,
        Reason::NoWeight => 500,
        Reason::Deadline | Reason::StreamAge | Reason::Idle => 504,
        Reason::BadRequest => 400,
        _ => match code {
            Code::DeadlineExceeded => 504,
            Code::ResourceExhausted => 429,
            Code::PermissionDenied => 403,
            Code::Unauthenticated => 401,
            Code::Unimplemented => 404,
            Code::Internal | Code::Unknown | Code::DataLoss => 500,
            _ => 503,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::HTTP1_REFUSAL;

    #[test]
    fn the_refusal_states_its_length() {
        let text = std::str::from_utf8(HTTP1_REFUSAL).expect("is text");
        let (head, body) = text.split_once("\r\n\r\n").expect("has a head");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
    }
}
