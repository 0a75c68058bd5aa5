//! What is remembered of a call that is told about: its trace, its tries, and who made its status.
//!
//! Calls of listeners that tell nothing have none of it. Its memory goes from call to call.

use std::net::SocketAddr;
use std::rc::Rc;

use gateway_core::otlp::ReadyAttributes;
use gateway_core::outcome::Answer;
use gateway_core::trace::TraceContext;
use gateway_core::{Code, Endpoint, Name, Outcome};

use super::facts::{IpRoom, ip_text};
use super::tap::Drawn;
use super::told::Told;
use crate::reply::Reason;

/// See the module.
#[derive(Debug)]
pub(crate) struct Record {
    pub told: Option<Rc<Told>>,
    /// The trace, as this gateway's server span has it; `None`: no trace is known.
    pub trace: Option<Trace>,
    /// A tap wants to see it; so many in a million are drawn.
    pub tapped: Option<Drawn>,
    pub tries: Vec<Try>,
    pub maker: Maker,
    /// What a peer's gateway said about an answer of its own.
    pub peer_reason: Option<Reason>,
    /// The status of an answer of our own, for HTTP.
    pub http_status: u16,
    /// When the request was whole; 0: it is not.
    pub whole_us: u64,
}

/// A call's place in a trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trace {
    /// `span_id` is our server span's, if it is recorded, else the caller's.
    pub context: TraceContext,
    /// The caller's span; 0: the trace begins here.
    pub parent_id: u64,
}

/// Who made a call's status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Maker {
    Application,
    Gateway(Reason),
    /// The gateway of another cluster, and why, as far as its word is known.
    Peer(Option<Reason>),
}

/// One try.
#[derive(Debug)]
pub(crate) struct Try {
    pub span_id: u64,
    pub to: Rc<Destination>,
    pub began_us: u64,
    /// 0: no stream was opened.
    pub opened_us: u64,
    /// 0: no response headers came.
    pub answered_us: u64,
    /// 0: under way.
    pub ended_us: u64,
    pub end: End,
}

/// An endpoint as it is told, made when a try there is told first and kept with its pool.
#[derive(Debug)]
pub(crate) struct Destination {
    pub address: SocketAddr,
    pub cluster_id: Name,
    pub region: Name,
    pub tier: u32,
    /// What the span of the server's kind says of it.
    pub place: ReadyAttributes,
    /// What spans of the client's kind say besides.
    pub peer: ReadyAttributes,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    Answer(Answer, Option<Reason>),
    Failed(&'static str, Code),
}

// === impl Record ===

impl Record {
    pub fn new(told: Option<Rc<Told>>, trace: Option<Trace>, tapped: Option<Drawn>) -> Self {
        Self {
            told,
            trace,
            tapped,
            tries: Vec::new(),
            maker: Maker::Application,
            peer_reason: None,
            http_status: 0,
            whole_us: 0,
        }
    }

    pub fn begin_try(&mut self, to: Rc<Destination>, span_id: u64, now_us: u64) {
        self.tries.push(Try {
            span_id,
            to,
            began_us: now_us,
            opened_us: 0,
            answered_us: 0,
            ended_us: 0,
            end: CANCELLED,
        });
    }

    /// The try under way.
    pub fn present_try(&mut self) -> Option<&mut Try> {
        self.tries.last_mut().filter(|it| it.ended_us == 0)
    }

    /// Ends the try under way; `None` says nothing about its endpoint.
    pub fn end_try(&mut self, outcome: Option<Outcome>, now_us: u64) {
        let peer_reason = self.peer_reason.take();
        let Some(present) = self.present_try() else {
            return;
        };
        present.ended_us = now_us;
        present.end = match outcome {
            None => CANCELLED,
            Some(Outcome::Answer(answer)) => End::Answer(answer, peer_reason),
            Some(Outcome::ConnectFailure) => End::Failed("connect_failure", Code::Unavailable),
            Some(Outcome::Refused) => End::Failed("refused", Code::Unavailable),
            Some(Outcome::Reset) => End::Failed("reset", Code::Unavailable),
            Some(Outcome::Timeout) => End::Failed("timeout", Code::DeadlineExceeded),
        };
        self.maker = match outcome {
            Some(Outcome::Answer(answer)) if answer.by_gateway => Maker::Peer(peer_reason),
            _ => Maker::Application,
        };
    }
}

const CANCELLED: End = End::Failed("cancelled", Code::Cancelled);

// === impl Trace ===

impl Trace {
    /// What endpoints of a call get to see: the span of their try in place of the server's.
    pub fn of_try(self, span_id: u64) -> TraceContext {
        TraceContext {
            span_id,
            ..self.context
        }
    }
}

// === impl Destination ===

impl Destination {
    pub fn new(endpoint: &Endpoint) -> Self {
        let address = endpoint.address;
        Self {
            address,
            cluster_id: endpoint.cluster_id.clone(),
            region: endpoint.region.clone(),
            tier: endpoint.priority,
            place: ReadyAttributes::new(|attributes| {
                attributes.text("federation.destination.cluster", &endpoint.cluster_id);
                attributes.text("federation.destination.region", &endpoint.region);
                attributes.number("federation.tier", endpoint.priority.into());
            }),
            peer: ReadyAttributes::new(|attributes| {
                let mut room = IpRoom::default();
                let ip = &ip_text(address.ip(), &mut room);
                attributes.text("network.peer.address", ip);
                attributes.number("network.peer.port", address.port().into());
            }),
        }
    }
}

// === impl Maker ===

impl Maker {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Gateway(_) => "gateway",
            Self::Peer(_) => "peer_gateway",
        }
    }

    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Application | Self::Peer(None) => None,
            Self::Gateway(reason) | Self::Peer(Some(reason)) => Some(reason),
        }
    }
}

// === impl End ===

impl End {
    /// In one word, for whoever asks why another try was made; `None`: it did not fail.
    pub fn failure(self) -> Option<&'static str> {
        match self {
            Self::Failed(word, _) => Some(word),
            Self::Answer(_, Some(reason)) => Some(reason.word()),
            Self::Answer(answer, None) if answer.code == Code::Ok => None,
            Self::Answer(answer, None) => Some(answer.code.name()),
        }
    }

    pub const fn code(self) -> Code {
        match self {
            Self::Answer(answer, _) => answer.code,
            Self::Failed(_, code) => code,
        }
    }
}
