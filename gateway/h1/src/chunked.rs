//! The chunked coding (RFC 9112 section 7.1), read strictly.
//!
//! Decides where a chunk's bytes lie and when the last one was. Sizes are hexadecimal digits and nothing else, lines end
//! with CR LF, extensions are visible text that is ignored; a sender whose lines outweigh its data is refused.
//!
//! ```text
//! Start ─digits▶ Size ─;▶ Extension        Data ──▶ DataCr ─CR▶ DataLf ─LF▶ Start
//!                 │ CR       │ CR            ▲
//!                 └──▶ SizeLf ◀┘─LF, size>0──┘     SizeLf ─LF, size 0▶ trailers (the caller's)
//! ```

use crate::refusal::Refusal;

/// Bytes of lines beyond what plain chunks need that one body may have, however small its chunks (CVE-2023-39326).
const EXCESS_MAX: u64 = 16 << 10;
/// What a line may have per chunk before it counts, and how much of it each byte of data pays for.
const LINE_FREE: u64 = 16;
/// Digits of a size: no sum of sizes overflows.
const DIGITS_MAX: u8 = 15;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Start,
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
}

/// Reads one body.
#[derive(Clone, Debug)]
pub(crate) struct Chunked {
    state: State,
    left: u64,
    digits: u8,
    line: u64,
    excess: u64,
}

/// What the next bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    /// Data from here, so many bytes.
    Data { at: usize, len: usize },
    /// All bytes were used for lines.
    More,
    /// The last chunk ended here: trailers follow.
    Last { at: usize },
}

// === impl Chunked ===

impl Chunked {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Start,
            left: 0,
            digits: 0,
            line: 0,
            excess: 0,
        }
    }

    /// Reads on from `at`. After `Data` the caller goes on behind it.
    pub(crate) fn next(&mut self, input: &[u8], mut at: usize) -> Result<Piece, Refusal> {
        while let Some(&byte) = input.get(at) {
            if self.state == State::Data {
                let len = self.left.min((input.len() - at) as u64);
                self.left -= len;
                self.excess = self.excess.saturating_sub(len);
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                let len = len as usize;
                return Ok(Piece::Data { at, len });
            }
            at += 1;
            if self.step(byte)? {
                return Ok(Piece::Last { at });
            }
        }
        Ok(Piece::More)
    }

    /// Takes one byte of a line; true behind the line of the last chunk.
    fn step(&mut self, byte: u8) -> Result<bool, Refusal> {
        self.line += 1;
        if self.line > LINE_FREE {
            self.excess += 1;
            if self.excess > EXCESS_MAX {
                return Err(Refusal::bad("the lines of chunks outweigh their data"));
            }
        }
        self.state = match (self.state, byte) {
            (State::Start | State::Size, _) if byte.is_ascii_hexdigit() => self.digit(byte)?,
            (State::Size, b';') => State::Extension,
            (State::Size | State::Extension, b'\r') => State::SizeLf,
            (State::Extension, _) if byte == b'\t' || byte == b' ' || byte.is_ascii_graphic() => {
                State::Extension
            }
            (State::SizeLf, b'\n') if self.left == 0 => return Ok(true),
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                (self.digits, self.line) = (0, 0);
                State::Start
            }
            _ => return Err(Refusal::bad("a chunk is malformed")),
        };
        Ok(false)
    }

    fn digit(&mut self, byte: u8) -> Result<State, Refusal> {
        let value = (byte as char).to_digit(16).unwrap_or_default();
        self.digits += 1;
        if self.digits > DIGITS_MAX {
            return Err(Refusal::bad("the size of a chunk has too many digits"));
        }
        self.left = self.left * 16 + u64::from(value);
        Ok(State::Size)
    }
}

#[cfg(test)]
mod tests {
    use super::{Chunked, Piece};

    fn read(input: &[u8]) -> Result<(Vec<u8>, Option<usize>), &'static str> {
        let (mut chunked, mut data, mut at) = (Chunked::new(), Vec::new(), 0);
        loop {
            match chunked.next(input, at).map_err(|it| it.reason)? {
                Piece::Data { at: from, len } => {
                    data.extend_from_slice(&input[from..from + len]);
                    at = from + len;
                }
                Piece::More => return Ok((data, None)),
                Piece::Last { at } => return Ok((data, Some(at))),
            }
        }
    }

    #[test]
    fn plain_chunks_and_extensions() {
        let body = b"5\r\nhello\r\n6;a=\"b\"\r\n world\r\n0\r\n";
        assert_eq!(read(body), Ok((b"hello world".to_vec(), Some(body.len()))));
        assert_eq!(read(b"A\r\n01234"), Ok((b"01234".to_vec(), None)));
    }

    #[test]
    fn what_readers_disagree_about_is_refused() {
        for body in [
            &b" 5\r\nhello\r\n"[..],
            b"5 \r\nhello\r\n",
            b"+5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\rhello\r\n",
            b"5;a\nb\r\nhello\r\n",
            b"5;\x00\r\nhello\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n",
            b"\r\n",
            b";a\r\n",
            b"fffffffffffffffff\r\n",
        ] {
            assert!(read(body).is_err(), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn endless_extensions_are_refused() {
        let mut small = Vec::new();
        for _ in 0..1_000 {
            small.extend_from_slice(b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n");
        }
        assert!(read(&small).is_err());
        let mut plain = Vec::new();
        for _ in 0..100_000 {
            plain.extend_from_slice(b"1\r\nx\r\n");
        }
        assert_eq!(read(&plain).map(|(data, _)| data.len()), Ok(100_000));
    }
}
