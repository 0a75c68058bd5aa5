//! A byte stream that never blocks: a TCP socket, plain or under TLS.
//!
//! Decides nothing about HTTP/2. `read` and `write` have the socket's own conventions (`WouldBlock`, 0 = end);
//! TLS handshakes run inside them. What rustls still holds to be sent is bounded by its own buffer limit, and
//! `write` takes nothing new while that is stuck.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;

/// Plaintext that rustls may hold while the socket does not take it.
const TLS_BUFFER_BYTES: usize = 64 * 1024;

/// See the module.
pub enum Transport {
    /// Bytes as they are.
    Plain(TcpStream),
    /// Bytes under TLS, server or client side.
    Tls(Box<Tls>),
}

/// A socket and its TLS session.
pub struct Tls {
    socket: TcpStream,
    /// Read from the socket before TLS was put onto it.
    early: Vec<u8>,
    session: rustls::Connection,
}

// === impl Transport ===

impl Transport {
    /// Puts TLS onto a socket.
    pub fn tls(socket: TcpStream, session: rustls::Connection) -> Self {
        Self::tls_after(socket, session, Vec::new())
    }

    /// Puts TLS onto a socket whose first bytes were read already.
    pub fn tls_after(socket: TcpStream, mut session: rustls::Connection, early: Vec<u8>) -> Self {
        session.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        Self::Tls(Box::new(Tls {
            socket,
            early,
            session,
        }))
    }

    /// The socket below, for registration and its addresses.
    pub fn socket(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &mut tls.socket,
        }
    }

    /// The name that a client asked for by TLS.
    pub fn server_name(&self) -> Option<&str> {
        match self {
            Self::Tls(tls) => match &tls.session {
                rustls::Connection::Server(session) => session.server_name(),
                rustls::Connection::Client(_) => None,
            },
            Self::Plain(_) => None,
        }
    }

    /// The member cluster that a client's certificate names: what follows `/cluster/` in its SPIFFE id.
    pub fn peer_cluster(&self) -> Option<String> {
        let Self::Tls(tls) = self else { return None };
        let leaf = tls.session.peer_certificates()?.first()?;
        let certificate = webpki::EndEntityCert::try_from(leaf).ok()?;
        let mut names = certificate.valid_uri_names();
        names.find_map(|id| Some(id.rsplit_once("/cluster/")?.1.to_owned()))
    }

    /// Reads what is there; 0 is the peer's end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => retry_interrupted(|| socket.read(buffer)),
            Self::Tls(tls) => tls.read(buffer),
        }
    }

    /// Writes as much as the socket takes now.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => retry_interrupted(|| socket.write(bytes)),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    /// Sends TLS records that wait; `WouldBlock` while some remain.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }

    /// True when `flush` has something to send.
    pub fn wants_flush(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.session.wants_write())
    }

    /// A plain socket that gave less than was asked for is empty now; TLS cannot tell.
    pub fn short_read_means_empty(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Goes on with setting up; true once application bytes can flow. None of them is read here.
    pub fn establish(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(tls) => tls.establish(),
        }
    }

    /// True once application bytes can flow.
    pub fn is_established(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(tls) => !tls.session.is_handshaking(),
        }
    }

    /// Says goodbye (TLS `close_notify`) and ends the sending side, as far as the socket takes it.
    pub fn finish(&mut self) {
        if let Self::Tls(tls) = self {
            tls.session.send_close_notify();
            let _best_effort = tls.flush();
        }
        let _already_gone = self.socket().shutdown(std::net::Shutdown::Write);
    }
}

// === impl Tls ===

impl Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // A peer that ends TCP without close_notify: HTTP/2 has its own framing, so truncation is seen there.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                done => return done,
            }
            if !self.take_records()? {
                return Ok(0);
            }
        }
    }

    fn establish(&mut self) -> io::Result<bool> {
        loop {
            match self.flush() {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
            if !self.session.is_handshaking() {
                return Ok(true);
            }
            match self.take_records() {
                Ok(true) => {}
                Ok(false) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the session what the socket has; false at the peer's end.
    fn take_records(&mut self) -> io::Result<bool> {
        if !self.early.is_empty() {
            let mut early = self.early.as_slice();
            let taken = self.session.read_tls(&mut early)?;
            self.early.drain(..taken);
            if self.early.is_empty() {
                self.early = Vec::new();
            }
        } else if retry_interrupted(|| self.session.read_tls(&mut self.socket))? == 0 {
            return Ok(false);
        }
        if let Err(error) = self.session.process_new_packets() {
            let _alert_is_best_effort = self.flush();
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(true)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let taken = self.session.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ if taken == 0 && !bytes.is_empty() => Err(ErrorKind::WouldBlock.into()),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            if retry_interrupted(|| self.session.write_tls(&mut self.socket))? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

fn retry_interrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
