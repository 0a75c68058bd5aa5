//! How the length of a body is told (RFC 9112 section 6).
//!
//! Strict where two readers could come to different lengths: two lengths, a length beside a coding, a coding other than
//! `chunked` alone, a coding in HTTP/1.0 are refused, whatever the RFC lets a lenient reader do.

use gateway_h2::syntax;
use httparse::Header;

use crate::fields::values;
use crate::refusal::Refusal;

/// What the fields say about a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    Nothing,
    Length(u64),
    Chunked,
}

/// Reads `content-length` and `transfer-encoding`.
pub(crate) fn said(fields: &[Header<'_>], is_1_1: bool) -> Result<Said, Refusal> {
    let mut codings = values(fields, "transfer-encoding");
    let coding = codings.next();
    let mut lengths = values(fields, "content-length");
    let length = lengths.next();
    if codings.next().is_some() || lengths.next().is_some() {
        return Err(Refusal::bad("the length of the body is told twice"));
    }
    match (coding, length) {
        (None, None) => Ok(Said::Nothing),
        (Some(_), Some(_)) => Err(Refusal::bad(
            "content-length stands beside transfer-encoding",
        )),
        (Some(_), None) if !is_1_1 => Err(Refusal::bad("HTTP/1.0 has no transfer-encoding")),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Said::Chunked),
        (Some(_), None) => Err(Refusal::new(501, "transfer-encoding must be `chunked`")),
        (None, Some(length)) => syntax::parse_length(length)
            .map(Said::Length)
            .ok_or(Refusal::bad("content-length is malformed")),
    }
}
