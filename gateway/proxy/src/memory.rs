//! Bytes that peers make a worker hold: counted as they come and go, and bounded by `buffers_max_bytes`.
//!
//! Counted are bytes that wait for a socket or a window, the beginning of header blocks, and of each open call its
//! header list and the request bytes that another try may need. Windows bound what one stream and one connection can
//! hold; this bounds all of them together. Above it the client connection that holds most loses its largest streams
//! until an eighth is free: whoever reads what it asked for is not the one.
//!
//! Invariants: `buffered_bytes` is the sum of the `counted_bytes` of all connections and calls. A connection is
//! counted at the end of a turn in which it was written to or lost a stream, so one turn can hold more by what it
//! reads, which is bounded as well (`reading`).

use gateway_core::Code;
use gateway_h2::{ErrorCode, StreamRef};

use crate::call::CallId;
use crate::conn::{Conn, Death, Side, StreamAt};
use crate::worker::Worker;

impl Worker {
    /// What a connection holds may have changed.
    pub fn count_connection(&mut self, key: usize) {
        if let Some(conn) = self.conns.get_mut(key) {
            let now = conn.held_bytes();
            self.buffered_bytes = self.buffered_bytes - conn.counted_bytes + now;
            conn.counted_bytes = now;
        }
    }

    /// What a call holds beside its streams has changed.
    pub fn count_call(&mut self, id: CallId) {
        let call = &mut self.calls[id.key as usize];
        let now = call.request.capacity() + call.body.capacity();
        self.buffered_bytes = self.buffered_bytes - call.counted_bytes + now;
        call.counted_bytes = now;
    }

    /// Too much is held.
    pub fn is_overfull(&self) -> bool {
        self.buffered_bytes as u64 > self.settings.buffers_max_bytes
    }

    /// Ends streams of those who hold most.
    pub fn relieve(&mut self) {
        let most = self.settings.buffers_max_bytes as usize;
        let mut excess = self.buffered_bytes.saturating_sub(most - most / 8);
        let holders = self.holders();
        for (key, bytes) in holders {
            if excess == 0 || bytes == 0 {
                break;
            }
            excess = excess.saturating_sub(self.take_from(key, excess));
        }
    }

    /// Connections by what they hold, most first: a client's with its calls', an endpoint's without them.
    fn holders(&self) -> Vec<(usize, usize)> {
        let mut bytes_of = vec![0; self.conns.capacity()];
        for (key, conn) in &self.conns {
            bytes_of[key] += match conn.side {
                Side::Down(_) => conn.counted_bytes,
                Side::Up(_) => conn.codec.output().len(),
            };
        }
        for (_, call) in &self.calls {
            bytes_of[call.down.conn] += call.counted_bytes + self.queued_at(call.up);
        }
        let live = self.conns.iter().filter(|(_, conn)| conn.dead.is_none());
        let mut holders: Vec<_> = live.map(|(key, _)| (key, bytes_of[key])).collect();
        holders.sort_unstable_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        holders
    }

    fn queued_at(&self, up: Option<StreamAt>) -> usize {
        up.map_or(0, |up| self.conns[up.conn].codec.queued(up.stream))
    }

    /// Ends streams of a connection, the largest first, until `excess` is free; the connection itself when it holds
    /// something without any. Returns what that frees.
    fn take_from(&mut self, key: usize, excess: usize) -> usize {
        let streams = self.streams_by_size(key);
        let mut freed = 0;
        for (stream, bytes) in &streams {
            if freed >= excess {
                break;
            }
            freed += bytes;
            self.stats.numbers.buffer_overflow_streams.add(1);
            self.end_stream(key, *stream);
        }
        if streams.is_empty() {
            self.stats.numbers.buffer_overflow_connections.add(1);
            freed = self.conns[key].held_bytes();
            self.kill(key, Death::Closed);
        }
        freed
    }

    /// A client's streams by what they hold, most first; none of an endpoint's.
    fn streams_by_size(&self, key: usize) -> Vec<(StreamRef, usize)> {
        let conn = &self.conns[key];
        if matches!(conn.side, Side::Up(_)) {
            return Vec::new();
        }
        let mut streams: Vec<_> = conn.codec.waiting();
        for id in &conn.calls {
            let call = &self.calls[id.key as usize];
            let bytes = call.counted_bytes + self.queued_at(call.up);
            let stream = call.down.stream;
            match streams.iter_mut().find(|(it, _)| *it == stream) {
                Some((_, waiting)) => *waiting += bytes,
                None => streams.push((stream, bytes)),
            }
        }
        streams.retain(|(_, bytes)| *bytes > 0);
        streams.sort_unstable_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        streams
    }

    /// gRPC reads the code as `RESOURCE_EXHAUSTED`.
    fn end_stream(&mut self, key: usize, stream: StreamRef) {
        let code = ErrorCode::EnhanceYourCalm;
        if let Some(id) = self.call_of_down(key, stream) {
            return self.cut_off(id, code, Code::ResourceExhausted);
        }
        self.conns[key].codec.reset(stream, code);
        self.mark_dirty(key);
    }
}

// === impl Conn ===

impl Conn {
    /// Bytes that wait here.
    pub fn held_bytes(&self) -> usize {
        self.codec.buffered() + self.rest_len()
    }
}
