//! The bytes to write, and how many of them are answers that a peer who does not read lets pile up.
//!
//! Answers (acknowledgements, `RST_STREAM`, `WINDOW_UPDATE`) cannot wait in a stream, so what bounds
//! them is ending the connection. They are counted in two generations: those before a mark in the
//! stream of bytes, and those behind it. When the mark is written the first generation is gone, so the
//! count is never too low and at most one output's worth too high.

use crate::frame::{FrameHeader, HEADER_LEN, Kind};

#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    head: usize,
    written_total: u64,
    mark: u64,
    answers_before_mark: usize,
    answers_behind_mark: usize,
}

/// Capacity that an empty output keeps, and that of a quiet connection.
const KEPT_CAPACITY: usize = 256 << 10;
const QUIET_CAPACITY: usize = 4 << 10;
/// Written bytes at the front that are worth moving the rest for.
const SLACK: usize = 64 << 10;

// === impl Output ===

impl Output {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    /// The buffer to append to.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(crate) fn unread_answers(&self) -> usize {
        self.answers_before_mark + self.answers_behind_mark
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn frame(&mut self, kind: Kind, flags: u8, stream_id: u32, payload: &[u8]) {
        let header = FrameHeader::new(kind, flags, stream_id, payload.len() as u32);
        self.bytes.reserve(HEADER_LEN + payload.len());
        self.bytes.extend_from_slice(&header.to_bytes());
        self.bytes.extend_from_slice(payload);
    }

    /// A frame that counts as an answer.
    pub(crate) fn answer(&mut self, kind: Kind, flags: u8, stream_id: u32, payload: &[u8]) {
        self.frame(kind, flags, stream_id, payload);
        self.answers_behind_mark += HEADER_LEN + payload.len();
    }

    /// Gives back the memory of an empty output.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() && self.bytes.capacity() > QUIET_CAPACITY {
            self.bytes = Vec::new();
            self.head = 0;
        }
    }

    /// `len` bytes were written; more than there are counts as all.
    pub(crate) fn advance(&mut self, len: usize) {
        let len = len.min(self.len());
        self.head += len;
        self.written_total += len as u64;
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_CAPACITY);
            self.head = 0;
        } else if self.head > SLACK && self.head > self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        if self.written_total >= self.mark {
            self.answers_before_mark = std::mem::take(&mut self.answers_behind_mark);
            self.mark = self.written_total + self.len() as u64;
        }
        if self.is_empty() {
            self.answers_before_mark = 0;
            self.answers_behind_mark = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_forgotten_once_written() {
        let mut output = Output::default();
        output.answer(Kind::Ping, 1, 0, &[0; 8]);
        assert_eq!(output.unread_answers(), 17);
        output.advance(1);
        assert_eq!(output.unread_answers(), 17);
        output.frame(Kind::Data, 0, 1, &[0; 100]);
        output.advance(16);
        assert_eq!(
            output.unread_answers(),
            0,
            "behind the mark there is only data"
        );
        output.answer(Kind::Ping, 1, 0, &[0; 8]);
        output.advance(usize::MAX);
        assert_eq!((output.unread_answers(), output.len()), (0, 0));
    }

    #[test]
    fn moving_the_rest_to_the_front_loses_nothing() {
        let mut output = Output::default();
        output.raw(&vec![1; 100_000]);
        output.raw(&[2; 10]);
        output.advance(100_000);
        assert_eq!(output.as_slice(), [2; 10]);
        assert_eq!(output.head, 0);
    }
}
