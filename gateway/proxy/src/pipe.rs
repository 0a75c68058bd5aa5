//! One direction of a connection that is passed on as it is: bytes from one stream to another, plain or under TLS.
//!
//! Decides nothing; keeps what the sink did not take (at most one read: `READ_BUFFER_BYTES`, and what TLS holds), and
//! reads no more until that is gone. An idle direction holds no memory but that of its TLS session. The end of the
//! source is passed on when everything before it was.

use std::io::{self, ErrorKind};

use crate::transport::Transport;

/// Reads in one turn; the rest is for the next, after the others.
const READS_PER_TURN: usize = 4;

/// See the module.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // of two sockets, each with its own
pub(crate) struct Pipe {
    rest: Vec<u8>,
    taken: usize,
    /// As far as the poll has said.
    pub readable: bool,
    pub writable: bool,
    ended: bool,
    shut: bool,
}

/// What a turn of a pipe brought.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Moved {
    /// Bytes that the sink took.
    pub bytes: u64,
    /// The share of this turn is used up and there may be more.
    pub again: bool,
}

// === impl Pipe ===

impl Pipe {
    /// A pipe that begins with bytes that were read before.
    pub fn after(seen: Vec<u8>) -> Self {
        Self {
            rest: seen,
            readable: true,
            ..Self::default()
        }
    }

    /// A pipe to a socket that has taken nothing yet.
    pub fn towards_client() -> Self {
        Self {
            writable: true,
            ..Self::default()
        }
    }

    /// The source has ended and the sink knows.
    pub fn is_over(&self) -> bool {
        self.shut
    }

    /// Bytes that began it, while nothing has left yet.
    pub fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest)
    }

    /// Moves what can be moved now.
    pub fn turn(
        &mut self,
        source: &mut Transport,
        sink: &mut Transport,
        buffer: &mut [u8],
    ) -> io::Result<Moved> {
        let mut moved = Moved::default();
        for _ in 0..READS_PER_TURN {
            moved.bytes += self.empty_rest(sink)?;
            if !self.rest.is_empty() || self.shut {
                return Ok(moved);
            }
            if self.ended {
                if !sink.wants_flush() {
                    self.shut = true;
                    sink.finish();
                }
                return Ok(moved);
            }
            if !self.readable {
                return Ok(moved);
            }
            match source.read(buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => moved.bytes += self.give(sink, &buffer[..count])?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) => return Err(error),
            }
        }
        moved.again = true;
        Ok(moved)
    }

    fn empty_rest(&mut self, sink: &mut Transport) -> io::Result<u64> {
        if self.writable {
            match sink.flush() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                done => done?,
            }
        }
        if self.rest.is_empty() {
            return Ok(0);
        }
        let count = write(sink, &self.rest[self.taken..], &mut self.writable)?;
        self.taken += count;
        if self.taken == self.rest.len() {
            self.rest = Vec::new();
            self.taken = 0;
        }
        Ok(count as u64)
    }

    fn give(&mut self, sink: &mut Transport, bytes: &[u8]) -> io::Result<u64> {
        let count = write(sink, bytes, &mut self.writable)?;
        self.rest.extend_from_slice(&bytes[count..]);
        Ok(count as u64)
    }
}

/// Writes until the stream is full.
fn write(sink: &mut Transport, bytes: &[u8], writable: &mut bool) -> io::Result<usize> {
    let mut count = 0;
    while *writable && count < bytes.len() {
        match sink.write(&bytes[count..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(taken) => count += taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => *writable = false,
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}
