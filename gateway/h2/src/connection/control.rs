//! Frames that steer: SETTINGS, PING, GOAWAY, PRIORITY.
//!
//! Decides what the peer's settings change, and that what a new setting allows or takes holds for
//! streams that are open already.

use super::{Connection, Phase};
use crate::config::Role;
use crate::error::{ConnectionError, ErrorCode};
use crate::event::{Event, Events};
use crate::frame::{self, FrameHeader, Kind, Setting, WINDOW_MAX};
use crate::store::Past;

type Outcome = Result<(), ConnectionError>;

/// Bytes of a GOAWAY's debug data that are worth keeping.
const DEBUG_MAX: usize = 1024;

// === impl Connection ===

impl Connection {
    pub(super) fn settings(&mut self, header: FrameHeader, payload: &[u8]) -> Outcome {
        if header.has(frame::ACK) {
            if !payload.is_empty() {
                return Err(ConnectionError::frame_size(
                    "SETTINGS acknowledgement with a payload",
                ));
            }
            self.settings_confirmed();
            return Ok(());
        }
        if !payload.len().is_multiple_of(6) {
            return Err(ConnectionError::frame_size("SETTINGS of a wrong size"));
        }
        self.stats.settings_received += 1;
        self.budgets.settings.take()?;
        // Only the last of several initial windows counts: applying each would let one frame walk
        // over all streams thousands of times.
        let mut initial_window = self.peer.initial_window;
        for parameter in payload.as_chunks::<6>().0 {
            match Setting::parse(*parameter)? {
                Some(Setting::HeaderTableSize(size)) => self.encoder.set_table_size(size),
                Some(Setting::MaxConcurrentStreams(max)) => self.peer.max_concurrent_streams = max,
                Some(Setting::InitialWindowSize(window)) => initial_window = window,
                Some(Setting::MaxFrameSize(size)) => self.peer.max_frame_size = size,
                Some(Setting::EnablePush(1)) if self.config.role == Role::Client => {
                    return Err(ConnectionError::protocol("a server cannot allow push"));
                }
                // The peer's list limit is advice (section 10.5.1); it resets what it does not take.
                Some(Setting::EnablePush(_) | Setting::MaxHeaderListSize(_)) | None => {}
            }
        }
        self.set_initial_window(initial_window)?;
        self.phase = Phase::Established;
        self.output.answer(Kind::Settings, frame::ACK, 0, &[]);
        Ok(())
    }

    /// Changes the send windows of all streams by the difference (RFC 9113 section 6.9.2).
    fn set_initial_window(&mut self, window: u32) -> Outcome {
        let change = i64::from(window) - i64::from(self.peer.initial_window);
        self.peer.initial_window = window;
        if change == 0 {
            return Ok(());
        }
        for slot in 0..self.streams.slot_count() {
            let Some((stream, state)) = self.streams.at(slot) else {
                continue;
            };
            state.send_window += change;
            if state.send_window > i64::from(WINDOW_MAX) {
                return Err(ConnectionError::new(
                    ErrorCode::FlowControlError,
                    "SETTINGS_INITIAL_WINDOW_SIZE takes a window above 2^31-1",
                ));
            }
            self.join_round(stream);
        }
        Ok(())
    }

    /// The peer has applied our SETTINGS: what it may send changes now.
    fn settings_confirmed(&mut self) {
        if self.settings_acked {
            return;
        }
        let before = self.stream_window();
        self.settings_acked = true;
        let change = i64::from(self.stream_window()) - i64::from(before);
        for slot in 0..self.streams.slot_count() {
            if let Some((_, state)) = self.streams.at(slot) {
                state.recv_window += change;
                state.recv_window_full = self.config.initial_stream_window;
            }
        }
        self.decoder
            .confirm_table_size(self.config.header_table_size);
    }

    pub(super) fn ping_frame(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        events: &mut Events,
    ) -> Outcome {
        let Ok(payload) = <[u8; 8]>::try_from(payload) else {
            return Err(ConnectionError::frame_size("PING of a wrong size"));
        };
        if header.has(frame::ACK) {
            events.push(Event::PingAck { payload });
            return Ok(());
        }
        self.stats.pings_received += 1;
        self.output.answer(Kind::Ping, frame::ACK, 0, &payload);
        self.budgets.pings.take()
    }

    pub(super) fn go_away_frame(&mut self, payload: &[u8], events: &mut Events) -> Outcome {
        let Some((head, debug)) = payload.split_first_chunk::<8>() else {
            return Err(ConnectionError::frame_size("GOAWAY of a wrong size"));
        };
        let [l0, l1, l2, l3, c0, c1, c2, c3] = *head;
        let last = frame::read_u31([l0, l1, l2, l3]);
        if self.away_received.is_some_and(|before| last > before) {
            return Err(ConnectionError::protocol("GOAWAY raises the last stream"));
        }
        self.budgets.settings.take()?;
        self.away_received = Some(last);
        let debug = events.push_bytes(&debug[..debug.len().min(DEBUG_MAX)]);
        let code = ErrorCode::from_u32(u32::from_be_bytes([c0, c1, c2, c3]));
        events.push(Event::GoAway {
            last_stream_id: last,
            code,
            debug,
        });
        if self.config.role == Role::Client {
            self.give_up_above(last, events);
        }
        Ok(())
    }

    /// The peer did nothing for our streams above `last`.
    fn give_up_above(&mut self, last: u32, events: &mut Events) {
        for slot in 0..self.streams.slot_count() {
            let Some((stream, state)) = self.streams.at(slot) else {
                continue;
            };
            if stream.id > last {
                let (token, code) = (state.token, ErrorCode::RefusedStream);
                events.push(Event::Reset {
                    stream,
                    token,
                    code,
                    local: false,
                });
                self.remove(stream, Past::ResetByUs);
            }
        }
    }

    /// Priorities are not followed (RFC 9113 section 5.3.2), only checked.
    pub(super) fn priority(&mut self, id: u32, payload: &[u8], events: &mut Events) -> Outcome {
        self.ignored()?;
        let Ok(payload) = <[u8; 5]>::try_from(payload) else {
            let error = ConnectionError::frame_size("PRIORITY of a wrong size");
            return self.stream_or_connection_error(id, error, events);
        };
        let [d0, d1, d2, d3, _] = payload;
        if frame::read_u31([d0, d1, d2, d3]) == id {
            let error = ConnectionError::protocol("a stream depends on itself");
            return self.stream_or_connection_error(id, error, events);
        }
        Ok(())
    }

    fn stream_or_connection_error(
        &mut self,
        id: u32,
        error: ConnectionError,
        events: &mut Events,
    ) -> Outcome {
        match self.streams.find(id) {
            Some(stream) => self.stream_error(stream, error.code, events),
            None => Err(error),
        }
    }

    pub(super) fn ignored(&mut self) -> Outcome {
        self.stats.ignored_received += 1;
        self.budgets.ignored.take()
    }
}
