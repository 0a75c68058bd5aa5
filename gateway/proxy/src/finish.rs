//! How calls end: by an answer, by the client, or by the gateway's own word. Every call passes `remove` once.

use gateway_core::{Code, Outcome};
use gateway_h2::ErrorCode;

use crate::call::{CallId, Phase};
use crate::conn::StreamAt;
use crate::reply::{Form, Reason, Reply};
use crate::rewrite::cors_fields;
use crate::worker::Worker;

impl Worker {
    /// The client does not want the call any more, or is gone.
    pub fn on_cancelled(&mut self, id: CallId) {
        self.cut_off(id, ErrorCode::Cancel, Code::Cancelled);
    }

    /// Ends the call without an answer, on both sides.
    pub fn cut_off(&mut self, id: CallId, error: ErrorCode, counts_as: Code) {
        let Some(call) = self.call(id) else { return };
        let counted = call.phase == Phase::Closing;
        let down = call.down;
        if let Some(pool) = self.release_try(id, None) {
            self.stats.numbers.tries_abandoned.add(1);
            self.forget_pool_if_done(pool);
        }
        if let Some(conn) = self.conns.get_mut(down.conn)
            && conn.dead.is_none()
        {
            conn.codec.reset(down.stream, error);
            self.mark_dirty(down.conn);
        }
        if !counted {
            let reason = if counts_as == Code::Cancelled {
                Reason::Cancelled
            } else {
                Reason::BufferOverflow
            };
            self.note_own_answer(id, reason, 0);
            self.count(id, counts_as);
        }
        self.remove(id);
    }

    /// Answers the call in the gateway's own name.
    pub fn answer(&mut self, id: CallId, reply: &Reply) {
        if self.calls[id.key as usize].phase == Phase::Closing {
            return self.on_cancelled(id);
        }
        let late = reply.code == Code::DeadlineExceeded;
        if let Some(pool) = self.release_try(id, late.then_some(Outcome::Timeout)) {
            self.stats.numbers.tries_abandoned.add(1);
            self.forget_pool_if_done(pool);
        }
        self.note_own_answer(id, reply.reason, reply.http_status);
        let call = &self.calls[id.key as usize];
        let (down, listener, form) = (call.down, call.listener, call.form);
        let extra = cors_fields(&call.request, &self.routes.get(call.route).route);
        match (call.phase, form) {
            (Phase::Streaming, Form::Grpc | Form::Web { .. }) => {
                self.send_trailers(down, listener, form, reply);
            }
            // HTTP has no word for what went wrong behind the headers but the end of the stream.
            (Phase::Streaming, Form::Http | Form::HttpHead) => {
                let codec = &mut self.conns[down.conn].codec;
                codec.reset(down.stream, ErrorCode::InternalError);
                self.mark_dirty(down.conn);
                self.count(id, reply.code);
                return self.remove(id);
            }
            _ => self.send_reply(down, listener, form, reply, &extra),
        }
        self.finish(id, reply.code);
    }

    fn send_trailers(&mut self, down: StreamAt, listener: usize, form: Form, reply: &Reply) {
        let marked = self.listeners[listener].marks_replies();
        let list = &mut self.work_list;
        reply.trailers(marked, list);
        self.stats.numbers.local_replies.add(1);
        if let Form::Web { text } = form {
            return self.send_web_trailers(down, text);
        }
        let _gone_is_seen_as_reset =
            self.conns[down.conn]
                .codec
                .send_headers(down.stream, list.iter(), true);
        list.clear();
        self.mark_dirty(down.conn);
    }

    /// The response is complete: counts it and lets the call go, at once or when its rest has left.
    pub fn finish(&mut self, id: CallId, code: Code) {
        self.count(id, code);
        if self.end_down(id) {
            self.remove(id);
        }
    }

    fn count(&mut self, id: CallId, code: Code) {
        let call = &self.calls[id.key as usize];
        let now_us = self.clock.now_us();
        let latency_us = now_us.saturating_sub(call.started_us);
        let cluster = &self.clusters[call.cluster].handle.config.name;
        self.routes
            .get_mut(call.route)
            .counters(cluster, &self.stats)
            .record(u32::from(code.number()), latency_us);
        self.count_end(id, code, latency_us);
        self.close_record(id, code, now_us);
    }

    /// Takes the call out of all tables.
    pub fn remove(&mut self, id: CallId) {
        let call = self.calls.remove(id.key as usize);
        self.leave_copies(&call.copies);
        for timer in [call.deadline_timer, call.try_timer, call.idle_timer]
            .into_iter()
            .flatten()
        {
            self.timers.cancel(timer);
        }
        self.routes.leave(call.route);
        if let Some(series) = call.series {
            self.series.leave(series);
        }
        self.clusters[call.cluster].calls -= 1;
        self.stats.numbers.calls_open.sub(1);
        if let Some(conn) = self.conns.get_mut(call.down.conn)
            && conn.calls.get(call.down_index) == Some(&id)
        {
            conn.calls.swap_remove(call.down_index);
            conn.widened_bytes -= call.response_widened + call.request_widened;
            if let Some(moved) = conn.calls.get(call.down_index).copied() {
                self.calls[moved.key as usize].down_index = call.down_index;
            }
            self.note_call_of_client(call.down.conn);
            self.close_if_finished(call.down.conn);
        }
        self.buffered_bytes -= call.counted_bytes;
        self.recycle(call.request, call.body);
    }
}
