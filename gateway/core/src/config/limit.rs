//! Rate limits of a route as they are configured; `crate::limit` compiles them.

use serde::Deserialize;

use super::Name;

/// One limit: which calls it counts, and how many of them may pass.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitConfig {
    /// Unique in the route table, except that routes may repeat a limit as a whole: they share it.
    pub name: Name,
    /// The calls that it counts: all must hold; none: every call.
    #[serde(default)]
    pub headers: Vec<LimitHeader>,
    /// How many calls may pass in a unit of time, also at once; 0 refuses all.
    pub requests: u64,
    /// The unit of time.
    pub unit: LimitUnit,
    /// `true`: `requests` are for all gateways together; this one has a share of them that is set
    /// from outside, and keeps the last one while nobody sets it.
    #[serde(default)]
    pub global: bool,
    /// With `global`: the share until the first is set, in millionths. Default 1,000,000: all.
    #[serde(default = "default_share_per_million")]
    pub first_share_per_million: u32,
    /// With a `distinct` header: how many values are counted apart at one time, 8 to 1,048,576;
    /// further ones share one count. Takes 16 bytes each. Default 16384.
    #[serde(default = "default_keys_max")]
    pub keys_max: u32,
}

/// A condition on one header: exactly one of `exact`, `regex`, `present: true` and
/// `distinct: true`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitHeader {
    /// Lower case.
    pub name: Name,
    /// The whole value.
    #[serde(default)]
    pub exact: Option<String>,
    /// A regular expression for the whole value.
    #[serde(default)]
    pub regex: Option<String>,
    /// `true`: any value will do.
    #[serde(default)]
    pub present: Option<bool>,
    /// `true`: any value will do, and each has a limit of its own.
    #[serde(default)]
    pub distinct: Option<bool>,
}

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names say it
pub enum LimitUnit {
    Second,
    Minute,
    Hour,
    Day,
}

impl LimitUnit {
    /// Its length.
    #[must_use]
    pub const fn ms(self) -> u64 {
        match self {
            Self::Second => 1_000,
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }
}

const fn default_share_per_million() -> u32 {
    1_000_000
}

const fn default_keys_max() -> u32 {
    16_384
}
