//! Why a head or a body cannot be taken, and how a server says so.

use gateway_h2::{ConnectionError, ErrorCode};

/// A rule that the peer broke; `reason` never contains bytes of the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
}

// === impl Refusal ===

impl Refusal {
    pub(crate) const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }

    pub(crate) const fn bad(reason: &'static str) -> Self {
        Self::new(400, reason)
    }

    pub(crate) fn as_error(self) -> ConnectionError {
        ConnectionError {
            code: ErrorCode::ProtocolError,
            reason: self.reason,
            abuse: None,
        }
    }

    /// The whole answer of a server; the connection ends behind it.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let Self { status, reason } = self;
        let words = phrase(status);
        let len = reason.len() + 1;
        let head = format!(
            "HTTP/1.1 {status} {words}\r\ncontent-type: text/plain; charset=utf-8\r\n\
             content-length: {len}\r\nconnection: close\r\n\r\n{reason}\n"
        );
        out.extend_from_slice(head.as_bytes());
    }
}

/// The words beside a status code; nobody may rely on them (RFC 9112 section 4).
pub(crate) const fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
