//! The life of clients' connections as their listener's `connection` says: idleness, age, PING, and PINGs of the
//! client. `gateway_core::aging` decides what is due; this module looks, sends and closes.
//!
//! ```text
//!   due Leave: asked to leave, closes with its last call (`leaving`)
//!   due Cut:   calls end with UNAVAILABLE ── LAST_WORDS_MS ──▶ closed
//! ```
//! A timer looks at what the connection has noted anyway, so that neither a call nor a read does anything for it. A
//! connection keeps the settings that it began with. A listener without such settings costs nothing here.

use gateway_core::aging::{Aging, Due, LeaveReason, PingGuard};
use gateway_core::config::{ConnectionPolicy, PingLimit};
use gateway_h2::ErrorCode;

use crate::conn::{Conn, ConnId, Death, DownPhase, Side};
use crate::reply::{Reason, Reply};
use crate::timers::TimerId;
use crate::worker::{Timer, Worker};

/// After the last calls were ended, for the answers to leave.
const LAST_WORDS_MS: u64 = 100;

/// What a connection with a policy keeps for it.
pub(crate) struct Life {
    aging: Aging,
    max_idle_ms: Option<u64>,
    pings: bool,
    limit: Option<PingLimit>,
    guard: PingGuard,
    timer: Option<TimerId>,
    /// As of the last look: has calls, when one last began or ended, when bytes last came.
    busy: bool,
    call_ms: u64,
    read_ms: u64,
    /// PINGs of the client, and frames of calls to it, that the guard knows.
    pings_seen: u64,
    frames_sent: u64,
    /// Calls were cut: it ends then.
    end_ms: Option<u64>,
}

// === impl Life ===

impl Life {
    /// `None`: the policy asks for nothing.
    pub fn new(policy: &ConnectionPolicy, now_ms: u64, random: u64) -> Option<Box<Self>> {
        (*policy != ConnectionPolicy::default()).then(|| {
            Box::new(Self {
                aging: Aging::new(policy, now_ms, random),
                max_idle_ms: policy.max_idle_ms,
                pings: policy.ping_after_ms.is_some(),
                limit: policy.ping_limit.clone(),
                guard: PingGuard::default(),
                timer: None,
                busy: false,
                call_ms: now_ms,
                read_ms: now_ms,
                pings_seen: 0,
                frames_sent: 0,
                end_ms: None,
            })
        })
    }

    /// Idleness is ended here, and not by the gateway's own setting.
    pub fn ends_idleness(&self) -> bool {
        self.max_idle_ms.is_some()
    }

    /// Silence is ended here, and not by the gateway's own setting.
    pub fn ends_silence(&self) -> bool {
        self.pings
    }

    /// The timer of the next look, which the connection's end cancels.
    pub fn timer(&self) -> Option<TimerId> {
        self.timer
    }

    /// Tells the rules what happened since the last look.
    fn look(&mut self, busy: bool, call_ms: u64, read_ms: u64) {
        if read_ms > self.read_ms {
            self.aging.heard(read_ms);
        }
        if !self.busy && (busy || call_ms > self.call_ms) {
            self.aging.call_began();
            self.busy = true;
        }
        if self.busy && !busy {
            self.aging.call_ended(call_ms);
            self.busy = false;
        }
        (self.call_ms, self.read_ms) = (call_ms, read_ms);
    }

    fn next_ms(&self, now_ms: u64) -> Option<u64> {
        // The end of the last call wakes nobody: idleness is looked for again.
        let idle = self.max_idle_ms.filter(|_| self.busy);
        let idle = idle.filter(|_| !self.aging.is_leaving());
        let idle = idle.map(|idle_ms| now_ms + idle_ms);
        let own = idle.into_iter().chain(self.end_ms);
        self.aging.next_ms().into_iter().chain(own).min()
    }
}

impl Worker {
    /// The connection stands: its life begins to be watched.
    pub fn watch_age(&mut self, key: usize) {
        let now_ms = self.now_ms;
        let random = self.random.u64(..);
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let is_h1 = conn.codec.is_h1();
        let Some(down) = conn.down() else { return };
        let policy = &self.listeners[down.listener].connection;
        // HTTP/1 has no PING that its client could answer.
        let without_pings = is_h1.then(|| ConnectionPolicy {
            ping_after_ms: None,
            ..policy.clone()
        });
        down.life = Life::new(without_pings.as_ref().unwrap_or(policy), now_ms, random);
        self.look_at_age_later(key);
    }

    fn look_at_age_later(&mut self, key: usize) {
        let now_ms = self.now_ms;
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let id = conn.id;
        let Some(life) = conn.down().and_then(|down| down.life.as_mut()) else {
            return;
        };
        life.timer = life
            .next_ms(now_ms)
            .map(|at_ms| self.timers.set(at_ms, Timer::Age(id)));
    }

    /// The timer's look.
    pub fn on_age(&mut self, id: ConnId) {
        let now_ms = self.now_ms;
        loop {
            let Some(conn) = self.conn(id).filter(|conn| conn.dead.is_none()) else {
                return;
            };
            let (busy, read_ms) = (!conn.calls.is_empty(), conn.last_read_ms);
            let Some(down) = conn.down() else { return };
            if down.phase == DownPhase::Lingering {
                return;
            }
            let call_ms = down.last_call_ms;
            let Some(life) = &mut down.life else { return };
            life.timer = None;
            life.look(busy, call_ms, read_ms);
            if life.end_ms.is_some_and(|end_ms| end_ms <= now_ms) {
                // What a client has not read goes with the connection.
                return self.kill(id.key, Death::Finished);
            }
            if let Some(due) = life.aging.due(now_ms) {
                self.on_due(id.key, due);
            } else {
                break;
            }
        }
        self.look_at_age_later(id.key);
    }

    fn on_due(&mut self, key: usize, due: Due) {
        match due {
            Due::Ping => {
                let payload = self.now_ms.to_be_bytes();
                self.conns[key].codec.ping(payload);
                self.mark_dirty(key);
            }
            Due::Leave(reason) => {
                let numbers = &self.stats.numbers;
                match reason {
                    LeaveReason::Idle => numbers.downstream_idle_closed.add(1),
                    LeaveReason::Old => numbers.downstream_aged.add(1),
                }
                self.ask_to_leave(key, reason.reason().as_bytes());
            }
            Due::Cut => self.cut(key),
            Due::Dead => {
                self.stats.numbers.liveness_deaths.add(1);
                self.kill(key, Death::Silent);
            }
        }
    }

    /// The grace of an old connection is over.
    fn cut(&mut self, key: usize) {
        let calls = self.conns[key].calls.clone();
        self.stats
            .numbers
            .downstream_cut_calls
            .add(calls.len() as u64);
        for id in calls {
            let message =
                "the connection reached its maximum age and its grace is over: call again";
            self.answer(id, &Reply::unavailable(Reason::ConnectionAge, message));
        }
        self.close_after_streams(key);
        let end_ms = self.now_ms + LAST_WORDS_MS;
        let down = self.conns.get_mut(key).and_then(Conn::down);
        if let Some(life) = down.and_then(|down| down.life.as_mut()) {
            life.end_ms = Some(end_ms);
        }
    }

    /// Judges the PINGs that a read of a client's connection brought.
    pub fn judge_pings(&mut self, key: usize) {
        let now_ms = self.now_ms;
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let Side::Down(down) = &mut conn.side else {
            return;
        };
        let Some(life) = &mut down.life else { return };
        let Some(limit) = &life.limit else { return };
        let stats = conn.codec.stats();
        let (pings, frames) = (
            stats.pings_received,
            stats.header_blocks_sent + stats.data_frames_sent,
        );
        if std::mem::replace(&mut life.frames_sent, frames) != frames {
            life.guard.sent();
        }
        let new = pings - std::mem::replace(&mut life.pings_seen, pings);
        let calls = conn.calls.len() as u32;
        let fine = (0..new).all(|_| life.guard.allows(limit, calls, now_ms));
        if !fine {
            conn.codec
                .go_away(ErrorCode::EnhanceYourCalm, false, b"too_many_pings");
            self.stats.numbers.downstream_ping_limit_ended.add(1);
            self.break_off(key);
        }
    }
}
