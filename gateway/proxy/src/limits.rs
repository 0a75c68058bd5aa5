//! Rate limits: the answer to a call that may not pass, and what the owner reads and sets of them.
//!
//! The owner reports to whoever divides global limits among gateways, and sets what it is told. Messages are JSON; keys
//! are sixteen hexadecimal digits.

use std::collections::HashMap;
use std::sync::Arc;

use gateway_core::limit::RateLimit;
use gateway_core::{Name, Route, Snapshot};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::reply::Reply;
use crate::worker::Worker;

/// The share of one global limit, from outside.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Share {
    limit: Name,
    /// In millionths of the limit; `None`: the shares stay as they are, and are as good as new.
    #[serde(rename = "share_per_million", default)]
    per_million: Option<u32>,
    /// Of keys that have another share.
    #[serde(default)]
    keys: HashMap<String, u32>,
}

impl Worker {
    /// Counts a call that was over a limit. Such calls may come in floods: nothing is locked for them.
    pub fn count_limited(&mut self, route: &Arc<Route>, reply: &Reply) {
        self.stats.numbers.rate_limited.add(1);
        let key = self.routes.enter(route);
        self.routes
            .get_mut(key)
            .own_answers(&self.stats)
            .record(u32::from(reply.code.number()), 0);
        self.routes.leave(key);
    }
}

/// All limits with their counters.
pub(crate) fn summary(snapshot: &Snapshot, now_ms: u64) -> Value {
    let limits = snapshot.rate_limits();
    let mut all: Vec<Value> = limits.iter().map(|it| one(it, now_ms)).collect();
    all.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Value::Array(all)
}

/// What was asked of global limits, with at most `keys_max` keys of each; see `RateLimit::take_key_demand`. With
/// `all` also what counts still of what passed before.
pub(crate) fn demand(snapshot: &Snapshot, keys_max: usize, all: bool, now_ms: u64) -> Value {
    let limits = snapshot.rate_limits();
    let global = limits.iter().filter(|limit| limit.config().global);
    let all = global.map(|limit| {
        let demand = limit.demand();
        let keys = limit.take_key_demand(keys_max);
        let keys = keys
            .iter()
            .map(|it| json!([digits(it.key), it.passed, it.refused]));
        let outstanding = if all {
            limit.outstanding(keys_max, now_ms)
        } else {
            Vec::new()
        };
        let outstanding = outstanding
            .into_iter()
            .map(|(key, calls)| json!([key.map_or_else(String::new, digits), calls]));
        json!({
            "name": &*limit.config().name,
            "requests": limit.config().requests,
            "has_share": limit.share_age_ms(0).is_some(),
            "passed": demand.passed,
            "refused": demand.refused,
            "keys": keys.collect::<Vec<_>>(),
            "outstanding": outstanding.collect::<Vec<_>>(),
        })
    });
    Value::Array(all.collect())
}

/// Sets shares; of limits that are not there nothing is set.
///
/// # Errors
/// When the message is not one.
pub(crate) fn set(snapshot: &Snapshot, message: &[u8], now_ms: u64) -> Result<(), String> {
    let shares: Vec<Share> =
        serde_json::from_slice(message).map_err(|error| format!("shares: {error}"))?;
    let limits = snapshot.rate_limits();
    for share in shares {
        let keys = share.keys.iter().map(|(key, share)| {
            let number = u64::from_str_radix(key, 16);
            Ok((
                number.map_err(|error| format!("key `{key}`: {error}"))?,
                *share,
            ))
        });
        let keys = keys.collect::<Result<Vec<_>, String>>()?;
        let named = limits
            .iter()
            .filter(|limit| limit.config().name == share.limit);
        for limit in named {
            match share.per_million {
                Some(per_million) => limit.set_share(per_million, &keys, now_ms),
                None => limit.confirm_share(now_ms),
            }
        }
    }
    Ok(())
}

fn digits(key: u64) -> String {
    format!("{key:016x}")
}

fn one(limit: &RateLimit, now_ms: u64) -> Value {
    let demand = limit.demand();
    json!({
        "name": &*limit.config().name,
        "global": limit.config().global,
        "passed": demand.passed,
        "refused": demand.refused,
        "shared_key": demand.shared_key,
        "share_per_million": limit.share_per_million(),
        "keys_with_shares": limit.keys_with_shares(),
        "share_age_ms": limit.share_age_ms(now_ms),
    })
}
