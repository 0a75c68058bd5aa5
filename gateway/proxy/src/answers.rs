//! Answers to streams for which there is no call: no route, no gRPC, or a question to the gateway itself.

use gateway_h2::{ErrorCode, Field, StreamRef};

use crate::conn::{ConnId, StreamAt};
use crate::headers::HeaderList;
use crate::leaving::LINGER_MS;
use crate::reply::{Form, HEALTH_NOT_SERVING, HEALTH_SERVING, HTTP2_REQUIRED, Reply};
use crate::worker::{Timer, Worker};

impl Worker {
    /// A request whose content-type is not gRPC's. Its client may be one that writes all before it reads: the rest of
    /// the request is read and dropped for a while, and a rule broken there is still told.
    pub fn refuse_media_type(&mut self, down: StreamAt, ended: bool) {
        let mut list = std::mem::take(&mut self.work_list);
        list.clear();
        list.add(b":status", b"415");
        list.add(b"content-type", b"text/plain; charset=utf-8");
        let text =
            b"content-type must begin with `application/grpc`: the rule that matches takes gRPC only\n";
        let conn = &mut self.conns[down.conn];
        let _gone = conn.codec.send_headers(down.stream, list.iter(), false);
        let _gone = conn.codec.send_data(down.stream, text, true);
        list.clear();
        self.work_list = list;
        self.stats.numbers.local_replies.add(1);
        if !ended {
            let over = Timer::Linger(self.conns[down.conn].id, down.stream);
            self.timers.set(self.now_ms + LINGER_MS, over);
        }
        self.mark_dirty(down.conn);
    }

    /// A call of gRPC over HTTP/1, which has no way for its streams.
    pub fn refuse_grpc_over_http1(&mut self, down: StreamAt, ended: bool) {
        let length = HTTP2_REQUIRED.len().to_string();
        let head = [
            Field::new(b":status", b"505"),
            Field::new(b"content-type", b"text/plain; charset=utf-8"),
            Field::new(b"content-length", length.as_bytes()),
        ];
        let conn = &mut self.conns[down.conn];
        let _gone = conn.codec.send_headers(down.stream, head, false);
        let _gone = conn
            .codec
            .send_data(down.stream, HTTP2_REQUIRED.as_bytes(), true);
        self.stats.numbers.http1_refused.add(1);
        self.end_answered_stream(down, ended);
    }

    /// A refused request had its time to end.
    pub fn on_linger_over(&mut self, conn: ConnId, stream: StreamRef) {
        if self.conn(conn).is_some() {
            let down = StreamAt {
                conn: conn.key,
                stream,
            };
            self.end_answered_stream(down, false);
        }
    }

    /// A peer asks whether this gateway serves.
    pub fn answer_health_check(&mut self, down: StreamAt, ended: bool) {
        let body = if self.draining {
            HEALTH_NOT_SERVING
        } else {
            HEALTH_SERVING
        };
        let conn = &mut self.conns[down.conn];
        let head = [
            Field::new(b":status", b"200"),
            Field::new(b"content-type", b"application/grpc"),
        ];
        let _gone = conn.codec.send_headers(down.stream, head, false);
        let _gone = conn.codec.send_data(down.stream, body, false);
        let trailers = [Field::new(b"grpc-status", b"0")];
        let _gone = conn.codec.send_headers(down.stream, trailers, true);
        self.end_answered_stream(down, ended);
    }

    /// Answers a stream for which there is no call.
    pub fn answer_stream(
        &mut self,
        down: StreamAt,
        listener: usize,
        (form, ended): (Form, bool),
        reply: &Reply,
        extra: &HeaderList,
    ) {
        self.send_reply(down, listener, form, reply, extra);
        self.end_answered_stream(down, ended);
    }

    /// Sends a whole response in the gateway's own name, with `extra` fields.
    pub fn send_reply(
        &mut self,
        down: StreamAt,
        listener: usize,
        form: Form,
        reply: &Reply,
        extra: &HeaderList,
    ) {
        let marked = self.listeners[listener].marks_replies();
        let list = &mut self.work_list;
        if form.is_grpc() {
            reply.trailers_only(form, marked, list);
            list.extend(extra);
            let codec = &mut self.conns[down.conn].codec;
            let _gone_is_seen_as_reset = codec.send_headers(down.stream, list.iter(), true);
        } else {
            let text = reply.text();
            reply.head(&text, marked, list);
            list.extend(extra);
            let bare = form == Form::HttpHead;
            let codec = &mut self.conns[down.conn].codec;
            let sent = codec.send_headers(down.stream, list.iter(), bare);
            if !bare && sent.is_ok() {
                let _gone_is_seen_as_reset = codec.send_data(down.stream, text.as_bytes(), true);
            }
        }
        list.clear();
        self.stats.numbers.local_replies.add(1);
        self.mark_dirty(down.conn);
    }

    /// Answers with fields alone: a redirect, or what a browser asked before it calls.
    pub fn answer_bare(&mut self, down: StreamAt, ended: bool, fields: &HeaderList) {
        let codec = &mut self.conns[down.conn].codec;
        let _gone = codec.send_headers(down.stream, fields.iter(), true);
        self.stats.numbers.local_replies.add(1);
        self.end_answered_stream(down, ended);
    }

    /// What the client still sends on an answered stream is not wanted. Small answers leave at once; when even they
    /// have to wait, the client ends the stream itself.
    fn end_answered_stream(&mut self, down: StreamAt, ended: bool) {
        let conn = &mut self.conns[down.conn];
        if !ended && conn.codec.queued(down.stream) == 0 {
            conn.codec.reset(down.stream, ErrorCode::NoError);
        }
        self.mark_dirty(down.conn);
    }
}
