//! A connection and what it said, as text that tests compare.

use gateway_h1::{Config, Connection};
use gateway_h2::{Event, Events, StreamRef};

/// A connection whose input may come in pieces.
pub struct Peer {
    pub connection: Connection,
    pub events: Vec<String>,
    pub stream: Option<StreamRef>,
    kept: Vec<u8>,
}

#[allow(dead_code)] // each test crate uses its own part
impl Peer {
    pub fn server() -> Self {
        Self::new(Connection::new(Config::server()))
    }

    pub fn client() -> Self {
        Self::new(Connection::new(Config::client()))
    }

    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            events: Vec::new(),
            stream: None,
            kept: Vec::new(),
        }
    }

    /// Gives bytes, releases what came, returns the reason of a failure.
    pub fn give(&mut self, input: &[u8]) -> Result<(), &'static str> {
        self.kept.extend_from_slice(input);
        let mut events = Events::new();
        let outcome = self.connection.receive(&self.kept, &mut events);
        let kept = std::mem::take(&mut self.kept);
        self.note(&events, &kept);
        let used = outcome.map_err(|error| error.reason)?;
        self.kept = kept[used..].to_vec();
        Ok(())
    }

    /// What the connection wants to write; it counts as written.
    pub fn output(&mut self) -> String {
        self.connection.before_write();
        let bytes = self.connection.output().to_vec();
        let mut events = Events::new();
        self.connection.advance_output(bytes.len(), &mut events);
        self.note(&events, &[]);
        String::from_utf8(bytes).expect("tests write text")
    }

    /// The peer has closed.
    pub fn end(&mut self) {
        self.end_by(false);
    }

    /// The peer has closed, or its connection has failed.
    pub fn end_by(&mut self, failed: bool) {
        let mut events = Events::new();
        self.connection.end_of_input(failed, &mut events);
        self.note(&events, &[]);
    }

    fn note(&mut self, events: &Events, input: &[u8]) {
        for event in events {
            match event {
                Event::Request {
                    stream,
                    headers,
                    end_stream,
                } => {
                    self.stream = Some(*stream);
                    let fields = text(events, *headers);
                    self.push(format!("request {fields}"), *end_stream);
                }
                Event::Response {
                    headers,
                    end_stream,
                    informational,
                    ..
                } => {
                    let kind = if *informational {
                        "interim"
                    } else {
                        "response"
                    };
                    let fields = text(events, *headers);
                    self.push(format!("{kind} {fields}"), *end_stream);
                }
                Event::Data {
                    stream,
                    range,
                    flow_len,
                    end_stream,
                    ..
                } => {
                    let data = String::from_utf8_lossy(&input[range.clone()]).into_owned();
                    self.connection.release(*stream, *flow_len);
                    match self.events.last_mut() {
                        Some(last) if last.starts_with("data ") && !last.ends_with(" end") => {
                            last.push_str(&data);
                            if *end_stream {
                                last.push_str(" end");
                            }
                        }
                        _ => self.push(format!("data {data}"), *end_stream),
                    }
                }
                Event::Trailers { headers, .. } => {
                    let fields = text(events, *headers);
                    self.push(format!("trailers {fields}"), true);
                }
                Event::Reset { code, .. } => self.push(format!("reset {code}"), false),
                Event::Drained { bytes, .. } => self.push(format!("drained {bytes}"), false),
                other => self.push(format!("{other:?}"), false),
            }
        }
    }

    fn push(&mut self, mut text: String, end: bool) {
        if end {
            text.push_str(" end");
        }
        self.events.push(text);
    }
}

fn text(events: &Events, block: gateway_h2::HeaderBlock) -> String {
    let fields: Vec<String> = events
        .fields(block)
        .map(|field| {
            let name = String::from_utf8_lossy(field.name).into_owned();
            format!("{name}={}", String::from_utf8_lossy(field.value))
        })
        .collect();
    fields.join("|")
}

/// Fields for sending.
#[allow(dead_code)]
pub fn fields<'a>(list: &'a [(&'a str, &'a str)]) -> Vec<gateway_h2::Field<'a>> {
    list.iter()
        .map(|(name, value)| gateway_h2::Field::new(name.as_bytes(), value.as_bytes()))
        .collect()
}
