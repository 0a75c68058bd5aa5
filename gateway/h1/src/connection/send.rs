//! Messages out: header lists to heads, data to bodies.
//!
//! Decides framing: a `content-length` that the caller gives is kept to, else bodies go in chunks, to HTTP/1.0 clients
//! until the end of the connection. What would make a second message out of a first one (line ends in values) is refused.

use std::io::Write as _;

use gateway_h2::{Field, Role, SendError, Sent, StreamRef, syntax};

use super::{Connection, Exchange, Recv, Send};
use crate::fields;
use crate::output::Output;
use crate::refusal::phrase;

/// What the fields of a head say about framing; gathered while they are written.
#[derive(Default)]
struct Written {
    length: Option<u64>,
    has_upgrade: bool,
    has_te: bool,
}

/// Writes fields that go to the next hop.
struct Writer<'o, 'a> {
    out: &'o mut Vec<u8>,
    written: Written,
    /// HTTP/2 may spread them over several fields; here they are one (RFC 9113 section 8.2.3).
    cookies: Vec<&'a [u8]>,
    has_authority: bool,
}

// === impl Connection ===

impl Connection {
    /// Sends request or response headers, 1xx responses, or trailers (`end_stream`, after headers). Names are lower case
    /// and pseudo headers come first; that is the caller's duty.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_headers<'a>(
        &mut self,
        stream: StreamRef,
        fields: impl IntoIterator<Item = Field<'a>>,
        end_stream: bool,
    ) -> Result<(), SendError> {
        if !self.is_live(stream) {
            return Err(SendError::Gone);
        }
        let before = self.output.len();
        let fields = fields.into_iter();
        let sent = match (self.send, self.config.role) {
            (Send::Head, Role::Server) => self.send_response(fields, end_stream),
            (Send::Head, Role::Client) => self.send_request(fields, end_stream),
            _ if end_stream => self.send_trailers(fields),
            _ => Err(SendError::WrongState),
        };
        if sent.is_err() {
            self.output.truncate(before);
        } else {
            self.stats.header_blocks_sent += 1;
            self.end_if_done();
        }
        sent
    }

    fn send_response<'a>(
        &mut self,
        mut fields: impl Iterator<Item = Field<'a>>,
        end: bool,
    ) -> Result<(), SendError> {
        let live = self.live.as_mut().ok_or(SendError::Gone)?;
        let status = fields.next().filter(|first| first.name == b":status");
        let status = status.and_then(|first| syntax::parse_length(first.value));
        let status = match status {
            Some(status @ 100..1000) => status as u16,
            _ => return Err(SendError::WrongState),
        };
        let informational = status < 200 && status != 101;
        if informational && !live.is_1_1 {
            return Ok(());
        }
        live.may_skip_body |= live.expects && !informational;
        live.expects &= informational && status != 100;
        let out = self.output.buffer();
        let _a_vec_takes_all = write!(out, "HTTP/1.1 {status} {}\r\n", phrase(status));
        let mut writer = Writer::new(out, true);
        fields.try_for_each(|field| writer.field(field))?;
        let written = writer.end();
        if informational {
            out.extend_from_slice(b"\r\n");
            return Ok(());
        }
        if status == 101 {
            if !live.upgrade || end {
                return Err(SendError::WrongState);
            }
            out.extend_from_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n\r\n");
            self.is_last = true;
            (self.recv, self.send) = (Recv::Tunnel, Send::Tunnel);
            return Ok(());
        }
        self.send = response_framing(&mut self.output, live, status, written.length, end);
        self.is_last |= self.is_leaving || self.send == Send::UntilEnd;
        // Bytes behind a refused request for a WebSocket are the next request's.
        if matches!(self.recv, Recv::Switch) {
            self.recv = Recv::Ended;
        }
        let out = self.output.buffer();
        if self.is_last {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn send_request<'a>(
        &mut self,
        mut fields: impl Iterator<Item = Field<'a>>,
        end: bool,
    ) -> Result<(), SendError> {
        let live = self.live.as_mut().ok_or(SendError::Gone)?;
        let (mut method, mut authority, mut path) = (&b""[..], None, &b""[..]);
        let mut first = None;
        for field in fields.by_ref() {
            match field.name {
                b":method" => method = field.value,
                b":authority" => authority = Some(field.value),
                b":path" => path = field.value,
                b":scheme" => {}
                _ => {
                    first = Some(field);
                    break;
                }
            }
        }
        let valid = syntax::is_token(method)
            && method != b"CONNECT"
            && syntax::is_path(method, path)
            && authority.is_none_or(syntax::is_authority);
        if !valid {
            return Err(SendError::WrongState);
        }
        live.is_head = method == b"HEAD";
        live.is_idempotent = is_idempotent(method);
        let out = self.output.buffer();
        out.extend_from_slice(method);
        out.push(b' ');
        out.extend_from_slice(path);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if let Some(authority) = authority {
            line(out, b"host", authority);
        }
        let mut writer = Writer::new(out, authority.is_some());
        first
            .into_iter()
            .chain(fields)
            .try_for_each(|field| writer.field(field))?;
        let written = writer.end();
        live.upgrade = written.has_upgrade && !end;
        self.send = request_framing(&mut self.output, live, method, written.length, end);
        let out = self.output.buffer();
        match (live.upgrade, written.has_te) {
            (true, true) => out.extend_from_slice(b"connection: Upgrade, TE\r\n"),
            (true, false) => out.extend_from_slice(b"connection: Upgrade\r\n"),
            (false, true) => out.extend_from_slice(b"connection: TE\r\n"),
            (false, false) => {}
        }
        if live.upgrade {
            out.extend_from_slice(b"upgrade: websocket\r\n");
        }
        if written.has_te {
            out.extend_from_slice(b"te: trailers\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Trailers end a body in chunks; where there are none, or the client did not ask, their fields are dropped.
    fn send_trailers<'a>(
        &mut self,
        fields: impl Iterator<Item = Field<'a>>,
    ) -> Result<(), SendError> {
        let live = self.live.as_ref().ok_or(SendError::Gone)?;
        let takes_trailers = live.takes_trailers || self.config.role == Role::Client;
        if self.send == Send::Chunked && takes_trailers {
            let out = self.output.buffer();
            out.extend_from_slice(b"0\r\n");
            let mut writer = Writer::new(out, true);
            for field in fields {
                if !fields::is_forbidden_trailer(field.name) {
                    writer.field(field)?;
                }
            }
            writer.end();
            out.extend_from_slice(b"\r\n");
            self.send = Send::Ended;
            return Ok(());
        }
        self.end_body()
    }

    /// Sends body bytes. With `end_stream` nothing can follow.
    ///
    /// # Errors
    /// See [`SendError`]; then nothing was taken.
    pub fn send_data(
        &mut self,
        stream: StreamRef,
        data: &[u8],
        end_stream: bool,
    ) -> Result<Sent, SendError> {
        if !self.is_live(stream) {
            return Err(SendError::Gone);
        }
        if self.queued_in_all() + data.len() > self.config.queue_max {
            return Err(SendError::QueueFull);
        }
        let before = self.queued_in_all();
        let out = self.output.buffer();
        match &mut self.send {
            Send::Length(left) => {
                let len = data.len() as u64;
                *left = left.checked_sub(len).ok_or(SendError::WrongState)?;
                out.extend_from_slice(data);
            }
            Send::Chunked if data.is_empty() => {}
            Send::Chunked => {
                let _a_vec_takes_all = write!(out, "{:x}\r\n", data.len());
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
            Send::UntilEnd | Send::Tunnel => out.extend_from_slice(data),
            Send::Nothing => {}
            Send::Switch if data.is_empty() && !end_stream => {}
            Send::Head | Send::Switch | Send::Ended => return Err(SendError::WrongState),
        }
        self.stats.data_frames_sent += 1;
        self.stats.data_sent_bytes += data.len() as u64;
        if end_stream {
            self.end_body()?;
            self.end_if_done();
        }
        let queued = self.queued_in_all() - before;
        Ok(Sent {
            written: data.len().saturating_sub(queued),
            queued: queued.min(data.len()),
        })
    }

    /// Ends our message. One that is shorter than it said cannot be ended: the peer learns that by the connection's end.
    fn end_body(&mut self) -> Result<(), SendError> {
        match self.send {
            Send::Chunked => self.output.buffer().extend_from_slice(b"0\r\n\r\n"),
            Send::Length(0) | Send::Nothing | Send::UntilEnd => {}
            Send::Tunnel | Send::Length(_) => {
                self.live = None;
                self.over = true;
            }
            Send::Head | Send::Switch | Send::Ended => return Err(SendError::WrongState),
        }
        self.send = Send::Ended;
        Ok(())
    }
}

// === impl Writer ===

impl<'o, 'a> Writer<'o, 'a> {
    fn new(out: &'o mut Vec<u8>, has_authority: bool) -> Self {
        Self {
            out,
            written: Written::default(),
            cookies: Vec::new(),
            has_authority,
        }
    }

    fn field(&mut self, field: Field<'a>) -> Result<(), SendError> {
        let Field { name, value, .. } = field;
        if !syntax::is_token(name) || !syntax::value_ok(value) {
            return Err(SendError::WrongState);
        }
        match name {
            b"content-length" => self.written.length = syntax::parse_length(value),
            b"upgrade" => self.written.has_upgrade = true,
            b"te" => self.written.has_te = true,
            b"host" if self.has_authority => {}
            b"cookie" => self.cookies.push(value),
            _ if fields::is_of_one_hop(name) => {}
            _ => {
                self.has_authority |= name == b"host";
                line(self.out, name, value);
            }
        }
        Ok(())
    }

    fn end(mut self) -> Written {
        if !self.cookies.is_empty() {
            line(self.out, b"cookie", &self.cookies.join(&b"; "[..]));
        }
        if !std::mem::replace(&mut self.has_authority, true) {
            line(self.out, b"host", b"");
        }
        self.written
    }
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn response_framing(
    output: &mut Output,
    live: &Exchange,
    status: u16,
    length: Option<u64>,
    end: bool,
) -> Send {
    let out = output.buffer();
    let bodiless = live.is_head || status == 304;
    if status == 204 || bodiless {
        // What a GET would have got.
        if let Some(length) = length.filter(|_| bodiless) {
            let _a_vec_takes_all = write!(out, "content-length: {length}\r\n");
        }
        return if end { Send::Ended } else { Send::Nothing };
    }
    match length {
        _ if end => {
            out.extend_from_slice(b"content-length: 0\r\n");
            Send::Ended
        }
        Some(length) => {
            let _a_vec_takes_all = write!(out, "content-length: {length}\r\n");
            Send::Length(length)
        }
        None if live.is_1_1 => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Send::Chunked
        }
        None => Send::UntilEnd,
    }
}

fn request_framing(
    output: &mut Output,
    live: &Exchange,
    method: &[u8],
    length: Option<u64>,
    end: bool,
) -> Send {
    let out = output.buffer();
    match length {
        _ if live.upgrade => Send::Switch,
        _ if end => {
            // RFC 9110 section 8.6: methods that have a body by nature say that there is none.
            if [&b"POST"[..], b"PUT", b"PATCH"].contains(&method) {
                out.extend_from_slice(b"content-length: 0\r\n");
            }
            Send::Ended
        }
        Some(length) => {
            let _a_vec_takes_all = write!(out, "content-length: {length}\r\n");
            Send::Length(length)
        }
        None => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Send::Chunked
        }
    }
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &[u8]) -> bool {
    const METHODS: [&[u8]; 6] = [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"];
    METHODS.contains(&method)
}
