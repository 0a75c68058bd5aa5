//! What is written is read by a decoder that shares nothing with it; field numbers are those of opentelemetry-proto.

use super::{LogHead, SpanHead, SpanKind, TEXT_BYTES_MAX, Writer, shortened};
use proptest::prelude::*;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "3")]
    number: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(fixed64, tag = "1")]
    at_ns: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[allow(clippy::struct_field_names)] // as they are published
#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_ns: u64,
    #[prost(fixed64, tag = "8")]
    end_ns: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Event>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct LogRecord {
    #[prost(fixed64, tag = "1")]
    at_ns: u64,
    #[prost(int32, tag = "2")]
    severity: i32,
    #[prost(string, tag = "3")]
    severity_text: String,
    #[prost(message, optional, tag = "5")]
    body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<KeyValue>,
    #[prost(fixed32, tag = "8")]
    flags: u32,
    #[prost(bytes = "vec", tag = "9")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    span_id: Vec<u8>,
    #[prost(fixed64, tag = "11")]
    observed_ns: u64,
    #[prost(string, tag = "12")]
    event_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeLogs {
    #[prost(message, repeated, tag = "2")]
    records: Vec<LogRecord>,
}

fn attribute(key: &str, text: Option<&str>, number: Option<i64>) -> KeyValue {
    let value = AnyValue {
        text: text.map(str::to_owned),
        number,
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(value),
    }
}

fn bytes_of(id: u64) -> Vec<u8> {
    let all = id.to_be_bytes().to_vec();
    if id == 0 { Vec::new() } else { all }
}

#[test]
fn a_text_is_cut_between_characters() {
    let long = format!("{}é", "a".repeat(TEXT_BYTES_MAX - 1));
    assert_eq!(shortened(&long).len(), TEXT_BYTES_MAX - 1);
    assert_eq!(shortened("é"), "é");
}

proptest! {
    #[test]
    fn spans_are_read_as_they_were_written(
        ids in prop::collection::vec((any::<u128>(), any::<u64>(), any::<u64>(), any::<bool>()), 0..4),
        name in "\\PC{0,200}",
        times in any::<(u64, u64)>(),
        pairs in prop::collection::vec(("\\PC{0,40}", "\\PC{0,300}", any::<i64>()), 0..8),
        failure in prop::option::of("\\PC{0,20}"),
    ) {
        let mut out = Vec::new();
        let mut expected = ScopeSpans::default();
        for (trace_id, span_id, parent_id, remote) in ids {
            let head = SpanHead {
                trace_id, span_id, parent_id, parent_is_remote: remote, state: b"a=1", name: &name,
                kind: SpanKind::Client, start_ns: times.0, end_ns: times.1,
            };
            Writer::new(&mut out).span(&head, |span| {
                let mut attributes = span.span_attributes();
                for (key, text, number) in &pairs {
                    attributes.text(key, text);
                    attributes.number(key, *number as u64);
                }
                span.event("e", times.0, |attributes| {
                    for (key, text, _) in &pairs {
                        attributes.text(key, text);
                    }
                });
                if let Some(message) = &failure {
                    span.failed(message);
                }
            });
            expected.spans.push(Span {
                trace_id: trace_id.to_be_bytes().to_vec(),
                span_id: span_id.to_be_bytes().to_vec(),
                state: "a=1".to_owned(),
                parent_id: bytes_of(parent_id),
                name: name.clone(),
                kind: 3,
                start_ns: times.0,
                end_ns: times.1,
                attributes: pairs.iter().flat_map(|(key, text, number)| {
                    [attribute(key, Some(text), None), attribute(key, None, Some(*number))]
                }).collect(),
                events: vec![Event {
                    at_ns: times.0,
                    name: "e".to_owned(),
                    attributes: pairs.iter().map(|(key, text, _)| attribute(key, Some(text), None)).collect(),
                }],
                status: failure.clone().map(|message| Status { message, code: 2 }),
                flags: 0x101 | if remote { 0x200 } else { 0 },
            });
        }
        prop_assert_eq!(ScopeSpans::decode(&out[..]).expect("is protobuf"), expected);
    }

    #[test]
    fn log_records_are_read_as_they_were_written(
        body in prop::option::of("\\PC{0,200}"),
        times in any::<(u64, u64)>(),
        span in prop::option::of((1u128.., any::<u64>(), any::<bool>())),
        is_error: bool,
    ) {
        let mut out = Vec::new();
        let head = LogHead { at_ns: times.0, observed_ns: times.1, is_error, body: body.as_deref(), span };
        Writer::new(&mut out).log(&head, |attributes| attributes.number("n", 7));
        let record = LogRecord {
            at_ns: times.0,
            severity: if is_error { 17 } else { 9 },
            severity_text: if is_error { "ERROR" } else { "INFO" }.to_owned(),
            body: body.map(|text| AnyValue { text: Some(text), number: None }),
            attributes: vec![attribute("n", None, Some(7))],
            flags: span.map_or(0, |(_, _, sampled)| u32::from(sampled)),
            trace_id: span.map_or_else(Vec::new, |(id, _, _)| id.to_be_bytes().to_vec()),
            span_id: span.map_or_else(Vec::new, |(_, id, _)| bytes_of(id)),
            observed_ns: times.1,
            event_name: "federation.call".to_owned(),
        };
        prop_assert_eq!(ScopeLogs::decode(&out[..]).expect("is protobuf").records, vec![record]);
    }
}

proptest! {
    #[test]
    fn ready_attributes_are_those_that_were_written(
        first in prop::collection::vec((".{0,40}", ".{0,200}"), 0..4),
        second in prop::collection::vec((".{0,40}", any::<u64>()), 0..4),
    ) {
        let mut ready = super::ReadyAttributes::default();
        ready.renew(|attributes| attributes.text("gone", "with the call before"));
        ready.renew(|attributes| {
            for (key, value) in &first {
                attributes.text(key, value);
            }
        });
        ready.join(&super::ReadyAttributes::new(|attributes| {
            for (key, value) in &second {
                attributes.number(key, *value);
            }
        }));
        let (mut joined, mut direct) = (Vec::new(), Vec::new());
        Writer::new(&mut joined).ready_attributes(&ready);
        let mut writer = Writer::new(&mut direct);
        let mut attributes = writer.span_attributes();
        for (key, value) in &first {
            attributes.text(key, value);
        }
        for (key, value) in &second {
            attributes.number(key, *value);
        }
        prop_assert_eq!(joined, direct);
    }
}
