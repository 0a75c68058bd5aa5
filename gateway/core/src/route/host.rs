//! From `:authority` to a virtual host.

use hashbrown::HashMap;

use crate::config::Name;

/// Longest hostname with its final dot (RFC 1035); longer ones have no virtual host of their own.
const HOST_BYTES_MAX: usize = 254;

/// Positions of virtual hosts by hostname.
#[derive(Debug, Default)]
pub(super) struct HostMap {
    exact: HashMap<Box<[u8]>, usize>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<[u8]>, usize>,
    any: Option<usize>,
}

impl HostMap {
    pub(super) fn new<'a>(virtual_hosts: impl Iterator<Item = &'a [Name]>) -> Self {
        let mut map = Self::default();
        for (position, hostnames) in virtual_hosts.enumerate() {
            for hostname in hostnames {
                map.insert(hostname, position);
            }
        }
        map
    }

    fn insert(&mut self, hostname: &str, position: usize) {
        if hostname == "*" {
            self.any = Some(position);
        } else if let Some(suffix) = hostname.strip_prefix("*.") {
            self.wildcard.insert(suffix.as_bytes().into(), position);
        } else {
            self.exact.insert(hostname.as_bytes().into(), position);
        }
    }

    /// Exact, then the longest wildcard (one or more labels in its place), then `*`.
    pub(super) fn find(&self, authority: &[u8]) -> Option<usize> {
        let mut buffer = [0; HOST_BYTES_MAX];
        lower_case_host(authority, &mut buffer)
            .and_then(|host| self.find_named(host))
            .or(self.any)
    }

    fn find_named(&self, host: &[u8]) -> Option<usize> {
        if let Some(position) = self.exact.get(host) {
            return Some(*position);
        }
        if self.wildcard.is_empty() {
            return None;
        }
        // Left to right, so the longest suffix is met first; an empty label in front is no label.
        let mut dots = host
            .iter()
            .enumerate()
            .skip(1)
            .filter(|(_, byte)| **byte == b'.');
        dots.find_map(|(dot, _)| self.wildcard.get(&host[dot + 1..]))
            .copied()
    }
}

/// The host of an authority in lower case, without port and final dot; `None` when it is too long
/// to be one.
fn lower_case_host<'a>(authority: &[u8], buffer: &'a mut [u8; HOST_BYTES_MAX]) -> Option<&'a [u8]> {
    let host = without_port(authority);
    let host = host.strip_suffix(b".").unwrap_or(host);
    let lower = buffer.get_mut(..host.len())?;
    lower.copy_from_slice(host);
    lower.make_ascii_lowercase();
    Some(lower)
}

pub(crate) fn without_port(authority: &[u8]) -> &[u8] {
    if let Some(rest) = authority.strip_prefix(b"[") {
        return rest.split(|byte| *byte == b']').next().unwrap_or(rest);
    }
    authority
        .split(|byte| *byte == b':')
        .next()
        .unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(hostnames: &[&str]) -> HostMap {
        let hosts: Vec<[Name; 1]> = hostnames.iter().map(|name| [Name::from(*name)]).collect();
        HostMap::new(hosts.iter().map(|names| &names[..]))
    }

    #[test]
    fn the_most_specific_hostname_wins() {
        let map = map(&[
            "*",
            "*.bar.com",
            "*.foo.bar.com",
            "foo.bar.com",
            "10.0.0.1",
            "fd00::1",
        ]);
        let table = [
            ("foo.bar.com", 3),
            ("FOO.Bar.com:443", 3),
            ("foo.bar.com.", 3),
            ("x.foo.bar.com", 2),
            ("multiple.prefixes.bar.com", 1),
            ("bar.com", 0),
            (".bar.com", 0),
            ("xbar.com", 0),
            ("10.0.0.1:80", 4),
            ("[fd00::1]:80", 5),
            ("", 0),
        ];
        for (host, position) in table {
            assert_eq!(map.find(host.as_bytes()), Some(position), "{host}");
        }
    }

    #[test]
    fn a_wildcard_never_has_its_apex() {
        let map = map(&["*.foo.com"]);
        assert_eq!(map.find(b"foo.com"), None);
        assert_eq!(map.find(b"a.foo.com"), Some(0));
    }

    #[test]
    fn a_hostname_that_is_too_long_has_the_default_host_at_most() {
        assert_eq!(map(&["*"]).find(&[b'a'; 5_000]), Some(0));
        assert_eq!(map(&["a"]).find(&[b'a'; 5_000]), None);
    }
}
