//! What only routes of HTTP ask for: matches of the query, redirects, rewrites and CORS.

use serde::Deserialize;

use super::Name;

/// A condition on one parameter of the query: exactly one of `exact`, `regex` and `present: true`.
/// Names and values are compared as sent, not decoded; of several of one name the first counts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryMatch {
    /// Case-sensitive.
    pub name: Name,
    /// The whole value.
    #[serde(default)]
    pub exact: Option<String>,
    /// A regular expression for the whole value.
    #[serde(default)]
    pub regex: Option<String>,
    /// `true`: any value will do, an empty one too.
    #[serde(default)]
    pub present: Option<bool>,
}

/// An answer that sends the client elsewhere; what is `None` stays as the request has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `http` or `https`.
    #[serde(default)]
    pub scheme: Option<String>,
    /// Without a port.
    #[serde(default)]
    pub host: Option<String>,
    /// `None`: none is written, which means the scheme's own.
    #[serde(default)]
    pub port: Option<u16>,
    /// The query stays in any case.
    #[serde(default)]
    pub path: Option<PathRewrite>,
}

/// Changes to where an endpoint is asked; the query stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rewrite {
    /// Replaces the authority.
    pub host: Option<String>,
    /// Replaces the path, or a part of it.
    pub path: Option<PathRewrite>,
}

/// How a path becomes another.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathRewrite {
    /// The whole path.
    Full(String),
    /// In place of the prefix that the route matched by `prefix` or `segments`.
    Prefix(String),
    /// In place of whatever an expression matches.
    Regex(RegexRewrite),
}

/// A substitution, as Envoy's `regex_rewrite`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegexRewrite {
    /// Anywhere in the path; every match is replaced.
    pub pattern: String,
    /// Text with `\0` to `\9` for groups and `\\` for a backslash.
    pub substitution: String,
}

/// Which foreign pages may call (the Fetch standard's CORS protocol).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// `https://app.example.com`, or `*` for every one.
    #[serde(default)]
    pub origins: Vec<String>,
    /// Regular expressions for whole origins.
    #[serde(default)]
    pub origin_regexes: Vec<String>,
    /// Allowed besides those that need no asking; `*` means every one.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Lower case; `*` means every one.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Lower case: response headers that the page may read.
    #[serde(default)]
    pub expose_headers: Vec<String>,
    /// Whether cookies may come along.
    #[serde(default)]
    pub credentials: bool,
    /// Seconds that a browser may keep the answer to its question; `None`: it is not told.
    #[serde(default)]
    pub max_age_s: Option<u32>,
    /// Whether the question of a page that may not call goes to the service; else it is answered
    /// without a word of leave.
    #[serde(default)]
    pub forward_foreign: bool,
}
