//! Frames in: the way of every frame, bodies, windows and resets.
//!
//! A broken rule ends the connection (`Err`) or the stream (`stream_error`), as RFC 9113 says for
//! each. Frames for streams that are over are judged by how those ended: what may still have been on
//! its way when we reset a stream is dropped without a word.

use super::{Connection, Phase, headers::BlockHead};
use crate::PREFACE;
use crate::config::Role;
use crate::error::{Abuse, ConnectionError, ErrorCode};
use crate::event::{Event, Events, StreamRef};
use crate::frame::{self, FrameHeader, HEADER_LEN, Kind, WINDOW_MAX};
use crate::store::Past;
use crate::stream::{Half, Input};

type Outcome = Result<(), ConnectionError>;

// === impl Connection ===

impl Connection {
    /// Takes bytes from the peer and appends what they mean to `events`. Returns how many bytes were
    /// used; the caller keeps the rest (a partial frame) and gives it again with more. Ranges in
    /// `Data` events are relative to this `input`.
    ///
    /// # Errors
    /// The connection is over; a GOAWAY is in the output. Events before the fault are in `events`.
    pub fn receive(&mut self, input: &[u8], events: &mut Events) -> Result<usize, ConnectionError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.receive_all(input, events);
        if let Err(error) = result {
            self.fail(error);
        }
        result
    }

    fn fail(&mut self, error: ConnectionError) {
        self.failed = Some(error);
        self.stats.abuse_ended += u64::from(error.code == ErrorCode::EnhanceYourCalm);
        let last = self.last_peer_stream();
        self.write_go_away(last, error.code, error.reason.as_bytes());
    }

    fn receive_all(&mut self, input: &[u8], events: &mut Events) -> Result<usize, ConnectionError> {
        let mut at = self.receive_preface(input)?;
        while self.phase != Phase::Preface {
            let Some(header) = input[at..].first_chunk::<HEADER_LEN>() else {
                break;
            };
            let header = FrameHeader::parse(header);
            if header.len > self.config.max_frame_size {
                return Err(ConnectionError::frame_size("frame larger than we allow"));
            }
            let start = at + HEADER_LEN;
            let Some(payload) = input.get(start..start + header.len as usize) else {
                break;
            };
            self.frame(header, payload, start, events)?;
            at = start + payload.len();
        }
        self.give_back_connection_window();
        self.flush(events);
        self.announce_room(events);
        if self.output.unread_answers() > self.config.limits.unread_answers {
            return Err(ConnectionError::calm(
                Abuse::UnreadAnswers,
                "answers pile up unread",
            ));
        }
        Ok(at)
    }

    fn receive_preface(&mut self, input: &[u8]) -> Result<usize, ConnectionError> {
        if self.phase != Phase::Preface {
            return Ok(0);
        }
        let seen = input.len().min(PREFACE.len());
        if input[..seen] != PREFACE[..seen] {
            return Err(ConnectionError::protocol("no HTTP/2 preface"));
        }
        if seen < PREFACE.len() {
            return Ok(0);
        }
        self.phase = Phase::FirstSettings;
        Ok(seen)
    }

    /// Takes one frame; `at` is where its payload lies in the input.
    fn frame(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        at: usize,
        events: &mut Events,
    ) -> Outcome {
        self.stats.frames_received += 1;
        if self.phase == Phase::FirstSettings
            && (header.kind != Kind::Settings || header.has(frame::ACK))
        {
            return Err(ConnectionError::protocol("the first frame is not SETTINGS"));
        }
        if self.partial.is_open() && header.kind != Kind::Continuation {
            return Err(ConnectionError::protocol("frame inside a header block"));
        }
        let is_for_connection = matches!(header.kind, Kind::Settings | Kind::Ping | Kind::GoAway);
        let is_for_either = matches!(header.kind, Kind::WindowUpdate | Kind::Unknown);
        if !is_for_either && is_for_connection != (header.stream_id == 0) {
            return Err(ConnectionError::protocol(
                "frame on the wrong kind of stream",
            ));
        }
        match header.kind {
            Kind::Data => self.data(header, payload, at, events),
            Kind::Headers => self.headers(header, payload, events),
            Kind::Continuation => self.continuation(header, payload, events),
            Kind::WindowUpdate => self.window_update(header.stream_id, payload, events),
            Kind::RstStream => self.rst_stream(header.stream_id, payload, events),
            Kind::Settings => self.settings(header, payload),
            Kind::Ping => self.ping_frame(header, payload, events),
            Kind::GoAway => self.go_away_frame(payload, events),
            Kind::Priority => self.priority(header.stream_id, payload, events),
            Kind::PushPromise => Err(ConnectionError::protocol("PUSH_PROMISE is not allowed")),
            Kind::Unknown => self.ignored(),
        }
    }

    fn data(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        at: usize,
        events: &mut Events,
    ) -> Outcome {
        self.recv_window -= i64::from(header.len);
        if self.recv_window < 0 {
            return Err(ConnectionError::new(
                ErrorCode::FlowControlError,
                "DATA beyond the connection's window",
            ));
        }
        self.recv_owed += header.len;
        let (offset, content) = frame::unpad(header, payload)?;
        let end_stream = header.has(frame::END_STREAM);
        if content.is_empty() && !end_stream {
            self.stats.empty_data_received += 1;
            self.budgets.empty_data.take()?;
        }
        let Some(stream) = self.streams.find(header.stream_id) else {
            return self.data_for_past(header.stream_id);
        };
        let Some(state) = self.streams.get_mut(stream) else {
            return Ok(());
        };
        let Some(next) = state.recv.step(Input::Data { end: end_stream }) else {
            let code = match state.recv {
                Half::Done => ErrorCode::StreamClosed,
                Half::Headers | Half::Body => ErrorCode::ProtocolError,
            };
            return self.stream_error(stream, code, events);
        };
        if state.recv_window < i64::from(header.len) {
            return self.stream_error(stream, ErrorCode::FlowControlError, events);
        }
        if !state.count_content(content.len() as u64, end_stream) {
            return self.stream_error(stream, ErrorCode::ProtocolError, events);
        }
        state.recv = next;
        state.recv_window -= i64::from(header.len);
        state.unreleased += header.len;
        self.stats.data_received_bytes += content.len() as u64;
        let start = at + offset;
        events.push(Event::Data {
            stream,
            token: state.token,
            range: start..start + content.len(),
            flow_len: header.len,
            end_stream,
        });
        if end_stream {
            self.remove_if_finished(stream);
        }
        Ok(())
    }

    fn data_for_past(&mut self, id: u32) -> Outcome {
        self.check_used(id)?;
        match self.streams.past(id) {
            Past::ResetByUs | Past::Forgotten => Ok(()),
            Past::ResetByPeer | Past::Skipped => self.refuse(id, ErrorCode::StreamClosed),
            Past::Finished => Err(ConnectionError::new(
                ErrorCode::StreamClosed,
                "DATA on a stream that has ended",
            )),
        }
    }

    /// An error unless the stream was opened at some time.
    pub(super) fn check_used(&self, id: u32) -> Outcome {
        // Ids of clients are odd; nobody opens even ones, since push is off.
        if !id.is_multiple_of(2) && id <= self.streams.newest_id() {
            Ok(())
        } else {
            Err(ConnectionError::protocol("frame on an idle stream"))
        }
    }

    /// Ends a live stream for a broken rule.
    pub(super) fn stream_error(
        &mut self,
        stream: StreamRef,
        code: ErrorCode,
        events: &mut Events,
    ) -> Outcome {
        if let Some(state) = self.streams.get(stream) {
            events.push(Event::Reset {
                stream,
                token: state.token,
                code,
                local: true,
            });
            self.remove(stream, Past::ResetByUs);
        }
        self.stats.stream_errors += 1;
        self.refuse(stream.id, code)
    }

    /// Resets a stream that is not live. Making us do so costs the peer as much as resetting.
    pub(super) fn refuse(&mut self, id: u32, code: ErrorCode) -> Outcome {
        self.write_reset(id, code);
        self.streams.set_past(id, Past::ResetByUs);
        self.spend_reset()
    }

    fn spend_reset(&mut self) -> Outcome {
        // What an upstream resets, it was asked for.
        if self.config.role == Role::Server {
            self.budgets.resets.take()
        } else {
            Ok(())
        }
    }

    fn window_update(&mut self, id: u32, payload: &[u8], events: &mut Events) -> Outcome {
        let Ok(increment) = <[u8; 4]>::try_from(payload) else {
            return Err(ConnectionError::frame_size("WINDOW_UPDATE of a wrong size"));
        };
        let increment = i64::from(frame::read_u31(increment));
        self.stats.window_updates_received += 1;
        self.budgets.window_updates.take()?;
        if id == 0 {
            self.send_window += increment;
            return match increment {
                0 => Err(ConnectionError::protocol("WINDOW_UPDATE of nothing")),
                _ if self.send_window > i64::from(WINDOW_MAX) => Err(ConnectionError::new(
                    ErrorCode::FlowControlError,
                    "the connection's window is above 2^31-1",
                )),
                _ => Ok(()),
            };
        }
        let Some(stream) = self.streams.find(id) else {
            return self.check_used(id);
        };
        let Some(state) = self.streams.get_mut(stream) else {
            return Ok(());
        };
        if increment == 0 {
            return self.stream_error(stream, ErrorCode::ProtocolError, events);
        }
        state.send_window += increment;
        if state.send_window > i64::from(WINDOW_MAX) {
            return self.stream_error(stream, ErrorCode::FlowControlError, events);
        }
        self.join_round(stream);
        Ok(())
    }

    fn rst_stream(&mut self, id: u32, payload: &[u8], events: &mut Events) -> Outcome {
        let Ok(code) = <[u8; 4]>::try_from(payload) else {
            return Err(ConnectionError::frame_size("RST_STREAM of a wrong size"));
        };
        let Some(stream) = self.streams.find(id) else {
            self.check_used(id)?;
            // Both have reset it: from here on nothing of it can still be on its way.
            if self.streams.past(id) == Past::ResetByUs {
                self.streams.set_past(id, Past::ResetByPeer);
            }
            return Ok(());
        };
        if let Some(state) = self.streams.get(stream) {
            let code = ErrorCode::from_u32(u32::from_be_bytes(code));
            events.push(Event::Reset {
                stream,
                token: state.token,
                code,
                local: false,
            });
        }
        self.remove(stream, Past::ResetByPeer);
        self.stats.resets_received += 1;
        self.spend_reset()
    }

    fn give_back_connection_window(&mut self) {
        let half_window = self.config.connection_window / 2;
        if self.recv_owed >= half_window {
            let increment = std::mem::take(&mut self.recv_owed);
            self.recv_window += i64::from(increment);
            self.output
                .answer(Kind::WindowUpdate, 0, 0, &increment.to_be_bytes());
            self.stats.window_updates_sent += 1;
        }
    }

    fn headers(&mut self, header: FrameHeader, payload: &[u8], events: &mut Events) -> Outcome {
        let (_, content) = frame::unpad(header, payload)?;
        let mut fragment = content;
        let mut depends_on_itself = false;
        if header.has(frame::PRIORITY) {
            let Some((priority, rest)) = content.split_first_chunk::<5>() else {
                return Err(ConnectionError::frame_size("HEADERS without its priority"));
            };
            let [d0, d1, d2, d3, _] = *priority;
            depends_on_itself = frame::read_u31([d0, d1, d2, d3]) == header.stream_id;
            fragment = rest;
        }
        let head = BlockHead {
            stream_id: header.stream_id,
            end_stream: header.has(frame::END_STREAM),
            depends_on_itself,
        };
        if header.has(frame::END_HEADERS) {
            return self.block(head, fragment, events);
        }
        self.partial.begin(head, fragment);
        Ok(())
    }

    fn continuation(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        events: &mut Events,
    ) -> Outcome {
        if !self.partial.is_for(header.stream_id) {
            return Err(ConnectionError::protocol(
                "CONTINUATION without its HEADERS",
            ));
        }
        self.stats.continuations_received += 1;
        self.partial.push(payload, &self.config)?;
        if !header.has(frame::END_HEADERS) {
            return Ok(());
        }
        let Some((head, block)) = self.partial.close() else {
            return Ok(());
        };
        let outcome = self.block(head, &block, events);
        self.partial.keep_buffer(block);
        outcome
    }
}
