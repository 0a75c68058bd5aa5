//! Lines of access logs, and tapped calls: facts about a call as JSON, as text, or as a log record.

use std::io::Write;

use gateway_core::access::{Field, Part, Template};
use gateway_core::otlp::{Attributes, LogHead, Writer};

use super::facts::{Facts, Value, told_header};
use super::hub::Sink;
use super::told::{Form, Log};
use crate::reply::Reason;

/// Writes a call's line, or its record, in the form that its sink takes.
pub(crate) fn write(log: &Log, facts: &Facts<'_>, out: &mut Vec<u8>) {
    if matches!(log.sink, Sink::Logs(_)) {
        return record(&log.form, facts, out);
    }
    match &log.form {
        Form::Default => object(facts, None, out),
        Form::Json(pairs) => {
            out.push(b'{');
            for (at, (key, template)) in pairs.iter().enumerate() {
                json_key(at == 0, key, out);
                match single(template) {
                    Some(field) => json_value(&facts.value(field), out),
                    None => json_text(&text(template, facts), out),
                }
            }
            out.extend_from_slice(b"}\n");
        }
        Form::Text(template) => {
            let text = text(template, facts);
            out.extend_from_slice(text.as_bytes());
            out.push(b'\n');
        }
    }
}

/// A tapped call: every field of a line that names none, and how many in a million were drawn.
pub(crate) fn tapped(facts: &Facts<'_>, per_million: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(1_024);
    object(facts, Some(per_million), &mut out);
    out
}

fn object(facts: &Facts<'_>, per_million: Option<u32>, out: &mut Vec<u8>) {
    out.push(b'{');
    let fields = Field::ALL.iter().filter(|field| field.is_default());
    for (at, field) in fields.enumerate() {
        json_key(at == 0, field.key(), out);
        json_value(&facts.value(*field), out);
    }
    if let Some(per_million) = per_million {
        json_key(false, "sampled_per_million", out);
        json_value(&Value::Number(per_million.into()), out);
    }
    out.extend_from_slice(b"}\n");
}

fn record(form: &Form, facts: &Facts<'_>, out: &mut Vec<u8>) {
    let body = match form {
        Form::Text(template) => Some(text(template, facts)),
        Form::Default | Form::Json(_) => None,
    };
    let ended_ns = facts.clock.unix_us(facts.ended_us) * 1_000;
    let trace = facts.record.trace.map(|trace| trace.context);
    let head = LogHead {
        at_ns: facts.clock.unix_us(facts.started_us) * 1_000,
        observed_ns: ended_ns,
        // What the service says is its business; what kept a call from it is an error.
        is_error: facts.record.maker.reason().is_some_and(Reason::is_fault),
        body: body.as_deref(),
        span: trace.map(|context| {
            let span_id = if context.sampled { context.span_id } else { 0 };
            (context.trace_id, span_id, context.sampled)
        }),
    };
    Writer::new(out).log(&head, |attributes| match form {
        Form::Text(_) => {}
        Form::Default => {
            for field in Field::ALL.iter().filter(|field| field.is_default()) {
                attribute(field.key(), &facts.value(*field), attributes);
            }
        }
        Form::Json(pairs) => {
            for (key, template) in pairs {
                match single(template) {
                    Some(field) => attribute(key, &facts.value(field), attributes),
                    None => attributes.text(key, &text(template, facts)),
                }
            }
        }
    });
}

fn attribute(key: &str, value: &Value<'_>, attributes: &mut Attributes<'_, '_>) {
    match value {
        Value::Text(text) => attributes.text(key, text),
        Value::Number(number) => attributes.number(key, *number),
    }
}

/// The field of a template that is nothing else: its numbers stay numbers.
fn single(template: &Template) -> Option<Field> {
    match template.parts() {
        [Part::Field(field)] => Some(*field),
        _ => None,
    }
}

fn text(template: &Template, facts: &Facts<'_>) -> String {
    let mut out = String::new();
    for part in template.parts() {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Header(name) => match told_header(facts.request, name) {
                Some(value) => push_quoted(&value, &mut out),
                None => out.push('-'),
            },
            Part::Field(field) => match facts.value(*field) {
                Value::Number(number) => out.push_str(&number.to_string()),
                Value::Text(text) if text.is_empty() => out.push('-'),
                Value::Text(text) => push_quoted(&text, &mut out),
            },
        }
    }
    out
}

/// A value as it may stand between quotes: what a client sends makes no field and no line of its own, and does nothing
/// to a terminal.
fn push_quoted(value: &str, out: &mut String) {
    for character in value.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\u{2028}' | '\u{2029}' => out.push(' '),
            _ if character.is_control() => out.push(' '),
            _ => out.push(character),
        }
    }
}

fn json_key(first: bool, key: &str, out: &mut Vec<u8>) {
    if !first {
        out.push(b',');
    }
    json_text(key, out);
    out.push(b':');
}

fn json_value(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Text(text) => json_text(text, out),
        Value::Number(number) => {
            let _a_vec_takes_everything = write!(out, "{number}");
        }
    }
}

fn json_text(text: &str, out: &mut Vec<u8>) {
    let _a_vec_takes_everything = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::push_quoted;

    #[test]
    fn what_a_client_sends_makes_no_field_and_no_line() {
        let mut out = String::new();
        push_quoted("a\" 200\nOK\t\\ \u{9b}2J\u{2028}ä", &mut out);
        assert_eq!(out, "a\\\" 200 OK \\\\  2J ä");
    }
}
