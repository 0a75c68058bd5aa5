//! What a listener tells about its calls: spans and lines of the access log.
//!
//! The core sends nothing by itself: a collector is a name under which records are kept until the owner takes them. So
//! a collector that is missing, slow or dead costs bounded memory and is no reason to refuse a configuration.

use serde::Deserialize;

use super::Name;

/// What a listener tells about its calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerTelemetry {
    /// `None`: no spans, and trace headers pass as they are.
    pub tracing: Option<Tracing>,
    /// Each writes a line for every call that it takes; what is said of a rule replaces what is said of all.
    pub access_logs: Vec<AccessLog>,
}

/// Spans of a listener's calls.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// Whom the spans are kept for: the name that they are handed over under.
    pub collector: Name,
    /// Share of the calls without a trace of their caller that are recorded, 0 to 1,000,000. A caller that has one
    /// decides by its sampled flag.
    pub sampling_per_million: u32,
    /// Attributes of every server span.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// Sampling of one route, in place of its listener's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTracing {
    /// As in [`Tracing::sampling_per_million`].
    pub sampling_per_million: u32,
    /// In place of the listener's.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// An attribute: exactly one of `literal` and `header`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// The attribute's name.
    pub name: Name,
    /// Its value.
    #[serde(default)]
    pub literal: Option<Name>,
    /// Lower case: its value is that of the request's first field of this name.
    #[serde(default)]
    pub header: Option<Name>,
    /// The value where the request has no such field; `None`: no attribute.
    #[serde(default)]
    pub default: Option<Name>,
}

/// Where lines go, and what stands in them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// Where to.
    pub sink: LogSink,
    /// What of.
    pub format: LogFormat,
    /// Names of the rules whose calls have a line; `None`: all calls but those of rules that another log of the
    /// listener names, also calls without a rule.
    #[serde(default)]
    pub routes: Option<Vec<Name>>,
}

/// Where lines of an access log go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogSink {
    /// Log records for this collector.
    Otlp(Name),
    /// Lines at the end of this file, by its absolute path.
    File(Name),
}

/// What a line is made of; fields are in `crate::access`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Keys, and texts with `%FIELD%` in them.
    Json(Vec<(Name, Name)>),
    /// A text with `%FIELD%` in it.
    Text(Name),
    /// `"json"`: every field that a line has by default.
    #[serde(untagged)]
    Default(DefaultFormat),
}

/// The word for all fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultFormat {
    /// One object a line.
    Json,
}
