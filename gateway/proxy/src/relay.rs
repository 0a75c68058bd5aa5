//! What passes between the two streams of a call: request bytes up, response headers, bytes and trailers down.
//!
//! Flow control: a sender's window is given back as far as the other side's queue has let go of the bytes, so what the
//! gateway holds for a call never exceeds one window in each direction (and the retry buffer).

use gateway_core::outcome::Answer;
use gateway_core::retry::{NoRetry, Pushback, parse_pushback};
use gateway_core::{Code, Outcome, status};
use gateway_h2::Fields;

use crate::call::{CallId, Phase};
use crate::conn::{Conn, StreamAt};
use crate::reply::{Form, REASON_HEADER, Reason, Reply, says_unprocessed};
use crate::rewrite::response_headers;
use crate::sessions::add_session;
use crate::tries::over_budget;
use crate::web;
use crate::worker::{Timer, Worker};

/// Window of a client's stream at first: what one request can hold here that its endpoint does not read.
pub(crate) const REQUEST_WINDOW: u32 = 65_535;
/// Window of an endpoint's stream at first: what one response can hold here that its client does not read.
pub(crate) const RESPONSE_WINDOW: u32 = 32 * 1024;
/// Bytes that the windows of one client's streams may be widened by in both directions, what waits for it counted in.
const WIDENED_MAX: usize = 8 * 1024 * 1024;

/// Longest wait of response headers for the message behind them.
const HELD_MS_MAX: u64 = 20;

/// What a header block says about the end of a try.
pub(crate) struct Verdict {
    pub outcome: Outcome,
    pub code: Code,
    pub pushback: Option<Pushback>,
    /// A peer gateway says that no endpoint of its cluster has seen the call.
    pub unprocessed: bool,
    /// Why it says so, if it is a word that is known here.
    pub peer_reason: Option<Reason>,
}

impl Worker {
    // --- request ---

    /// Request bytes, or the end of the request, from the client.
    pub fn on_request_data(&mut self, id: CallId, data: &[u8], flow_len: u32, end: bool) {
        let Some(call) = self.call(id) else { return };
        if call.web.as_ref().is_some_and(|web| web.is_text()) {
            self.on_web_text(id, data, flow_len, end);
        } else {
            self.take_request_data(id, data, flow_len, end);
        }
    }

    /// Bytes for the endpoint; they stand for `flow_len` bytes of the client's window.
    pub fn take_request_data(&mut self, id: CallId, data: &[u8], flow_len: u32, end: bool) {
        let now_ms = self.now_ms;
        let call = &mut self.calls[id.key as usize];
        call.last_activity_ms = now_ms;
        call.request_owed += flow_len;
        call.request_ended |= end;
        self.count_request(id, data);
        let call = &mut self.calls[id.key as usize];
        if end && let Some(record) = &mut call.record {
            record.whole_us = self.clock.now_us();
        }
        if !call.copies.is_empty() {
            self.feed_copies(id, data, end);
        }
        let call = &mut self.calls[id.key as usize];
        if call.phase == Phase::Closing {
            return self.give_back_request(id, 0);
        }
        let Some(up) = call.up else {
            call.body.extend_from_slice(data);
            return self.count_call(id);
        };
        self.keep_for_retry(id, data);
        self.send_up(id, up, data, end);
        self.settle_request(id);
    }

    /// Keeps request bytes while another try may need them; too many commit the call to its present try.
    fn keep_for_retry(&mut self, id: CallId, data: &[u8]) {
        let bound = self.retry_buffer_bytes(id);
        let call = &mut self.calls[id.key as usize];
        if call.committed {
            return;
        }
        if call.body.len() + data.len() > bound {
            call.committed = true;
            call.body = Vec::new();
        } else {
            call.body.extend_from_slice(data);
        }
        self.count_call(id);
    }

    /// Without a policy a call may still be tried again when nothing was processed: small requests are kept for that.
    fn retry_buffer_bytes(&self, id: CallId) -> usize {
        const WITHOUT_POLICY: usize = 16 * 1024;
        let route = &self.routes.get(self.calls[id.key as usize].route).route;
        route
            .retry()
            .map_or(WITHOUT_POLICY, gateway_core::RetryPolicy::buffer_bytes)
    }

    /// Sends what came before the stream was open, or what an earlier try had got.
    pub fn send_kept_body(&mut self, id: CallId) {
        let bound = self.retry_buffer_bytes(id);
        let call = &mut self.calls[id.key as usize];
        let Some(up) = call.up else { return };
        let body = std::mem::take(&mut call.body);
        let end = call.request_ended;
        if !body.is_empty() || (end && !call.up_ended) {
            self.send_up(id, up, &body, end);
        }
        let call = &mut self.calls[id.key as usize];
        if body.len() > bound {
            call.committed = true;
        } else {
            call.body = body;
        }
        self.count_call(id);
        self.settle_request(id);
    }

    fn send_up(&mut self, id: CallId, up: StreamAt, data: &[u8], end: bool) {
        let sent = self.conns[up.conn].codec.send_data(up.stream, data, end);
        if sent.is_ok() {
            self.calls[id.key as usize].up_ended |= end;
            self.mark_dirty(up.conn);
        }
    }

    /// Gives the client back the window of what has left for the endpoint.
    pub fn settle_request(&mut self, id: CallId) {
        let Some(call) = self.call(id) else { return };
        let queued = match call.up {
            Some(up) => self.conns[up.conn].codec.queued(up.stream) as u32,
            None => return,
        };
        self.give_back_request(id, queued);
    }

    fn give_back_request(&mut self, id: CallId, still_held: u32) {
        let call = &mut self.calls[id.key as usize];
        let bytes = call.request_owed.saturating_sub(still_held);
        if bytes == 0 {
            return;
        }
        call.request_owed -= bytes;
        let down = call.down;
        let told = self.conns[down.conn].codec.release(down.stream, bytes);
        if told && still_held == 0 {
            self.widen_request(id);
        }
        if self.conns[down.conn].wants_flush() {
            self.mark_dirty(down.conn);
        }
    }

    /// More may be under way of a request that the endpoint takes as it comes.
    fn widen_request(&mut self, id: CallId) {
        let call = &mut self.calls[id.key as usize];
        let conn = &mut self.conns[call.down.conn];
        let most =
            (self.settings.stream_window - REQUEST_WINDOW).saturating_sub(call.request_widened);
        let room = widening_room(conn);
        let by = conn.codec.widen(call.down.stream, most.min(room));
        call.request_widened += by;
        conn.widened_bytes += by;
    }

    // --- response ---

    /// Response headers from the endpoint.
    pub fn on_response(&mut self, id: CallId, fields: Fields<'_>, end: bool) {
        let (now_ms, clock) = (self.now_ms, self.clock);
        let Some(call) = self.call(id) else { return };
        call.last_activity_ms = now_ms;
        let (pool, is_grpc) = (call.pool, call.form.is_grpc());
        if let Some(tried_us) = call.tried_us {
            call.answered_us = Some(clock.now_us().saturating_sub(tried_us));
        }
        self.note_answered(id);
        let peer = pool.is_some_and(|pool| self.pools[pool].endpoint.peer);
        if peer {
            self.note_session_of_peer(id, fields.clone());
        }
        let http_status = http_status(fields.clone());
        if !is_grpc {
            return self.on_http_response(id, fields, http_status, end);
        }
        if end || http_status != 200 {
            let verdict = verdict(fields.clone(), Some(http_status), peer);
            self.note_verdict(id, &verdict);
            return self.on_whole_answer(id, fields, end, &verdict);
        }
        if self.may_hold(id) {
            return self.hold_headers(id, fields);
        }
        self.forward_headers(id, fields, false);
        self.begin_response(id);
    }

    /// Another try is possible, and the client waits for nothing but the message.
    fn may_hold(&self, id: CallId) -> bool {
        let call = &self.calls[id.key as usize];
        let route = &self.routes.get(call.route).route;
        call.request_ended && !call.committed && route.retry().is_some()
    }

    fn hold_headers(&mut self, id: CallId, fields: Fields<'_>) {
        let mut list = self.spare_lists.pop().unwrap_or_default();
        let session = self.session_header(id);
        let call = &mut self.calls[id.key as usize];
        let route = &self.routes.get(call.route).route;
        response_headers(call, route, fields, &mut list);
        add_session(&mut list, session.as_ref());
        if let Some(timer) = call.try_timer.take() {
            self.timers.cancel(timer);
        }
        let timer = self.timers.set(self.now_ms + HELD_MS_MAX, Timer::Held(id));
        call.held = Some((list, timer));
    }

    /// Sends response headers that were held.
    pub fn release_held(&mut self, id: CallId) {
        let Some(call) = self.call(id) else { return };
        let down = call.down;
        let Some((list, timer)) = call.held.take() else {
            return;
        };
        self.timers.cancel(timer);
        self.begin_response(id);
        let _gone_is_seen_as_reset =
            self.conns[down.conn]
                .codec
                .send_headers(down.stream, list.iter(), false);
        self.mark_dirty(down.conn);
        self.recycle(list, Vec::new());
    }

    pub fn begin_response(&mut self, id: CallId) {
        let call = &mut self.calls[id.key as usize];
        call.phase = Phase::Streaming;
        call.committed = true;
        call.session = None;
        call.body = Vec::new();
        if let Some(timer) = call.try_timer.take() {
            self.timers.cancel(timer);
        }
        self.count_call(id);
    }

    /// An answer without a body, or one that is no gRPC: another try may still take its place.
    fn on_whole_answer(&mut self, id: CallId, fields: Fields<'_>, end: bool, verdict: &Verdict) {
        let failure = match verdict.code {
            Code::Ok => {
                self.end_try(id, verdict.outcome);
                None
            }
            _ => match self.try_again_after(id, verdict) {
                Ok(()) => return,
                Err(reason) => reason,
            },
        };
        if failure == Some(NoRetry::Budget) {
            let name = verdict.code.name();
            return self.answer(id, &over_budget(&format!("the endpoint answered {name}")));
        }
        if end {
            self.forward_headers(id, fields, true);
            self.finish(id, verdict.code);
        } else {
            let message = "the endpoint answered by something else than gRPC";
            self.answer(id, &Reply::new(verdict.code, Reason::Reset, message));
        }
    }

    pub fn forward_headers(&mut self, id: CallId, fields: Fields<'_>, end: bool) {
        let session = self.session_header(id);
        let call = &self.calls[id.key as usize];
        let down = call.down;
        let list = &mut self.work_list;
        response_headers(call, &self.routes.get(call.route).route, fields, list);
        add_session(list, session.as_ref());
        let _gone_is_seen_as_reset =
            self.conns[down.conn]
                .codec
                .send_headers(down.stream, list.iter(), end);
        list.clear();
        self.mark_dirty(down.conn);
    }

    /// Response bytes from the endpoint.
    pub fn on_response_data(&mut self, id: CallId, data: &[u8], flow_len: u32, end: bool) {
        let now_ms = self.now_ms;
        let Some(call) = self.call(id) else { return };
        call.last_activity_ms = now_ms;
        call.response_owed += flow_len;
        self.count_response(id, data);
        if self.calls[id.key as usize].held.is_some() {
            self.release_held(id);
        }
        let call = &self.calls[id.key as usize];
        let (down, form) = (call.down, call.form);
        let text = (form == Form::Web { text: true }).then(|| web::encode(data));
        let data = text.as_deref().unwrap_or(data);
        let sent = self.conns[down.conn]
            .codec
            .send_data(down.stream, data, end);
        self.mark_dirty(down.conn);
        if sent.is_err() {
            return self.on_cancelled(id);
        }
        self.settle_response(id);
        if end && !self.calls[id.key as usize].form.is_grpc() {
            return self.on_http_end(id);
        }
        if end {
            // A gRPC response ends with trailers; without them the client maps the missing status itself.
            self.end_try(id, Outcome::status(Code::Unknown));
            self.finish(id, Code::Unknown);
        }
    }

    /// Response bytes have left for the client.
    pub fn on_response_drained(&mut self, id: CallId) {
        let now_ms = self.now_ms;
        let Some(call) = self.call(id) else { return };
        call.last_activity_ms = now_ms;
        if call.phase == Phase::Closing {
            if self.end_down(id) {
                self.remove(id);
            }
        } else {
            self.settle_response(id);
        }
    }

    fn settle_response(&mut self, id: CallId) {
        let call = &mut self.calls[id.key as usize];
        let Some(up) = call.up else { return };
        let queued = self.conns[call.down.conn].codec.queued(call.down.stream) as u32;
        let bytes = call.response_owed.saturating_sub(queued);
        if bytes == 0 {
            return;
        }
        call.response_owed -= bytes;
        let conn = &mut self.conns[up.conn];
        let told = conn.codec.release(up.stream, bytes);
        if told && queued == 0 {
            self.widen_response(id, up);
        }
        if self.conns[up.conn].wants_flush() {
            self.mark_dirty(up.conn);
        }
    }

    /// More may be under way of a response that the client takes as it comes; not of all at a time, for a client
    /// that stops taking them holds all of it here.
    fn widen_response(&mut self, id: CallId, up: StreamAt) {
        let call = &self.calls[id.key as usize];
        let room = widening_room(&self.conns[call.down.conn]);
        let most = self.settings.stream_window - RESPONSE_WINDOW - call.response_widened;
        let down = call.down.conn;
        let by = self.conns[up.conn].codec.widen(up.stream, most.min(room));
        self.calls[id.key as usize].response_widened += by;
        self.conns[down].widened_bytes += by;
    }

    /// The end of a response with a body.
    pub fn on_trailers(&mut self, id: CallId, fields: Fields<'_>) {
        self.release_held(id);
        let Some(call) = self.call(id) else { return };
        if !call.form.is_grpc() {
            self.forward_headers(id, fields, true);
            return self.on_http_end(id);
        }
        let peer = call.pool.is_some_and(|pool| self.pools[pool].endpoint.peer);
        let verdict = verdict(fields.clone(), None, peer);
        self.note_verdict(id, &verdict);
        self.end_try(id, verdict.outcome);
        self.forward_trailers(id, fields);
        self.finish(id, verdict.code);
    }

    fn forward_trailers(&mut self, id: CallId, fields: Fields<'_>) {
        let call = &self.calls[id.key as usize];
        let Form::Web { text } = call.form else {
            return self.forward_headers(id, fields, true);
        };
        let down = call.down;
        let route = &self.routes.get(call.route).route;
        response_headers(call, route, fields, &mut self.work_list);
        self.send_web_trailers(down, text);
    }
}

/// How much further the windows of a client's streams may grow.
fn widening_room(down: &Conn) -> u32 {
    let held = down.widened_bytes as usize + down.codec.queued_in_all();
    WIDENED_MAX.saturating_sub(held) as u32
}

/// Reads `:status`; 0 when it is no number.
fn http_status(mut fields: Fields<'_>) -> u16 {
    fields
        .find(|field| field.name == b":status")
        .and_then(|field| std::str::from_utf8(field.value).ok())
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// Reads status, pushback and a peer's mark. Without a `grpc-status` the HTTP status decides.
fn verdict(fields: Fields<'_>, http: Option<u16>, peer: bool) -> Verdict {
    let mut code = None;
    let mut pushback = None;
    let mut mark = None;
    for field in fields {
        match field.name {
            b"grpc-status" => code = Some(Code::parse(field.value)),
            b"grpc-retry-pushback-ms" => pushback = Some(parse_pushback(field.value)),
            REASON_HEADER if peer => mark = Some(field.value),
            _ => {}
        }
    }
    let http_status = http.unwrap_or(200);
    let code = match (code, http) {
        // "Failed" in HTTP and "OK" in gRPC: whoever wrote that, the call did not work.
        (None | Some(Code::Ok), Some(status)) if status != 200 => status::http_to_grpc(status),
        (code, _) => code.unwrap_or(Code::Unknown),
    };
    Verdict {
        outcome: Outcome::Answer(Answer {
            code,
            http_status,
            by_gateway: mark.is_some(),
        }),
        code,
        pushback,
        unprocessed: mark.is_some_and(says_unprocessed),
        peer_reason: mark.and_then(Reason::parse),
    }
}
