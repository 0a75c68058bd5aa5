//! Messages in: heads to header lists, bodies to data.

use std::ops::Range;

use gateway_h2::{ConnectionError, Event, Events, HeaderBlock, Role, syntax};
use httparse::Header;

use super::{Connection, Exchange, Recv, Send};
use crate::chunked::{Chunked, Piece};
use crate::config::INFORMATIONAL_MAX;
use crate::fields::{self, Options};
use crate::framing::{self, Said};
use crate::head::{self, RequestLine, StatusLine};
use crate::refusal::Refusal;

// === impl Connection ===

impl Connection {
    /// Takes bytes of the peer and says how many were used; the caller keeps the rest and gives it again with more. What
    /// comes behind a request that has no answer yet is not used: see `takes_input`.
    ///
    /// # Errors
    /// The peer broke a rule. A server's answer, if it may still give one, is in the output; write it and close.
    pub fn receive(&mut self, input: &[u8], events: &mut Events) -> Result<usize, ConnectionError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.take(input, events).map_err(|it| self.fail(it))
    }

    fn take(&mut self, input: &[u8], events: &mut Events) -> Result<usize, Refusal> {
        let mut at = 0;
        loop {
            if self.over {
                return Ok(input.len());
            }
            let next = match &mut self.recv {
                Recv::Head => self.take_head(input, at, events)?,
                Recv::Trailers => self.take_trailers(input, at, events)?,
                Recv::Chunked(_) => self.take_chunks(input, at, events)?,
                Recv::Length(left) => {
                    let len = (*left).min((input.len() - at) as u64);
                    *left -= len;
                    let end = *left == 0;
                    self.data(at..at + len as usize, end, events);
                    (len > 0).then_some(at + len as usize)
                }
                Recv::UntilEnd | Recv::Tunnel => {
                    self.data(at..input.len(), false, events);
                    return Ok(input.len());
                }
                Recv::Ended if self.config.role == Role::Client && at < input.len() => {
                    return Err(Refusal::bad("bytes follow the response"));
                }
                Recv::Ended | Recv::Switch => None,
            };
            match next {
                Some(next) => at = next,
                None => return Ok(at),
            }
        }
    }

    /// Body bytes, or only the end.
    fn data(&mut self, range: Range<usize>, end_stream: bool, events: &mut Events) {
        if range.is_empty() && !end_stream {
            return;
        }
        if self.discard(range.len() as u64) {
            if end_stream {
                self.end_of_message();
            }
            return;
        }
        let Some(live) = &mut self.live else { return };
        let len = range.len() as u32;
        live.unreleased += len;
        live.expects = false;
        self.stats.data_received_bytes += u64::from(len);
        events.push(Event::Data {
            stream: live.stream,
            token: live.token,
            range,
            flow_len: len,
            end_stream,
        });
        if end_stream {
            self.end_of_message();
        }
    }

    fn end_of_message(&mut self) {
        self.recv = Recv::Ended;
        self.end_if_done();
    }

    fn take_chunks(
        &mut self,
        input: &[u8],
        at: usize,
        events: &mut Events,
    ) -> Result<Option<usize>, Refusal> {
        let Recv::Chunked(chunked) = &mut self.recv else {
            return Ok(None);
        };
        match chunked.next(input, at)? {
            Piece::Data { at, len } => {
                self.data(at..at + len, false, events);
                Ok(Some(at + len))
            }
            // Lines are used as they come: the state is in `chunked`.
            Piece::More if at == input.len() => Ok(None),
            Piece::More => Ok(Some(input.len())),
            Piece::Last { at } => {
                self.recv = Recv::Trailers;
                Ok(Some(at))
            }
        }
    }

    fn take_trailers(
        &mut self,
        input: &[u8],
        at: usize,
        events: &mut Events,
    ) -> Result<Option<usize>, Refusal> {
        let rest = &input[at..];
        if rest.starts_with(b"\r\n") {
            self.scan.reset();
            self.data(at..at, true, events);
            return Ok(Some(at + 2));
        }
        let Some(len) = self.scan.find(rest, self.config.max_head_bytes)? else {
            return Ok(None);
        };
        let mut room = head::room();
        let fields = head::trailers(&rest[..len], &mut room)?;
        if fields
            .iter()
            .any(|it| fields::is_forbidden_trailer(it.name.as_bytes()))
        {
            return Err(Refusal::bad("a field may not stand in trailers"));
        }
        let mut headers = events.start_block();
        add_fields(fields, Options::default(), events, &mut headers)?;
        if let Some(live) = self.live.as_ref().filter(|live| live.discards.is_none()) {
            let (stream, token) = (live.stream, live.token);
            events.push(Event::Trailers {
                stream,
                token,
                headers,
            });
        }
        self.end_of_message();
        Ok(Some(at + len))
    }

    fn take_head(
        &mut self,
        input: &[u8],
        at: usize,
        events: &mut Events,
    ) -> Result<Option<usize>, Refusal> {
        let rest = &input[at..];
        let is_server = self.config.role == Role::Server;
        if is_server && self.output.len() >= self.config.output_high_water {
            return Ok(None);
        }
        // RFC 9112 section 2.2: some clients end a body with one more line end.
        if is_server && !self.passed_empty_line && rest.starts_with(b"\r\n") {
            self.passed_empty_line = true;
            self.scan.reset();
            return Ok(Some(at + 2));
        }
        if !is_server && self.live.is_none() && !rest.is_empty() {
            return Err(Refusal::bad("bytes come without a request"));
        }
        let Some(len) = self.scan.find(rest, self.config.max_head_bytes)? else {
            return Ok(None);
        };
        self.stats.header_blocks_received += 1;
        let mut room = head::room();
        if is_server {
            let max = self.config.max_target_bytes;
            let (line, fields) = head::request(&rest[..len], &mut room, max)?;
            self.on_request(line, fields, events)?;
        } else {
            let (line, fields) = head::response(&rest[..len], &mut room)?;
            self.on_response(line, fields, events)?;
        }
        Ok(Some(at + len))
    }

    fn on_request(
        &mut self,
        line: RequestLine<'_>,
        fields: &[Header<'_>],
        events: &mut Events,
    ) -> Result<(), Refusal> {
        let said = framing::said(fields, line.is_1_1)?;
        let has_body = !matches!(said, Said::Nothing | Said::Length(0));
        let options = fields::options(fields)?;
        let expects = expects(fields, line.is_1_1)?;
        let upgrade = !has_body && line.is_1_1 && line.method == b"GET";
        let upgrade = upgrade && options.upgrade && asks_for_websocket(fields);
        let takes_trailers = fields::values(fields, "te")
            .flat_map(fields::list)
            .any(|coding| coding.eq_ignore_ascii_case(b"trailers"));

        let authority = authority(line, fields)?;
        let mut block = self.start_request(line, authority, events);
        add_fields(fields, options, events, &mut block)?;
        if takes_trailers {
            events.add_field(&mut block, b"te", b"trailers");
        }
        if upgrade {
            events.add_field(&mut block, b"upgrade", b"websocket");
        }

        let stream = self.begin();
        self.is_last |= options.close || !line.is_1_1;
        if let Some(live) = &mut self.live {
            live.is_head = line.method == b"HEAD";
            live.is_1_1 = line.is_1_1;
            live.takes_trailers = takes_trailers;
            live.upgrade = upgrade;
            live.expects = expects && has_body;
        }
        self.recv = match said {
            _ if upgrade => Recv::Switch,
            Said::Length(len) if len > 0 => Recv::Length(len),
            Said::Chunked => Recv::Chunked(Chunked::new()),
            Said::Nothing | Said::Length(_) => Recv::Ended,
        };
        events.push(Event::Request {
            stream,
            headers: block,
            end_stream: matches!(self.recv, Recv::Ended),
        });
        Ok(())
    }

    /// The pseudo headers of a request.
    fn start_request(
        &self,
        line: RequestLine<'_>,
        authority: Option<&[u8]>,
        events: &mut Events,
    ) -> HeaderBlock {
        let mut block = events.start_block();
        let scheme: &[u8] = if self.config.secure {
            b"https"
        } else {
            b"http"
        };
        events.add_field(&mut block, b":method", line.method);
        events.add_field(&mut block, b":scheme", scheme);
        if let Some(authority) = authority {
            events.add_field(&mut block, b":authority", authority);
        }
        events.add_field(&mut block, b":path", line.path);
        block
    }

    fn on_response(
        &mut self,
        first: StatusLine,
        fields: &[Header<'_>],
        events: &mut Events,
    ) -> Result<(), Refusal> {
        let Some(live) = &mut self.live else {
            return Err(Refusal::bad("a response comes without a request"));
        };
        live.is_answered = true;
        let is_switch = first.status == 101;
        let informational = first.status < 200 && !is_switch;
        live.informational += u32::from(informational);
        if live.informational > INFORMATIONAL_MAX {
            return Err(Refusal::bad("too many interim responses"));
        }
        let is_tunnel = live.upgrade && asks_for_websocket(fields);
        if is_switch && !is_tunnel {
            return Err(Refusal::bad(
                "the server switches to what was not asked for",
            ));
        }
        let recv = body_of_response(first, fields, live)?;
        let options = fields::options(fields)?;
        let (stream, token) = (live.stream, live.token);
        let mut block = events.start_block();
        events.add_field(&mut block, b":status", first.status.to_string().as_bytes());
        add_fields(fields, options, events, &mut block)?;
        if is_switch {
            events.add_field(&mut block, b"upgrade", b"websocket");
        }
        events.push(Event::Response {
            stream,
            token,
            headers: block,
            end_stream: !informational && matches!(recv, Recv::Ended),
            informational,
        });
        if informational {
            return Ok(());
        }
        if self.send == Send::Switch {
            self.send = if is_switch { Send::Tunnel } else { Send::Ended };
        }
        let is_lasting = matches!(recv, Recv::UntilEnd | Recv::Tunnel);
        self.is_last |= options.close || !first.is_1_1 || is_lasting;
        self.recv = recv;
        self.end_if_done();
        Ok(())
    }
}

/// RFC 9112 section 6.3.
fn body_of_response(
    first: StatusLine,
    fields: &[Header<'_>],
    live: &Exchange,
) -> Result<Recv, Refusal> {
    let said = framing::said(fields, first.is_1_1)?;
    Ok(match (first.status, said) {
        (101, _) => Recv::Tunnel,
        (100..200 | 204 | 304, _) | (_, Said::Length(0)) => Recv::Ended,
        _ if live.is_head => Recv::Ended,
        (_, Said::Length(len)) => Recv::Length(len),
        (_, Said::Chunked) => Recv::Chunked(Chunked::new()),
        (_, Said::Nothing) => Recv::UntilEnd,
    })
}

/// The one authority of a request (RFC 9112 section 3.2): a target in absolute form and `host` must not differ.
fn authority<'a>(
    line: RequestLine<'a>,
    fields: &[Header<'a>],
) -> Result<Option<&'a [u8]>, Refusal> {
    let mut hosts = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("host"))
        .map(|field| field.value);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::bad("there are several host fields"));
    }
    match (line.authority, host) {
        (_, None) if line.is_1_1 => Err(Refusal::bad("the host field is missing")),
        (_, Some(host)) if !syntax::is_authority(host) => {
            Err(Refusal::bad("the host field is malformed"))
        }
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => Err(
            Refusal::bad("the host field differs from the request target"),
        ),
        (authority, host) => Ok(authority.or(host).filter(|it| !it.is_empty())),
    }
}

/// Adds what goes on to the next hop.
fn add_fields(
    fields: &[Header<'_>],
    options: Options,
    events: &mut Events,
    block: &mut HeaderBlock,
) -> Result<(), Refusal> {
    for field in fields {
        let name = field.name.as_bytes();
        if !syntax::value_ok(field.value) {
            return Err(Refusal::bad("a field value is malformed"));
        }
        let ends_here = fields::is_of_one_hop(name)
            || name.eq_ignore_ascii_case(b"host")
            || name.eq_ignore_ascii_case(b"expect")
            || (options.nominates && fields::is_nominated(fields, field.name));
        if !ends_here {
            events.add_field(block, name, field.value);
        }
    }
    Ok(())
}

/// RFC 9110 section 10.1.1; HTTP/1.0 clients do not know it.
fn expects(fields: &[Header<'_>], is_1_1: bool) -> Result<bool, Refusal> {
    let mut values = fields::values(fields, "expect");
    match values.next() {
        None => Ok(false),
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => Ok(is_1_1),
        Some(_) => Err(Refusal::new(417, "only `100-continue` can be expected")),
    }
}

/// An `upgrade` field names WebSocket; other protocols are not taken up, which a client has to expect.
fn asks_for_websocket(fields: &[Header<'_>]) -> bool {
    fields::values(fields, "upgrade")
        .flat_map(fields::list)
        .any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}
