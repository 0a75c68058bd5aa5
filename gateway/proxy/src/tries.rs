//! How tries end, and whether another one follows.
//!
//! Every try passes `end_try` or `release_try` once: counted for ejection, its stream and its place in the pool given
//! back. A failed try leads to another one (nothing was processed, or the route's policy says so) or to an answer.

use gateway_core::retry::{NoRetry, Pushback, RetryContext};
use gateway_core::{Breaker, Code, Ejection, Outcome, RetryDecision, outlier, status};
use gateway_h2::ErrorCode;

use crate::call::{CallId, Phase};
use crate::events::Notice;
use crate::relay::Verdict;
use crate::reply::{Reason, Reply};
use crate::worker::{Deferred, Timer, Worker};

/// Further tries of a call that nothing had processed.
const TRANSPARENT_MAX: u32 = 3;
/// Further tries of a call for which no connection could be made: each marks its endpoint down, so few calls need two.
const CONNECT_MAX: u32 = 8;

impl Worker {
    /// Gives back what a try holds, and counts its outcome for its endpoint.
    pub fn end_try(&mut self, id: CallId, outcome: Outcome) {
        let pool = self.release_try(id, Some(outcome));
        let Some(pool) = pool else { return };
        self.stats.numbers.count_try(outcome);
        let state = &self.pools[pool];
        if matches!(outcome, Outcome::Answer(_)) {
            state.answered.add(1);
        }
        let cluster = &self.clusters[state.cluster].handle;
        let ejection = outlier::record(cluster, &state.endpoint, outcome, self.now_ms);
        if let Some(ejection) = ejection {
            self.note_ejection(pool, ejection);
        }
        self.forget_pool_if_done(pool);
    }

    fn note_ejection(&mut self, pool: usize, ejection: Ejection) {
        self.stats.numbers.ejections.add(1);
        let cluster = &self.clusters[self.pools[pool].cluster];
        cluster.handle.shared.count_ejection(ejection.reason);
        let timer = self.timers.set(ejection.until_ms, Timer::Uneject(pool));
        let old = self.pools[pool].uneject_timer.replace(timer);
        if let Some(old) = old {
            self.timers.cancel(old);
        }
        let (cluster, address) = self.names_of(pool);
        self.notices.push(Notice::Ejection {
            cluster,
            address,
            until_unix_ms: self.clock.unix_ms(ejection.until_ms),
        });
    }

    /// The time of an ejected endpoint is over.
    pub fn on_ejection_over(&mut self, pool: usize) {
        let Some(state) = self.pools.get_mut(pool) else {
            return;
        };
        state.uneject_timer = None;
        let shared = &state.endpoint.shared;
        if shared.ejected_until_ms(self.now_ms).is_none() {
            let (cluster, address) = self.names_of(pool);
            self.notices.push(Notice::Uneject { cluster, address });
        }
    }

    /// Gives back what a try holds: its place in the queue, its stream, its timer. `outcome` is what it says about how
    /// busy its endpoint is, if anything.
    pub fn release_try(&mut self, id: CallId, outcome: Option<Outcome>) -> Option<usize> {
        let answer_us = self.answer_us(id, outcome);
        self.note_try_ended(id, outcome);
        let call = &mut self.calls[id.key as usize];
        let pool = call.pool.take();
        if let Some(place) = call.place.take() {
            place.release();
        }
        if let Some(timer) = call.try_timer.take() {
            self.timers.cancel(timer);
        }
        let never_sent = call.phase == Phase::Waiting && outcome.is_none();
        if call.phase == Phase::Waiting {
            let cluster = &mut self.clusters[call.cluster];
            if let Some(pool) = pool
                && let Some(at) = self.pools[pool].waiting.iter().position(|it| *it == id)
            {
                self.pools[pool].waiting.remove(at);
                cluster.served(1);
            }
        }
        if let Some((list, timer)) = call.held.take() {
            self.timers.cancel(timer);
            self.recycle(list, Vec::new());
        }
        self.detach_up(id);
        if let Some(pool) = pool {
            if never_sent {
                self.pools[pool].load.left();
            } else {
                let started_us = self.calls[id.key as usize].started_us;
                let latency_us = self.clock.now_us().saturating_sub(started_us);
                self.pools[pool].load.ended(outcome, latency_us);
            }
            self.pools[pool]
                .meter
                .finished(outcome, answer_us, self.now_ms);
            if !self.pools[pool].waiting.is_empty() {
                self.deferred.push(Deferred::Serve(pool));
            }
        }
        pool
    }

    /// How long the endpoint took to answer, or has not answered yet; `None` where that says nothing.
    fn answer_us(&self, id: CallId, outcome: Option<Outcome>) -> Option<u64> {
        let call = &self.calls[id.key as usize];
        let tried_us = call.tried_us?;
        let silent = || (outcome.is_some() && call.up.is_some()).then(|| self.clock.now_us());
        call.answered_us
            .or_else(|| silent().map(|now_us| now_us.saturating_sub(tried_us)))
    }

    /// Takes the call off its endpoint's connection; a stream that is not over is reset.
    fn detach_up(&mut self, id: CallId) {
        let call = &mut self.calls[id.key as usize];
        call.response_owed = 0;
        call.up_ended = false;
        let Some(up) = call.up.take() else { return };
        let at = call.up_index;
        let conn = &mut self.conns[up.conn];
        // Emptied already when the connection is being taken out.
        if conn.calls.get(at) == Some(&id) {
            conn.calls.swap_remove(at);
            if let Some(moved) = conn.calls.get(at).copied() {
                self.calls[moved.key as usize].up_index = at;
            }
        }
        let conn = &mut self.conns[up.conn];
        if let Some(side) = conn.up() {
            side.last_call_ms = self.now_ms;
        }
        if conn.dead.is_none() {
            self.cancel_up(up, ErrorCode::Cancel);
            self.close_up_if_finished(up.conn);
        }
    }

    /// The endpoint reset the stream, or refused it.
    pub fn on_up_reset(&mut self, id: CallId, code: ErrorCode) {
        let outcome = if code == ErrorCode::RefusedStream {
            Outcome::Refused
        } else {
            Outcome::Reset
        };
        self.try_failed(id, outcome, Some(code));
    }

    /// The connection of a try has gone.
    pub fn on_connection_lost(&mut self, id: CallId) {
        if self.call(id).is_some() {
            self.try_failed(id, Outcome::Reset, None);
        }
    }

    /// A try failed without an answer: another one, or an answer made here.
    pub fn try_failed(&mut self, id: CallId, outcome: Outcome, code: Option<ErrorCode>) {
        let place = self.place_of(id);
        let endpoint_failed = failure_reply(outcome, code, &place);
        let streaming = self.calls[id.key as usize].phase == Phase::Streaming;
        self.note_failure(id, false);
        self.end_try(id, outcome);
        if streaming {
            return self.answer(id, &endpoint_failed);
        }
        let free = self.takes_free_try(id, outcome);
        match self.another_try(id, outcome, None, free) {
            Ok(()) => {}
            Err(Some(NoRetry::Budget)) => self.answer(id, &over_budget(&endpoint_failed.message)),
            Err(_) => self.answer(id, &endpoint_failed),
        }
    }

    /// Whether nothing was processed, so that another try needs no policy; counts it against its bound.
    fn takes_free_try(&mut self, id: CallId, outcome: Outcome) -> bool {
        let elsewhere = self.has_untried_endpoint(id);
        let tries = &mut self.calls[id.key as usize].tries;
        match outcome {
            Outcome::Refused if tries.transparent < TRANSPARENT_MAX => {
                tries.transparent += 1;
                true
            }
            Outcome::ConnectFailure if tries.connect < CONNECT_MAX && elsewhere => {
                tries.connect += 1;
                true
            }
            _ => false,
        }
    }

    /// After a whole answer that is a failure: begins another try in its place, or says why not.
    pub fn try_again_after(
        &mut self,
        id: CallId,
        verdict: &Verdict,
    ) -> Result<(), Option<NoRetry>> {
        self.note_failure(id, verdict.unprocessed);
        self.end_try(id, verdict.outcome);
        let free = self.takes_free_try_elsewhere(id, verdict);
        self.another_try(id, verdict.outcome, verdict.pushback, free)
    }

    /// The same for an answer that is to be passed on when there is no other try: it is not ended then.
    pub fn try_instead_of(&mut self, id: CallId, verdict: &Verdict) -> Result<(), Option<NoRetry>> {
        if self.calls[id.key as usize].committed {
            return Err(None);
        }
        self.note_failure(id, verdict.unprocessed);
        if self.takes_free_try_elsewhere(id, verdict) {
            self.end_try(id, verdict.outcome);
            return self.another_try(id, verdict.outcome, None, true);
        }
        let wait_ms = self.decide_retry(id, verdict.outcome, None)?;
        self.end_try(id, verdict.outcome);
        self.plan_retry(id, wait_ms);
        Ok(())
    }

    /// Whether a peer's answer leaves a try without a policy at an endpoint that has not failed; counts it.
    fn takes_free_try_elsewhere(&mut self, id: CallId, verdict: &Verdict) -> bool {
        let elsewhere = verdict.unprocessed && self.has_untried_endpoint(id);
        let tries = &mut self.calls[id.key as usize].tries;
        let free = elsewhere && tries.transparent < TRANSPARENT_MAX;
        tries.transparent += u32::from(free);
        free
    }

    pub fn note_failure(&mut self, id: CallId, cluster_cannot: bool) {
        let call = &mut self.calls[id.key as usize];
        if let Some(pool) = call.pool {
            let endpoint = &self.pools[pool].endpoint;
            call.tries
                .failed(endpoint.address, &endpoint.cluster_id, cluster_cannot);
        }
    }

    /// Begins or plans another try, if there may be one.
    fn another_try(
        &mut self,
        id: CallId,
        outcome: Outcome,
        pushback: Option<Pushback>,
        free: bool,
    ) -> Result<(), Option<NoRetry>> {
        let call = &mut self.calls[id.key as usize];
        if call.committed {
            return Err(None);
        }
        call.phase = Phase::Backoff;
        if free {
            self.stats.numbers.transparent_retries.add(1);
            // Not from here: a chain of refusals would become a chain of calls on the stack.
            self.deferred.push(Deferred::Retry(id));
            return Ok(());
        }
        let wait_ms = self.decide_retry(id, outcome, pushback)?;
        self.plan_retry(id, wait_ms);
        Ok(())
    }

    /// Whether the route's policy has a try repeated, and after how many milliseconds; counts it.
    fn decide_retry(
        &mut self,
        id: CallId,
        outcome: Outcome,
        pushback: Option<Pushback>,
    ) -> Result<u64, Option<NoRetry>> {
        let may_retry = self.admission.may_retry(self.now_ms);
        let call = &mut self.calls[id.key as usize];
        let left_ms = call
            .timeout_at_ms
            .map(|at_ms| at_ms.saturating_sub(self.now_ms));
        let (policy, budget) = self.routes.retrying(call.route, self.now_ms);
        let policy = policy.ok_or(None)?;
        let context = RetryContext {
            pushback,
            left_ms,
            budget,
            now_ms: self.now_ms,
            random: self.random.u64(..),
        };
        match policy.decide(&mut call.tries.counted, outcome, context) {
            RetryDecision::After(_) if !may_retry => {
                self.stats.numbers.retries_shed.add(1);
                Err(None)
            }
            RetryDecision::After(wait_ms) => {
                self.stats.numbers.count_retry(outcome);
                Ok(wait_ms)
            }
            RetryDecision::No(reason) => {
                if reason == NoRetry::Budget {
                    self.stats.numbers.retries_over_budget.add(1);
                    let cluster = self.calls[id.key as usize].cluster;
                    self.meet_bound(cluster, Breaker::RetryBudget);
                }
                Err(Some(reason))
            }
        }
    }

    /// Begins another try after a wait.
    fn plan_retry(&mut self, id: CallId, wait_ms: u64) {
        let call = &mut self.calls[id.key as usize];
        call.phase = Phase::Backoff;
        if wait_ms == 0 {
            self.deferred.push(Deferred::Retry(id));
        } else {
            let timer = self.timers.set(self.now_ms + wait_ms, Timer::Backoff(id));
            call.try_timer = Some(timer);
        }
    }

    /// The wait before another try is over.
    pub fn on_backoff_over(&mut self, id: CallId) {
        let Some(call) = self.call(id) else { return };
        if call.phase == Phase::Backoff {
            call.try_timer = None;
            self.try_endpoint(id);
        }
    }

    /// Where the present try goes, for messages.
    pub fn place_of(&mut self, id: CallId) -> String {
        let Some(call) = self.call(id) else {
            return String::new();
        };
        let (route, cluster, pool) = (call.route, call.cluster, call.pool);
        let rule = self.routes.get(route).route.name();
        let cluster = &self.clusters[cluster].handle.config.name;
        match pool.and_then(|pool| self.pools.get(pool)) {
            None => format!("rule `{rule}`, cluster `{cluster}`"),
            Some(pool) => format!(
                "rule `{rule}`, cluster `{cluster}`, endpoint {} in `{}`",
                pool.endpoint.address, pool.endpoint.cluster_id
            ),
        }
    }
}

fn failure_reply(outcome: Outcome, code: Option<ErrorCode>, place: &str) -> Reply {
    match outcome {
        Outcome::ConnectFailure => Reply::unavailable(
            Reason::ConnectFailure,
            format!("no connection to the endpoint could be made ({place})"),
        ),
        Outcome::Timeout => Reply::new(
            Code::DeadlineExceeded,
            Reason::Deadline,
            format!("the endpoint did not answer within the time for one try ({place})"),
        ),
        Outcome::Refused if code.is_none() => Reply::unavailable(
            Reason::ConnectFailure,
            format!("the call could not be sent: no connection is left for it ({place})"),
        ),
        Outcome::Answer(_) | Outcome::Refused | Outcome::Reset => match code {
            None => Reply::unavailable(
                Reason::Reset,
                format!("the connection to the endpoint was lost ({place})"),
            ),
            Some(code) => Reply::new(
                status::reset_to_grpc(code.to_u32()),
                Reason::Reset,
                format!("the endpoint reset the stream with {code} ({place})"),
            ),
        },
    }
}

/// The answer in place of a retry that the budget did not allow.
pub(crate) fn over_budget(failure: &str) -> Reply {
    let message = format!("{failure}; the retry budget is used up");
    Reply::unavailable(Reason::RetryBudget, message)
}
