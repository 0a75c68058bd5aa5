//! gRPC codes: names, and how other protocols' failures map to them.

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

impl Code {
    /// The code of a number; `None` above 16.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        let _ = number;
        unimplemented!()
    }

    /// Reads the value of `grpc-status`; anything that is no code is UNKNOWN.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        let _ = value;
        unimplemented!()
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The number as it stands in `grpc-status`.
    #[must_use]
    pub const fn digits(self) -> &'static str {
        unimplemented!()
    }

    /// `UNAVAILABLE` and so on.
    #[must_use]
    pub const fn name(self) -> &'static str {
        unimplemented!()
    }
}

/// The code of an answer that has no `grpc-status`, by its HTTP status.
#[must_use]
pub const fn http_to_grpc(status: u16) -> Code {
    let _ = status;
    unimplemented!()
}

/// The code of a stream that was reset, by the HTTP/2 error code.
#[must_use]
pub const fn reset_to_grpc(error_code: u32) -> Code {
    let _ = error_code;
    unimplemented!()
}

/// Appends text as `grpc-message`: percent-encoded UTF-8.
pub fn encode_message(text: &str, out: &mut Vec<u8>) {
    let _ = (text, out);
    unimplemented!()
}
