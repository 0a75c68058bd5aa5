//! Sessions: what a client is given so that its next call finds the same endpoint, and what it is
//! worth when it comes back.
//!
//! The token is a wish, never an order. It names a cluster (by a hash of its name) and an address,
//! and counts only if the route still sends calls to that cluster and the cluster still has that
//! address: a forged one leads to an endpoint that any call could get, or nowhere. Who has none, a
//! bad one, an old one, or one for an endpoint that is gone or unfit, is balanced like everybody
//! and given a new one.
//!
//! Written in hexadecimal: version, Unix time in seconds of the first and of the last call, hash,
//! address, port.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::{Session, SessionKind};
use crate::hash::hash_bytes;
use crate::{HeaderLookup, cookie};

const VERSION: u8 = 1;
/// Clocks of gateways may differ; a token from further ahead is not ours.
const AHEAD_S_MAX: u64 = 300;
/// Version, two times, hash, port; the address comes to it.
const FIXED_BYTES: usize = 1 + 2 * TIME_BYTES + 8 + 2;
/// Seconds up to the year 36812.
const TIME_BYTES: usize = 5;

/// What a valid token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// A hash of the cluster's name.
    cluster: u64,
    /// The endpoint; not known to exist.
    pub address: SocketAddr,
    /// Unix time of the session's first call.
    first_s: u64,
    last_s: u64,
}

/// A response header to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionHeader {
    /// `set-cookie`, or the session's own.
    pub name: crate::Name,
    /// Its value.
    pub value: String,
}

// === impl Held ===

impl Held {
    /// Whether the session is with this cluster.
    #[must_use]
    pub fn is_with(&self, cluster: &str) -> bool {
        self.cluster == cluster_hash(cluster)
    }
}

// === impl Session ===

impl Session {
    /// The session that a request claims, if its token can be read and is not over.
    pub fn read(&self, headers: &impl HeaderLookup, now_unix_s: u64) -> Option<Held> {
        let token = match self.kind {
            SessionKind::Cookie => cookie::value(headers, &self.name)?,
            SessionKind::Header => headers.first(&self.name)?,
        };
        let held = decode(token)?;
        let age_ms = |since_s: u64| now_unix_s.saturating_sub(since_s).saturating_mul(1_000);
        let over = |bound: Option<u64>, age_ms: u64| bound.is_some_and(|bound| age_ms >= bound);
        let ours = held.first_s <= held.last_s && held.last_s <= now_unix_s + AHEAD_S_MAX;
        let ended =
            over(self.absolute_ms, age_ms(held.first_s)) || over(self.idle_ms, age_ms(held.last_s));
        (ours && !ended).then_some(held)
    }

    /// What to add to the response of a call that `cluster` and `address` answered; `None` when the
    /// client has what it needs. `held` is what its request claimed; `secure`: it came over TLS.
    #[must_use]
    pub fn write(
        &self,
        held: Option<Held>,
        cluster: &str,
        address: SocketAddr,
        now_unix_s: u64,
        secure: bool,
    ) -> Option<SessionHeader> {
        let same = held.filter(|held| held.is_with(cluster) && held.address == address);
        if same.is_some_and(|held| self.idle_ms.is_none() || held.last_s >= now_unix_s) {
            return None;
        }
        // A session that had to move is the same session: it does not live longer for it.
        let first_s = held.map_or(now_unix_s, |held| held.first_s.min(now_unix_s));
        let token = encode(Held {
            cluster: cluster_hash(cluster),
            address,
            first_s,
            last_s: now_unix_s,
        });
        Some(match self.kind {
            SessionKind::Header => SessionHeader {
                name: self.name.clone(),
                value: token,
            },
            SessionKind::Cookie => SessionHeader {
                name: "set-cookie".into(),
                value: self.cookie(&token, first_s, now_unix_s, secure),
            },
        })
    }

    fn cookie(&self, token: &str, first_s: u64, now_unix_s: u64, secure: bool) -> String {
        let mut cookie = format!("{}={token}; Path=/; HttpOnly", self.name);
        if secure {
            cookie.push_str("; Secure");
        }
        if let (true, Some(absolute_ms)) = (self.permanent, self.absolute_ms) {
            let left_s = (absolute_ms / 1_000).saturating_sub(now_unix_s - first_s);
            // Writing to a string does not fail.
            let _ = write!(cookie, "; Max-Age={left_s}");
        }
        cookie
    }
}

fn cluster_hash(cluster: &str) -> u64 {
    hash_bytes(0, cluster.as_bytes())
}

fn encode(held: Held) -> String {
    let mut bytes = vec![VERSION];
    for time_s in [held.first_s, held.last_s] {
        bytes.extend(&time_s.to_be_bytes()[8 - TIME_BYTES..]);
    }
    bytes.extend(held.cluster.to_be_bytes());
    match held.address.ip() {
        IpAddr::V4(ip) => bytes.extend(ip.octets()),
        IpAddr::V6(ip) => bytes.extend(ip.octets()),
    }
    bytes.extend(held.address.port().to_be_bytes());
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn decode(token: &[u8]) -> Option<Held> {
    let lengths = [2 * (FIXED_BYTES + 4), 2 * (FIXED_BYTES + 16)];
    if !lengths.contains(&token.len()) {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .filter(|_| !byte.is_ascii_uppercase())
    };
    let byte = |pair: &[u8]| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
    let bytes: Option<Vec<u8>> = token.chunks_exact(2).map(byte).collect();
    let bytes = bytes?;
    let (version, rest) = bytes.split_first()?;
    let (first_s, rest) = rest.split_at_checked(TIME_BYTES)?;
    let (last_s, rest) = rest.split_at_checked(TIME_BYTES)?;
    let (cluster, rest) = rest.split_first_chunk::<8>()?;
    let (ip, port) = rest.split_last_chunk::<2>()?;
    let ip = <[u8; 4]>::try_from(ip).map_or_else(
        |_| {
            let octets = <[u8; 16]>::try_from(ip).ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        },
        |octets| Some(IpAddr::V4(Ipv4Addr::from(octets))),
    )?;
    let time_s = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |time, byte| time << 8 | u64::from(*byte))
    };
    (*version == VERSION).then(|| Held {
        cluster: u64::from_be_bytes(*cluster),
        address: SocketAddr::new(ip, u16::from_be_bytes(*port)),
        first_s: time_s(first_s),
        last_s: time_s(last_s),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct One<'a>(&'a str, &'a str);

    impl HeaderLookup for One<'_> {
        fn first(&self, name: &str) -> Option<&[u8]> {
            (name == self.0).then_some(self.1.as_bytes())
        }
    }

    fn session(kind: SessionKind, absolute_ms: Option<u64>, idle_ms: Option<u64>) -> Session {
        Session {
            name: "sid".into(),
            kind,
            absolute_ms,
            idle_ms,
            permanent: true,
        }
    }

    fn address() -> SocketAddr {
        "10.0.0.7:50051".parse().unwrap()
    }

    #[test]
    fn a_cookie_is_set_once_and_read_again() {
        let session = session(SessionKind::Cookie, Some(60_000), None);
        let header = session
            .write(None, "users", address(), 1_000, true)
            .unwrap();
        assert_eq!(&*header.name, "set-cookie");
        let (pair, rest) = header.value.split_once(';').unwrap();
        assert_eq!(rest, " Path=/; HttpOnly; Secure; Max-Age=60");
        let held = session.read(&One("cookie", pair), 1_059).unwrap();
        assert!(held.is_with("users") && !held.is_with("orders"));
        assert_eq!(held.address, address());
        assert_eq!(
            session.write(Some(held), "users", address(), 1_059, true),
            None
        );
        let other = "10.0.0.8:50051".parse().unwrap();
        let moved = session
            .write(Some(held), "users", other, 1_030, false)
            .unwrap();
        assert!(
            moved.value.ends_with("; HttpOnly; Max-Age=30"),
            "{}",
            moved.value
        );
        assert_eq!(
            session.read(&One("cookie", pair), 1_060),
            None,
            "it is over"
        );
    }

    #[test]
    fn a_header_session_ends_after_silence() {
        let session = session(SessionKind::Header, None, Some(10_000));
        let token = session
            .write(None, "users", address(), 1_000, true)
            .unwrap();
        assert_eq!(&*token.name, "sid");
        assert_eq!(session.read(&One("sid", &token.value), 1_010), None);
        let held = session.read(&One("sid", &token.value), 1_009).unwrap();
        let renewed = session
            .write(Some(held), "users", address(), 1_009, true)
            .unwrap();
        assert!(session.read(&One("sid", &renewed.value), 1_018).is_some());
    }

    #[test]
    fn tokens_from_the_future_or_of_another_form_are_not_ours() {
        let session = session(SessionKind::Header, None, None);
        let token = session
            .write(None, "users", address(), 5_000, true)
            .unwrap()
            .value;
        assert_eq!(session.read(&One("sid", &token), 4_699), None);
        for bad in [
            "",
            "01",
            &token[2..],
            &token.to_uppercase().replace('0', "g"),
        ] {
            assert_eq!(session.read(&One("sid", bad), 5_000), None, "{bad}");
        }
        let other_version = format!("02{}", &token[2..]);
        assert_eq!(session.read(&One("sid", &other_version), 5_000), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            cluster in "[a-z]{1,12}",
            v6: Option<[u8; 16]>,
            v4: [u8; 4],
            port: u16,
            now_s in 0..1_u64 << 39,
        ) {
            let ip = v6.map_or(IpAddr::from(v4), IpAddr::from);
            let address = SocketAddr::new(ip, port);
            let session = session(SessionKind::Header, None, None);
            let token = session.write(None, &cluster, address, now_s, true).unwrap().value;
            let held = session.read(&One("sid", &token), now_s).unwrap();
            prop_assert!(held.is_with(&cluster));
            prop_assert_eq!(held.address, address);
        }

        #[test]
        fn any_bytes_are_read_without_harm(token in "[0-9a-fA-F;=\\x00-\\x7f]{0,90}", now_s: u64) {
            let session = session(SessionKind::Header, Some(1), Some(1));
            let _ = session.read(&One("sid", &token), now_s / 2);
        }
    }
}
