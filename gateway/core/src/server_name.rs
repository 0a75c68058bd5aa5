//! Which entry of a listener a TLS server name belongs to.
//!
//! Exact names win over `*.suffix` (one label or more, the longest suffix first), those over the
//! entry for everything else. Names compare in lower case.

use hashbrown::HashMap;

use crate::Name;
use crate::config::PassthroughTarget;
use crate::random::Draws;
use crate::route::without_port;

/// Entries by server name.
#[derive(Debug, Clone)]
pub struct ServerNames<T> {
    exact: HashMap<Name, T>,
    /// By what follows the `*`: `.example.com`.
    suffixes: HashMap<Name, T>,
    other: Option<T>,
}

// === impl ServerNames ===

impl<T: Clone> ServerNames<T> {
    /// Entries with their names; no names: every other name, and none at all. Of equal names the
    /// first counts.
    pub fn new<'a>(entries: impl IntoIterator<Item = (&'a [Name], T)>) -> Self {
        let mut found = Self {
            exact: HashMap::new(),
            suffixes: HashMap::new(),
            other: None,
        };
        for (names, entry) in entries {
            if names.is_empty() {
                found.other.get_or_insert_with(|| entry.clone());
            }
            for name in names {
                let (map, key) = match name.strip_prefix('*') {
                    Some(suffix) => (&mut found.suffixes, Name::from(suffix)),
                    None => (&mut found.exact, Name::clone(name)),
                };
                map.entry(key).or_insert_with(|| entry.clone());
            }
        }
        found
    }

    /// The entry of a client that asked for `name`, or for none.
    #[must_use]
    pub fn find(&self, name: Option<&str>) -> Option<&T> {
        let Some(name) = name.map(str::to_ascii_lowercase) else {
            return self.other.as_ref();
        };
        if let Some(entry) = self.exact.get(name.as_str()) {
            return Some(entry);
        }
        let mut dots = name.match_indices('.').map(|(at, _)| at);
        dots.find_map(|at| self.suffixes.get(&name[at..]).filter(|_| at > 0))
            .or(self.other.as_ref())
    }
}

impl<T: Clone + PartialEq> ServerNames<T> {
    /// Whether a client that asked for `name` came to another entry than `host` (with or without a port) belongs to.
    #[must_use]
    pub fn misdirected(&self, name: &str, host: &[u8]) -> bool {
        let host = without_port(host);
        if host.eq_ignore_ascii_case(name.as_bytes()) {
            return false;
        }
        let Ok(host) = std::str::from_utf8(host) else {
            return false;
        };
        match (self.find(Some(name)), self.find(Some(host))) {
            (Some(taken), Some(asked)) => taken != asked,
            _ => false,
        }
    }
}

/// A target by weight; `None` when there is none with weight.
#[must_use]
pub fn pick_target(targets: &[PassthroughTarget], random: u64) -> Option<&PassthroughTarget> {
    let total: u64 = targets.iter().map(|target| u64::from(target.weight)).sum();
    let mut place = (total > 0).then(|| Draws::new(random).below(total))?;
    targets.iter().find(|target| {
        let weight = u64::from(target.weight);
        let found = place < weight;
        place = place.saturating_sub(weight);
        found
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(of: &[&str]) -> Vec<Name> {
        of.iter().map(|name| Name::from(*name)).collect()
    }

    fn map() -> ServerNames<u8> {
        let entries = [
            names(&["a.example.com"]),
            names(&["*.example.com", "b.example.org"]),
            names(&["*.eu.example.com"]),
        ];
        let entries = entries.iter().zip(1..);
        ServerNames::new(entries.map(|(names, entry)| (&names[..], entry)))
    }

    #[test]
    fn exact_then_the_longest_suffix_then_everything_else() {
        let map = map();
        let cases = [
            ("a.example.com", Some(1)),
            ("A.Example.COM", Some(1)),
            ("b.example.com", Some(2)),
            ("x.y.example.com", Some(2)),
            ("x.eu.example.com", Some(3)),
            ("eu.example.com", Some(2)),
            ("example.com", None),
            (".example.com", None),
            ("b.example.org", Some(2)),
            ("c.example.org", None),
        ];
        for (name, entry) in cases {
            assert_eq!(map.find(Some(name)).copied(), entry, "{name}");
        }
        assert_eq!(map.find(None), None);
        let all = ServerNames::new([(&[][..], 7)]);
        assert_eq!((all.find(None), all.find(Some("x"))), (Some(&7), Some(&7)));
    }

    #[test]
    fn hosts_belong_to_the_entry_of_their_connection() {
        let map = map();
        let cases = [
            ("a.example.com", "a.example.com", false),
            ("a.example.com", "A.example.com:443", false),
            ("a.example.com", "b.example.com", true),
            ("b.example.com", "c.example.com", false),
            ("b.example.com", "b.example.org", false),
            ("b.example.com", "a.example.com", true),
            // Nobody's name says nothing about who is meant.
            ("example.net", "a.example.com", false),
            ("a.example.com", "example.net", false),
        ];
        for (name, host, misdirected) in cases {
            assert_eq!(
                map.misdirected(name, host.as_bytes()),
                misdirected,
                "{name}, {host}"
            );
        }
    }

    #[test]
    fn targets_follow_their_weights() {
        let target = |cluster: &str, weight| PassthroughTarget {
            cluster: Name::from(cluster),
            weight,
        };
        let targets = [target("a", 3), target("b", 0), target("c", 1)];
        let mut counts = [0; 3];
        for n in 0..4_000_u64 {
            let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let picked = pick_target(&targets, random).unwrap();
            counts[targets.iter().position(|it| it == picked).unwrap()] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((2_800..3_200).contains(&counts[0]), "{counts:?}");
        assert_eq!(pick_target(&targets[1..2], 0), None);
    }

    proptest! {
        #[test]
        fn any_name_finds_an_entry_or_none(name in "\\PC*") {
            let _no_panic = map().find(Some(&name));
        }
    }
}
