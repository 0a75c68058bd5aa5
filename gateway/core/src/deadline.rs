//! `grpc-timeout`: at most eight digits and a unit.

/// A `grpc-timeout` that is none; the call is answered INTERNAL or treated as without, as the caller decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("grpc-timeout must be one to eight digits and one of H, M, S, m, u, n")]
pub struct InvalidTimeout;

/// Reads `grpc-timeout` as milliseconds, rounded up.
///
/// # Errors
/// When it is not one to eight digits and a unit.
pub fn parse_grpc_timeout(value: &[u8]) -> Result<u64, InvalidTimeout> {
    let _ = value;
    unimplemented!()
}

/// Writes milliseconds as `grpc-timeout`, rounded down to what eight digits hold; 0 becomes the smallest there is.
pub fn format_grpc_timeout(ms: u64, buffer: &mut [u8; 16]) -> &str {
    let _ = (ms, buffer);
    unimplemented!()
}
