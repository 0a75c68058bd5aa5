//! Leaving without a failed call: endpoints that drain, listeners that go, and the end of the process.
//!
//! Always in this order: nothing new, then a graceful GOAWAY to the clients concerned (their streams go on, new calls
//! come on new connections), then time, then UNAVAILABLE for what is left.
//!
//! A client whose calls on a draining endpoint are about to end anyway is not asked: GOAWAY costs it a connection, and
//! clients that make no transparent retries lose the calls that they had just begun to send.

use std::sync::atomic::Ordering;

use gateway_core::config::Health;
use gateway_core::{Endpoint, Outcome};

use crate::call::CallId;
use crate::conn::{Death, Side};
use crate::events::Notice;
use crate::leaving::GOODBYE_MS;
use crate::reply::{Reason, Reply};
use crate::worker::{Timer, Worker};

/// Calls that end within this time of a drain's begin are left alone; at most half of the grace.
const SHORT_CALL_MS: u64 = 1_000;
/// After the last stream was ended, for the answer to leave.
const LAST_WORDS_MS: u64 = 100;

impl Worker {
    // --- endpoints ---

    /// Begins, keeps or takes back the drain of an endpoint, as the snapshot says.
    pub fn follow_drain(&mut self, pool: usize, endpoint: &Endpoint) {
        let draining = endpoint.health == Health::Draining;
        let state = &mut self.pools[pool];
        if let Some(timer) = state.grace_timer.take() {
            self.timers.cancel(timer);
        }
        let begins = draining && !state.draining;
        state.draining = draining;
        let end_ms = endpoint.drain.and_then(|drain| drain.deadline_ms);
        if !draining {
            state.graced_ms = None;
            if let Some(timer) = state.goodbye_timer.take() {
                self.timers.cancel(timer);
            }
        }
        if draining
            && let Some(end_ms) = end_ms
            && state.graced_ms != Some(end_ms)
        {
            let timer = self.timers.set(end_ms, Timer::Grace(pool));
            self.pools[pool].grace_timer = Some(timer);
        }
        if begins {
            self.begin_drain(pool, end_ms);
        }
    }

    fn begin_drain(&mut self, pool: usize, end_ms: Option<u64>) {
        let grace_ms = end_ms.map(|end_ms| end_ms.saturating_sub(self.now_ms));
        let after_ms = grace_ms.map_or(SHORT_CALL_MS, |grace_ms| SHORT_CALL_MS.min(grace_ms / 2));
        let timer = Timer::Goodbye(pool);
        let timer = self.timers.set(self.now_ms + after_ms, timer);
        self.pools[pool].goodbye_timer = Some(timer);
        let streams = self.calls_on(pool).len() as u64;
        let (cluster, address) = self.names_of(pool);
        self.notices.push(Notice::DrainStarted {
            cluster,
            address,
            streams,
        });
    }

    /// Calls that are still on a draining endpoint may be long: their clients are to open the next ones elsewhere.
    pub fn ask_clients_to_leave(&mut self, pool: usize) {
        let Some(state) = self.pools.get_mut(pool) else {
            return;
        };
        state.goodbye_timer = None;
        for id in self.calls_on(pool) {
            let down = self.calls[id.key as usize].down.conn;
            self.ask_to_leave(down, b"draining");
        }
    }

    fn calls_on(&self, pool: usize) -> Vec<CallId> {
        let conns = self.pools[pool].conns.iter();
        conns
            .flat_map(|key| self.conns[*key].calls.iter().copied())
            .collect()
    }

    /// The grace of a draining endpoint is over.
    pub fn on_grace_over(&mut self, pool: usize) {
        let Some(state) = self.pools.get_mut(pool) else {
            return;
        };
        state.grace_timer = None;
        state.graced_ms = state.endpoint.drain.and_then(|drain| drain.deadline_ms);
        let calls = self.calls_on(pool);
        let (cluster, address) = self.names_of(pool);
        let message = format!(
            "endpoint {address} of cluster `{cluster}` was drained: its grace period is over"
        );
        for id in &calls {
            self.answer(*id, &Reply::unavailable(Reason::Drained, message.clone()));
        }
        let streams = calls.len() as u64;
        self.stats.numbers.drained_streams.add(streams);
        self.notices.push(Notice::StreamsEnded {
            cluster,
            address,
            streams,
        });
    }

    // --- listeners and the process ---

    /// The process is about to end: all listeners drain.
    pub fn drain_process(&mut self, grace_ms: u64) {
        self.draining = true;
        let keys: Vec<usize> = self.listeners.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.drain_listener(key, grace_ms);
        }
    }

    /// Closes a listener's socket and lets its connections finish, at most for `grace_ms`.
    pub fn drain_listener(&mut self, key: usize, grace_ms: u64) {
        // Who waits in the socket's queue would be reset with it.
        self.accept(key);
        let listener = &mut self.listeners[key];
        if let Some(mut socket) = listener.socket.take() {
            let _closed_anyway = self.poll.registry().deregister(&mut socket);
        }
        for timer in listener.drain_timers.drain(..) {
            self.timers.cancel(timer);
        }
        for conn in self.connections_of(key) {
            self.ask_to_leave(conn, b"draining");
        }
        let goodbye_ms = GOODBYE_MS.min(grace_ms / 2);
        let last = self
            .timers
            .set(self.now_ms + goodbye_ms, Timer::ListenerFinal(key));
        let end = self
            .timers
            .set(self.now_ms + grace_ms, Timer::ListenerEnd(key));
        self.listeners[key].drain_timers.extend([last, end]);
        self.forget_listener_if_done(key);
    }

    /// No client takes longer to see that it is asked to leave: from now on a connection closes with its last stream.
    pub fn on_listener_final(&mut self, key: usize) {
        for conn in self.connections_of(key) {
            self.close_after_streams(conn);
        }
    }

    /// The time of a draining listener is over.
    pub fn on_listener_end(&mut self, key: usize) {
        if !self.listeners.contains(key) {
            return;
        }
        self.end_tunnels_of(key);
        let message = if self.draining {
            "the gateway is shutting down"
        } else {
            "the listener was removed"
        };
        let mut waits = false;
        for conn in self.connections_of(key) {
            for id in self.conns[conn].calls.clone() {
                waits = true;
                self.answer(id, &Reply::unavailable(Reason::Shutdown, message));
            }
            if self.conns[conn].calls.is_empty() && !waits {
                self.kill(conn, Death::Finished);
            }
            self.close_after_streams(conn);
        }
        if waits {
            let at_ms = self.now_ms + LAST_WORDS_MS;
            let timer = self.timers.set(at_ms, Timer::ListenerEnd(key));
            self.listeners[key].drain_timers.push(timer);
        } else {
            for conn in self.connections_of(key) {
                self.kill(conn, Death::Finished);
            }
        }
    }

    fn connections_of(&self, listener: usize) -> Vec<usize> {
        let of_it = |side: &Side| matches!(side, Side::Down(down) if down.listener == listener);
        self.conns
            .iter()
            .filter(|(_, conn)| conn.dead.is_none() && of_it(&conn.side))
            .map(|(key, _)| key)
            .collect()
    }

    /// A closed listener goes with its last connection.
    pub fn forget_listener_if_done(&mut self, key: usize) {
        let listener = &self.listeners[key];
        if listener.socket.is_none() && listener.connections == 0 {
            let gone = self.listeners.remove(key);
            for timer in gone.drain_timers {
                self.timers.cancel(timer);
            }
        }
    }

    /// Tells the owner once that nothing is left downstream.
    pub fn report_drained(&mut self) {
        if self.draining && !self.reported_drained && self.listeners.is_empty() {
            self.reported_drained = true;
            // The owner takes what is told about the last calls before it stops this worker.
            self.telling.hand_over();
            self.shared.drained.fetch_add(1, Ordering::Release);
        }
    }

    /// A pool whose endpoint is gone from the snapshot goes with its last call and connection.
    pub fn forget_pool_if_done(&mut self, pool: usize) {
        let Some(state) = self.pools.get(pool) else {
            return;
        };
        if state.live || !state.is_idle() {
            return;
        }
        let gone = self.pools.remove(pool);
        self.clusters[gone.cluster].own_pools -= 1;
        let timers = [
            gone.reconnect_timer,
            gone.patience_timer,
            gone.uneject_timer,
            gone.grace_timer,
            gone.goodbye_timer,
        ];
        for timer in timers.into_iter().flatten() {
            self.timers.cancel(timer);
        }
    }

    /// Connections of an endpoint that the snapshot has no more: they close with their last stream.
    pub fn retire_pool(&mut self, pool: usize) {
        self.pools[pool].live = false;
        for key in self.pools[pool].conns.clone() {
            self.leave_upstream(key);
        }
        self.turn_away_waiting(pool, Outcome::Refused);
        self.forget_pool_if_done(pool);
    }
}
