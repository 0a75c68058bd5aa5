//! What a received header list must look like (RFC 9113 sections 8.1.1, 8.2, 8.3, 8.5).
//!
//! Decides whether a list is well formed and what its `content-length` says. A malformed list is an
//! error of its stream, never of the connection. Names are classified once, when HPACK first sees
//! them: the table remembers the class, so checking a list that repeats costs a few comparisons.

use crate::event::{Events, FieldSpan, HeaderBlock};

/// What a field's name means to this layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NameKind {
    Regular,
    /// Not a lower-case token.
    Invalid,
    Method,
    Scheme,
    Authority,
    Path,
    /// `:protocol`, extended CONNECT (RFC 8441); we do not announce it, so it is not allowed.
    Protocol,
    Status,
    /// Forbidden in HTTP/2 (section 8.2.2).
    ConnectionSpecific,
    Te,
    ContentLength,
    Host,
}

/// Which list is expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ListKind {
    Request,
    Response,
    Trailers,
}

/// What a well-formed list says to this layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Checked {
    pub(crate) content_length: Option<u64>,
    /// A 1xx response.
    pub(crate) informational: bool,
}

/// The list is malformed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed;

/// The pseudo headers of a list, each at most once.
#[derive(Default)]
struct Pseudo<'a> {
    method: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    status: Option<&'a [u8]>,
}

/// Bytes of a lower-case token (RFC 9110 section 5.6.2 without `A-Z`).
static NAME_BYTES: [bool; 256] = name_bytes();

/// Classifies a name as it came.
pub(crate) fn classify(name: &[u8]) -> NameKind {
    match name {
        b"te" => NameKind::Te,
        b"content-length" => NameKind::ContentLength,
        b"host" => NameKind::Host,
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
            NameKind::ConnectionSpecific
        }
        b":method" => NameKind::Method,
        b":scheme" => NameKind::Scheme,
        b":authority" => NameKind::Authority,
        b":path" => NameKind::Path,
        b":protocol" => NameKind::Protocol,
        b":status" => NameKind::Status,
        [] => NameKind::Invalid,
        _ if name.iter().all(|&byte| NAME_BYTES[usize::from(byte)]) => NameKind::Regular,
        _ => NameKind::Invalid,
    }
}

/// No control characters but tab, no white space at either end (section 8.2.1; RFC 9110 section 5.5).
#[must_use]
pub fn value_ok(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    // Without early exit, so that the compiler can look at many bytes at a time.
    let bad = value.iter().fold(0, |bad, &byte| {
        bad | (u8::from(byte < 0x20) & u8::from(byte != b'\t')) | u8::from(byte == 0x7f)
    });
    bad == 0 && !is_blank(value.first()) && !is_blank(value.last())
}

/// Checks a decoded list.
pub(crate) fn check(
    events: &Events,
    block: HeaderBlock,
    kind: ListKind,
) -> Result<Checked, Malformed> {
    let spans = &events.fields[block.first as usize..][..block.count as usize];
    let mut pseudo = Pseudo::default();
    let mut content_length = None;
    let mut host = None;
    let mut regular_seen = false;
    for span in spans {
        let value = &events.bytes[span.value()];
        if !span.value_ok {
            return Err(Malformed);
        }
        match span.kind {
            NameKind::Regular => regular_seen = true,
            NameKind::Host => {
                regular_seen = true;
                if host.replace(value).is_some() {
                    return Err(Malformed);
                }
            }
            NameKind::Te if value.eq_ignore_ascii_case(b"trailers") => regular_seen = true,
            NameKind::ContentLength => {
                regular_seen = true;
                let length = Some(parse_length(value).ok_or(Malformed)?);
                if content_length.is_some_and(|_| content_length != length) {
                    return Err(Malformed);
                }
                content_length = length;
            }
            NameKind::Te | NameKind::Invalid | NameKind::ConnectionSpecific => {
                return Err(Malformed);
            }
            _ if regular_seen => return Err(Malformed),
            _ => pseudo.take(span, value)?,
        }
    }
    let informational = match kind {
        ListKind::Request => pseudo.check_request(host).map(|()| false),
        ListKind::Response => pseudo.check_response(),
        ListKind::Trailers => pseudo.check_absent().map(|()| false),
    }?;
    Ok(Checked {
        content_length,
        informational,
    })
}

// === impl Pseudo ===

impl<'a> Pseudo<'a> {
    fn take(&mut self, span: &FieldSpan, value: &'a [u8]) -> Result<(), Malformed> {
        let place = match span.kind {
            NameKind::Method => &mut self.method,
            NameKind::Scheme => &mut self.scheme,
            NameKind::Authority => &mut self.authority,
            NameKind::Path => &mut self.path,
            NameKind::Status => &mut self.status,
            _ => return Err(Malformed),
        };
        if place.replace(value).is_some() {
            Err(Malformed)
        } else {
            Ok(())
        }
    }

    /// Section 8.3.1, and 8.5 for CONNECT.
    fn check_request(&self, host: Option<&[u8]>) -> Result<(), Malformed> {
        let method = self.method.filter(|it| is_token(it)).ok_or(Malformed)?;
        let names = [self.authority, host].into_iter().flatten();
        if self.status.is_some() || !names.clone().all(is_authority) {
            return Err(Malformed);
        }
        if method == b"CONNECT" {
            let alone = self.scheme.is_none() && self.path.is_none() && self.authority.is_some();
            return if alone { Ok(()) } else { Err(Malformed) };
        }
        let scheme_ok = self.scheme.is_some_and(is_scheme);
        let path_ok = match self.path {
            Some(path) => is_path(method, path),
            None => false,
        };
        if scheme_ok && path_ok {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    /// Section 8.3.2; says whether the response is informational. 101 does not exist in HTTP/2
    /// (section 8.6).
    fn check_response(&self) -> Result<bool, Malformed> {
        let has_request_parts = self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some();
        match self.status {
            Some(b"101") => Err(Malformed),
            Some([first @ b'1'..=b'9', b'0'..=b'9', b'0'..=b'9']) if !has_request_parts => {
                Ok(*first == b'1')
            }
            _ => Err(Malformed),
        }
    }

    /// Trailers have none (section 8.1).
    fn check_absent(&self) -> Result<(), Malformed> {
        let Self {
            method,
            scheme,
            authority,
            path,
            status,
        } = self;
        let any = [method, scheme, authority, path, status]
            .iter()
            .any(|part| part.is_some());
        if any { Err(Malformed) } else { Ok(()) }
    }
}

/// A method (RFC 9110 section 9.1).
#[must_use]
pub fn is_token(value: &[u8]) -> bool {
    let is_in_token = |byte: &u8| byte.is_ascii_uppercase() || NAME_BYTES[usize::from(*byte)];
    !value.is_empty() && value.iter().all(is_in_token)
}

/// RFC 3986 section 3.1.
fn is_scheme(value: &[u8]) -> bool {
    value.first().is_some_and(u8::is_ascii_alphabetic)
        && value
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
}

/// A path with its query, or `*` of OPTIONS (section 8.3.1).
#[must_use]
pub fn is_path(method: &[u8], path: &[u8]) -> bool {
    match path {
        b"*" => method == b"OPTIONS",
        _ => path.first() == Some(&b'/') && is_visible(path, b"#"),
    }
}

/// Host and port: no user info (section 8.3.1), nothing that begins another part of a URI.
#[must_use]
pub fn is_authority(value: &[u8]) -> bool {
    is_visible(value, b"@/?#\\\"<>^`{|}")
}

/// ASCII that can be seen, none of `except`.
fn is_visible(value: &[u8], except: &[u8]) -> bool {
    value
        .iter()
        .all(|byte| byte.is_ascii_graphic() && !except.contains(byte))
}

/// What a `content-length` says; 18 digits are read, which always fit.
#[must_use]
pub fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0, |length, &byte| {
        byte.is_ascii_digit()
            .then(|| length * 10 + u64::from(byte - b'0'))
    })
}

const fn name_bytes() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = matches!(
            byte as u8,
            b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
                | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        byte += 1;
    }
    table
}
