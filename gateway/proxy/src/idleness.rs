//! Connections without calls: a client is asked to leave after the idle time (`leaving`); a connection to
//! an endpoint is closed, so that a worker does not hold one to everything that it ever called.
//!
//! A look at the connection, not every call, moves the timer: a call notes when it began and ended, nothing else.

use crate::conn::{Conn, ConnId, DownPhase};
use crate::worker::{Timer, Worker};

impl Worker {
    /// Starts looking for idleness of a connection to an endpoint, when that ends connections at all.
    pub fn watch_idleness_of_endpoint(&mut self, key: usize) {
        let idle_ms = self.settings.upstream_idle_ms;
        if idle_ms > 0 {
            self.look_at_endpoint_at(key, self.now_ms + idle_ms);
        }
    }

    fn look_at_endpoint_at(&mut self, key: usize, at_ms: u64) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let id = conn.id;
        if let Some(up) = conn.up() {
            up.idle_timer = Some(self.timers.set(at_ms, Timer::UpIdle(id)));
        }
    }

    /// The timer's look at a connection to an endpoint.
    pub fn on_up_idle(&mut self, id: ConnId) {
        let idle_ms = self.settings.upstream_idle_ms;
        let now_ms = self.now_ms;
        let Some(conn) = self.conn(id) else { return };
        let busy = !conn.calls.is_empty() || conn.copies > 0;
        let Some(up) = conn.up() else { return };
        up.idle_timer = None;
        let last_ms = if busy { now_ms } else { up.last_call_ms };
        let end_ms = last_ms + idle_ms;
        if now_ms < end_ms {
            self.look_at_endpoint_at(id.key, end_ms);
        } else {
            self.leave_upstream(id.key);
        }
    }

    /// Starts looking for idleness of a client's connection, when that ends connections at all.
    pub fn watch_idleness(&mut self, key: usize) {
        let idle_ms = self.settings.downstream_idle_ms;
        let down = self.conns.get_mut(key).and_then(Conn::down);
        let is_own =
            down.is_some_and(|down| down.life.as_ref().is_some_and(|it| it.ends_idleness()));
        if idle_ms > 0 && !is_own {
            self.look_for_idleness_at(key, self.now_ms + idle_ms);
        }
    }

    fn look_for_idleness_at(&mut self, key: usize, at_ms: u64) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let id = conn.id;
        if let Some(down) = conn.down() {
            down.idle_timer = Some(self.timers.set(at_ms, Timer::DownIdle(id)));
        }
    }

    /// A call of a client's connection begins or ends.
    pub fn note_call_of_client(&mut self, key: usize) {
        let now_ms = self.now_ms;
        if let Some(down) = self.conns.get_mut(key).and_then(Conn::down) {
            down.last_call_ms = now_ms;
        }
    }

    /// The timer's look.
    pub fn on_down_idle(&mut self, id: ConnId) {
        let idle_ms = self.settings.downstream_idle_ms;
        let now_ms = self.now_ms;
        let Some(conn) = self.conn(id) else { return };
        let busy = !conn.calls.is_empty();
        let Some(down) = conn.down() else { return };
        down.idle_timer = None;
        let end_ms = down.last_call_ms + idle_ms;
        if down.phase != DownPhase::Open {
            // On its way out already.
        } else if busy {
            self.look_for_idleness_at(id.key, now_ms + idle_ms);
        } else if now_ms < end_ms {
            self.look_for_idleness_at(id.key, end_ms);
        } else {
            self.stats.numbers.downstream_idle_closed.add(1);
            self.ask_to_leave(id.key, b"idle");
        }
    }
}
