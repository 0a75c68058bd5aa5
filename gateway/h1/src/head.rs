//! Heads: where one ends, and its tokens.
//!
//! Decides what httparse is lenient about: line ends are CR LF and nothing else, no NUL, one empty line before a request
//! at most. Leaves the meaning of fields to `fields` and `framing`.

use gateway_h2::syntax;
use httparse::{Header, Request, Response};

use crate::config::FIELDS_MAX;
use crate::refusal::Refusal;

/// The end of a head as far as it was looked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scan {
    seen: usize,
}

/// What a request's first line says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLine<'a> {
    pub(crate) method: &'a [u8],
    /// Of a target in absolute form.
    pub(crate) authority: Option<&'a [u8]>,
    pub(crate) path: &'a [u8],
    /// HTTP/1.0 otherwise.
    pub(crate) is_1_1: bool,
}

/// What a response's first line says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatusLine {
    pub(crate) status: u16,
    pub(crate) is_1_1: bool,
}

/// Room for the fields of one head.
pub(crate) type Room<'a> = [Header<'a>; FIELDS_MAX];

/// An empty room.
pub(crate) fn room<'a>() -> Room<'a> {
    [httparse::EMPTY_HEADER; FIELDS_MAX]
}

// === impl Scan ===

impl Scan {
    /// Looks for the empty line; `input` begins where the head begins, and was given before up to where it ended then.
    /// Returns the length of the head with its empty line.
    pub(crate) fn find(&mut self, input: &[u8], max: usize) -> Result<Option<usize>, Refusal> {
        let mut at = self.seen;
        while let Some(&byte) = input.get(at) {
            match byte {
                b'\n' if at == 0 || input[at - 1] != b'\r' => {
                    return Err(Refusal::bad("a line ends without CR"));
                }
                b'\n' if input[..at].ends_with(b"\r\n\r") => {
                    self.seen = 0;
                    return Ok(Some(at + 1));
                }
                0 => return Err(Refusal::bad("a head contains NUL")),
                b'\n' => {}
                _ if at > 0 && input[at - 1] == b'\r' => {
                    return Err(Refusal::bad("a CR stands within a line"));
                }
                _ => {}
            }
            at += 1;
            if at >= max {
                return Err(Refusal::new(431, "the head is too large"));
            }
        }
        self.seen = at;
        Ok(None)
    }

    /// Forgets where it was.
    pub(crate) fn reset(&mut self) {
        self.seen = 0;
    }

    /// A head has begun.
    pub(crate) fn is_amid(&self) -> bool {
        self.seen > 0
    }
}

/// Reads a request's head.
pub(crate) fn request<'a, 'r>(
    head: &'a [u8],
    room: &'r mut Room<'a>,
    max_target_bytes: usize,
) -> Result<(RequestLine<'a>, &'r [Header<'a>]), Refusal> {
    let mut parsed = Request::new(room);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(used)) if used == head.len() => {}
        Ok(_) => return Err(Refusal::bad("the head is malformed")),
        Err(error) => return Err(words(error)),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refusal::bad("the request line is malformed"));
    };
    if target.len() > max_target_bytes {
        return Err(Refusal::new(414, "the request target is too long"));
    }
    let (authority, path) = split_target(method.as_bytes(), target)?;
    let line = RequestLine {
        method: method.as_bytes(),
        authority,
        path,
        is_1_1: minor == 1,
    };
    Ok((line, parsed.headers))
}

/// Reads a response's head.
pub(crate) fn response<'a, 'r>(
    head: &'a [u8],
    room: &'r mut Room<'a>,
) -> Result<(StatusLine, &'r [Header<'a>]), Refusal> {
    let mut parsed = Response::new(room);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(used)) if used == head.len() => {}
        Ok(_) => return Err(Refusal::bad("the head is malformed")),
        Err(error) => return Err(words(error)),
    }
    match (parsed.code, parsed.version) {
        (Some(status @ 100..), Some(minor)) => {
            let is_1_1 = minor == 1;
            Ok((StatusLine { status, is_1_1 }, parsed.headers))
        }
        _ => Err(Refusal::bad("the status line is malformed")),
    }
}

/// Reads a trailer section, its empty line included.
pub(crate) fn trailers<'a, 'r>(
    section: &'a [u8],
    room: &'r mut Room<'a>,
) -> Result<&'r [Header<'a>], Refusal> {
    match httparse::parse_headers(section, room) {
        Ok(httparse::Status::Complete((used, fields))) if used == section.len() => Ok(fields),
        Ok(_) => Err(Refusal::bad("the trailers are malformed")),
        Err(error) => Err(words(error)),
    }
}

/// The forms of RFC 9112 section 3.2; `CONNECT` with its own form makes tunnels that a gateway does not.
fn split_target<'a>(
    method: &[u8],
    target: &'a str,
) -> Result<(Option<&'a [u8]>, &'a [u8]), Refusal> {
    if method == b"CONNECT" {
        return Err(Refusal::new(
            501,
            "this gateway makes no tunnels by CONNECT",
        ));
    }
    let absolute = ["http://", "https://"].into_iter().find_map(|scheme| {
        let begin = target.get(..scheme.len())?;
        begin
            .eq_ignore_ascii_case(scheme)
            .then(|| &target.as_bytes()[scheme.len()..])
    });
    let (authority, path) = match absolute {
        None => (None, target.as_bytes()),
        Some(rest) => {
            let end = rest.iter().position(|byte| b"/?#".contains(byte));
            let (authority, path) = rest.split_at(end.unwrap_or(rest.len()));
            // An empty path is `/`; a query without a path has no form that HTTP could carry.
            let path: &[u8] = if path.is_empty() { b"/" } else { path };
            if authority.is_empty() || !syntax::is_authority(authority) {
                return Err(Refusal::bad("the authority of the target is malformed"));
            }
            (Some(authority), path)
        }
    };
    if !syntax::is_path(method, path) {
        return Err(Refusal::bad("the request target is malformed"));
    }
    Ok((authority, path))
}

fn words(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::new(431, "the head has too many fields"),
        httparse::Error::Version => Refusal::new(505, "the version of HTTP is not served"),
        httparse::Error::HeaderName => Refusal::bad("a field name is malformed"),
        httparse::Error::HeaderValue => Refusal::bad("a field value is malformed"),
        httparse::Error::Status => Refusal::bad("the status line is malformed"),
        _ => Refusal::bad("the head is malformed"),
    }
}
