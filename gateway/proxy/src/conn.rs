//! One connection of either side: its transport, what it speaks, and the calls that have a stream on it.
//!
//! Moves bytes between the socket and the codec; what the events mean is decided by `downstream`
//! and `upstream`. A connection that fails is only marked (`dead`); the worker takes it out at the end of the
//! turn, so that no key is reused while a turn still refers to it. An idle connection holds no read buffer: only
//! the bytes of an unfinished frame or head are kept, and with HTTP/1 those of requests that wait for an answer.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use gateway_core::Name;
use gateway_h2::{Events, StreamRef};

use crate::abuse::StreamFaults;
use crate::age::Life;
use crate::call::CallId;
use crate::codec::Codec;
use crate::leaving::Leave;
use crate::stats::PeerCounters;
use crate::timers::TimerId;
use crate::transport::Transport;
use crate::{descriptors, tls};

/// Room for the largest frame (16 KiB and its header) and what was left before it, and for several more.
pub(crate) const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Names a connection; the serial tells it from a later one in the same slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ConnId {
    pub key: usize,
    pub serial: u64,
}

/// A stream on a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct StreamAt {
    pub conn: usize,
    pub stream: StreamRef,
}

/// Why a connection ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Death {
    /// The peer ended it, or the socket failed.
    Closed,
    /// The peer broke the protocol or one of our limits.
    Protocol,
    /// Connecting, TLS or the first SETTINGS failed or took too long.
    Connect(ConnectFault),
    /// No answer to PING.
    Silent,
    /// Nothing is left to do on it.
    Finished,
    /// A bug of ours.
    Panic,
}

/// How an attempt to connect failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ConnectFault {
    Refused,
    Unreachable,
    /// What TLS said, and which side said it.
    Tls(String),
    TimedOut,
    Closed,
    /// Says nothing about the endpoint: this process has no file descriptor left.
    NoDescriptor,
    /// Given up here: the endpoint is gone from the snapshot.
    Unwanted,
}

/// See the module.
#[allow(clippy::struct_excessive_bools)] // independent marks for the worker's lists, not one state
pub(crate) struct Conn {
    pub id: ConnId,
    pub transport: Transport,
    pub codec: Codec,
    pub side: Side,
    /// Calls with a stream here; each call knows its index.
    pub calls: Vec<CallId>,
    /// Mirrors' copies with a stream here.
    pub copies: u32,
    /// For a client's connection: the call that a stream's slot had last.
    pub by_slot: Vec<CallId>,
    pub last_read_ms: u64,
    pub last_write_ms: u64,
    /// When our PING that has no answer yet was sent.
    pub ping_sent_ms: Option<u64>,
    /// PINGs since the peer last sent a frame of a stream.
    pub pings_in_vain: u32,
    pub liveness_timer: Option<TimerId>,
    /// Waits in the worker's list of connections to flush.
    pub dirty: bool,
    /// Used up its share of this turn and has more to read.
    pub again: bool,
    pub dead: Option<Death>,
    /// How much of the worker's count of held bytes is this connection's.
    pub counted_bytes: usize,
    /// Receive windows beyond what streams begin with, of the calls of this client in both directions.
    pub widened_bytes: u32,
    /// A header block was seen unfinished first then.
    pub amid_headers_since_ms: Option<u64>,
    pub counted_faults: StreamFaults,
    /// The poll said that the peer has ended: a short read does not mean that nothing follows.
    pub read_closed: bool,
    /// Nothing is written: to a client that was not heard yet, since it may be answered in HTTP/1, and after the last
    /// words.
    pub held: bool,
    write_blocked: bool,
    rest: Vec<u8>,
    /// `rest` is no unfinished frame or head: the codec takes it when it is done with what came before.
    rest_waits: bool,
    /// The socket may hold bytes that the codec did not want yet.
    paused: bool,
}

/// What the two sides do not share.
pub(crate) enum Side {
    Down(Down),
    Up(Up),
}

/// A client's connection.
pub(crate) struct Down {
    pub listener: usize,
    /// Where the client is.
    pub client: IpAddr,
    /// The member cluster that it is a gateway of, by its certificate.
    pub peer_cluster: Option<Name>,
    pub phase: DownPhase,
    /// Runs until the client's SETTINGS have come.
    pub setup_timer: Option<TimerId>,
    pub idle_timer: Option<TimerId>,
    /// When the last call began or ended.
    pub last_call_ms: u64,
    pub leave: Leave,
    /// Of a peer's gateway: the counters of its cluster, once a call has ended.
    pub peer: Option<Arc<PeerCounters>>,
    /// What its listener's settings ask for; `None`: nothing.
    pub life: Option<Box<Life>>,
}

/// `Preface → Open → Leaving → Final`, and `Lingering` from any but the first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DownPhase {
    /// Nothing or not enough was read to tell HTTP/2 from HTTP/1.
    Preface,
    /// Requests are taken.
    Open,
    /// Graceful GOAWAY and PING are out (HTTP/1: the next answer says it): streams may finish and the client leaves.
    Leaving,
    /// The final GOAWAY is out: closes with its last stream.
    Final,
    /// The last words or answers are written and the sending side is shut; what the client still sends is read and
    /// dropped until it ends, so that the system does not take them back.
    Lingering,
}

/// A connection to an endpoint.
pub(crate) struct Up {
    pub pool: usize,
    pub phase: UpPhase,
    /// Streams opened so far.
    pub requests: u32,
    pub setup_timer: Option<TimerId>,
    pub idle_timer: Option<TimerId>,
    /// When the last stream began or ended.
    pub last_call_ms: u64,
}

/// `Connecting → Ready → Leaving`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum UpPhase {
    /// TCP, TLS and the first SETTINGS are under way.
    Connecting,
    /// Streams may be opened.
    Ready,
    /// Opens no new streams and closes with its last one.
    Leaving,
}

/// What one read brought.
pub(crate) enum Read {
    /// Bytes lie in the buffer, from its start; the flag says that the socket may hold more.
    Bytes { len: usize, more: bool },
    /// Nothing now.
    Blocked,
    /// The peer ended, or the transport failed.
    Ended(io::Error),
}

// === impl ConnectFault ===

impl ConnectFault {
    /// For messages: what happened to the attempt.
    pub fn words(&self) -> &str {
        match self {
            Self::Refused => "connection refused",
            Self::Unreachable => "unreachable",
            Self::Tls(words) => words,
            Self::TimedOut => "no connection in time",
            Self::Closed => "closed while connecting",
            Self::NoDescriptor => "no file descriptor left",
            Self::Unwanted => "not wanted any more",
        }
    }

    /// Whether it tells something about the endpoint, and not about this gateway.
    pub fn blames_endpoint(&self) -> bool {
        !matches!(self, Self::NoDescriptor | Self::Unwanted)
    }
}

impl From<&io::Error> for ConnectFault {
    fn from(error: &io::Error) -> Self {
        if descriptors::are_short(error) {
            return Self::NoDescriptor;
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::InvalidData => Self::Tls(tls::fault_words(error)),
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Self::Closed,
            _ => Self::Unreachable,
        }
    }
}

// === impl Conn ===

impl Conn {
    pub fn new(id: ConnId, transport: Transport, codec: Codec, side: Side, now_ms: u64) -> Self {
        let held = matches!(side, Side::Down(_));
        Self {
            id,
            transport,
            codec,
            side,
            calls: Vec::new(),
            copies: 0,
            by_slot: Vec::new(),
            last_read_ms: now_ms,
            last_write_ms: now_ms,
            ping_sent_ms: None,
            pings_in_vain: 0,
            liveness_timer: None,
            dirty: false,
            again: false,
            dead: None,
            counted_bytes: 0,
            widened_bytes: 0,
            amid_headers_since_ms: None,
            counted_faults: StreamFaults::default(),
            read_closed: false,
            held,
            write_blocked: false,
            rest: Vec::new(),
            rest_waits: false,
            paused: false,
        }
    }

    /// A connection whose socket is not connected yet: it is written to once the socket says so.
    pub fn connecting(
        id: ConnId,
        transport: Transport,
        codec: Codec,
        side: Side,
        now_ms: u64,
    ) -> Self {
        Self {
            write_blocked: true,
            ..Self::new(id, transport, codec, side, now_ms)
        }
    }

    pub fn down(&mut self) -> Option<&mut Down> {
        match &mut self.side {
            Side::Down(down) => Some(down),
            Side::Up(_) => None,
        }
    }

    pub fn up(&mut self) -> Option<&mut Up> {
        match &mut self.side {
            Side::Up(up) => Some(up),
            Side::Down(_) => None,
        }
    }

    /// True while a client's preface and SETTINGS are awaited.
    pub fn is_setting_up(&self) -> bool {
        matches!(&self.side, Side::Down(down) if down.setup_timer.is_some())
    }

    /// What it still sends is of no interest.
    fn is_lingering(&self) -> bool {
        matches!(&self.side, Side::Down(down) if down.phase == DownPhase::Lingering)
    }

    /// Remembers which call a client's stream is.
    pub fn set_call(&mut self, stream: StreamRef, call: CallId) {
        let slot = stream.slot() as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, call);
        }
        self.by_slot[slot] = call;
    }

    /// Reads once; the bytes kept from before come first in the buffer.
    pub fn read(&mut self, buffer: &mut [u8]) -> Read {
        let kept = self.rest.len();
        buffer[..kept].copy_from_slice(&self.rest);
        match self.transport.read(&mut buffer[kept..]) {
            Ok(0) => Read::Ended(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.rest.clear();
                let len = kept + count;
                let full = len == buffer.len();
                Read::Bytes {
                    len,
                    more: full || self.read_closed || !self.transport.short_read_means_empty(),
                }
            }
            Err(error) if not_yet(&error) => Read::Blocked,
            Err(error) => Read::Ended(error),
        }
    }

    /// The peer has begun a header block, or one frame of it, and not ended it.
    pub fn is_amid_headers(&self) -> bool {
        self.codec.is_amid_headers(&self.rest)
    }

    /// Takes out bytes that waited for the codec, to the start of the buffer.
    pub fn take_waiting(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if !self.rest_waits || !self.codec.takes_input() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        buffer[..rest.len()].copy_from_slice(&rest);
        self.rest_waits = false;
        Some(rest.len())
    }

    /// Whether the socket may be read now; if not, `wants_resume` tells later.
    pub fn may_read(&mut self) -> bool {
        self.paused = !self.is_lingering() && !self.codec.takes_more(self.rest.len());
        !self.paused
    }

    /// There is input that was not wanted before and is now.
    pub fn wants_resume(&self) -> bool {
        (self.rest_waits && self.codec.takes_input())
            || (self.paused && self.codec.takes_more(self.rest.len()))
    }

    /// Bytes that the codec did not use yet.
    pub fn rest_len(&self) -> usize {
        self.rest.len()
    }

    /// Keeps the bytes that the codec did not use for the next read.
    pub fn keep(&mut self, rest: &[u8]) {
        self.rest.extend_from_slice(rest);
        self.rest_waits = !rest.is_empty() && !self.codec.takes_input();
        if rest.is_empty() && self.rest.capacity() > 0 {
            self.rest = Vec::new();
        }
    }

    /// An endpoint of HTTP/1 can be asked once it is connected: it says nothing of its own.
    pub fn is_reached(&mut self) -> bool {
        let connecting = matches!(&self.side, Side::Up(up) if up.phase == UpPhase::Connecting);
        connecting && self.codec.is_h1() && self.transport.socket().peer_addr().is_ok()
    }

    /// Writes nothing more; what the peer has still sent is read.
    pub fn give_up_writing(&mut self) {
        self.write_blocked = true;
        self.read_closed = true;
    }

    /// The socket takes bytes again.
    pub fn unblock(&mut self) {
        self.write_blocked = false;
    }

    /// True when a flush could do something.
    pub fn wants_flush(&self) -> bool {
        let speaks = self.codec.wants_write() && !self.held;
        let writes = !self.write_blocked && (speaks || self.transport.wants_flush());
        writes || self.wants_resume()
    }

    /// Writes what the socket takes; events are bodies that moved up behind what was written.
    pub fn flush(&mut self, now_ms: u64, events: &mut Events) -> io::Result<()> {
        self.codec.before_write();
        while !self.held && !self.write_blocked && self.codec.wants_write() {
            match self.transport.write(self.codec.output()) {
                Ok(count) => {
                    self.last_write_ms = now_ms;
                    let all = count == self.codec.output().len();
                    self.codec.advance_output(count, events);
                    self.write_blocked = !all && self.transport.short_read_means_empty();
                }
                Err(error) if not_yet(&error) => self.write_blocked = true,
                Err(error) => return Err(error),
            }
        }
        match self.transport.flush() {
            Err(error) if not_yet(&error) => self.write_blocked = true,
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        Ok(())
    }
}

/// A socket that is still connecting says either.
fn not_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
    )
}
