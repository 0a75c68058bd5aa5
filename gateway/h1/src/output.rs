//! The bytes to write.

#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    head: usize,
}

/// Capacity that an empty output keeps.
const KEPT_CAPACITY: usize = 4 << 10;
/// Written bytes at the front that are worth moving the rest for.
const SLACK: usize = 64 << 10;

// === impl Output ===

impl Output {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    /// The buffer to append to.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Takes back what was appended since the output was `len` long.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.head + len);
    }

    /// `len` bytes were written; more than there are counts as all.
    pub(crate) fn advance(&mut self, len: usize) {
        self.head += len.min(self.len());
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_CAPACITY);
            self.head = 0;
        } else if self.head > SLACK && self.head > self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
    }
}
