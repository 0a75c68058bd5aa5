//! One call: a stream of a client, and at most one stream to an endpoint at a time.
//!
//! ```text
//!            request
//!               │ route and cluster chosen
//!               ▼
//!   ┌──────▶ Waiting ──────── connection has room ───────▶ Open ── response headers ──▶ Streaming
//!   │           │                                           │                              │
//!   │           │ connect failed, queue full                │ trailers-only, reset, lost   │ trailers, reset, lost
//!   │           ▼                                           ▼                              ▼
//!   └─ time ─ Backoff ◀──── another try is allowed ──── (retry?) ── no: answer ────────▶ Closing ──▶ gone
//! ```
//! A deadline, a reset by the client or the end of its connection leads to "gone" from every state.
//! `Closing` waits for the rest of the response to leave when the client has not ended its side.
//!
//! Invariants: `up` is set exactly in `Open` and `Streaming`; once `committed`, no other try is made; `body` is kept
//! from the start of the request as long as another try may need it, and never grows beyond its bound then.
//! Response headers of a call that could still be tried again are held for a moment, when the client has nothing more to
//! send: those of a unary call leave with its message, and an endpoint that dies between the two costs no call.
//! Flow control: bytes are owed to the sender until the other side's queue has let go of them.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway_core::{ClusterShared, Name, RetryState, Route};

use crate::conn::StreamAt;
use crate::flow::Flow;
use crate::headers::HeaderList;
use crate::reply::Form;
use crate::sessions::CallSession;
use crate::telemetry::record::Record;
use crate::timers::TimerId;
use crate::web::Web;

/// Names a call; the serial tells it from a later one in the same slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct CallId {
    pub key: u32,
    pub serial: u32,
}

/// See the module's picture.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    Waiting,
    Open,
    Streaming,
    Backoff,
    Closing,
}

/// Which bound a deadline stands for: decides code and words of the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Limit {
    /// The caller's `grpc-timeout`.
    Caller,
    /// The route's `timeout_ms`.
    Route,
    /// The route's `max_stream_ms`.
    StreamAge,
}

/// An absolute end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub at_ms: u64,
    pub after_ms: u64,
    pub limit: Limit,
}

/// See the module.
#[allow(clippy::struct_excessive_bools)] // independent facts; the state is `phase`
pub(crate) struct Call {
    pub id: CallId,
    pub phase: Phase,
    pub started_us: u64,

    // The client's side.
    pub down: StreamAt,
    /// Index in the client connection's list.
    pub down_index: usize,
    pub listener: usize,
    pub request: HeaderList,
    /// How it is answered.
    pub form: Form,
    /// It is a call of gRPC-Web.
    pub web: Option<Box<Web>>,
    /// The response's status, once its headers were forwarded; gRPC does not need it.
    pub http_status: u16,
    /// A peer's gateway answered in its own name, as far as that matters: gRPC does not need it.
    pub by_gateway: bool,
    /// Interim responses that were passed on.
    pub interim: u8,
    /// It asks for a WebSocket.
    pub is_tunnel: bool,
    pub request_ended: bool,
    /// Window bytes of the client that are not given back yet.
    pub request_owed: u32,
    /// Request bytes from the start: what another try would need, or what waits for the first one.
    pub body: Vec<u8>,
    /// How much of the worker's count of held bytes is this call's: `request` and `body`.
    pub counted_bytes: usize,
    /// By how much the client's window for it was widened.
    pub request_widened: u32,
    /// No other try may be made.
    pub committed: bool,
    /// What passed so far.
    pub flow: Flow,

    // Where it goes; keys into the worker's tables.
    pub route: usize,
    pub cluster: usize,
    /// What it counts in, once it has gone somewhere; none of a peer's calls.
    pub series: Option<usize>,
    /// The chosen part of the route's split.
    pub part: usize,
    /// Until the response begins; `None`: no session is asked for.
    pub session: Option<Box<CallSession>>,
    /// Its mirrors' copies; some may be over.
    pub copies: Vec<CallId>,
    /// Where the present try goes; none in `Backoff` and `Closing`.
    pub pool: Option<usize>,
    pub up: Option<StreamAt>,
    /// Index in the endpoint connection's list.
    pub up_index: usize,
    /// The end of the request was sent on `up`.
    pub up_ended: bool,
    pub response_owed: u32,
    /// By how much the window of `up` was widened.
    pub response_widened: u32,
    /// Response headers that wait for the first bytes or the trailers, and the end of the wait.
    pub held: Option<(HeaderList, TimerId)>,

    // Time and tries.
    /// What `grpc-timeout` counts down to, on every try.
    pub timeout_at_ms: Option<u64>,
    /// The first end of any kind.
    pub deadline: Option<Deadline>,
    pub deadline_timer: Option<TimerId>,
    /// Backoff or per-try timer.
    pub try_timer: Option<TimerId>,
    pub idle_timer: Option<TimerId>,
    pub last_activity_ms: u64,
    /// When the present try began, and how long its response headers took; where balancing asks for it.
    pub tried_us: Option<u64>,
    pub answered_us: Option<u64>,
    /// Its place among the `max_requests` of a cluster.
    pub place: Option<Arc<ClusterShared>>,
    pub tries: Tries,

    /// For what is told about it; `None`: nothing, or it was told.
    pub record: Option<Box<Record>>,
}

/// What was tried so far.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    /// Retries by the route's policy.
    pub counted: RetryState,
    /// Further tries that need no policy: the endpoint had processed nothing.
    pub transparent: u32,
    /// Further tries because a connection could not be made.
    pub connect: u32,
    /// Endpoints that failed this call, each with its member cluster.
    pub addresses: Vec<SocketAddr>,
    pub cluster_of: Vec<Name>,
    /// Member clusters that cannot.
    pub clusters: Vec<Name>,
}

/// The bounds on a call.
pub(crate) struct Deadlines {
    pub first: Option<Deadline>,
    pub timeout_at_ms: Option<u64>,
}

/// The bounds on a call by its caller and its route.
pub(crate) fn deadlines(caller_ms: Option<u64>, route: &Route, now_ms: u64) -> Deadlines {
    let bound = |after_ms: Option<u64>, limit| {
        after_ms.map(|after_ms| Deadline {
            at_ms: now_ms.saturating_add(after_ms),
            after_ms,
            limit,
        })
    };
    let caller = bound(caller_ms, Limit::Caller);
    let own = bound(route.timeout_ms(), Limit::Route);
    let timeout = caller.into_iter().chain(own).min_by_key(|it| it.at_ms);
    let age = bound(route.max_stream_ms(), Limit::StreamAge);
    Deadlines {
        first: timeout.into_iter().chain(age).min_by_key(|it| it.at_ms),
        timeout_at_ms: timeout.map(|it| it.at_ms),
    }
}

// === impl Tries ===

impl Tries {
    /// Notes a failure. A member cluster is given up when its gateway said so, or at its second failure.
    pub fn failed(&mut self, address: SocketAddr, cluster_id: &Name, cluster_cannot: bool) {
        let second = self.cluster_of.contains(cluster_id);
        self.addresses.push(address);
        self.cluster_of.push(cluster_id.clone());
        if (second || cluster_cannot) && !self.clusters.contains(cluster_id) {
            self.clusters.push(cluster_id.clone());
        }
    }
}

// === impl CallId ===

impl CallId {
    /// Serials of copies have it, those of calls do not.
    const COPY: u32 = 1 << 31;

    pub fn of_call(key: usize, serial: u64) -> Self {
        Self {
            key: key as u32,
            serial: serial as u32 & !Self::COPY,
        }
    }

    /// Names a mirror's copy of a call.
    pub fn of_copy(key: usize, serial: u64) -> Self {
        Self {
            key: key as u32,
            serial: serial as u32 | Self::COPY,
        }
    }

    pub fn is_copy(self) -> bool {
        self.serial & Self::COPY != 0
    }

    /// As the token of an HTTP/2 stream.
    pub fn token(self) -> u64 {
        u64::from(self.serial) << 32 | u64::from(self.key)
    }

    /// From the token of an HTTP/2 stream.
    pub fn from_token(token: u64) -> Self {
        Self {
            key: token as u32,
            serial: (token >> 32) as u32,
        }
    }
}
