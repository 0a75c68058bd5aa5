//! gRPC codes: names, and how other protocols' failures map to them.
//!
//! Mappings are those of `doc/http-grpc-status-mapping.md` and `doc/PROTOCOL-HTTP2.md` of
//! grpc/grpc. A gateway does not invent codes that describe the application's data (gRFC A54), so
//! none of these maps leads to one.

/// A gRPC status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // the names of the gRPC specification
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// Every code with its digits and its name; the position is the number.
const CODES: [(Code, &str, &str); 17] = [
    (Code::Ok, "0", "OK"),
    (Code::Cancelled, "1", "CANCELLED"),
    (Code::Unknown, "2", "UNKNOWN"),
    (Code::InvalidArgument, "3", "INVALID_ARGUMENT"),
    (Code::DeadlineExceeded, "4", "DEADLINE_EXCEEDED"),
    (Code::NotFound, "5", "NOT_FOUND"),
    (Code::AlreadyExists, "6", "ALREADY_EXISTS"),
    (Code::PermissionDenied, "7", "PERMISSION_DENIED"),
    (Code::ResourceExhausted, "8", "RESOURCE_EXHAUSTED"),
    (Code::FailedPrecondition, "9", "FAILED_PRECONDITION"),
    (Code::Aborted, "10", "ABORTED"),
    (Code::OutOfRange, "11", "OUT_OF_RANGE"),
    (Code::Unimplemented, "12", "UNIMPLEMENTED"),
    (Code::Internal, "13", "INTERNAL"),
    (Code::Unavailable, "14", "UNAVAILABLE"),
    (Code::DataLoss, "15", "DATA_LOSS"),
    (Code::Unauthenticated, "16", "UNAUTHENTICATED"),
];

impl Code {
    /// The code of a number; `None` above 16.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        if (number as usize) < CODES.len() {
            Some(CODES[number as usize].0)
        } else {
            None
        }
    }

    /// Reads the value of `grpc-status`; anything that is no code is UNKNOWN.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        let number = match value {
            [ones @ b'0'..=b'9'] => ones - b'0',
            [b'1', ones @ b'0'..=b'9'] => 10 + ones - b'0',
            _ => return Self::Unknown,
        };
        Self::from_number(number.into()).unwrap_or(Self::Unknown)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The number as it stands in `grpc-status`.
    #[must_use]
    pub const fn digits(self) -> &'static str {
        CODES[self as usize].1
    }

    /// `UNAVAILABLE` and so on.
    #[must_use]
    pub const fn name(self) -> &'static str {
        CODES[self as usize].2
    }
}

/// The code of an answer that has no `grpc-status`, by its HTTP status.
#[must_use]
pub const fn http_to_grpc(status: u16) -> Code {
    match status {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// The code of a stream that was reset, by the HTTP/2 error code (RFC 9113, section 7).
#[must_use]
pub const fn reset_to_grpc(error_code: u32) -> Code {
    const REFUSED_STREAM: u32 = 0x7;
    const CANCEL: u32 = 0x8;
    const ENHANCE_YOUR_CALM: u32 = 0xb;
    const INADEQUATE_SECURITY: u32 = 0xc;
    match error_code {
        REFUSED_STREAM => Code::Unavailable,
        CANCEL => Code::Cancelled,
        ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

/// Appends text as `grpc-message`: bytes outside printable ASCII, and `%`, as `%XX` of their UTF-8.
pub fn encode_message(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(byte);
        } else {
            out.extend([
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 0xf)],
            ]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_digits_and_positions_agree() {
        for (position, (code, digits, _)) in CODES.iter().enumerate() {
            assert_eq!(usize::from(code.number()), position);
            assert_eq!(digits.parse(), Ok(position));
            assert_eq!(Code::parse(digits.as_bytes()), *code);
        }
        assert_eq!(Code::from_number(17), None);
    }

    #[test]
    fn what_is_no_code_is_unknown() {
        for value in ["", "17", "-1", "00", "014", "999999999999", "OK"] {
            assert_eq!(Code::parse(value.as_bytes()), Code::Unknown, "{value:?}");
        }
    }

    #[test]
    fn http_statuses_map_as_specified() {
        let table = [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (429, 14),
            (502, 14),
            (503, 14),
            (504, 14),
            (500, 2),
            (200, 2),
        ];
        for (http, grpc) in table {
            assert_eq!(http_to_grpc(http).number(), grpc, "{http}");
        }
    }

    #[test]
    fn resets_map_as_specified() {
        let table = [
            (0, 13),
            (1, 13),
            (2, 13),
            (3, 13),
            (7, 14),
            (8, 1),
            (0xb, 8),
            (0xc, 7),
            (0xff, 13),
        ];
        for (error, grpc) in table {
            assert_eq!(reset_to_grpc(error).number(), grpc, "{error}");
        }
    }

    #[test]
    fn messages_are_percent_encoded() {
        let mut out = Vec::new();
        encode_message("100% née\n", &mut out);
        assert_eq!(out, b"100%25 n%C3%A9e%0A");
    }

    proptest! {
        #[test]
        fn encoded_messages_are_printable_and_decode_to_the_text(text in ".*") {
            let mut out = Vec::new();
            encode_message(&text, &mut out);
            prop_assert!(out.iter().all(|byte| (b' '..=b'~').contains(byte)));
            let mut decoded = Vec::new();
            let mut bytes = out.iter();
            while let Some(&byte) = bytes.next() {
                if byte == b'%' {
                    let hex = [*bytes.next().unwrap(), *bytes.next().unwrap()];
                    let hex = std::str::from_utf8(&hex).unwrap();
                    decoded.push(u8::from_str_radix(hex, 16).unwrap());
                } else {
                    decoded.push(byte);
                }
            }
            prop_assert_eq!(decoded, text.into_bytes());
        }
    }
}
