//! Checks of limits, faults, mirrors and sessions.

use super::route::{grpc_reply, header_name, header_ops};
use super::{Checked, cookie_name, each, ensure, named, positive, under, within};
use crate::config::{Fault, LimitHeader, Mirror, RateLimitConfig, Session, SessionKind};
use crate::limit::DISTINCT_MAX;

const MILLION: u64 = 1_000_000;
/// Calls a second: below the time that buckets can tell apart, and above what one gateway serves.
const PER_SECOND_MAX: u64 = 10_000_000;
/// Longest delay on purpose: an hour.
const DELAY_MS_MAX: u64 = 3_600_000;
/// Bounds of the number of keys of one limit: 16 MiB at most.
const KEYS: (u64, u64) = (8, 1 << 20);

pub(super) fn rate_limit(limit: &RateLimitConfig) -> Checked {
    named("name", &limit.name)?;
    each("headers", &limit.headers, limit_header)?;
    let distinct = limit.headers.iter().filter(|it| it.distinct.is_some());
    ensure(distinct.count() <= DISTINCT_MAX, "headers", || {
        format!("at most {DISTINCT_MAX} may be `distinct`")
    })?;
    let most = PER_SECOND_MAX * (limit.unit.ms() / 1_000);
    within("requests", limit.requests, 0, most)?;
    let share = limit.first_share_per_million;
    within("first_share_per_million", share.into(), 0, MILLION)?;
    within("keys_max", limit.keys_max.into(), KEYS.0, KEYS.1)
}

fn limit_header(header: &LimitHeader) -> Checked {
    header_name("name", &header.name)?;
    let given = [
        header.exact.is_some(),
        header.regex.is_some(),
        header.present == Some(true),
        header.distinct == Some(true),
    ];
    let off = header.present == Some(false) || header.distinct == Some(false);
    ensure(
        given.iter().filter(|given| **given).count() == 1 && !off,
        "",
        || "needs exactly one of `exact`, `regex`, `present: true` and `distinct: true`".into(),
    )
}

pub(super) fn fault(fault: &Fault) -> Checked {
    if let Some(delay) = &fault.delay {
        within("delay.ms", delay.ms, 1, DELAY_MS_MAX)?;
        within("delay.per_million", delay.per_million.into(), 0, MILLION)?;
    }
    if let Some(abort) = &fault.abort {
        under("abort.reply", grpc_reply(&abort.reply))?;
        within("abort.per_million", abort.per_million.into(), 0, MILLION)?;
    }
    Ok(())
}

pub(super) fn mirror(mirror: &Mirror) -> Checked {
    named("cluster", &mirror.cluster)?;
    header_ops("request_headers", mirror.request_headers.as_ref())?;
    positive("denominator", Some(mirror.denominator.into()))?;
    within(
        "numerator",
        mirror.numerator.into(),
        0,
        mirror.denominator.into(),
    )
}

pub(super) fn session(session: &Session) -> Checked {
    match session.kind {
        SessionKind::Cookie => cookie_name("name", &session.name)?,
        SessionKind::Header => header_name("name", &session.name)?,
    }
    for (name, bound_ms) in [
        ("absolute_ms", session.absolute_ms),
        ("idle_ms", session.idle_ms),
    ] {
        // Tokens count in seconds.
        ensure(bound_ms.is_none_or(|ms| ms >= 1_000), name, || {
            "must be at least 1000".into()
        })?;
    }
    ensure(
        !session.permanent || session.absolute_ms.is_some(),
        "permanent",
        || "needs `absolute_ms`: a cookie that is kept has to end".into(),
    )
}
