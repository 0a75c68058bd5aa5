//! What clients do against the rules: counting it, and ending what is never finished.
//!
//! Decides how long a header block may take. Leaves to others: the budgets themselves and what they end
//! (`gateway-h2`), connections that do not begin (`downstream`), and silent ones (`liveness`, `idleness`).

use gateway_h2::{Abuse, ConnectionError};

use crate::conn::{Conn, Death, Side};
use crate::stats::Numbers;
use crate::worker::Worker;

/// A client connection's faulty streams, as far as they are in the worker's counters.
#[derive(Clone, Copy, Default)]
pub(crate) struct StreamFaults {
    refused: u64,
    errors: u64,
    too_large: u64,
}

impl Worker {
    /// A connection ended because its peer broke the protocol or a limit.
    pub fn count_violation(&mut self, error: ConnectionError) {
        let numbers = &self.stats.numbers;
        numbers.protocol_errors.add(1);
        let counter = match error.abuse {
            None => return,
            Some(Abuse::Resets) => &numbers.abuse_resets,
            Some(Abuse::Continuations) => &numbers.abuse_continuations,
            Some(Abuse::Pings) => &numbers.abuse_pings,
            Some(Abuse::Settings) => &numbers.abuse_settings,
            Some(Abuse::EmptyData) => &numbers.abuse_empty_data,
            Some(Abuse::WindowUpdates) => &numbers.abuse_window_updates,
            Some(Abuse::Ignored) => &numbers.abuse_ignored,
            Some(Abuse::UnreadAnswers) => &numbers.abuse_unread_answers,
        };
        counter.add(1);
    }

    /// Once a second: counts faulty streams, and ends clients whose header block does not end.
    pub fn look_for_abuse(&mut self) {
        let (now_ms, patience_ms) = (self.now_ms, self.settings.handshake_timeout_ms);
        let mut late = Vec::new();
        for (key, conn) in &mut self.conns {
            if matches!(conn.side, Side::Up(_)) {
                continue;
            }
            count_stream_faults(conn, &self.stats.numbers);
            if !conn.is_amid_headers() {
                conn.amid_headers_since_ms = None;
            } else if now_ms - *conn.amid_headers_since_ms.get_or_insert(now_ms) >= patience_ms {
                late.push(key);
            }
        }
        for key in late {
            self.stats.numbers.slow_headers_ended.add(1);
            self.kill(key, Death::Closed);
        }
    }
}

/// Adds what is new since the last time.
pub(crate) fn count_stream_faults(conn: &mut Conn, numbers: &Numbers) {
    let stats = conn.codec.stats();
    let now = StreamFaults {
        refused: stats.streams_refused,
        errors: stats.stream_errors,
        too_large: stats.header_lists_too_large,
    };
    let before = std::mem::replace(&mut conn.counted_faults, now);
    numbers.streams_refused.add(now.refused - before.refused);
    numbers.stream_errors.add(now.errors - before.errors);
    numbers
        .header_lists_too_large
        .add(now.too_large - before.too_large);
}
