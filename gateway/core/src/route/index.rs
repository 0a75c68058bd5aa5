//! Which routes can match a path, in order, without looking at the others.
//!
//! gRPC paths are `/service/method`. Routes for one path go under that path, routes for one service
//! (a prefix of the form `/service/`) under that prefix, and everything else (other prefixes,
//! regular expressions) into a list that is tried for every path. All three keep ascending
//! positions, so merging them gives the order of precedence.

use hashbrown::HashMap;

use crate::config::PathMatch;

/// Positions of routes by path.
#[derive(Debug, Default)]
pub(super) struct PathIndex {
    exact: HashMap<Box<[u8]>, Positions>,
    /// By `/service/`.
    service: HashMap<Box<[u8]>, Positions>,
    rest: Vec<u32>,
}

/// Ascending. Most paths have one route, which is kept in place: with many routes each step to
/// other memory is one that is not in the cache.
#[derive(Debug)]
enum Positions {
    One([u32; 1]),
    Many(Vec<u32>),
}

impl Positions {
    fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }

    fn push(&mut self, position: u32) {
        match self {
            Self::One([one]) => *self = Self::Many(vec![*one, position]),
            Self::Many(many) => many.push(position),
        }
    }
}

impl PathIndex {
    pub(super) fn new<'a>(paths: impl Iterator<Item = &'a PathMatch>) -> Self {
        let mut index = Self::default();
        for (position, path) in (0_u32..).zip(paths) {
            index.insert(path, position);
        }
        index
    }

    fn insert(&mut self, path: &PathMatch, position: u32) {
        let map = match path {
            PathMatch::Exact(_) => &mut self.exact,
            PathMatch::Prefix(path) if service_of(path.as_bytes()) == Some(path.as_bytes()) => {
                &mut self.service
            }
            PathMatch::Prefix(_) | PathMatch::Regex(_) => return self.rest.push(position),
        };
        let (PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Regex(path)) = path;
        map.entry(path.as_bytes().into())
            .and_modify(|positions| positions.push(position))
            .or_insert(Positions::One([position]));
    }

    /// Positions of routes that may match, ascending, and whether their path is known to.
    pub(super) fn candidates(&self, path: &[u8]) -> impl Iterator<Item = (usize, bool)> {
        let exact = self.exact.get(path);
        let service = service_of(path).and_then(|service| self.service.get(service));
        Merge([
            exact.map_or(&[][..], Positions::as_slice),
            service.map_or(&[][..], Positions::as_slice),
            &self.rest,
        ])
    }
}

/// `/service/` of `/service/method`; `None` when there is no second slash, or nothing before it.
fn service_of(path: &[u8]) -> Option<&[u8]> {
    let rest = path.strip_prefix(b"/")?;
    let slash = rest.iter().position(|byte| *byte == b'/')?;
    (slash > 0).then(|| &path[..slash + 2])
}

/// Merges ascending lists; the path of those in the first two is known to match.
struct Merge<'a>([&'a [u32]; 3]);

impl Iterator for Merge<'_> {
    type Item = (usize, bool);

    fn next(&mut self) -> Option<(usize, bool)> {
        let lists = self.0.iter_mut().enumerate();
        let (at, list) = lists
            .filter(|(_, list)| !list.is_empty())
            .min_by_key(|(_, list)| list[0])?;
        let (first, rest) = list.split_first()?;
        *list = rest;
        Some((*first as usize, at < 2))
    }
}
