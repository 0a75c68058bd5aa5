//! Faults on purpose: calls that wait before they go on, and calls that are answered here instead.
//!
//! Core draws who is hit; a delay runs on a timer of its own while the call's deadline goes on, and what the client
//! sends meanwhile is held to one stream window. A refused call reaches no endpoint and no mirror, and counts for no
//! ejection and no retry.

use gateway_core::Code;

use crate::call::CallId;
use crate::reply::{Reason, Reply};
use crate::worker::{Timer, Worker};

impl Worker {
    /// Whether a fault keeps a new call from going on now.
    pub fn is_hit_by_fault(&mut self, id: CallId) -> bool {
        let route = &self.routes.get(self.calls[id.key as usize].route).route;
        if route.config().fault.is_none() {
            return false;
        }
        let injected = route.inject(self.random.u64(..));
        let (delay_ms, aborts) = (injected.delay_ms, injected.abort.is_some());
        if let Some(delay_ms) = delay_ms {
            self.stats.numbers.faults_delayed.add(1);
            let timer = Timer::Delayed(id, aborts);
            let timer = self.timers.set(self.now_ms + delay_ms, timer);
            self.calls[id.key as usize].try_timer = Some(timer);
        } else if aborts {
            self.abort(id);
        }
        delay_ms.is_some() || aborts
    }

    /// The delay of a call is over.
    pub fn on_delay_over(&mut self, id: CallId, aborts: bool) {
        let Some(call) = self.call(id) else { return };
        call.try_timer = None;
        if aborts {
            self.abort(id);
        } else {
            self.set_out(id);
        }
    }

    fn abort(&mut self, id: CallId) {
        let route = &self.routes.get(self.calls[id.key as usize].route).route;
        let fault = route.config().fault.as_ref();
        let Some(abort) = fault.and_then(|fault| fault.abort.as_ref()) else {
            return;
        };
        let code = u32::from(abort.reply.grpc_status);
        let code = Code::from_number(code).unwrap_or(Code::Unknown);
        let reply = Reply::new(code, Reason::Fault, abort.reply.message.clone())
            .with_http(abort.reply.http_status);
        self.stats.numbers.faults_aborted.add(1);
        self.answer(id, &reply);
    }
}
