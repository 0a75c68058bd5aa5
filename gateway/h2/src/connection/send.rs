//! Frames out: headers, body, resets, and the round of streams whose bodies wait.
//!
//! Body bytes go to the output at once when the windows and `output_high_water` allow, copied once.
//! Else they wait in their stream. Streams with bytes and an open window take turns, one frame each.

use super::{Connection, SEND_FRAME_MAX};
use crate::config::Role;
use crate::error::{ErrorCode, SendError};
use crate::event::{Event, Events, Field, StreamRef};
use crate::frame::{self, FrameHeader, HEADER_LEN, Kind, WINDOW_MAX};
use crate::hpack::Encoder;
use crate::output::Output;
use crate::store::Past;
use crate::stream::{Half, Input, QueueEnd};

/// What became of the bytes given to [`Connection::send_data`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Bytes that went to the output at once.
    pub written: usize,
    /// Bytes that wait in the stream; `Drained` events report them later.
    pub queued: usize,
}

// === impl Connection ===

impl Connection {
    /// Sends request or response headers, 1xx responses, or trailers (`end_stream`, after headers).
    /// Trailers wait behind queued body bytes. Names are lower case and pseudo headers come first;
    /// that is the caller's duty.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_headers<'a>(
        &mut self,
        stream: StreamRef,
        fields: impl IntoIterator<Item = Field<'a>>,
        end_stream: bool,
    ) -> Result<(), SendError> {
        let mut fields = fields.into_iter().inspect(debug_check).peekable();
        let state = self.streams.get_mut(stream).ok_or(SendError::Gone)?;
        let first = fields.peek();
        let is_informational = !end_stream && first.is_some_and(is_informational_status);
        let input = if is_informational {
            Input::Informational
        } else {
            Input::Headers { end: end_stream }
        };
        if self.config.role == Role::Client && state.send == Half::Headers {
            state.is_head = first.is_some_and(|first| *first == Field::new(b":method", b"HEAD"));
        }
        state.send = state.send.step(input).ok_or(SendError::WrongState)?;
        if !state.queue.is_empty() {
            fields.for_each(|field| state.queue.push_trailer(field));
            self.queued_trailers += state.queue.trailers_len();
            state.queue.end = QueueEnd::Trailers;
            return Ok(());
        }
        let max_frame_size = self.peer.max_frame_size as usize;
        let flags = if end_stream { frame::END_STREAM } else { 0 };
        write_headers(
            &mut self.output,
            &mut self.encoder,
            stream.id,
            flags,
            max_frame_size,
            fields,
        );
        self.stats.header_blocks_sent += 1;
        self.budgets.window_updates.earn(1);
        self.remove_if_finished(stream);
        Ok(())
    }

    /// Sends body bytes, or queues what does not fit. With `end_stream` nothing can follow.
    ///
    /// # Errors
    /// See [`SendError`]; then nothing was taken.
    pub fn send_data(
        &mut self,
        stream: StreamRef,
        data: &[u8],
        end_stream: bool,
    ) -> Result<Sent, SendError> {
        let state = self.streams.get_mut(stream).ok_or(SendError::Gone)?;
        let next = state
            .send
            .step(Input::Data { end: end_stream })
            .ok_or(SendError::WrongState)?;
        if state.queue.len() + data.len() > self.config.stream_queue_max {
            return Err(SendError::QueueFull);
        }
        state.send = next;
        let mut rest = data;
        if state.queue.is_empty() {
            if data.is_empty() {
                if end_stream {
                    self.output
                        .frame(Kind::Data, frame::END_STREAM, stream.id, &[]);
                    self.stats.data_frames_sent += 1;
                    self.remove_if_finished(stream);
                }
                return Ok(Sent {
                    written: 0,
                    queued: 0,
                });
            }
            rest = self.write_body(stream, data, end_stream);
            if rest.is_empty() {
                self.remove_if_finished(stream);
                return Ok(Sent {
                    written: data.len(),
                    queued: 0,
                });
            }
        }
        let state = self.streams.get_mut(stream).ok_or(SendError::Gone)?;
        state.queue.push(rest);
        self.queued += rest.len();
        if end_stream {
            state.queue.end = QueueEnd::EndStream;
        }
        self.join_round(stream);
        Ok(Sent {
            written: data.len() - rest.len(),
            queued: rest.len(),
        })
    }

    /// Ends a stream at once: `RST_STREAM`, unless nothing was ever sent on it; queued bytes are
    /// dropped, the slot is free, no event follows.
    pub fn reset(&mut self, stream: StreamRef, code: ErrorCode) {
        let Some(state) = self.streams.get(stream) else {
            return;
        };
        // To the peer a stream without a request is idle, and RST_STREAM for it an error.
        let is_idle = self.config.role == Role::Client && state.send == Half::Headers;
        if !is_idle {
            self.write_reset(stream.id, code);
        }
        self.remove(stream, Past::ResetByUs);
    }

    /// Gives back `bytes` of the stream's receive window. Does nothing when the stream is gone or the
    /// peer has ended its side; more than was received counts as all. Returns whether this told the peer: it
    /// sends more than fits half a window.
    pub fn release(&mut self, stream: StreamRef, bytes: u32) -> bool {
        let Some(state) = self.streams.get_mut(stream) else {
            return false;
        };
        let half_window = (state.recv_window_full / 2).max(1);
        let bytes = bytes.min(state.unreleased);
        state.unreleased -= bytes;
        state.owed += bytes;
        let is_due = state.recv != Half::Done && state.owed >= half_window;
        if is_due {
            let increment = std::mem::take(&mut state.owed);
            self.open_window(stream, increment);
        }
        is_due
    }

    /// Doubles the stream's receive window, by `most` bytes at the utmost. Returns by how many: 0 when the
    /// stream is gone or the peer has ended its side. For a stream whose bytes are taken as they come.
    pub fn widen(&mut self, stream: StreamRef, most: u32) -> u32 {
        let Some(state) = self.streams.get_mut(stream) else {
            return 0;
        };
        let room = WINDOW_MAX - state.recv_window_full;
        let by = state.recv_window_full.min(most).min(room);
        if by == 0 || state.recv == Half::Done {
            return 0;
        }
        state.recv_window_full += by;
        self.open_window(stream, by);
        by
    }

    fn open_window(&mut self, stream: StreamRef, increment: u32) {
        if let Some(state) = self.streams.get_mut(stream) {
            state.recv_window += i64::from(increment);
        }
        self.output
            .answer(Kind::WindowUpdate, 0, stream.id, &increment.to_be_bytes());
        self.stats.window_updates_sent += 1;
    }

    /// Writes as much of `data` as may go now; returns the rest.
    fn write_body<'d>(&mut self, stream: StreamRef, data: &'d [u8], end: bool) -> &'d [u8] {
        let mut rest = data;
        while !rest.is_empty() {
            let len = self.sendable(stream, rest.len());
            if len == 0 {
                break;
            }
            let (chunk, tail) = rest.split_at(len);
            rest = tail;
            let flags = if end && rest.is_empty() {
                frame::END_STREAM
            } else {
                0
            };
            self.output.frame(Kind::Data, flags, stream.id, chunk);
            self.count_sent(stream, len);
        }
        rest
    }

    /// How many of `wanted` bytes the next DATA frame of the stream may have now.
    fn sendable(&self, stream: StreamRef, wanted: usize) -> usize {
        let Some(state) = self.streams.get(stream) else {
            return 0;
        };
        if self.output.len() >= self.config.output_high_water {
            return 0;
        }
        let window = self.send_window.min(state.send_window).max(0) as usize;
        let frame = self.peer.max_frame_size.min(SEND_FRAME_MAX) as usize;
        wanted.min(window).min(frame)
    }

    fn count_sent(&mut self, stream: StreamRef, len: usize) {
        let taken = i64::from(len as u32);
        self.send_window -= taken;
        if let Some(state) = self.streams.get_mut(stream) {
            state.send_window -= taken;
        }
        self.stats.data_frames_sent += 1;
        self.stats.data_sent_bytes += len as u64;
        // A frame of ours is a reason for one update of the stream and one of the connection, and
        // peers that read in small pieces send several.
        self.budgets.window_updates.earn(8);
    }

    /// Lets the stream take turns when it has something to send and its window is open.
    pub(super) fn join_round(&mut self, stream: StreamRef) {
        let Some(state) = self.streams.get_mut(stream) else {
            return;
        };
        if state.is_sendable() && !state.in_round {
            state.in_round = true;
            self.round.push_back(stream);
        }
    }

    /// Moves queued bytes to the output while there is room.
    pub(super) fn flush(&mut self, events: &mut Events) {
        while let Some(&stream) = self.round.front() {
            let waiting = self.queued(stream);
            let len = self.sendable(stream, waiting);
            let window_open = self
                .streams
                .get(stream)
                .is_some_and(|state| state.send_window > 0);
            if len == 0 && window_open {
                // The output is full or the connection's window is closed: nobody may go on.
                return;
            }
            self.round.pop_front();
            if let Some(state) = self.streams.get_mut(stream) {
                state.in_round = false;
            }
            if len > 0 {
                self.send_queued(stream, len, events);
            }
        }
    }

    /// Sends `len` bytes of the stream's queue, and what follows them.
    fn send_queued(&mut self, stream: StreamRef, len: usize, events: &mut Events) {
        let Some(state) = self.streams.get_mut(stream) else {
            return;
        };
        let is_last = len == state.queue.len();
        let ends = is_last && state.queue.end == QueueEnd::EndStream;
        let flags = if ends { frame::END_STREAM } else { 0 };
        self.output
            .frame(Kind::Data, flags, stream.id, state.queue.front(len));
        state.queue.advance(len);
        self.queued -= len;
        events.push(Event::Drained {
            stream,
            token: state.token,
            bytes: len as u32,
        });
        if is_last && state.queue.end == QueueEnd::Trailers {
            let max_frame_size = self.peer.max_frame_size as usize;
            let (output, encoder) = (&mut self.output, &mut self.encoder);
            let trailers = state.queue.trailers();
            write_headers(
                output,
                encoder,
                stream.id,
                frame::END_STREAM,
                max_frame_size,
                trailers,
            );
            self.queued_trailers -= state.queue.trailers_len();
            state.queue.clear();
            self.stats.header_blocks_sent += 1;
        }
        self.count_sent(stream, len);
        self.join_round(stream);
        self.remove_if_finished(stream);
    }
}

/// Encodes a header block right into the output, behind a frame header that is filled in afterwards.
fn write_headers<'a>(
    output: &mut Output,
    encoder: &mut Encoder,
    stream_id: u32,
    flags: u8,
    max_frame_size: usize,
    fields: impl IntoIterator<Item = Field<'a>>,
) {
    let out = output.buffer();
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_LEN]);
    encoder.encode(fields, out);
    let len = out.len() - start - HEADER_LEN;
    if len <= max_frame_size {
        let flags = flags | frame::END_HEADERS;
        let header = FrameHeader::new(Kind::Headers, flags, stream_id, len as u32);
        out[start..start + HEADER_LEN].copy_from_slice(&header.to_bytes());
    } else {
        split_block(out, start, stream_id, flags, max_frame_size);
    }
}

/// A block that is too large for one frame: HEADERS and CONTINUATION frames in its place.
fn split_block(out: &mut Vec<u8>, start: usize, stream_id: u32, flags: u8, max_frame_size: usize) {
    let block = out.split_off(start + HEADER_LEN);
    out.truncate(start);
    let last = block.len().div_ceil(max_frame_size) - 1;
    for (number, part) in block.chunks(max_frame_size).enumerate() {
        let kind = if number == 0 {
            Kind::Headers
        } else {
            Kind::Continuation
        };
        let own_flags = if number == 0 { flags } else { 0 };
        let end = if number == last {
            frame::END_HEADERS
        } else {
            0
        };
        let header = FrameHeader::new(kind, own_flags | end, stream_id, part.len() as u32);
        out.extend_from_slice(&header.to_bytes());
        out.extend_from_slice(part);
    }
}

fn is_informational_status(first: &Field<'_>) -> bool {
    first.name == b":status" && first.value.first() == Some(&b'1')
}

fn debug_check(field: &Field<'_>) {
    debug_assert!(
        !field.name.iter().any(u8::is_ascii_uppercase),
        "header names are lower case in HTTP/2"
    );
}
