//! Reading, with a fair share of each turn for every connection, and bounds on handshakes and bytes as a whole.
//!
//! A connection that has used up its share is noted once in `again` and goes on in the next turn, whatever the poll
//! says meanwhile: a flood on one connection costs the others a bounded wait. One for which the turn has no room left
//! is noted in `put_off` and is the first of the next: a turn is short, however many have something to say, and what
//! it can add to the worker's memory is bounded.

use std::io;

use gateway_h2::Events;

use super::Worker;
use crate::conn::{Conn, Death, Read, Side};

/// Reads of one connection in one turn; a busy one goes on in the next, after the others.
const READS_PER_TURN: usize = 4;
/// TLS handshakes with clients that may go on in one turn: each costs up to a millisecond, and calls wait meanwhile.
pub(super) const HANDSHAKES_PER_TURN: usize = 8;
/// Bytes read in one turn, rounded up to a connection's share.
pub(super) const BYTES_PER_TURN: usize = 4 * 1024 * 1024;

impl Worker {
    /// Reads on where the last turn left off.
    pub(super) fn go_on_reading(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if std::mem::take(&mut conn.again) {
            self.guarded(Some(key), |worker| worker.read(key));
        }
    }

    /// Has input taken in the next turn that the codec did not want before.
    pub(super) fn resume_reading(&mut self, key: usize) {
        if let Some(conn) = self.conns.get_mut(key)
            && conn.wants_resume()
            && !conn.again
        {
            conn.again = true;
            self.again.push(key);
        }
    }

    /// Reads the share of this turn.
    pub(super) fn read(&mut self, key: usize) {
        if self.has_no_room_for(key) {
            return self.put_off(key);
        }
        let mut buffer = std::mem::take(&mut self.read_buffer);
        let mut events = std::mem::take(&mut self.read_events);
        self.read_into(key, &mut buffer, &mut events);
        self.read_buffer = buffer;
        self.read_events = events;
        if self.conns.get(key).is_some_and(Conn::wants_flush) {
            self.mark_dirty(key);
        } else {
            self.close_if_finished(key);
        }
    }

    /// Has bytes that the poll knows nothing of.
    pub fn read_next_turn(&mut self, key: usize) {
        self.conns[key].again = true;
        self.again.push(key);
    }

    fn put_off(&mut self, key: usize) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.again = true;
            self.put_off.push(key);
        }
    }

    /// Many bytes, and many handshakes, are spread over turns, so that calls of others go on in between.
    fn has_no_room_for(&mut self, key: usize) -> bool {
        if self.bytes_left == 0 {
            return true;
        }
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        if conn.transport.is_established() || !matches!(conn.side, Side::Down(_)) {
            return false;
        }
        if self.handshakes_left > 0 {
            self.handshakes_left -= 1;
            return false;
        }
        true
    }

    fn read_into(&mut self, key: usize, buffer: &mut [u8], events: &mut Events) {
        for _ in 0..READS_PER_TURN {
            let Some(conn) = self.conns.get_mut(key) else {
                return;
            };
            if conn.dead.is_some() {
                return;
            }
            if let Some(len) = conn.take_waiting(buffer) {
                self.take_bytes(key, &buffer[..len], events);
                continue;
            }
            if !conn.may_read() {
                return;
            }
            match conn.read(buffer) {
                Read::Blocked => return,
                Read::Ended(error) => {
                    self.take_end(key, &error, events);
                    return self.on_ended(key, &error);
                }
                Read::Bytes { len, more } => {
                    conn.last_read_ms = self.now_ms;
                    self.bytes_left = self.bytes_left.saturating_sub(len);
                    self.take_bytes(key, &buffer[..len], events);
                    if !more {
                        return;
                    }
                }
            }
        }
        if let Some(conn) = self.conns.get_mut(key) {
            conn.again = true;
            self.again.push(key);
        }
    }

    /// The end of an endpoint's bytes means something in HTTP/1.
    fn take_end(&mut self, key: usize, error: &io::Error, events: &mut Events) {
        let conn = &mut self.conns[key];
        if conn.codec.is_h1() && matches!(conn.side, Side::Up(_)) {
            let failed = error.kind() != io::ErrorKind::UnexpectedEof;
            events.clear();
            conn.codec.end_of_input(failed, events);
            self.on_events(key, events, &[]);
        }
    }

    /// Writing has failed: an endpoint of HTTP/1 may have answered before it closed, which is read first.
    pub(super) fn read_last_words(&mut self, key: usize) -> bool {
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        let is_read = conn.read_closed && !conn.again;
        if !conn.codec.is_h1() || !matches!(conn.side, Side::Up(_)) || is_read {
            return false;
        }
        conn.give_up_writing();
        if !std::mem::replace(&mut conn.again, true) {
            self.again.push(key);
        }
        true
    }

    fn take_bytes(&mut self, key: usize, input: &[u8], events: &mut Events) {
        if !self.is_understood(key, input) {
            return;
        }
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        events.clear();
        let outcome = conn.codec.receive(input, events);
        if let Ok(used) = outcome {
            conn.keep(&input[used..]);
        }
        if conn.is_setting_up() && conn.codec.is_established() {
            self.on_down_established(key);
        }
        self.on_events(key, events, input);
        if let Err(error) = outcome {
            self.count_violation(error);
            match self.conns.get(key) {
                Some(conn) if conn.codec.is_h1() && matches!(conn.side, Side::Down(_)) => {
                    self.end_http1(key);
                }
                _ => self.kill(key, Death::Protocol),
            }
        } else {
            self.judge_pings(key);
        }
    }

    /// Hands on what a connection said, in order.
    pub(super) fn on_events(&mut self, key: usize, events: &Events, input: &[u8]) {
        let Some(conn) = self.conns.get(key) else {
            return;
        };
        let is_down = matches!(conn.side, Side::Down(_));
        for event in events {
            if is_down {
                self.on_down_event(key, event, events, input);
            } else {
                self.on_up_event(key, event, events, input);
            }
        }
    }
}
