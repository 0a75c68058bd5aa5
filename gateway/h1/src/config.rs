//! What one connection may use.

use gateway_h2::Role;

/// Sizes and limits of one connection; fixed for its life.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which end we are.
    pub role: Role,
    /// What `:scheme` of requests says (server role): the bytes come over TLS.
    pub secure: bool,
    /// Largest head (request or status line, and all fields) and largest trailer section, bytes. The caller's read buffer
    /// must hold more than this.
    pub max_head_bytes: usize,
    /// Largest request target, bytes.
    pub max_target_bytes: usize,
    /// Body bytes that the caller may hold on to before no more are read.
    pub window: u32,
    /// With this many bytes in the output, body bytes count as queued.
    pub output_high_water: usize,
    /// Body bytes that may be queued beyond that; above it `send_data` says `QueueFull`.
    pub queue_max: usize,
    /// Bytes behind a request that may wait for its answer (pipelining).
    pub pipeline_max: usize,
}

/// Fields of one head.
pub(crate) const FIELDS_MAX: usize = 128;
/// Interim responses to one request.
pub(crate) const INFORMATIONAL_MAX: u32 = 16;

// === impl Config ===

impl Config {
    /// Defaults for a server.
    #[must_use]
    pub fn server() -> Self {
        Self::new(Role::Server)
    }

    /// Defaults for a client.
    #[must_use]
    pub fn client() -> Self {
        Self::new(Role::Client)
    }

    fn new(role: Role) -> Self {
        Self {
            role,
            secure: false,
            max_head_bytes: 32 << 10,
            max_target_bytes: 8 << 10,
            window: 64 << 10,
            output_high_water: 64 << 10,
            queue_max: 1 << 20,
            pipeline_max: 16 << 10,
        }
    }
}
