//! The first message of a TLS client, read before it is decided who answers it.
//!
//! Bounds: `HELLO_MAX` bytes and one read, and the time that the worker gives a connection to be set up. rustls parses; the bytes are
//! kept, since whoever answers has to see them.

use std::io::{ErrorKind, Read};

use mio::net::TcpStream;
use rustls::server::Acceptor;

/// More than the largest hello that clients send (post-quantum keys, long lists of protocols) by far.
const HELLO_MAX: usize = 32 * 1024;

/// What ends a client that asks for a name nobody here serves: a fatal alert, `unrecognized_name` (RFC 6066, 3).
pub(crate) const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A hello that is being read.
#[derive(Default)]
pub(crate) struct Hello {
    acceptor: Acceptor,
    seen: Vec<u8>,
}

/// What a read brought.
pub(crate) enum Heard {
    /// More has to come.
    Nothing,
    /// The server name, if the client sent one, and all bytes so far.
    All(Option<String>, Vec<u8>),
    /// It speaks no TLS, or has gone.
    Noise,
}

// === impl Hello ===

impl Hello {
    /// Reads what is there.
    pub fn read(&mut self, client: &mut TcpStream, buffer: &mut [u8]) -> Heard {
        loop {
            match client.read(buffer) {
                Ok(0) => return Heard::Noise,
                Ok(count) => match self.take(&buffer[..count]) {
                    Heard::Nothing => {}
                    done => return done,
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Heard::Noise,
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Heard {
        self.seen.extend_from_slice(bytes);
        while !bytes.is_empty() {
            if self.acceptor.read_tls(&mut bytes).unwrap_or(0) == 0 {
                return Heard::Noise;
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let name = accepted.client_hello().server_name().map(str::to_owned);
                    return Heard::All(name, std::mem::take(&mut self.seen));
                }
                Err(_) => return Heard::Noise,
            }
        }
        // What follows a whole hello (early data) does not count.
        if self.seen.len() > HELLO_MAX {
            return Heard::Noise;
        }
        Heard::Nothing
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::crypto::ring;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::{HELLO_MAX, Heard, Hello};

    fn hello_for(name: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("a hello");
        bytes
    }

    #[test]
    fn a_hello_is_understood_however_it_is_cut() {
        let bytes = hello_for("a.example.com");
        for size in [1, 7, bytes.len()] {
            let mut hello = Hello::default();
            let mut chunks = bytes.chunks(size).peekable();
            while let Some(chunk) = chunks.next() {
                match hello.take(chunk) {
                    Heard::Nothing => assert!(chunks.peek().is_some()),
                    Heard::All(name, seen) => {
                        assert!(chunks.peek().is_none());
                        assert_eq!(name.as_deref(), Some("a.example.com"));
                        assert_eq!(seen, bytes);
                    }
                    Heard::Noise => panic!("a hello is no noise"),
                }
            }
        }
    }

    #[test]
    fn early_data_may_follow_in_the_same_read() {
        let mut bytes = hello_for("a.example.com");
        bytes.extend(std::iter::repeat_n(23, 2 * HELLO_MAX));
        match Hello::default().take(&bytes) {
            Heard::All(Some(name), seen) => assert_eq!((&*name, seen), ("a.example.com", bytes)),
            _ => panic!("the hello is whole"),
        }
    }

    #[test]
    fn an_address_is_no_server_name() {
        let heard = Hello::default().take(&hello_for("127.0.0.1"));
        assert!(matches!(heard, Heard::All(None, _)));
    }

    #[test]
    fn noise_and_endless_hellos_are_ended() {
        assert!(matches!(
            Hello::default().take(b"GET / HTTP/1.1\r\n\r\n"),
            Heard::Noise
        ));
        let mut endless = Hello::default();
        // Records that hold a client hello of 16 MiB, byte by byte.
        let heads = [22, 3, 1, 0, 4, 1, 255, 255, 255].into_iter();
        let all: Vec<u8> = heads.chain([22, 3, 1, 0, 1, 0].repeat(HELLO_MAX)).collect();
        assert!(
            all.chunks(1024)
                .any(|chunk| matches!(endless.take(chunk), Heard::Noise))
        );
        assert!(endless.seen.len() <= HELLO_MAX + 1024);
    }
}
