//! Fields of the access log, and the templates that lines are written by.
//!
//! Decides: which fields there are, how a template is read, and which header fields are never written out. What a
//! field's value is for a call is `gateway-proxy`'s knowledge.
//!
//! A template is text with `%FIELD%` in it; `%%` stands for one `%`. `%REQ(name)%` is the first value of a request's
//! header field.

use crate::config::Name;

/// Stands where a value must not be told.
pub const REDACTED: &str = "[redacted]";

/// Header fields whose values are never told, whatever a configuration asks for.
const SENSITIVE: [&str; 5] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-api-key",
];

macro_rules! fields {
    ($($name:ident $word:literal $key:literal $default:literal $doc:literal,)*) => {
        /// A fact about one call.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Field {
            $(#[doc = $doc] $name,)*
        }

        impl Field {
            /// All of them, in the order of a line.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As templates name it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// As lines have it that are objects: the same in lower case.
            #[must_use]
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }

            /// Whether it stands in a line that names no fields.
            #[must_use]
            pub const fn is_default(self) -> bool {
                match self { $(Self::$name => $default,)* }
            }

            /// What it tells; the documentation has the same words.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $doc,)* }
            }
        }
    };
}

fields! {
    StartTime "START_TIME" "start_time" true "When the request came: RFC 3339 in UTC, with microseconds.",
    TraceId "TRACE_ID" "trace_id" true "The trace that the call belongs to, 32 hexadecimal digits; empty without one.",
    SpanId "SPAN_ID" "span_id" true "This gateway's server span, 16 hexadecimal digits; empty where none is recorded.",
    Listener "LISTENER" "listener" true "The listener that took the call.",
    Route "ROUTE" "route" true "The route, without its rule.",
    Rule "RULE" "rule" true "The rule of the route that matched, by its name or number behind the route.",
    Protocol "PROTOCOL" "protocol" true "`grpc`, `grpc-web` or `http`.",
    Authority "AUTHORITY" "authority" true "The host that the client asked for.",
    Method "METHOD" "method" true "gRPC: the path `/package.Service/Method`. Else: the HTTP method and the path without its query.",
    SourceCluster "SOURCE_CLUSTER" "source_cluster" true "Where the call entered: this gateway's cluster, or that of the peer it came from.",
    SourceRegion "SOURCE_REGION" "source_region" true "Region of a call that entered here; empty for calls of peers.",
    DestinationCluster "DESTINATION_CLUSTER" "destination_cluster" true "Cluster of the last try's endpoint.",
    DestinationRegion "DESTINATION_REGION" "destination_region" true "Region of the last try's endpoint.",
    Tier "TIER" "tier" true "Priority of the last try's endpoint: 0 is the first choice.",
    Endpoint "ENDPOINT" "endpoint" true "Address of the last try's endpoint.",
    Tries "TRIES" "tries" true "How many times the call was sent to an endpoint or waited for one.",
    BytesReceived "BYTES_RECEIVED" "bytes_received" true "Bytes of the request's body.",
    BytesSent "BYTES_SENT" "bytes_sent" true "Bytes of the response's body.",
    MessagesReceived "MESSAGES_RECEIVED" "messages_received" true "gRPC messages of the request; 0 for HTTP.",
    MessagesSent "MESSAGES_SENT" "messages_sent" true "gRPC messages of the response; 0 for HTTP.",
    DurationUs "DURATION_US" "duration_us" true "Microseconds from the request's headers to the end of the response.",
    RequestUs "REQUEST_US" "request_us" true "Microseconds until the request was whole; 0 if it never was.",
    QueueUs "QUEUE_US" "queue_us" true "Microseconds from the request's headers until the last try had a stream: waits, delays and tries before it.",
    UpstreamUs "UPSTREAM_US" "upstream_us" true "Microseconds from the last try's stream to its response headers; 0 if none came.",
    ResponseUs "RESPONSE_US" "response_us" true "Microseconds from the response headers to the end of the response; 0 if none came.",
    GrpcStatus "GRPC_STATUS" "grpc_status" true "Name of the gRPC status; for HTTP what its status means in gRPC.",
    HttpStatus "HTTP_STATUS" "http_status" true "Status of the HTTP response; 0 if the call ended before one.",
    AnsweredBy "ANSWERED_BY" "answered_by" true "Who made the status: `application`, `gateway` (this one) or `peer_gateway`.",
    ResponseFlag "RESPONSE_FLAG" "response_flag" true "Short code of what went wrong on the way; `-` where nothing did.",
    Reason "REASON" "reason" true "The same in one word, as `x-federation-reason` has it; empty where nothing went wrong.",
    Peer "PEER" "peer" true "Address of the client's connection.",
    UserAgent "USER_AGENT" "user_agent" true "What the client calls itself.",
}

/// One part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// A fact about the call.
    Field(Field),
    /// First value of a request's header field, by its lower-case name.
    Header(Name),
}

/// A text with fields in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// A template that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// A `%` without a second one.
    #[error("`%` at byte {0} has no second one; write `%%` for the sign itself")]
    Open(usize),
    /// No such field.
    #[error("`%{0}%` is no field; see the list in docs/observability.md")]
    Unknown(String),
    /// `REQ` of something that is no header field's name.
    #[error("`%REQ({0})%` needs the name of a header field")]
    Header(String),
}

/// Whether a header field's value is never told.
#[must_use]
pub fn is_sensitive(name: &[u8]) -> bool {
    SENSITIVE
        .iter()
        .any(|sensitive| name.eq_ignore_ascii_case(sensitive.as_bytes()))
}

// === impl Field ===

impl Field {
    /// The field that templates name so.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.word() == word)
    }
}

// === impl Template ===

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When a `%` stands alone, or between two is what is no field.
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            plain.push_str(&rest[..at]);
            let opened = text.len() - rest.len() + at;
            let inner = &rest[at + 1..];
            let end = inner.find('%').ok_or(InvalidTemplate::Open(opened))?;
            if end == 0 {
                plain.push('%');
            } else {
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(Part::parse(&inner[..end])?);
            }
            rest = &inner[end + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    /// In order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

// === impl Part ===

impl Part {
    fn parse(word: &str) -> Result<Self, InvalidTemplate> {
        let header = word.strip_prefix("REQ(");
        if let Some(name) = header.and_then(|rest| rest.strip_suffix(')')) {
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let plain = name.strip_prefix(':').unwrap_or(name);
            if plain.is_empty() || !plain.bytes().all(token) {
                return Err(InvalidTemplate::Header(name.to_owned()));
            }
            return Ok(Self::Header(name.to_ascii_lowercase().into()));
        }
        Field::parse(word)
            .map(Self::Field)
            .ok_or_else(|| InvalidTemplate::Unknown(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Field, InvalidTemplate, Part, Template, is_sensitive};
    use proptest::prelude::*;

    #[test]
    fn templates() {
        let read = |text: &str| Template::parse(text).map(|template| template.parts);
        let text = |text: &str| Part::Text(text.to_owned());
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(
            read("a %METHOD%%TIER% 5%% %REQ(X-Tenant)%\n"),
            Ok(vec![
                text("a "),
                Part::Field(Field::Method),
                Part::Field(Field::Tier),
                text(" 5% "),
                Part::Header("x-tenant".into()),
                text("\n"),
            ])
        );
        assert_eq!(read("é%TIER"), Err(InvalidTemplate::Open(2)));
        for (wrong, error) in [
            ("%method%", InvalidTemplate::Unknown("method".to_owned())),
            ("%REQ(a%", InvalidTemplate::Unknown("REQ(a".to_owned())),
            ("%REQ()%", InvalidTemplate::Header(String::new())),
            ("%REQ(a b)%", InvalidTemplate::Header("a b".to_owned())),
        ] {
            assert_eq!(read(wrong), Err(error));
        }
    }

    #[test]
    fn names_of_secrets_are_known_in_every_spelling() {
        assert!(is_sensitive(b"Authorization") && is_sensitive(b"x-api-key"));
        assert!(!is_sensitive(b"x-api-keys") && !is_sensitive(b""));
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            "[^%]{1,8}".prop_map(Part::Text),
            (0..Field::ALL.len()).prop_map(|at| Part::Field(Field::ALL[at])),
            "[a-z0-9-]{1,8}".prop_map(|name| Part::Header(name.into())),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(parts in prop::collection::vec(part(), 0..8)) {
            let written: String = parts.iter().map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Field(field) => format!("%{}%", field.word()),
                Part::Header(name) => format!("%REQ({name})%"),
            }).collect();
            let again: String = Template::parse(&written).expect("is a template").parts().iter().map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Field(field) => format!("%{}%", field.word()),
                Part::Header(name) => format!("%REQ({name})%"),
            }).collect();
            prop_assert_eq!(again, written);
        }

        #[test]
        fn no_text_is_too_much(text in any::<String>()) {
            let _may_be_refused = Template::parse(&text);
        }
    }
}
