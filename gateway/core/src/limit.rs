//! Rate limits: whether a call passes now, and if not, when.
//!
//! Decides by token buckets that all workers of this gateway share: one for each limit, or one for
//! each combination of values of its `distinct` headers (a bounded number, see `keys`). A call must
//! pass every limit that counts it, and is counted by all or none. Leaves the answer
//! (`RESOURCE_EXHAUSTED` with the time to wait) to `gateway-proxy`.
//!
//! A `global` limit has a share of the whole, set from outside ([`RateLimit::set_share`]) by whoever
//! sees all gateways, from what each reports ([`RateLimit::demand`]). While nobody sets it the last
//! share stays: the limit is then neither open nor closed. The share is of the limit as a whole;
//! with `distinct` headers each value has this share of its limit here.
//!
//! Limits outlive snapshots: one that is configured as before goes on with its buckets.

mod bucket;
mod keys;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hashbrown::DefaultHashBuilder;

use self::bucket::{FullAt, Rate};
use self::keys::Keys;
use crate::ConfigError;
use crate::HeaderLookup;
use crate::config::{HeaderMatch, Name, RateLimitConfig};
use crate::route::HeaderMatcher;

/// The whole, in parts of a share.
const WHOLE: u32 = 1_000_000;
/// With no share at all: shares are set anew about this often.
const NO_SHARE_WAIT_MS: u64 = 1_000;

/// A compiled limit.
#[derive(Debug)]
pub struct RateLimit {
    config: RateLimitConfig,
    headers: Vec<HeaderMatcher>,
    /// Headers whose values are counted apart.
    distinct: Vec<Name>,
    counts: Counts,
    share_per_million: AtomicU32,
    /// When the share was set, plus one; 0: never.
    share_set_ms: AtomicU64,
    passed: AtomicU64,
    refused: AtomicU64,
    shared_key: AtomicU64,
}

#[derive(Debug)]
enum Counts {
    One(FullAt),
    /// By a hash that no client can foresee.
    Each(Keys, DefaultHashBuilder),
}

/// A call that may not pass now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// The limit with the longest wait.
    pub limit: Name,
    /// When it may pass, if nobody else comes.
    pub retry_after_ms: u64,
}

/// What a limit saw since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Calls that passed.
    pub passed: u64,
    /// Calls that did not.
    pub refused: u64,
    /// Calls that were counted together with others because there were too many distinct values.
    pub shared_key: u64,
}

// === impl Limited ===

impl Limited {
    /// The value of `retry-after`: whole seconds, rounded up.
    #[must_use]
    pub const fn retry_after_s(&self) -> u64 {
        self.retry_after_ms.div_ceil(1_000)
    }
}

// === impl RateLimit ===

impl RateLimit {
    /// `ConfigError::path` is relative to the limit.
    pub(crate) fn compile(config: RateLimitConfig) -> Result<Self, ConfigError> {
        let mut headers = Vec::new();
        let mut distinct = Vec::new();
        for (position, header) in config.headers.iter().enumerate() {
            if header.distinct == Some(true) {
                distinct.push(Name::clone(&header.name));
                continue;
            }
            let condition = HeaderMatch {
                name: Name::clone(&header.name),
                exact: header.exact.clone(),
                regex: header.regex.clone(),
                present: header.present,
            };
            let compiled = HeaderMatcher::compile(&condition);
            headers.push(compiled.map_err(|error| error.under(&format!("headers[{position}]")))?);
        }
        let share = if config.global {
            config.first_share_per_million
        } else {
            WHOLE
        };
        Ok(Self {
            counts: if distinct.is_empty() {
                Counts::One(FullAt::new(0))
            } else {
                Counts::Each(Keys::new(config.keys_max), DefaultHashBuilder::default())
            },
            headers,
            distinct,
            share_per_million: AtomicU32::new(share),
            share_set_ms: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            shared_key: AtomicU64::new(0),
            config,
        })
    }

    /// As configured.
    #[must_use]
    pub const fn config(&self) -> &RateLimitConfig {
        &self.config
    }

    /// Sets this gateway's share of a `global` limit, in millionths; more than the whole is the
    /// whole. What was let pass before stays counted.
    pub fn set_share(&self, per_million: u32, now_ms: u64) {
        if self.config.global {
            let share = per_million.min(WHOLE);
            self.share_per_million.store(share, Ordering::Relaxed);
            self.share_set_ms
                .store(now_ms.saturating_add(1), Ordering::Relaxed);
        }
    }

    /// The share in force, in millionths.
    #[must_use]
    pub fn share_per_million(&self) -> u32 {
        self.share_per_million.load(Ordering::Relaxed)
    }

    /// How long ago the share was set; `None`: it never was.
    #[must_use]
    pub fn share_age_ms(&self, now_ms: u64) -> Option<u64> {
        let set_ms = self.share_set_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now_ms.saturating_sub(set_ms))
    }

    /// What it saw since it was made.
    #[must_use]
    pub fn demand(&self) -> Demand {
        Demand {
            passed: self.passed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            shared_key: self.shared_key.load(Ordering::Relaxed),
        }
    }

    fn rate(&self) -> Option<Rate> {
        let unit_ms = self.config.unit.ms();
        Rate::new(self.config.requests, unit_ms, self.share_per_million())
    }

    /// The bucket that counts a call; `None`: this limit does not count it.
    fn bucket(&self, headers: &impl HeaderLookup, now_ns: u64) -> Option<&FullAt> {
        if !self.headers.iter().all(|header| header.matches(headers)) {
            return None;
        }
        match &self.counts {
            Counts::One(bucket) => Some(bucket),
            Counts::Each(keys, hasher) => {
                // Each with its length, so that values cannot run into each other.
                let mut values = [&[][..]; DISTINCT_MAX];
                for (value, name) in values.iter_mut().zip(&self.distinct) {
                    *value = headers.first(name)?;
                }
                let (bucket, own) = keys.bucket(hasher.hash_one(values), now_ns);
                if !own {
                    self.shared_key.fetch_add(1, Ordering::Relaxed);
                }
                Some(bucket)
            }
        }
    }

    /// The time to wait with neither requests nor a share.
    const fn closed_ms(&self) -> u64 {
        if self.config.requests == 0 {
            self.config.unit.ms()
        } else {
            NO_SHARE_WAIT_MS
        }
    }
}

/// Most `distinct` headers of one limit.
pub(crate) const DISTINCT_MAX: usize = 4;

/// Counts a call by every limit that it falls under.
///
/// # Errors
/// When one of them does not let it pass; then none has counted it (one may have, when another
/// worker took the last call of the other at the same moment).
pub(crate) fn pass<'a>(
    limits: &'a [Arc<RateLimit>],
    headers: &impl HeaderLookup,
    now_ms: u64,
) -> Result<(), Limited> {
    if limits.is_empty() {
        return Ok(());
    }
    let present = now_ms.saturating_mul(1_000_000);
    let counting = || {
        let with_bucket =
            |limit: &'a Arc<RateLimit>| Some((limit, limit.bucket(headers, present)?));
        limits.iter().filter_map(with_bucket)
    };
    if limits.len() > 1 {
        let waits = counting().filter_map(|(limit, bucket)| {
            let wait = limit.wait(|rate| rate.peek(bucket, present)).err()?;
            Some((wait, limit))
        });
        if let Some((wait_ms, limit)) = waits.max_by_key(|(wait_ms, _)| *wait_ms) {
            return Err(limit.refuse(wait_ms));
        }
    }
    for (limit, bucket) in counting() {
        limit
            .wait(|rate| rate.take(bucket, present))
            .map_err(|wait_ms| limit.refuse(wait_ms))?;
        limit.passed.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

impl RateLimit {
    fn wait(&self, ask: impl FnOnce(Rate) -> Result<(), u64>) -> Result<(), u64> {
        match self.rate() {
            Some(rate) => ask(rate).map_err(|wait_ns| wait_ns.div_ceil(1_000_000)),
            None => Err(self.closed_ms()),
        }
    }

    fn refuse(&self, retry_after_ms: u64) -> Limited {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Limited {
            limit: Name::clone(&self.config.name),
            retry_after_ms,
        }
    }
}

#[cfg(test)]
mod tests;
