//! Rate limits: whether a call passes now, and if not, when.
//!
//! Decides by token buckets that all workers of this gateway share: one for each limit, or one for
//! each combination of values of its `distinct` headers (a bounded number, see `keys`). A call must
//! pass every limit that counts it, and is counted by all or none. Leaves the answer
//! (`RESOURCE_EXHAUSTED` with the time to wait) to `gateway-proxy`.
//!
//! A `global` limit has a share of the whole, set from outside ([`RateLimit::set_share`]) by whoever
//! sees all gateways, from what each reports ([`RateLimit::demand`], [`RateLimit::take_key_demand`]).
//! While nobody sets it the last share stays: the limit is then neither open nor closed. With
//! `distinct` headers a key may have a share of its own; the others have that of the limit.
//!
//! Limits outlive snapshots: one that is configured as before goes on with its buckets.

mod bucket;
mod keys;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hashbrown::{DefaultHashBuilder, HashMap};

use self::bucket::{FullAt, Rate};
pub use self::keys::KeyDemand;
use self::keys::{Keys, Place, name_of};
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
                let keys = Keys::new(config.keys_max, config.global);
                Counts::Each(keys, DefaultHashBuilder::default())
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
    /// whole. With `distinct` headers `keys` have shares of their own, by the names that
    /// [`Self::take_key_demand`] gave them; at most as many as the limit has keys. What was let
    /// pass before stays counted.
    pub fn set_share(&self, per_million: u32, keys: &[(u64, u32)], now_ms: u64) {
        if !self.config.global {
            return;
        }
        let present = now_ms.saturating_mul(1_000_000);
        let share = per_million.min(WHOLE);
        let before = self.share_per_million.swap(share, Ordering::Relaxed);
        let rescale = |bucket: &FullAt, before: u32, now: u32| {
            if before != now
                && let (Some(before), Some(now)) = (self.rate(before), self.rate(now))
            {
                now.rescale(bucket, before, present);
            }
        };
        match &self.counts {
            Counts::One(bucket) => rescale(bucket, before, share),
            Counts::Each(all, _) => {
                let keys = keys.iter().take(self.config.keys_max as usize);
                let keys = keys.map(|(key, share)| (*key, (*share).min(WHOLE)));
                all.assign(keys.collect::<HashMap<_, _>>(), (before, share), rescale);
            }
        }
        self.share_set_ms
            .store(now_ms.saturating_add(1), Ordering::Relaxed);
    }

    /// The shares in force are those that [`Self::set_share`] would set now.
    pub fn confirm_share(&self, now_ms: u64) {
        if self.share_set_ms.load(Ordering::Relaxed) > 0 {
            self.share_set_ms
                .store(now_ms.saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Of a `global` limit with `distinct` headers: what was asked for by key since the last time,
    /// most first. At most `max` keys; what the others asked for is forgotten.
    #[must_use]
    pub fn take_key_demand(&self, max: usize) -> Vec<KeyDemand> {
        match &self.counts {
            Counts::One(_) => Vec::new(),
            Counts::Each(keys, _) => keys.take_demand(max),
        }
    }

    /// The share in force, in millionths.
    #[must_use]
    pub fn share_per_million(&self) -> u32 {
        self.share_per_million.load(Ordering::Relaxed)
    }

    /// How many keys have shares of their own.
    #[must_use]
    pub fn keys_with_shares(&self) -> usize {
        match &self.counts {
            Counts::One(_) => 0,
            Counts::Each(keys, _) => keys.assigned(),
        }
    }

    /// How long ago the share was set; `None`: it never was.
    #[must_use]
    pub fn share_age_ms(&self, now_ms: u64) -> Option<u64> {
        let set_ms = self.share_set_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now_ms.saturating_sub(set_ms))
    }

    /// Calls that passed and count still, at most `max` keys of them, most first; `None` stands for
    /// a limit without keys.
    #[must_use]
    pub fn outstanding(&self, max: usize, now_ms: u64) -> Vec<(Option<u64>, u64)> {
        let present = now_ms.saturating_mul(1_000_000);
        let of_the_limit = self.share_per_million();
        let lacking = |bucket: &FullAt, share| {
            let rate = self.rate(share)?;
            Some(rate.lacking(bucket, present)).filter(|calls| *calls > 0)
        };
        let mut found: Vec<_> = match &self.counts {
            Counts::One(bucket) => lacking(bucket, of_the_limit)
                .map(|calls| (None, calls))
                .into_iter()
                .collect(),
            Counts::Each(keys, _) => keys
                .named()
                .filter_map(|(bucket, key)| {
                    let calls = lacking(bucket, key.share(of_the_limit))?;
                    Some((Some(key.name()), calls))
                })
                .collect(),
        };
        found.sort_by_key(|(key, calls)| (std::cmp::Reverse(*calls), *key));
        found.truncate(max);
        found
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

    fn rate(&self, share_per_million: u32) -> Option<Rate> {
        Rate::new(
            self.config.requests,
            self.config.unit.ms(),
            share_per_million,
        )
    }

    /// The bucket that counts a call; `None`: this limit does not count it.
    fn bucket(&self, headers: &impl HeaderLookup, now_ns: u64) -> Option<Place<'_>> {
        if !self.headers.iter().all(|header| header.matches(headers)) {
            return None;
        }
        match &self.counts {
            Counts::One(full_at) => Some(Place {
                full_at,
                shared: None,
                own: true,
            }),
            Counts::Each(keys, hasher) => {
                let mut values = [&[][..]; DISTINCT_MAX];
                for (value, name) in values.iter_mut().zip(&self.distinct) {
                    *value = headers.first(name)?;
                }
                let name = || name_of(&values[..self.distinct.len()]);
                // Slices are hashed with their lengths: values cannot run into each other.
                let place = keys.place(hasher.hash_one(values), now_ns, name);
                if !place.own {
                    self.shared_key.fetch_add(1, Ordering::Relaxed);
                }
                Some(place)
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
        let waits = counting().filter_map(|(limit, place)| {
            let wait = limit.wait(&place, |rate| rate.peek(place.full_at, present));
            Some((wait.err()?, limit, place))
        });
        if let Some((wait_ms, limit, place)) = waits.max_by_key(|(wait_ms, ..)| *wait_ms) {
            return Err(limit.refuse(&place, wait_ms));
        }
    }
    for (limit, place) in counting() {
        limit
            .wait(&place, |rate| rate.take(place.full_at, present))
            .map_err(|wait_ms| limit.refuse(&place, wait_ms))?;
        limit.passed.fetch_add(1, Ordering::Relaxed);
        if let Some(key) = place.shared {
            key.count(true);
        }
    }
    Ok(())
}

impl RateLimit {
    fn wait(
        &self,
        place: &Place<'_>,
        ask: impl FnOnce(Rate) -> Result<(), u64>,
    ) -> Result<(), u64> {
        let of_the_limit = self.share_per_million();
        let share = place
            .shared
            .map_or(of_the_limit, |key| key.share(of_the_limit));
        match self.rate(share) {
            Some(rate) => ask(rate).map_err(|wait_ns| {
                let wait_ms = wait_ns.div_ceil(1_000_000);
                // A share that has shrunk may leave a bucket far from full; it grows with demand.
                if self.config.global {
                    wait_ms.min(self.config.unit.ms())
                } else {
                    wait_ms
                }
            }),
            None => Err(self.closed_ms()),
        }
    }

    fn refuse(&self, place: &Place<'_>, retry_after_ms: u64) -> Limited {
        self.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(key) = place.shared {
            key.count(false);
        }
        Limited {
            limit: Name::clone(&self.config.name),
            retry_after_ms,
        }
    }
}

#[cfg(test)]
mod tests;
