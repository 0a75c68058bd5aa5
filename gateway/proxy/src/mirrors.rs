//! Mirrors: copies of calls that go to another cluster, and whose answers nobody reads.
//!
//! A copy is drawn once for each call, goes to one endpoint, and is never tried again. It gets the request as the first
//! try does, with `-shadow` behind the host as Envoy has it, and its bytes as they come from the client; its response
//! is read and dropped. What it does tells ejection nothing; its open stream does weigh on its endpoint.
//!
//! Bounds, beyond which a copy is dropped and counted: `COPIES_MAX` open ones of a worker, `COPY_BYTES_MAX` bytes of each
//! that its endpoint has not taken (so at most their product is held: 32 MiB), no waiting for room on connections that
//! are full, and `ANSWER_MS_MAX` for the answer once the call itself is over. A copy whose request can no longer become
//! whole is dropped, too.
//!
//! Invariants: a call never waits for a copy nor fails by it; the token of a copy's stream says that it is one, so that
//! events of calls are told apart without a look-up.

use std::sync::Arc;

use gateway_core::config::{Mirror, WeightedCluster};
use gateway_core::{Affinity, Route};
use gateway_h2::{ErrorCode, Event};

use crate::call::CallId;
use crate::conn::StreamAt;
use crate::headers::HeaderList;
use crate::reply::FEDERATION_PREFIX;
use crate::rewrite::{apply_ops, upstream_headers};
use crate::timers::TimerId;
use crate::worker::{Deferred, Timer, Worker};

const COPIES_MAX: usize = 512;
const COPY_BYTES_MAX: usize = 64 * 1024;
const ANSWER_MS_MAX: u64 = 30_000;
const SHADOW: &[u8] = b"-shadow";

/// See the module.
pub(crate) struct MirrorCopy {
    id: CallId,
    pool: usize,
    /// None while a connection is being made.
    up: Option<StreamAt>,
    /// The request as far as it waits for the stream.
    headers: HeaderList,
    body: Vec<u8>,
    /// The whole request is known.
    ended: bool,
    timer: Option<TimerId>,
}

impl Worker {
    /// Draws the copies of a call that sets out, and begins them.
    pub fn begin_copies(&mut self, id: CallId) {
        let call = &self.calls[id.key as usize];
        // A second tunnel would have nobody to speak with.
        if call.is_tunnel {
            return;
        }
        let (route, part) = (&self.routes.get(call.route).route, call.part);
        let is_mirrored = |part: &WeightedCluster| !part.mirrors.is_empty();
        let of_part = route.clusters().get(part).is_some_and(is_mirrored);
        // A tunnel's bytes answer each other: half of a conversation is no copy of it.
        if (route.config().mirrors.is_empty() && !of_part) || call.is_tunnel {
            return;
        }
        let route = Arc::clone(route);
        let random = self.random.u64(..);
        let mirrors = route.mirrors(&route.clusters()[part], random);
        let copies = mirrors.filter_map(|mirror| self.begin_copy(id, &route, mirror));
        let copies = copies.collect();
        self.calls[id.key as usize].copies = copies;
    }

    fn begin_copy(&mut self, of: CallId, route: &Route, mirror: &Mirror) -> Option<CallId> {
        let pool = self.pool_for_copy(mirror);
        let kept = self.calls[of.key as usize].body.len();
        let fits = self.copies.len() < COPIES_MAX && kept <= COPY_BYTES_MAX;
        let Some(pool) = pool.filter(|_| fits) else {
            self.stats.numbers.mirror_copies_dropped.add(1);
            return None;
        };
        let mut headers = self.spare_lists.pop().unwrap_or_default();
        let call = &self.calls[of.key as usize];
        upstream_headers(call, route, self.now_ms, &mut headers);
        mark(&mut headers, mirror);
        let (body, ended) = (call.body.clone(), call.request_ended);
        let id = CallId::of_copy(self.copies.vacant_key(), self.next_serial());
        self.copies.insert(MirrorCopy {
            id,
            pool,
            up: None,
            headers,
            body,
            ended,
            timer: None,
        });
        self.pools[pool].meter.started();
        self.stats.numbers.mirror_copies.add(1);
        match self.usable_connection(pool) {
            Some(conn) => self.open_copy(id, conn),
            None => self.wait_with_copy(id, pool),
        }
        Some(id)
    }

    fn pool_for_copy(&mut self, mirror: &Mirror) -> Option<usize> {
        let cluster = *self.cluster_keys.get(&mirror.cluster)?;
        let random = self.random.u64(..);
        let picked = self.pick(cluster, random, (&[], &[]), Affinity::default());
        Some(self.pool_of(cluster, picked.ok()?))
    }

    /// Only for a connection that is being made: behind full ones a copy would wait without an end.
    fn wait_with_copy(&mut self, id: CallId, pool: usize) {
        self.pools[pool].copies.push_back(id);
        self.grow(pool);
        if self.pools[pool].connecting == 0 {
            self.drop_copy(id);
        }
    }

    /// Opens the streams of copies that waited for a connection; calls were served before.
    pub fn serve_copies(&mut self, pool: usize) {
        while let Some(id) = self.pools[pool].copies.front().copied() {
            match self.usable_connection(pool) {
                Some(conn) => {
                    self.pools[pool].copies.pop_front();
                    self.open_copy(id, conn);
                }
                None if self.pools[pool].connecting == 0 => self.drop_copy(id),
                None => break,
            }
        }
    }

    fn open_copy(&mut self, id: CallId, key: usize) {
        let Ok(stream) = self.conns[key].codec.open(id.token()) else {
            return self.drop_copy(id);
        };
        self.count_stream(key);
        let (conn, copy) = (&mut self.conns[key], &mut self.copies[id.key as usize]);
        conn.copies += 1;
        copy.up = Some(StreamAt { conn: key, stream });
        let headers = std::mem::take(&mut copy.headers);
        let body = std::mem::take(&mut copy.body);
        let bare = copy.ended && body.is_empty();
        let mut sent = conn.codec.send_headers(stream, headers.iter(), bare);
        if !body.is_empty() {
            sent = sent.and_then(|()| {
                let sent = conn.codec.send_data(stream, &body, copy.ended);
                sent.map(|_| ())
            });
        }
        self.mark_dirty(key);
        self.recycle(headers, body);
        if sent.is_err() {
            self.drop_copy(id);
        }
    }

    /// More of a call's request has come, or its end.
    pub fn feed_copies(&mut self, id: CallId, data: &[u8], end: bool) {
        let copies = std::mem::take(&mut self.calls[id.key as usize].copies);
        for copy in &copies {
            self.feed_copy(*copy, data, end);
        }
        self.calls[id.key as usize].copies = copies;
    }

    fn feed_copy(&mut self, id: CallId, data: &[u8], end: bool) {
        let Some(copy) = self.copy(id) else { return };
        copy.ended |= end;
        let Some(up) = copy.up else {
            if copy.body.len() + data.len() > COPY_BYTES_MAX {
                return self.drop_copy(id);
            }
            copy.body.extend_from_slice(data);
            return;
        };
        let codec = &mut self.conns[up.conn].codec;
        let fits = codec.queued(up.stream) + data.len() <= COPY_BYTES_MAX;
        if fits && codec.send_data(up.stream, data, end).is_ok() {
            self.mark_dirty(up.conn);
        } else {
            self.drop_copy(id);
        }
    }

    /// The call is over: copies that are whole have a while for their answers.
    pub fn leave_copies(&mut self, copies: &[CallId]) {
        for id in copies {
            let at_ms = self.now_ms + ANSWER_MS_MAX;
            match self.copy(*id).map(|copy| copy.ended) {
                None => {}
                Some(false) => self.drop_copy(*id),
                Some(true) => {
                    let timer = self.timers.set(at_ms, Timer::Copy(*id));
                    self.copies[id.key as usize].timer = Some(timer);
                }
            }
        }
    }

    /// The answer to a copy took too long.
    pub fn on_copy_late(&mut self, id: CallId) {
        if let Some(copy) = self.copy(id) {
            copy.timer = None;
            self.drop_copy(id);
        }
    }

    /// An event of a copy's stream.
    pub fn on_copy_event(&mut self, key: usize, event: &Event) {
        let (token, over) = match event {
            Event::Data {
                stream,
                token,
                flow_len,
                end_stream,
                ..
            } => {
                self.conns[key].codec.release(*stream, *flow_len);
                (*token, *end_stream)
            }
            Event::Response {
                token, end_stream, ..
            } => (*token, *end_stream),
            Event::Trailers { token, .. } => (*token, true),
            Event::Reset { token, .. } => {
                self.stats.numbers.mirror_copies_failed.add(1);
                (*token, true)
            }
            _ => return,
        };
        let id = CallId::from_token(token);
        if over && self.copy(id).is_some() {
            self.release_copy(id);
        }
    }

    /// The copies on a connection are gone with it.
    pub fn lose_copies(&mut self, key: usize) {
        let on_it = |copy: &&MirrorCopy| copy.up.is_some_and(|up| up.conn == key);
        let copies = self.copies.iter().map(|(_, copy)| copy);
        let lost: Vec<CallId> = copies.filter(on_it).map(|copy| copy.id).collect();
        for id in lost {
            self.stats.numbers.mirror_copies_failed.add(1);
            self.copies[id.key as usize].up = None;
            self.release_copy(id);
        }
        self.conns[key].copies = 0;
    }

    /// No connection will come for the copies that wait for one.
    pub fn drop_waiting_copies(&mut self, pool: usize) {
        while let Some(id) = self.pools[pool].copies.front().copied() {
            self.drop_copy(id);
        }
    }

    /// Gives a copy up.
    fn drop_copy(&mut self, id: CallId) {
        self.stats.numbers.mirror_copies_dropped.add(1);
        self.release_copy(id);
    }

    /// Gives back what a copy holds; a stream that is not over is reset.
    fn release_copy(&mut self, id: CallId) {
        let copy = self.copies.remove(id.key as usize);
        if let Some(timer) = copy.timer {
            self.timers.cancel(timer);
        }
        let pool = &mut self.pools[copy.pool];
        pool.meter.finished(None, None, self.now_ms);
        pool.copies.retain(|it| *it != id);
        // An endpoint of HTTP/1 may have room again only now.
        if copy.up.is_some() && !(pool.waiting.is_empty() && pool.copies.is_empty()) {
            self.deferred.push(Deferred::Serve(copy.pool));
        }
        if let Some(up) = copy.up {
            let conn = &mut self.conns[up.conn];
            conn.copies -= 1;
            if conn.dead.is_none() {
                self.cancel_up(up, ErrorCode::Cancel);
                self.close_up_if_finished(up.conn);
            }
        }
        self.recycle(copy.headers, copy.body);
        self.forget_pool_if_done(copy.pool);
    }

    fn copy(&mut self, id: CallId) -> Option<&mut MirrorCopy> {
        let copy = self.copies.get_mut(id.key as usize);
        copy.filter(|copy| copy.id == id)
    }
}

/// Whether the event is of a copy's stream.
pub(crate) fn is_of_copy(event: &Event) -> bool {
    match event {
        Event::Response { token, .. }
        | Event::Data { token, .. }
        | Event::Trailers { token, .. }
        | Event::Reset { token, .. }
        | Event::Drained { token, .. } => CallId::from_token(*token).is_copy(),
        _ => false,
    }
}

/// Makes a call's request that of its copy: the federation's own fields are the call's alone.
fn mark(headers: &mut HeaderList, mirror: &Mirror) {
    headers.retain(|name| !name.starts_with(FEDERATION_PREFIX));
    for name in [&b":authority"[..], b"host"] {
        if let Some(host) = headers.value(name) {
            let host = shadow(host);
            headers.replace(name, &host);
        }
    }
    apply_ops(headers, mirror.request_headers.as_ref());
}

/// `-shadow` goes behind the host, before a port.
fn shadow(authority: &[u8]) -> Vec<u8> {
    let colon = authority.iter().rposition(|byte| *byte == b':');
    let is_port = |at: &usize| {
        let (host, port) = (&authority[..*at], &authority[*at + 1..]);
        port.iter().all(u8::is_ascii_digit) && (!host.contains(&b':') || host.ends_with(b"]"))
    };
    let (host, port) = authority.split_at(colon.filter(is_port).unwrap_or(authority.len()));
    [host, SHADOW, port].concat()
}

#[cfg(test)]
mod tests {
    use super::shadow;

    #[test]
    fn the_mark_stands_behind_the_host() {
        let cases: [(&[u8], &[u8]); 5] = [
            (b"grpc.example.com", b"grpc.example.com-shadow"),
            (b"grpc.example.com:443", b"grpc.example.com-shadow:443"),
            (b"[::1]:443", b"[::1]-shadow:443"),
            (b"[::1]", b"[::1]-shadow"),
            (b"", b"-shadow"),
        ];
        for (authority, expected) in cases {
            assert_eq!(shadow(authority), expected, "{}", authority.escape_ascii());
        }
    }
}
