//! The facts about a call that has ended, and what each field of an access log says of it.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use gateway_core::access::{Field, REDACTED, is_sensitive};
use gateway_core::config::PathMatch;
use gateway_core::otlp::shortened;
use gateway_core::trace::write_hex;
use gateway_core::{Code, Route};

use super::record::{Maker, Record, Try};
use crate::clock::Clock;
use crate::flow::Flow;
use crate::headers::HeaderList;
use crate::reply::{Form, Reason};

/// Methods of HTTP that stand in names of spans; any other one is a client's invention.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// See the module.
pub(crate) struct Facts<'a> {
    pub record: &'a Record,
    pub request: &'a HeaderList,
    pub form: Form,
    pub route: Option<&'a Route>,
    pub listener: &'a str,
    pub source_cluster: &'a str,
    pub source_region: &'a str,
    pub client: Option<IpAddr>,
    pub flow: &'a Flow,
    pub code: Code,
    pub http_status: u16,
    pub started_us: u64,
    pub ended_us: u64,
    pub clock: Clock,
}

/// What a field says.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    Number(u64),
}

/// Bytes of a client as text, as much as is told.
pub(crate) fn told_text(bytes: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(shortened(text)),
        Err(_) => Cow::Owned(shortened(&String::from_utf8_lossy(bytes)).to_owned()),
    }
}

/// Room for an address of version 4 as text.
pub(crate) type IpRoom = [u8; 15];

/// An address as text, in `room` if it fits; most are of version 4, and are many.
pub(crate) fn ip_text(ip: IpAddr, room: &mut IpRoom) -> Cow<'_, str> {
    let IpAddr::V4(ip) = ip else {
        return ip.to_string().into();
    };
    let mut end = 0;
    for (at, octet) in ip.octets().into_iter().enumerate() {
        if at > 0 {
            room[end] = b'.';
            end += 1;
        }
        for (least, unit) in [(100, 100), (10, 10), (0, 1)] {
            if octet >= least {
                room[end] = b'0' + octet / unit % 10;
                end += 1;
            }
        }
    }
    str::from_utf8(&room[..end]).unwrap_or_default().into()
}

/// The first value of a request's field, unless it is a secret.
pub(crate) fn told_header<'a>(request: &'a HeaderList, name: &str) -> Option<Cow<'a, str>> {
    let field = request.iter().find(|field| field.name == name.as_bytes())?;
    if field.sensitive || is_sensitive(field.name) {
        return Some(Cow::Borrowed(REDACTED));
    }
    Some(told_text(field.value))
}

/// `2026-11-23T21:56:11.000123Z`.
pub(crate) fn rfc3339(unix_us: u64) -> String {
    let (seconds, micros) = (unix_us / 1_000_000, unix_us % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days to a date of the Gregorian calendar, counted from March 1 of the year 0, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let mut out = *b"0000-00-00T00:00:00.000000Z";
    for (at, digits, value) in [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, hour),
        (14, 2, minute),
        (17, 2, second),
        (20, 6, micros),
    ] {
        let mut rest = value;
        for place in out[at..at + digits].iter_mut().rev() {
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
    out.iter().map(|byte| char::from(*byte)).collect()
}

// === impl Facts ===

impl<'a> Facts<'a> {
    /// What a field says.
    pub fn value(&self, field: Field) -> Value<'a> {
        let last = self.record.tries.last();
        match field {
            Field::StartTime => Value::Text(rfc3339(self.clock.unix_us(self.started_us)).into()),
            Field::TraceId => Value::Text(self.trace_id().into()),
            Field::SpanId => Value::Text(self.span_id().into()),
            Field::Listener => Value::borrowed(self.listener),
            Field::Route => Value::borrowed(Route::parent_of(self.rule())),
            Field::Rule => Value::borrowed(self.rule()),
            Field::Protocol => Value::borrowed(match self.form {
                Form::Grpc => "grpc",
                Form::Web { .. } => "grpc-web",
                Form::Http | Form::HttpHead => "http",
            }),
            Field::Authority => Value::Text(self.authority()),
            Field::Method => Value::Text(self.method()),
            Field::SourceCluster => Value::borrowed(self.source_cluster),
            Field::SourceRegion => Value::borrowed(self.source_region),
            Field::DestinationCluster => Value::borrowed(last.map_or("", |it| &it.to.cluster_id)),
            Field::DestinationRegion => Value::borrowed(last.map_or("", |it| &it.to.region)),
            Field::Tier => Value::Number(last.map_or(0, |it| it.to.tier.into())),
            Field::Endpoint => Value::of(last, |it| it.to.address.to_string()),
            Field::Tries => Value::Number(self.record.tries.len() as u64),
            Field::BytesReceived => Value::Number(self.flow.request.bytes),
            Field::BytesSent => Value::Number(self.flow.response.bytes),
            Field::MessagesReceived => Value::Number(self.flow.request.messages.into()),
            Field::MessagesSent => Value::Number(self.flow.response.messages.into()),
            Field::DurationUs => Value::Number(self.since_start(self.ended_us)),
            Field::RequestUs => Value::Number(self.since_start(self.record.whole_us)),
            Field::QueueUs => Value::Number(self.since_start(last.map_or(0, |it| it.opened_us))),
            Field::UpstreamUs => {
                Value::Number(last.map_or(0, |it| it.answered_us.saturating_sub(it.opened_us)))
            }
            Field::ResponseUs => Value::Number(match last.map_or(0, |it| it.answered_us) {
                0 => 0,
                answered_us => self.ended_us.saturating_sub(answered_us),
            }),
            Field::GrpcStatus => Value::borrowed(self.code.name()),
            Field::HttpStatus => Value::Number(self.http_status.into()),
            Field::AnsweredBy => Value::borrowed(self.record.maker.word()),
            Field::ResponseFlag => {
                Value::borrowed(self.record.maker.reason().map_or("-", Reason::flag))
            }
            Field::Reason => Value::borrowed(self.reason()),
            Field::Peer => {
                let text = |ip| ip_text(ip, &mut IpRoom::default()).into_owned();
                Value::Text(self.client.map_or_else(String::new, text).into())
            }
            Field::UserAgent => {
                Value::Text(told_header(self.request, "user-agent").unwrap_or_default())
            }
        }
    }

    /// The rule that matched; empty without one.
    pub fn rule(&self) -> &'a str {
        self.route.map_or("", |route| route.name())
    }

    pub fn reason(&self) -> &'static str {
        self.record.maker.reason().map_or("", Reason::word)
    }

    pub fn authority(&self) -> Cow<'a, str> {
        let told = told_header(self.request, ":authority");
        told.or_else(|| told_header(self.request, "host"))
            .unwrap_or_default()
    }

    pub fn path(&self) -> Cow<'a, str> {
        let path = self.request.value(b":path").unwrap_or_default();
        let query = path.iter().position(|byte| *byte == b'?');
        told_text(&path[..query.unwrap_or(path.len())])
    }

    /// The method of HTTP, `_OTHER` for what is none.
    pub fn http_method(&self) -> &'static str {
        let method = self.request.value(b":method").unwrap_or_default();
        let mut all = METHODS.iter();
        all.find(|known| known.as_bytes() == method)
            .copied()
            .unwrap_or("_OTHER")
    }

    /// The gRPC method by its full name, if somebody vouches for it: a rule that names it, or a service that did more
    /// than to say that it does not know it. What clients make up has no name.
    pub fn known_method(&self) -> Option<Cow<'a, str>> {
        let exact = |route: &Route| matches!(route.config().matches.path, PathMatch::Exact(_));
        let named = self.route.is_some_and(exact);
        let answered = self.record.maker == Maker::Application
            && self.code != Code::Unimplemented
            && self.record.tries.iter().any(|it| it.answered_us != 0);
        if !named && !answered {
            return None;
        }
        Some(match self.path() {
            Cow::Borrowed(path) => Cow::Borrowed(path.strip_prefix('/').unwrap_or(path)),
            Cow::Owned(path) => Cow::Owned(path.trim_start_matches('/').to_owned()),
        })
    }

    fn method(&self) -> Cow<'a, str> {
        if self.form.is_grpc() {
            self.path()
        } else {
            format!("{} {}", self.http_method(), self.path()).into()
        }
    }

    fn trace_id(&self) -> String {
        let trace = self.record.trace;
        trace.map_or_else(String::new, |it| digits(&it.context.trace_id.to_be_bytes()))
    }

    fn span_id(&self) -> String {
        let trace = self.record.trace.filter(|it| it.context.sampled);
        trace.map_or_else(String::new, |it| digits(&it.context.span_id.to_be_bytes()))
    }

    fn since_start(&self, at_us: u64) -> u64 {
        at_us.saturating_sub(self.started_us)
    }
}

/// Host and port of an authority.
pub(crate) fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    if let Ok(address) = authority.parse::<SocketAddr>() {
        let host = authority.rsplit_once(':').map_or(authority, |it| it.0);
        return (host.trim_matches(['[', ']']), Some(address.port()));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, port.parse().ok()),
        _ => (authority.trim_matches(['[', ']']), None),
    }
}

fn digits(bytes: &[u8]) -> String {
    let mut out = vec![0; 2 * bytes.len()];
    write_hex(bytes, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

// === impl Value ===

impl<'a> Value<'a> {
    fn borrowed(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    fn of(last: Option<&Try>, text: impl FnOnce(&Try) -> String) -> Self {
        Self::Text(last.map_or_else(String::new, text).into())
    }
}

#[cfg(test)]
mod tests {
    use super::{IpRoom, host_and_port, ip_text, rfc3339, told_header};
    use crate::headers::HeaderList;
    use gateway_h2::Field;

    #[test]
    fn dates() {
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_799, "2000-02-29T23:59:59.000000Z"),
            (1_795_478_400, "2026-11-24T00:00:00.000000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(rfc3339(unix_s * 1_000_000), text);
        }
        assert_eq!(rfc3339(1_000_007), "1970-01-01T00:00:01.000007Z");
    }

    #[test]
    fn authorities() {
        assert_eq!(host_and_port("a.example:8443"), ("a.example", Some(8443)));
        assert_eq!(host_and_port("a.example"), ("a.example", None));
        assert_eq!(host_and_port("[::1]:80"), ("::1", Some(80)));
        assert_eq!(host_and_port("[::1]"), ("::1", None));
    }

    #[test]
    fn addresses() {
        for text in [
            "0.0.0.0",
            "10.0.100.9",
            "127.0.0.1",
            "255.255.255.255",
            "::1",
        ] {
            let ip = text.parse().expect("is an address");
            assert_eq!(ip_text(ip, &mut IpRoom::default()), text);
        }
    }

    #[test]
    fn secrets_are_not_told() {
        let mut list = HeaderList::default();
        list.add(b"authorization", b"Bearer x");
        list.push(Field {
            name: b"x-token",
            value: b"secret",
            sensitive: true,
        });
        list.add(b"x-plain", &[b'a', 0xff]);
        assert_eq!(
            told_header(&list, "authorization").as_deref(),
            Some("[redacted]")
        );
        assert_eq!(told_header(&list, "x-token").as_deref(), Some("[redacted]"));
        assert_eq!(told_header(&list, "x-plain").as_deref(), Some("a\u{fffd}"));
        assert_eq!(told_header(&list, "x-none"), None);
    }
}
