//! What a client speaks, told by its first bytes.
//!
//! Decides: HTTP/2, HTTP/1, or neither. Leaves to others: what each is answered (`downstream`), and the rest of the
//! HTTP/2 preface (`gateway-h2`). Invariant: at most `LINE_MAX` bytes are waited for, and only while they are text.

use gateway_h2::PREFACE;

/// What tells the preface from every HTTP/1 method.
const MARK: usize = 3;
/// A request line that is longer belongs to nothing that should be answered.
const LINE_MAX: usize = 8 * 1024;

/// The first bytes' meaning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Opening {
    Http2,
    /// A whole HTTP/1 request line: it is answered in its own words.
    Http1,
    /// TLS on a plain listener, an unknown protocol or noise: RFC 9113, 3.4, lets us close without a word.
    Neither,
    /// More bytes are needed.
    Unknown,
}

/// Judges what a client has sent so far.
pub(crate) fn opening(input: &[u8]) -> Opening {
    let seen = input.len().min(MARK);
    if input[..seen] == PREFACE[..seen] {
        return if seen < MARK {
            Opening::Unknown
        } else {
            Opening::Http2
        };
    }
    let limit = input.len().min(LINE_MAX);
    match input[..limit].iter().position(|byte| !is_text(*byte)) {
        Some(end) if is_line_end(&input[end..]) => version(&input[..end]),
        Some(_) => Opening::Neither,
        None if input.len() >= LINE_MAX => Opening::Neither,
        None => Opening::Unknown,
    }
}

fn is_text(byte: u8) -> bool {
    byte == b' ' || byte.is_ascii_graphic()
}

/// A CR without anything behind it may become a line's end.
fn is_line_end(rest: &[u8]) -> bool {
    matches!(rest, [b'\n', ..] | [b'\r'] | [b'\r', b'\n', ..])
}

fn version(line: &[u8]) -> Opening {
    match line {
        [.., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit() => {
            Opening::Http1
        }
        _ => Opening::Neither,
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE_MAX, Opening, opening};

    #[test]
    fn openings() {
        let cases: [(&[u8], Opening); 14] = [
            (b"", Opening::Unknown),
            (b"P", Opening::Unknown),
            (b"PR", Opening::Unknown),
            (b"PRI", Opening::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Opening::Http2),
            (b"PUT", Opening::Unknown),
            (b"GET / HTTP/1.", Opening::Unknown),
            (b"GET / HTTP/1.1\r", Opening::Http1),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Opening::Http1),
            (b"POST /a HTTP/1.0\n", Opening::Http1),
            (b"GET /\r\n", Opening::Neither),
            (b"INVALID CONNECTION PREFACE\r\n\r\n", Opening::Neither),
            (b"\x16\x03\x01\x02\x00", Opening::Neither),
            (b"GET /\xff HTTP/1.1\r\n", Opening::Neither),
        ];
        for (input, expected) in cases {
            assert_eq!(opening(input), expected, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn an_endless_line_is_not_waited_for() {
        assert_eq!(opening(&[b'A'; LINE_MAX - 1]), Opening::Unknown);
        assert_eq!(opening(&[b'A'; LINE_MAX]), Opening::Neither);
    }
}
