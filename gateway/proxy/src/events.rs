//! What the runtime tells its owner beside numbers: a bounded list of state changes, pulled, never pushed.
//!
//! At the bound the oldest notice is dropped and counted. Nothing here is on the request path: a notice is a
//! change of state (an ejection, a listener that failed), not a call.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

const NOTICES_MAX: usize = 4_096;

/// One state change.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Notice {
    /// An endpoint failed too often and gets no traffic until the given Unix time.
    Ejection {
        /// Cluster name.
        cluster: String,
        /// Endpoint address.
        address: String,
        /// When it returns, milliseconds of the Unix epoch.
        until_unix_ms: u64,
    },
    /// The time of an ejected endpoint is over: it gets traffic again.
    Uneject {
        /// Cluster name.
        cluster: String,
        /// Endpoint address.
        address: String,
    },
    /// An endpoint cannot be reached.
    EndpointDown {
        /// Cluster name.
        cluster: String,
        /// Endpoint address.
        address: String,
        /// What failed.
        reason: String,
    },
    /// An endpoint that could not be reached can be reached again.
    EndpointUp {
        /// Cluster name.
        cluster: String,
        /// Endpoint address.
        address: String,
    },
    /// Streams on a draining endpoint were asked to move.
    DrainStarted {
        /// Cluster name.
        cluster: String,
        /// Endpoint address.
        address: String,
        /// Streams open on it now.
        streams: u64,
    },
    /// The grace period of a draining endpoint is over; what was left was ended with UNAVAILABLE.
    StreamsEnded {
        /// Cluster name.
        cluster: String,
        /// Endpoint address.
        address: String,
        /// Streams that were ended.
        streams: u64,
    },
    /// A listener cannot serve (or not with its new certificate).
    ListenerError {
        /// Listener name.
        listener: String,
        /// What failed and why.
        error: String,
    },
    /// Connections to the peer gateways of a cluster cannot be made, or not with the new certificate.
    PeerTlsError {
        /// Cluster name.
        cluster: String,
        /// What failed and why.
        error: String,
    },
    /// Access logs in files cannot be written at all.
    AccessLogError {
        /// What failed and why.
        error: String,
    },
    /// Too many bugs were met: the gateway drains itself and has to be started again.
    GaveUp {
        /// Panics so far.
        panics: u64,
    },
    /// A bug: the connection it happened on was closed.
    Panic {
        /// Panic message.
        message: String,
    },
}

/// The list; shared by workers and the owner.
#[derive(Debug, Default)]
pub struct NoticeLog {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Notice>,
    dropped: u64,
}

// === impl NoticeLog ===

impl NoticeLog {
    /// Appends a notice, at the bound in place of the oldest.
    pub fn push(&self, notice: Notice) {
        let mut inner = self.lock();
        if inner.queue.len() == NOTICES_MAX {
            inner.queue.pop_front();
            inner.dropped += 1;
        }
        inner.queue.push_back(notice);
    }

    /// Takes up to `max` notices, oldest first.
    pub fn take(&self, max: usize) -> Vec<Notice> {
        let mut inner = self.lock();
        let count = max.min(inner.queue.len());
        inner.queue.drain(..count).collect()
    }

    /// Notices lost at the bound so far.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{NOTICES_MAX, Notice, NoticeLog};

    #[test]
    fn drops_the_oldest_at_the_bound_and_counts() {
        let log = NoticeLog::default();
        for number in 0..NOTICES_MAX + 2 {
            log.push(Notice::Panic {
                message: number.to_string(),
            });
        }
        assert_eq!(log.dropped(), 2);
        let oldest = log.take(1);
        assert_eq!(
            oldest,
            [Notice::Panic {
                message: "2".to_owned()
            }]
        );
        assert_eq!(log.take(usize::MAX).len(), NOTICES_MAX - 1);
    }
}
