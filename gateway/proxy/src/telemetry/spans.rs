//! Spans of a call: one of the server's kind, and one of the client's kind for each try.
//!
//! Names are those of OpenTelemetry's semantic conventions for RPC and HTTP (version 1.45), and `federation.*` for what
//! they have no word for. Which codes are errors of the server's side is theirs too.

use std::borrow::Cow;

use gateway_core::Code;
use gateway_core::config::Tag;
use gateway_core::otlp::{Attributes, ReadyAttributes, SpanHead, SpanKind, Writer};

use super::facts::{Facts, IpRoom, host_and_port, ip_text, told_header};
use super::record::{End, Trace, Try};
use super::told::Spans;

const OTHER: &str = "_OTHER";

/// What all spans of a call have in common.
struct Common<'a> {
    name: Cow<'a, str>,
    attributes: &'a ReadyAttributes,
    state: &'a [u8],
}

/// Writes the spans of a call; `attributes` is memory for what they have in common.
///
/// A span has some fifteen attributes: those of the listener, of the route and of the endpoint are encoded already, and
/// those of the call once for all its spans.
pub(crate) fn write(
    trace: Trace,
    traced: &Spans,
    facts: &Facts<'_>,
    attributes: &mut ReadyAttributes,
    out: &mut Vec<u8>,
) {
    let method = facts.known_method();
    let rule = Some(facts.rule()).filter(|rule| !rule.is_empty());
    let name = match (&method, facts.form.is_grpc()) {
        (Some(method), true) => method.clone(),
        (None, true) => Cow::Borrowed(rule.unwrap_or("unrouted")),
        (_, false) => {
            let known = facts.http_method();
            let known = if known == OTHER { "HTTP" } else { known };
            format!("{known} {}", rule.unwrap_or("unrouted")).into()
        }
    };
    attributes.renew(|attributes| shared(facts, method.as_deref(), attributes));
    if let Some(route) = facts.route {
        attributes.join(route.span_attributes());
    }
    let common = Common {
        name,
        attributes,
        state: facts.request.value(b"tracestate").unwrap_or_default(),
    };
    let mut writer = Writer::new(out);
    server(trace, traced, facts, &common, &mut writer);
    let mut before = None;
    for (number, made) in facts.record.tries.iter().enumerate() {
        client(trace, (number, made), before, facts, &common, &mut writer);
        before = made.end.failure();
    }
}

fn server(
    trace: Trace,
    traced: &Spans,
    facts: &Facts<'_>,
    common: &Common<'_>,
    writer: &mut Writer<'_>,
) {
    let own = facts.route.and_then(|it| it.config().tracing.as_ref());
    let tags = own.map_or(&traced.config.tags, |own| &own.tags);
    let head = SpanHead {
        trace_id: trace.context.trace_id,
        span_id: trace.context.span_id,
        parent_id: trace.parent_id,
        parent_is_remote: trace.parent_id != 0,
        state: common.state,
        name: &common.name,
        kind: SpanKind::Server,
        start_ns: facts.clock.unix_us(facts.started_us) * 1_000,
        end_ns: facts.clock.unix_us(facts.ended_us) * 1_000,
    };
    writer.span(&head, |span| {
        span.ready_attributes(common.attributes);
        span.ready_attributes(&traced.listener);
        if let Some(last) = facts.record.tries.last() {
            span.ready_attributes(&last.to.place);
        }
        let mut attributes = span.span_attributes();
        let error = server_error(facts);
        status(facts, facts.code, facts.http_status, error, &mut attributes);
        if let Some(client) = facts.client {
            attributes.text("client.address", &ip_text(client, &mut IpRoom::default()));
        }
        attributes.text("federation.source.cluster", facts.source_cluster);
        attributes.number("federation.tries", facts.record.tries.len() as u64);
        attributes.text("federation.answered_by", facts.record.maker.word());
        if !facts.reason().is_empty() {
            attributes.text("federation.reason", facts.reason());
        }
        for tag in tags {
            if let Some(value) = tag_value(tag, facts) {
                attributes.text(&tag.name, &value);
            }
        }
        retries(facts, span);
        if error {
            let how = if facts.form.is_grpc() {
                None
            } else {
                cut(facts)
            };
            span.failed(how.map_or(facts.reason(), |(how, _)| how));
        }
    });
}

/// An event for each further try, when it began.
fn retries(facts: &Facts<'_>, span: &mut Writer<'_>) {
    for (number, pair) in facts.record.tries.windows(2).enumerate() {
        let at_ns = facts.clock.unix_us(pair[1].began_us) * 1_000;
        span.event("federation.retry", at_ns, |attributes| {
            attributes.number("federation.retry.number", number as u64 + 1);
            if let Some(reason) = pair[0].end.failure() {
                attributes.text("federation.retry.reason", reason);
            }
        });
    }
}

fn client(
    trace: Trace,
    (number, made): (usize, &Try),
    before: Option<&'static str>,
    facts: &Facts<'_>,
    common: &Common<'_>,
    writer: &mut Writer<'_>,
) {
    let ended_us = if made.ended_us == 0 {
        facts.ended_us
    } else {
        made.ended_us
    };
    let head = SpanHead {
        trace_id: trace.context.trace_id,
        span_id: made.span_id,
        parent_id: trace.context.span_id,
        parent_is_remote: false,
        state: common.state,
        name: &common.name,
        kind: SpanKind::Client,
        start_ns: facts.clock.unix_us(made.began_us) * 1_000,
        end_ns: facts.clock.unix_us(ended_us) * 1_000,
    };
    writer.span(&head, |span| {
        span.ready_attributes(common.attributes);
        span.ready_attributes(&made.to.place);
        span.ready_attributes(&made.to.peer);
        let mut attributes = span.span_attributes();
        let http_status = match made.end {
            End::Answer(answer, _) => answer.http_status,
            End::Failed(..) => 0,
        };
        let failure = made.end.failure();
        let is_error = failure.is_some();
        status(
            facts,
            made.end.code(),
            http_status,
            is_error,
            &mut attributes,
        );
        if number > 0 {
            attributes.number("federation.retry.number", number as u64);
            if let Some(reason) = before {
                attributes.text("federation.retry.reason", reason);
            }
        }
        if made.opened_us != 0 {
            let at_ns = facts.clock.unix_us(made.opened_us) * 1_000;
            span.event("federation.stream.opened", at_ns, |_| {});
        }
        if let Some(failure) = failure {
            span.failed(failure);
        }
    });
}

fn shared(facts: &Facts<'_>, method: Option<&str>, attributes: &mut Attributes<'_, '_>) {
    if facts.form.is_grpc() {
        attributes.text("rpc.system.name", "grpc");
        if let Some(method) = method {
            attributes.text("rpc.method", method);
        } else {
            attributes.text("rpc.method", OTHER);
            let path = facts.path();
            attributes.text("rpc.method_original", path.trim_start_matches('/'));
        }
    } else {
        attributes.text("http.request.method", facts.http_method());
        attributes.text("url.path", &facts.path());
    }
    let authority = facts.authority();
    let (host, port) = host_and_port(&authority);
    attributes.text("server.address", host);
    if let Some(port) = port {
        attributes.number("server.port", port.into());
    }
}

fn status(
    facts: &Facts<'_>,
    code: Code,
    http_status: u16,
    is_error: bool,
    attributes: &mut Attributes<'_, '_>,
) {
    if facts.form.is_grpc() {
        attributes.text("rpc.response.status_code", code.name());
        if is_error {
            attributes.text("error.type", code.name());
        }
    } else {
        if http_status != 0 {
            attributes.number("http.response.status_code", http_status.into());
        }
        if is_error && http_status == 0 {
            attributes.text("error.type", code.name());
        } else if is_error && http_status < 400 {
            // The response broke off behind a status that is none of an error.
            let code = cut(facts).map_or(code, |(_, code)| code);
            attributes.text("error.type", code.name());
        } else if is_error {
            attributes.text("error.type", &http_status.to_string());
        }
    }
}

/// How a response of HTTP broke off; its status, which the client has seen before, does not say so.
fn cut(facts: &Facts<'_>) -> Option<(&'static str, Code)> {
    let last = facts.record.tries.last()?;
    let begun = last.answered_us != 0 && facts.http_status != 0;
    match last.end {
        End::Failed(how, code) if begun && code != Code::Cancelled => Some((how, code)),
        End::Failed(..) | End::Answer(..) => None,
    }
}

/// Codes that are a server's fault and not its client's.
fn server_error(facts: &Facts<'_>) -> bool {
    if !facts.form.is_grpc() {
        return facts.http_status >= 500 || cut(facts).is_some();
    }
    matches!(
        facts.code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn tag_value<'a>(tag: &'a Tag, facts: &Facts<'a>) -> Option<Cow<'a, str>> {
    if let Some(literal) = &tag.literal {
        return Some(Cow::Borrowed(literal));
    }
    let header = tag.header.as_ref()?;
    let told = told_header(facts.request, header);
    told.or_else(|| tag.default.as_deref().map(Cow::Borrowed))
}
