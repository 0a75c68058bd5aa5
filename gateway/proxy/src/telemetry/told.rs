//! What a listener tells about its calls, made ready for use: templates read, sinks named.

use gateway_core::Name;
use gateway_core::access::Template;
use gateway_core::config::{AccessLog, ListenerTelemetry, LogFormat, LogSink, Tracing};
use gateway_core::otlp::ReadyAttributes;

use super::hub::Sink;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub tracing: Option<Spans>,
    pub logs: Vec<Log>,
}

/// Where spans go, and of which calls there are some.
#[derive(Clone, Debug)]
pub(crate) struct Spans {
    pub config: Tracing,
    pub sink: Sink,
    /// What all spans say of the listener.
    pub listener: ReadyAttributes,
}

/// One access log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub sink: Sink,
    pub form: Form,
    rules: Rules,
}

/// Whose calls have a line in a log.
#[derive(Clone, Debug)]
enum Rules {
    These(Vec<Name>),
    /// Those of no rule, too.
    AllBut(Vec<Name>),
}

/// How its lines are made.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// Every field of a line that names none.
    Default,
    Json(Vec<(Name, Template)>),
    Text(Template),
}

// === impl Told ===

impl Told {
    /// `None` when nothing is told.
    pub fn new(listener: &str, config: &ListenerTelemetry) -> Option<Self> {
        let tracing = config.tracing.as_ref().map(|tracing| Spans {
            config: tracing.clone(),
            sink: Sink::Spans(tracing.collector.clone()),
            listener: ReadyAttributes::new(|attributes| {
                attributes.text("federation.listener", listener);
            }),
        });
        let named = config.access_logs.iter().flat_map(|log| &log.routes);
        let named: Vec<Name> = named.flatten().cloned().collect();
        let logs = config.access_logs.iter();
        let logs: Vec<_> = logs.map(|log| Log::new(log, &named)).collect();
        (tracing.is_some() || !logs.is_empty()).then_some(Self { tracing, logs })
    }

    /// Everything that it goes to.
    pub fn sinks(&self) -> impl Iterator<Item = &Sink> {
        let spans = self.tracing.iter().map(|spans| &spans.sink);
        spans.chain(self.logs.iter().map(|log| &log.sink))
    }
}

// === impl Log ===

impl Log {
    fn new(config: &AccessLog, named: &[Name]) -> Self {
        // The document was checked when it came.
        let template = |text: &Name| Template::parse(text).expect("a checked template");
        Self {
            sink: match &config.sink {
                LogSink::Otlp(collector) => Sink::Logs(collector.clone()),
                LogSink::File(path) => Sink::File(path.clone()),
            },
            form: match &config.format {
                LogFormat::Default(_) => Form::Default,
                LogFormat::Text(text) => Form::Text(template(text)),
                LogFormat::Json(pairs) => {
                    let pairs = pairs
                        .iter()
                        .map(|(key, text)| (key.clone(), template(text)));
                    Form::Json(pairs.collect())
                }
            },
            rules: match &config.routes {
                Some(these) => Rules::These(these.clone()),
                None => Rules::AllBut(named.to_vec()),
            },
        }
    }

    /// Whether calls of a rule have a line; an empty name stands for calls without one.
    pub fn takes(&self, rule: &str) -> bool {
        let is_in = |names: &[Name]| names.iter().any(|name| **name == *rule);
        match &self.rules {
            Rules::These(names) => is_in(names),
            Rules::AllBut(names) => !is_in(names),
        }
    }
}
