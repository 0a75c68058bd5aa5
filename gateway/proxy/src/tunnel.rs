//! Requests that become tunnels: `WebSockets` over HTTP/1.1 (RFC 6455).
//!
//! Decides how long a tunnel may last and be silent. The switch itself is the codecs' business: a request with
//! `upgrade: websocket` whose answer is 101 has a body in both directions from then on. Any route that takes the request
//! may lead to a tunnel; endpoints that speak HTTP/2 are not asked for one.

use gateway_core::Code;
use gateway_core::config::Protocol;

use crate::call::{Call, CallId, Deadline, Limit};
use crate::reply::{Reason, Reply};
use crate::worker::{Timer, Worker};

impl Worker {
    /// Whether a request asks for a tunnel; only HTTP/1 has a field for it.
    pub fn asks_for_tunnel(&self, call: &Call) -> bool {
        let is_h1 = self.conns[call.down.conn].codec.is_h1();
        is_h1 && call.request.value(b"upgrade").is_some()
    }

    /// Turns a tunnel away whose endpoint speaks HTTP/2. True when it did.
    pub fn refuses_tunnel(&mut self, id: CallId, pool: usize) -> bool {
        let call = &self.calls[id.key as usize];
        let config = &self.clusters[call.cluster].handle.config;
        if !call.is_tunnel || self.pools[pool].protocol(config) == Protocol::Http1 {
            return false;
        }
        let place = self.place_of(id);
        let message = format!("a WebSocket needs an endpoint that speaks HTTP/1.1 ({place})");
        let reply = Reply::new(Code::Unimplemented, Reason::BadRequest, message);
        self.answer(id, &reply.with_http(Some(501)));
        true
    }

    /// The endpoint has agreed: the time for a response is over, what bounds a tunnel is its age and silence.
    pub fn on_tunnel_open(&mut self, id: CallId) {
        let call = &mut self.calls[id.key as usize];
        if let Some(timer) = call.deadline_timer.take() {
            self.timers.cancel(timer);
        }
        let route = &self.routes.get(call.route).route;
        call.deadline = route.max_stream_ms().map(|after_ms| Deadline {
            at_ms: self.now_ms.saturating_add(after_ms),
            after_ms,
            limit: Limit::StreamAge,
        });
        if let Some(deadline) = call.deadline {
            call.deadline_timer = Some(self.timers.set(deadline.at_ms, Timer::Deadline(id)));
        }
        if call.idle_timer.is_none()
            && let Some(idle_ms) = self.idle_ms(id)
        {
            let timer = self.timers.set(self.now_ms + idle_ms, Timer::Idle(id));
            self.calls[id.key as usize].idle_timer = Some(timer);
        }
    }

    /// How long a call may be silent: the route's word, for tunnels without one that of idle connections.
    pub fn idle_ms(&self, id: CallId) -> Option<u64> {
        let call = &self.calls[id.key as usize];
        let of_tunnel = Some(self.settings.downstream_idle_ms);
        let of_tunnel = of_tunnel.filter(|idle_ms| call.is_tunnel && *idle_ms > 0);
        let route = &self.routes.get(call.route).route;
        route.idle_timeout_ms().or(of_tunnel)
    }
}
