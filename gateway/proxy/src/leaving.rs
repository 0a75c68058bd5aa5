//! How a client's connection is ended, so that no call is lost with it.
//!
//! ```text
//!   asked ── answer to PING, or GOODBYE_MS ──▶ final ── last stream's end, all written ──▶ lingering ──▶ closed
//! ```
//! To ask is a graceful GOAWAY and a PING: what the client opened before it knew comes before its answer to the PING and
//! is served. The final GOAWAY then names the last stream that was taken, so that the client of a later one knows that
//! nothing was done for it. At the end the sending side is shut, and what the client still sends is read and dropped
//! until it ends: closing with bytes unread would make the system send a reset, which can take from the client what
//! it has not read yet.
//!
//! HTTP/1 has neither GOAWAY nor PING: for a moment the next answer says `connection: close`, then an idle connection
//! ends.

use gateway_h2::{ErrorCode, Events};

use crate::conn::{Conn, ConnId, Death, DownPhase, Side};
use crate::timers::TimerId;
use crate::worker::{Timer, Worker};

/// Without an answer to the PING a client has this long to see the graceful GOAWAY.
pub(crate) const GOODBYE_MS: u64 = 5_000;
/// The PING behind a graceful GOAWAY; those that look for life carry a time.
const GOODBYE: [u8; 8] = *b"goodbye!";
/// A client of HTTP/1, or one that has said nothing yet, may be about to ask: it is given this long.
const MOMENT_MS: u64 = 1_000;
/// After the final GOAWAY, answers that wait must get on in the time that idle connections have, so that nobody holds
/// memory by being silent; in this one if those have none.
const STUCK_MS: u64 = 300_000;
/// The end of a client is awaited this long since it last said anything, ...
pub(crate) const LINGER_MS: u64 = 1_000;
/// ... or with HTTP/2, where a client that reads slowly speaks as it reads, ...
const LINGER_HTTP2_MS: u64 = 5_000;
/// ... but no longer than this.
const LINGER_MAX_MS: u64 = 30_000;

/// What a connection keeps for its end.
#[derive(Default)]
pub(crate) struct Leave {
    timer: Option<TimerId>,
    /// Bytes that waited to be sent at the last look.
    waiting: usize,
    lingers_since_ms: u64,
}

// === impl Leave ===

impl Leave {
    /// The timer that the connection's end cancels.
    pub fn timer(&mut self) -> Option<TimerId> {
        self.timer.take()
    }
}

impl Worker {
    /// Asks a client to move to another connection; its streams go on.
    pub fn ask_to_leave(&mut self, key: usize, why: &[u8]) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let Some(down) = conn.down() else { return };
        match down.phase {
            DownPhase::Open => {
                down.phase = DownPhase::Leaving;
                conn.codec.go_away(ErrorCode::NoError, true, why);
                conn.codec.ping(GOODBYE);
                let hears = !conn.codec.is_h1();
                self.mark_dirty(key);
                self.look_at_leave_in(key, if hears { GOODBYE_MS } else { MOMENT_MS });
            }
            // One that is being set up is asked when it stands.
            DownPhase::Preface => self.look_at_leave_in(key, MOMENT_MS),
            DownPhase::Leaving | DownPhase::Final | DownPhase::Lingering => {}
        }
    }

    /// The answer to a PING: a client that has seen the graceful GOAWAY opens no more streams.
    pub fn on_ping_answered(&mut self, key: usize, payload: [u8; 8]) {
        let down = self.conns.get_mut(key).and_then(Conn::down);
        if payload == GOODBYE && down.is_some_and(|down| down.phase == DownPhase::Leaving) {
            self.close_after_streams(key);
        }
    }

    /// Takes no further streams of a client; the connection closes with its last one.
    pub fn close_after_streams(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let Some(down) = conn.down() else { return };
        match down.phase {
            DownPhase::Open | DownPhase::Leaving => {
                down.phase = DownPhase::Final;
                conn.codec.go_away(ErrorCode::NoError, false, b"draining");
                self.mark_dirty(key);
                self.look_at_leave_in(key, self.stuck_ms());
            }
            DownPhase::Preface => return self.kill(key, Death::Finished),
            DownPhase::Final | DownPhase::Lingering => {}
        }
        self.close_if_finished(key);
    }

    /// Closes a connection that said its final goodbye, has no stream left and nothing more to write.
    pub fn close_if_finished(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let quiet = conn.calls.is_empty()
            && conn.codec.stream_count() == 0
            && !conn.codec.wants_write()
            && !conn.transport.wants_flush();
        let quiet = quiet && conn.dead.is_none();
        let (over, cut_off) = (conn.codec.is_over(), conn.codec.was_cut_off());
        // A request of HTTP/1 that has begun to come is answered yet.
        let finished = over || !conn.codec.is_h1();
        let Some(down) = conn.down().filter(|_| quiet) else {
            return;
        };
        match down.phase {
            DownPhase::Lingering => {}
            DownPhase::Final if finished => self.linger(key),
            DownPhase::Leaving if over => self.linger(key),
            _ if over && cut_off => self.linger(key),
            _ if over => self.kill(key, Death::Finished),
            _ => {}
        }
    }

    /// Ends a connection with all its calls; the GOAWAY that says why is in its output, and is to be read.
    pub fn break_off(&mut self, key: usize) {
        let conn = &mut self.conns[key];
        let mut nobody_listens = Events::new();
        let _best_effort = conn.flush(self.now_ms, &mut nobody_listens);
        let calls = conn.calls.clone();
        self.linger(key);
        for id in calls {
            self.on_cancelled(id);
        }
    }

    /// The last words are written: waits for the end of a client that may still be writing itself.
    pub fn linger(&mut self, key: usize) {
        let now_ms = self.now_ms;
        let conn = &mut self.conns[key];
        conn.transport.finish();
        conn.held = true;
        let Some(down) = conn.down() else { return };
        down.phase = DownPhase::Lingering;
        down.leave.lingers_since_ms = now_ms;
        if let Some(setup) = down.setup_timer.take() {
            self.timers.cancel(setup);
        }
        self.look_at_leave_in(key, self.linger_ms(key));
    }

    fn stuck_ms(&self) -> u64 {
        match self.settings.downstream_idle_ms {
            0 => STUCK_MS,
            idle_ms => idle_ms,
        }
    }

    fn linger_ms(&self, key: usize) -> u64 {
        if self.conns[key].codec.is_h1() {
            LINGER_MS
        } else {
            LINGER_HTTP2_MS
        }
    }

    fn look_at_leave_in(&mut self, key: usize, after_ms: u64) {
        let at_ms = self.now_ms + after_ms;
        let conn = &mut self.conns[key];
        let (id, waiting) = (conn.id, conn.codec.buffered());
        let Some(down) = conn.down() else { return };
        down.leave.waiting = waiting;
        let timer = self.timers.set(at_ms, Timer::Leave(id));
        if let Some(old) = down.leave.timer.replace(timer) {
            self.timers.cancel(old);
        }
    }

    /// The timer's look at a connection on its way out.
    pub fn on_leave_time(&mut self, id: ConnId) {
        let now_ms = self.now_ms;
        let Some(conn) = self.conn(id).filter(|conn| conn.dead.is_none()) else {
            return;
        };
        let waits_for_calls = !conn.calls.is_empty();
        let waiting = conn.codec.buffered();
        let said_nothing = conn.rest_len() == 0 && conn.transport.is_established();
        let read_ms = conn.last_read_ms;
        let Side::Down(down) = &mut conn.side else {
            return;
        };
        down.leave.timer = None;
        match down.phase {
            DownPhase::Preface if said_nothing => self.kill(id.key, Death::Finished),
            // It is asked when it stands, or not set up in time.
            DownPhase::Preface | DownPhase::Open => {}
            DownPhase::Leaving => self.close_after_streams(id.key),
            DownPhase::Final if waits_for_calls || waiting != down.leave.waiting => {
                self.look_at_leave_in(id.key, self.stuck_ms());
            }
            DownPhase::Final => self.kill(id.key, Death::Finished),
            DownPhase::Lingering => {
                let most_ms = down.leave.lingers_since_ms + LINGER_MAX_MS;
                let end_ms = most_ms.min(read_ms + self.linger_ms(id.key));
                if now_ms < end_ms {
                    self.look_at_leave_in(id.key, end_ms - now_ms);
                } else {
                    self.kill(id.key, Death::Finished);
                }
            }
        }
    }
}
