//! Sessions of calls: which endpoint a request asks for, and what its client is given to ask for it again.
//!
//! Core reads and writes the token; it names the part of the split and an address. The address of an endpoint of this
//! cluster binds the choice here. The address of one of another cluster is that of the server behind the peer's
//! gateway, which is told in a header of the federation's own and answers with the server that it chose: so a session
//! is with one server, however many gateways stand before it. A peer without that word chooses freely.
//!
//! Invariants: the header is believed from peers only, and reaches neither applications nor clients; a session that
//! cannot be kept costs no call: it moves.

use std::net::SocketAddr;

use gateway_core::config::ListenerKind;
use gateway_core::session::{Held, SessionHeader};
use gateway_core::{Endpoint, Route};
use gateway_h2::{Field, Fields};

use crate::call::CallId;
use crate::headers::HeaderList;
use crate::worker::Worker;

/// To a peer: which of its servers the session is with, or `UNBOUND`; from it: which it is with now.
pub(crate) const SESSION_HEADER: &[u8] = b"x-federation-session";
const UNBOUND: &[u8] = b"-";

/// The session of one call.
#[derive(Debug)]
pub(crate) struct CallSession {
    /// What the request's token says.
    held: Option<Held>,
    /// The server asked for.
    pub pinned: Option<SocketAddr>,
    /// The server of the present try, as far as it is known.
    at: Option<SocketAddr>,
    /// The caller is a peer's gateway, which keeps the token.
    for_peer: bool,
}

impl Worker {
    /// The session of a new request, and the part of the route's split that it is with.
    pub fn session_of(
        &self,
        route: &Route,
        listener: usize,
        headers: &mut HeaderList,
    ) -> (Option<Box<CallSession>>, Option<usize>) {
        if self.listeners[listener].kind == ListenerKind::EastWest {
            return (CallSession::of_peer(headers).map(Box::new), None);
        }
        let Some(session) = route.session() else {
            return (None, None);
        };
        let held = session.read(headers, self.unix_s());
        let part = held.and_then(|held| route.held(&held));
        let session = CallSession {
            held,
            pinned: part.and(held).map(|held| held.address),
            at: None,
            for_peer: false,
        };
        (Some(Box::new(session)), part)
    }

    fn unix_s(&self) -> u64 {
        self.clock.unix_ms(self.now_ms) / 1_000
    }

    /// A peer says which of its servers answers.
    pub fn note_session_of_peer(&mut self, id: CallId, mut fields: Fields<'_>) {
        if let Some(session) = &mut self.calls[id.key as usize].session {
            let told = fields.find(|field| field.name == SESSION_HEADER);
            session.at = told.and_then(|field| address(field.value));
        }
    }

    /// What to add to the response headers.
    pub fn session_header(&self, id: CallId) -> Option<SessionHeader> {
        let call = &self.calls[id.key as usize];
        let session = call.session.as_ref()?;
        let at = session.at?;
        if session.for_peer {
            let name = std::str::from_utf8(SESSION_HEADER).ok()?.into();
            let value = at.to_string();
            return Some(SessionHeader { name, value });
        }
        let route = &self.routes.get(call.route).route;
        let part = route.clusters().get(call.part)?;
        let secure = self.listeners[call.listener].tls.is_some();
        route
            .session()?
            .write(session.held, &part.cluster, at, self.unix_s(), secure)
    }
}

/// Adds it to a header list; it is nobody's business on the way.
pub(crate) fn add_session(list: &mut HeaderList, header: Option<&SessionHeader>) {
    if let Some(header) = header {
        list.push(Field {
            name: header.name.as_bytes(),
            value: header.value.as_bytes(),
            sensitive: true,
        });
    }
}

fn address(text: &[u8]) -> Option<SocketAddr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

// === impl CallSession ===

impl CallSession {
    /// From a peer's request, which is freed of it.
    fn of_peer(headers: &mut HeaderList) -> Option<Self> {
        let pinned = address(headers.value(SESSION_HEADER)?);
        headers.remove(SESSION_HEADER);
        Some(Self {
            held: None,
            pinned,
            at: None,
            for_peer: true,
        })
    }

    /// A try goes to an endpoint; its request is in `list`.
    pub fn tried(&mut self, endpoint: &Endpoint, list: &mut HeaderList) {
        if !endpoint.peer {
            self.at = Some(endpoint.address);
            return;
        }
        self.at = None;
        match self.pinned {
            Some(pinned) => list.add(SESSION_HEADER, pinned.to_string().as_bytes()),
            None => list.add(SESSION_HEADER, UNBOUND),
        }
    }
}
