//! Calls that take too long: the deadline, the greatest age, silence, and the time for one try.

use gateway_core::{Code, Outcome};

use crate::call::{CallId, Limit, Phase};
use crate::reply::{Reason, Reply};
use crate::worker::{Timer, Worker};

impl Worker {
    /// A bound on the whole call is reached.
    pub fn on_deadline(&mut self, id: CallId) {
        let place = self.place_of(id);
        let Some(call) = self.call(id) else { return };
        call.deadline_timer = None;
        let Some(deadline) = call.deadline else {
            return;
        };
        if call.phase == Phase::Closing {
            return self.on_cancelled(id);
        }
        let state = match call.phase {
            Phase::Waiting => "waiting for a connection",
            Phase::Open => "waiting for a response",
            Phase::Backoff if call.tries.addresses.is_empty() => "delayed on purpose",
            Phase::Backoff => "waiting to try again",
            Phase::Streaming | Phase::Closing => "streaming the response",
        };
        let after_ms = deadline.after_ms;
        let reply = match deadline.limit {
            Limit::StreamAge => Reply::unavailable(
                Reason::StreamAge,
                format!("the stream reached its greatest age of {after_ms} ms: open it again"),
            ),
            Limit::Caller | Limit::Route => Reply::new(
                Code::DeadlineExceeded,
                Reason::Deadline,
                format!("deadline of {after_ms} ms exceeded while {state} ({place})"),
            ),
        };
        if deadline.limit != Limit::StreamAge {
            self.stats.numbers.deadlines_exceeded.add(1);
        }
        self.answer(id, &reply);
    }

    /// Nothing may have passed for the route's idle time.
    pub fn on_idle(&mut self, id: CallId) {
        let now_ms = self.now_ms;
        let Some(call) = self.call(id) else { return };
        let last_ms = call.last_activity_ms;
        call.idle_timer = None;
        let Some(idle_ms) = self.idle_ms(id) else {
            return;
        };
        if last_ms + idle_ms > now_ms {
            let timer = self.timers.set(last_ms + idle_ms, Timer::Idle(id));
            self.calls[id.key as usize].idle_timer = Some(timer);
            return;
        }
        let message = format!("nothing was sent or received for {idle_ms} ms (idle timeout)");
        self.answer(id, &Reply::unavailable(Reason::Idle, message));
    }

    /// One try took too long to answer.
    pub fn on_try_timeout(&mut self, id: CallId) {
        let Some(call) = self.call(id) else { return };
        call.try_timer = None;
        if matches!(call.phase, Phase::Waiting | Phase::Open) {
            self.try_failed(id, Outcome::Timeout, None);
        }
    }
}
