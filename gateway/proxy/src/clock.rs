//! The one place that reads a clock. Everything else is handed milliseconds.
//!
//! All workers of a runtime share one origin, so that moments written by one (an ejection, a connect failure)
//! can be compared by another. The count starts above zero: 0 may mean "never" in shared state.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const ORIGIN_MS: u64 = 1_000;

/// Monotonic milliseconds since a shared origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    unix_origin_us: u64,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self {
            origin: Instant::now(),
            unix_origin_us: unix.as_micros() as u64,
        }
    }

    /// The present moment.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.origin.elapsed().as_millis() as u64 + ORIGIN_MS
    }

    /// Microseconds of the same count, for latencies.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64 + ORIGIN_MS * 1_000
    }

    /// The calendar time (milliseconds of the Unix epoch) of a moment of this clock.
    #[must_use]
    pub fn unix_ms(&self, at_ms: u64) -> u64 {
        self.unix_us(at_ms * 1_000) / 1_000
    }

    /// The same in microseconds.
    #[must_use]
    pub fn unix_us(&self, at_us: u64) -> u64 {
        (self.unix_origin_us + at_us).saturating_sub(ORIGIN_MS * 1_000)
    }
}
