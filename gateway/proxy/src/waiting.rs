//! Calls that wait for room on a connection: queued per endpoint, bounded per cluster, served in order.

use gateway_core::Breaker;
use gateway_h2::OpenError;

use crate::call::{CallId, Phase};
use crate::conn::{Side, StreamAt, UpPhase};
use crate::reply::{Reason, Reply};
use crate::worker::Worker;

impl Worker {
    /// The connection of a pool with room for a stream and the fewest of them.
    pub fn usable_connection(&self, pool: usize) -> Option<usize> {
        let ready = |key: &&usize| {
            let conn = &self.conns[**key];
            let open = matches!(&conn.side, Side::Up(up) if up.phase == UpPhase::Ready);
            open && conn.dead.is_none() && conn.codec.can_open()
        };
        let conns = self.pools[pool].conns.iter().filter(ready);
        conns
            .copied()
            .min_by_key(|key| self.conns[*key].calls.len())
    }

    /// Queues a call for the next room, up to the cluster's bound.
    pub fn wait_for_connection(&mut self, id: CallId, pool: usize) {
        let call = &mut self.calls[id.key as usize];
        let cluster = &mut self.clusters[call.cluster];
        let limit = cluster.handle.config.max_pending_requests;
        if cluster.pending >= limit {
            self.stats.numbers.pending_overflows.add(1);
            let name = &cluster.handle.config.name;
            let key = call.cluster;
            let reply = Reply::unavailable(
                Reason::PendingOverflow,
                format!(
                    "cluster `{name}`: {limit} requests wait for a connection already (max_pending_requests)"
                ),
            );
            self.meet_bound(key, Breaker::Pending);
            return self.answer(id, &reply);
        }
        cluster.waits();
        call.phase = Phase::Waiting;
        self.pools[pool].waiting.push_back(id);
        self.ask_for_room(pool);
        self.grow(pool);
        self.limit_patience(pool);
    }

    /// Has `StreamsAvailable` sent once a full connection has room: HTTP/2 tells it to those who were refused.
    fn ask_for_room(&mut self, pool: usize) {
        for key in &self.pools[pool].conns {
            let conn = &mut self.conns[*key];
            let ready = matches!(&conn.side, Side::Up(up) if up.phase == UpPhase::Ready);
            if ready && conn.dead.is_none() && !conn.codec.can_open() {
                let _at_limit = conn.codec.open(0);
            }
        }
    }

    /// Gives waiting calls the room that connections have.
    pub fn serve_waiting(&mut self, pool: usize) {
        if !self.pools.contains(pool) {
            return;
        }
        while !self.pools[pool].waiting.is_empty() {
            let Some(conn) = self.usable_connection(pool) else {
                break;
            };
            let Some(id) = self.pools[pool].waiting.pop_front() else {
                break;
            };
            let cluster = self.pools[pool].cluster;
            self.clusters[cluster].served(1);
            self.open_stream(id, conn);
        }
        if self.pools[pool].waiting.is_empty()
            && let Some(timer) = self.pools[pool].patience_timer.take()
        {
            self.timers.cancel(timer);
        }
        if !self.pools[pool].waiting.is_empty() {
            self.ask_for_room(pool);
            self.grow(pool);
        }
        self.serve_copies(pool);
    }

    /// Opens the stream of a try.
    pub fn open_stream(&mut self, id: CallId, key: usize) {
        let conn = &mut self.conns[key];
        match conn.codec.open(id.token()) {
            Ok(stream) => self.send_request(id, StreamAt { conn: key, stream }),
            Err(OpenError::AtLimit | OpenError::GoingAway | OpenError::IdsExhausted) => {
                // `usable_connection` asked before; a connection that changed its mind is not asked again.
                self.leave_upstream(key);
                let pool = self.calls[id.key as usize].pool;
                if let Some(pool) = pool {
                    self.wait_for_connection(id, pool);
                }
            }
        }
    }
}
