//! Header blocks in: requests, responses, trailers.
//!
//! Every block is decoded, then the stream decides what it is. A block that is malformed, too large
//! or not wanted leaves no event (or a `Reset` when the caller knows the stream) and no bytes behind
//! in the arena.

use super::{AwaySent, Connection};
use crate::config::{Config, Role};
use crate::error::{Abuse, ConnectionError, ErrorCode};
use crate::event::{Event, Events, StreamRef};
use crate::header::{self, ListKind};
use crate::hpack::Decoded;
use crate::store::Past;
use crate::stream::{Half, Input};

type Outcome = Result<(), ConnectionError>;

/// What the HEADERS frame of a block says beside the block.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockHead {
    pub(super) stream_id: u32,
    pub(super) end_stream: bool,
    pub(super) depends_on_itself: bool,
}

/// A header block whose frames are still coming.
#[derive(Debug, Default)]
pub(super) struct Partial {
    head: Option<BlockHead>,
    continuations: u32,
    bytes: Vec<u8>,
}

/// Capacity that the buffer keeps between blocks.
const KEPT_CAPACITY: usize = 64 << 10;

// === impl Partial ===

impl Partial {
    pub(super) fn is_open(&self) -> bool {
        self.head.is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_for(&self, stream_id: u32) -> bool {
        self.head.is_some_and(|head| head.stream_id == stream_id)
    }

    pub(super) fn begin(&mut self, head: BlockHead, fragment: &[u8]) {
        self.head = Some(head);
        self.continuations = 0;
        self.bytes.extend_from_slice(fragment);
    }

    pub(super) fn push(&mut self, fragment: &[u8], config: &Config) -> Outcome {
        self.continuations += 1;
        if self.continuations > config.limits.continuations {
            return Err(ConnectionError::calm(
                Abuse::Continuations,
                "too many CONTINUATION frames",
            ));
        }
        // Encoded, a list is hardly ever larger than decoded; twice is far over any limit.
        let limit = 2 * config.max_header_list_size.max(config.max_frame_size) as usize;
        if self.bytes.len() + fragment.len() > limit {
            return Err(ConnectionError::calm(
                Abuse::Continuations,
                "header block too large",
            ));
        }
        self.bytes.extend_from_slice(fragment);
        Ok(())
    }

    /// Takes the whole block out; give its buffer back by `keep_buffer`.
    pub(super) fn close(&mut self) -> Option<(BlockHead, Vec<u8>)> {
        self.head
            .take()
            .map(|head| (head, std::mem::take(&mut self.bytes)))
    }

    /// Gives back the memory of a buffer that no block is in.
    pub(super) fn shrink(&mut self) {
        if self.head.is_none() {
            self.bytes = Vec::new();
        }
    }

    pub(super) fn keep_buffer(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        buffer.shrink_to(KEPT_CAPACITY);
        self.bytes = buffer;
    }
}

// === impl Connection ===

impl Connection {
    /// Takes one whole header block.
    pub(super) fn block(&mut self, head: BlockHead, block: &[u8], events: &mut Events) -> Outcome {
        self.stats.header_blocks_received += 1;
        let mark = (events.fields.len(), events.bytes.len());
        let decoded = self
            .decoder
            .decode(block, events)
            .map_err(|error| ConnectionError::new(ErrorCode::CompressionError, error.0))?;
        self.stats.header_lists_too_large += u64::from(decoded.too_large);
        let surfaced = match self.streams.find(head.stream_id) {
            Some(stream) => self.block_for_live(stream, head, decoded, events)?,
            None if self.config.role == Role::Server
                && head.stream_id > self.streams.newest_id() =>
            {
                self.block_for_new(head, decoded, events)?
            }
            None => self.block_for_past(head.stream_id)?,
        };
        if !surfaced {
            events.fields.truncate(mark.0);
            events.bytes.truncate(mark.1);
        }
        Ok(())
    }

    /// A request. Returns whether the block is in an event, as the next two do.
    fn block_for_new(
        &mut self,
        head: BlockHead,
        decoded: Decoded,
        events: &mut Events,
    ) -> Result<bool, ConnectionError> {
        let id = head.stream_id;
        if id.is_multiple_of(2) {
            return Err(ConnectionError::protocol(
                "a client opens streams with odd ids",
            ));
        }
        self.streams.use_id(id);
        if let Err(code) = self.admit(id) {
            self.stats.streams_refused += 1;
            self.write_reset(id, code);
            self.streams.set_past(id, Past::ResetByUs);
            // Before it knows our limit a client may well open more: the budget has room for that.
            self.budgets.resets.take()?;
            return Ok(false);
        }
        let checked = check(events, decoded, ListKind::Request).and_then(|checked| {
            let lacks_body = head.end_stream && checked.content_length.unwrap_or(0) > 0;
            let is_wrong = lacks_body || head.depends_on_itself;
            if is_wrong {
                Err(ErrorCode::ProtocolError)
            } else {
                Ok(checked)
            }
        });
        let checked = match checked {
            Ok(checked) => checked,
            Err(code) => {
                self.stats.stream_errors += 1;
                self.refuse(id, code)?;
                return Ok(false);
            }
        };
        self.stats.streams_opened += 1;
        let stream = self
            .streams
            .insert(id, self.peer.initial_window, self.stream_window());
        if let Some(state) = self.streams.get_mut(stream) {
            state.recv = if head.end_stream {
                Half::Done
            } else {
                Half::Body
            };
            state.content_left = checked.content_length;
        }
        let (headers, end_stream) = (decoded.block, head.end_stream);
        events.push(Event::Request {
            stream,
            headers,
            end_stream,
        });
        Ok(true)
    }

    /// Whether there is room for a new stream of the peer.
    fn admit(&self, id: u32) -> Result<(), ErrorCode> {
        let is_after_away = matches!(self.away_sent, AwaySent::Final(last) if id > last);
        let is_full = self.streams.len() >= self.config.max_concurrent_streams as usize;
        if is_after_away || is_full {
            Err(ErrorCode::RefusedStream)
        } else {
            Ok(())
        }
    }

    /// A response or trailers.
    fn block_for_live(
        &mut self,
        stream: StreamRef,
        head: BlockHead,
        decoded: Decoded,
        events: &mut Events,
    ) -> Result<bool, ConnectionError> {
        let Some(state) = self.streams.get_mut(stream) else {
            return Ok(false);
        };
        let kind = match state.recv {
            Half::Headers => ListKind::Response,
            Half::Body => ListKind::Trailers,
            Half::Done => {
                self.stream_error(stream, ErrorCode::StreamClosed, events)?;
                return Ok(false);
            }
        };
        let end_stream = head.end_stream;
        let checked = check(events, decoded, kind).and_then(|checked| {
            let input = if checked.informational && !end_stream {
                Input::Informational
            } else {
                Input::Headers { end: end_stream }
            };
            let next = state.recv.step(input).ok_or(ErrorCode::ProtocolError)?;
            let is_final_1xx = checked.informational && end_stream;
            if is_final_1xx || head.depends_on_itself {
                return Err(ErrorCode::ProtocolError);
            }
            Ok((checked, next))
        });
        let (checked, next) = match checked {
            Ok(checked) => checked,
            Err(code) => {
                self.stream_error(stream, code, events)?;
                return Ok(false);
            }
        };
        match kind {
            // A response to HEAD, 204 or 304 announces a length and ends with its headers.
            ListKind::Response if next == Half::Body && !state.is_head => {
                state.content_left = checked.content_length;
            }
            ListKind::Trailers if !state.count_content(0, true) => {
                self.stream_error(stream, ErrorCode::ProtocolError, events)?;
                return Ok(false);
            }
            _ => {}
        }
        state.recv = next;
        let (token, headers) = (state.token, decoded.block);
        let informational = checked.informational;
        events.push(if kind == ListKind::Trailers {
            Event::Trailers {
                stream,
                token,
                headers,
            }
        } else {
            Event::Response {
                stream,
                token,
                headers,
                end_stream,
                informational,
            }
        });
        self.remove_if_finished(stream);
        Ok(true)
    }

    fn block_for_past(&mut self, id: u32) -> Result<bool, ConnectionError> {
        self.check_used(id)?;
        match self.streams.past(id) {
            Past::ResetByUs | Past::Forgotten => {}
            Past::ResetByPeer => self.refuse(id, ErrorCode::StreamClosed)?,
            Past::Skipped => {
                return Err(ConnectionError::protocol(
                    "a stream id below one already used",
                ));
            }
            Past::Finished => {
                let reason = "HEADERS on a stream that has ended";
                return Err(ConnectionError::new(ErrorCode::StreamClosed, reason));
            }
        }
        Ok(false)
    }
}

/// Checks a list; the error is that of its stream.
fn check(events: &Events, decoded: Decoded, kind: ListKind) -> Result<header::Checked, ErrorCode> {
    if decoded.too_large {
        // gRPC maps this code to RESOURCE_EXHAUSTED.
        return Err(ErrorCode::EnhanceYourCalm);
    }
    header::check(events, decoded.block, kind).map_err(|_| ErrorCode::ProtocolError)
}
