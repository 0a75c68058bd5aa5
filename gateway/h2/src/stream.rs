//! One stream: how far each direction is, its windows, and the body bytes that wait for a window.
//!
//! The states of RFC 9113 section 5.1 are two halves, each of which runs through
//!
//! ```text
//!            1xx                 data
//!           ┌───┐               ┌───┐
//!           │   ▼    headers    │   ▼   data+end, trailers
//!         ┌─┴───────┐        ┌──┴──────┐        ┌──────┐
//!  start ─▶ Headers │ ─────▶ │  Body   │ ─────▶ │ Done │
//!         └─────────┘        └─────────┘        └──────┘
//!              │           headers+end              ▲
//!              └────────────────────────────────────┘
//! ```
//!
//! (send, recv): idle or reserved is (Headers, Headers) before anything was sent, open is neither Done,
//! half-closed is one Done, closed is both. The send half follows the caller's calls; what is queued is
//! still to be sent when it is Done. A stream is freed when both are Done and the queue is empty.
//!
//! Invariants: `queue.end` is not `Open` only while bytes wait in front of it.

use crate::event::Field;

/// Progress of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Half {
    Headers,
    Body,
    Done,
}

/// What one direction is asked to carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// 1xx: headers with more headers to come.
    Informational,
    Headers {
        end: bool,
    },
    Data {
        end: bool,
    },
}

/// What follows the bytes of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum QueueEnd {
    Open,
    EndStream,
    Trailers,
}

/// Body bytes that could not go to the output yet, and the trailers behind them.
#[derive(Debug)]
pub(crate) struct Queue {
    bytes: Vec<u8>,
    head: usize,
    pub(crate) end: QueueEnd,
    /// Fields one after the other: two lengths, sensitive, name, value. Not encoded, for the
    /// compression table has to see blocks in the order of the wire.
    trailers: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Stream {
    /// 0 in a vacant slot.
    pub(crate) id: u32,
    pub(crate) send: Half,
    pub(crate) recv: Half,
    /// It stands in the connection's round.
    pub(crate) in_round: bool,
    /// The request was HEAD: `content-length` of the response announces nothing.
    pub(crate) is_head: bool,
    /// What the peer lets us send; below 0 after it has shrunk its window.
    pub(crate) send_window: i64,
    /// What the peer may send.
    pub(crate) recv_window: i64,
    /// `recv_window` when everything received was given back.
    pub(crate) recv_window_full: u32,
    /// Bytes received that the caller has not released.
    pub(crate) unreleased: u32,
    /// Bytes released that no `WINDOW_UPDATE` has given back.
    pub(crate) owed: u32,
    /// Body bytes still announced by `content-length`.
    pub(crate) content_left: Option<u64>,
    pub(crate) token: u64,
    pub(crate) queue: Queue,
}

/// Capacity that a vacant slot keeps for the next stream, until the connection is quiet.
const KEPT_CAPACITY: usize = 16 << 10;

// === impl Half ===

impl Half {
    /// The state after `input`, or `None` when it is not allowed.
    pub(crate) fn step(self, input: Input) -> Option<Self> {
        match (self, input) {
            (Self::Headers, Input::Informational) => Some(Self::Headers),
            (Self::Headers, Input::Headers { end: false })
            | (Self::Body, Input::Data { end: false }) => Some(Self::Body),
            (Self::Headers | Self::Body, Input::Headers { end: true })
            | (Self::Body, Input::Data { end: true }) => Some(Self::Done),
            (Self::Headers, Input::Data { .. })
            | (Self::Body, Input::Informational | Input::Headers { end: false })
            | (Self::Done, _) => None,
        }
    }
}

// === impl Stream ===

impl Stream {
    pub(crate) fn vacant() -> Self {
        Self {
            id: 0,
            send: Half::Headers,
            recv: Half::Headers,
            in_round: false,
            is_head: false,
            send_window: 0,
            recv_window: 0,
            recv_window_full: 0,
            unreleased: 0,
            owed: 0,
            content_left: None,
            token: 0,
            queue: Queue::new(),
        }
    }

    /// Makes a vacant slot the stream `id`.
    pub(crate) fn begin(&mut self, id: u32, send_window: u32, recv_window: u32) {
        let queue = std::mem::replace(&mut self.queue, Queue::new());
        *self = Self {
            id,
            send_window: i64::from(send_window),
            recv_window: i64::from(recv_window),
            recv_window_full: recv_window,
            queue,
            ..Self::vacant()
        };
    }

    /// Makes the slot vacant; a little of its queue's memory stays.
    pub(crate) fn end(&mut self) {
        self.id = 0;
        self.queue.clear();
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.send == Half::Done && self.recv == Half::Done && self.queue.is_empty()
    }

    /// Something waits that its window allows to send.
    pub(crate) fn is_sendable(&self) -> bool {
        self.send_window > 0 && !self.queue.is_empty()
    }

    /// Counts body bytes against `content-length`; false when they do not add up.
    pub(crate) fn count_content(&mut self, len: u64, end: bool) -> bool {
        let Some(left) = self.content_left else {
            return true;
        };
        match left.checked_sub(len) {
            Some(left) if left == 0 || !end => {
                self.content_left = Some(left);
                true
            }
            _ => false,
        }
    }
}

// === impl Queue ===

impl Queue {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            head: 0,
            end: QueueEnd::Open,
            trailers: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        if self.head >= data.len() && self.head > self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        self.bytes.extend_from_slice(data);
    }

    pub(crate) fn push_trailer(&mut self, field: Field<'_>) {
        let Field {
            name,
            value,
            sensitive,
        } = field;
        self.trailers
            .extend_from_slice(&(name.len() as u32).to_ne_bytes());
        self.trailers
            .extend_from_slice(&(value.len() as u32).to_ne_bytes());
        self.trailers.push(u8::from(sensitive));
        self.trailers.extend_from_slice(name);
        self.trailers.extend_from_slice(value);
    }

    pub(crate) fn trailers_len(&self) -> usize {
        self.trailers.len()
    }

    pub(crate) fn trailers(&self) -> impl Iterator<Item = Field<'_>> {
        let mut rest = &self.trailers[..];
        std::iter::from_fn(move || {
            let (name_len, tail) = rest.split_first_chunk::<4>()?;
            let (value_len, tail) = tail.split_first_chunk::<4>()?;
            let (&sensitive, tail) = tail.split_first()?;
            let (name, tail) = tail.split_at_checked(u32::from_ne_bytes(*name_len) as usize)?;
            let (value, tail) = tail.split_at_checked(u32::from_ne_bytes(*value_len) as usize)?;
            rest = tail;
            Some(Field {
                name,
                value,
                sensitive: sensitive != 0,
            })
        })
    }

    /// The first `len` bytes.
    pub(crate) fn front(&self, len: usize) -> &[u8] {
        &self.bytes[self.head..self.head + len]
    }

    pub(crate) fn advance(&mut self, len: usize) {
        self.head += len;
        if self.head == self.bytes.len() {
            self.bytes.clear();
            self.head = 0;
        }
    }

    /// Gives back the memory of an empty queue.
    pub(crate) fn forget(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
            self.trailers = Vec::new();
            self.head = 0;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.head = 0;
        self.end = QueueEnd::Open;
        for buffer in [&mut self.bytes, &mut self.trailers] {
            buffer.clear();
            buffer.shrink_to(KEPT_CAPACITY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_state_and_input() {
        use Half::{Body, Done, Headers};
        let inputs = [
            Input::Informational,
            Input::Headers { end: false },
            Input::Headers { end: true },
            Input::Data { end: false },
            Input::Data { end: true },
        ];
        let table = [
            (Headers, [Some(Headers), Some(Body), Some(Done), None, None]),
            (Body, [None, None, Some(Done), Some(Body), Some(Done)]),
            (Done, [None; 5]),
        ];
        for (state, expected) in table {
            for (input, expected) in inputs.into_iter().zip(expected) {
                assert_eq!(state.step(input), expected, "{state:?} with {input:?}");
            }
        }
    }

    #[test]
    fn content_length_has_to_add_up() {
        let mut stream = Stream::vacant();
        assert!(stream.count_content(7, true), "none was announced");
        stream.content_left = Some(5);
        assert!(stream.count_content(3, false));
        assert!(!stream.count_content(1, true), "one is missing");
        assert!(!stream.count_content(3, false), "one too many");
        assert!(stream.count_content(2, true));
    }

    #[test]
    fn queue_keeps_order_and_trailers() {
        let mut queue = Queue::new();
        queue.push(b"abc");
        queue.push_trailer(Field::new(b"grpc-status", b"0"));
        queue.push_trailer(Field {
            name: b"x",
            value: b"",
            sensitive: true,
        });
        queue.advance(2);
        queue.push(b"d");
        assert_eq!(queue.front(2), b"cd");
        let trailers: Vec<_> = queue.trailers().collect();
        assert_eq!(trailers[0], Field::new(b"grpc-status", b"0"));
        assert_eq!(
            trailers[1],
            Field {
                name: b"x",
                value: b"",
                sensitive: true
            }
        );
        queue.clear();
        assert!(queue.is_empty());
        assert_eq!(queue.trailers().count(), 0);
    }
}
