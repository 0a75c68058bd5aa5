//! Checks of what listeners and routes tell about their calls.

use hashbrown::HashSet;

use super::route::header_name;
use super::{Checked, each, ensure, named, under, within};
use crate::access::Template;
use crate::config::{
    AccessLog, ListenerTelemetry, LogFormat, LogSink, Name, RouteTracing, Tag, Tracing,
};

const MILLION: u64 = 1_000_000;
/// Bounds what every span carries.
const TAGS_MAX: usize = 32;
/// Bounds what every line carries.
const PAIRS_MAX: usize = 64;
/// Each writes each call once more.
const LOGS_MAX: usize = 8;

pub(super) fn listener(telemetry: &ListenerTelemetry) -> Checked {
    if let Some(tracing) = &telemetry.tracing {
        under("tracing", self::tracing(tracing))?;
    }
    let logs = &telemetry.access_logs;
    at_most("access_logs", logs.len(), LOGS_MAX)?;
    each("access_logs", logs, access_log)
}

pub(super) fn route(tracing: &RouteTracing) -> Checked {
    sampling(tracing.sampling_per_million)?;
    tags(&tracing.tags)
}

fn tracing(tracing: &Tracing) -> Checked {
    named("collector", &tracing.collector)?;
    sampling(tracing.sampling_per_million)?;
    tags(&tracing.tags)
}

fn sampling(per_million: u32) -> Checked {
    within("sampling_per_million", per_million.into(), 0, MILLION)
}

fn tags(tags: &[Tag]) -> Checked {
    at_most("tags", tags.len(), TAGS_MAX)?;
    each("tags", tags, tag)?;
    distinct("tags", tags.iter().map(|tag| &tag.name))
}

fn tag(tag: &Tag) -> Checked {
    named("name", &tag.name)?;
    ensure(tag.literal.is_some() != tag.header.is_some(), "", || {
        "needs exactly one of `literal` and `header`".into()
    })?;
    ensure(
        tag.default.is_none() || tag.header.is_some(),
        "default",
        || "needs `header`: a literal is always there".into(),
    )?;
    tag.header
        .as_ref()
        .map_or(Ok(()), |header| header_name("header", header))
}

fn access_log(log: &AccessLog) -> Checked {
    match &log.sink {
        LogSink::Otlp(collector) => named("sink.otlp", collector)?,
        LogSink::File(path) => ensure(path.starts_with('/'), "sink.file", || {
            format!("must be an absolute path; it is `{path}`")
        })?,
    }
    match &log.format {
        LogFormat::Default(_) => Ok(()),
        LogFormat::Json(pairs) => {
            at_most("format.json", pairs.len(), PAIRS_MAX)?;
            ensure(!pairs.is_empty(), "format.json", || {
                "needs at least one pair".into()
            })?;
            for (position, (key, text)) in pairs.iter().enumerate() {
                named(&format!("format.json[{position}][0]"), key)?;
                template(&format!("format.json[{position}][1]"), text)?;
            }
            distinct("format.json", pairs.iter().map(|(key, _)| key))
        }
        LogFormat::Text(text) => {
            named("format.text", text)?;
            template("format.text", text)
        }
    }
}

fn template(path: &str, text: &str) -> Checked {
    match Template::parse(text) {
        Ok(_) => Ok(()),
        Err(error) => ensure(false, path, || error.to_string()),
    }
}

fn at_most(path: &str, count: usize, most: usize) -> Checked {
    ensure(count <= most, path, || {
        format!("at most {most} are allowed; there are {count}")
    })
}

fn distinct<'a>(path: &str, names: impl Iterator<Item = &'a Name>) -> Checked {
    let mut seen = HashSet::new();
    for (position, name) in names.enumerate() {
        ensure(seen.insert(name), format!("{path}[{position}]"), || {
            format!("`{name}` is there twice")
        })?;
    }
    Ok(())
}
