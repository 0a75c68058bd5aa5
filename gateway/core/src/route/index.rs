//! Which routes can match a path, in order, without looking at the others.
//!
//! gRPC paths are `/service/method`. Routes for one path go under that path, routes for one service
//! (a prefix of the form `/service/`) under that prefix, routes for a method of any service (an
//! expression of the form `/[^/]+/method`) under that method, prefixes of whole segments (as
//! routes of HTTP have) under the prefix if it is not deep, and everything else (other prefixes and
//! regular expressions) into a list that is tried for every path. All keep ascending positions, so
//! merging them gives the order of precedence.

use hashbrown::HashMap;

use crate::config::PathMatch;

/// How an expression for a method of any service begins.
const ANY_SERVICE: &str = "/[^/]+/";

/// Segments of a prefix that has a place of its own; one that is deeper is tried for every path.
const DEPTH_MAX: usize = 8;
/// Lists that one path may be in: exact, service, method, rest, and one for each depth.
const LISTS_MAX: usize = 4 + DEPTH_MAX;

/// Positions of routes by path.
#[derive(Debug, Default)]
pub(super) struct PathIndex {
    exact: HashMap<Box<[u8]>, Positions>,
    /// By `/service/`.
    service: HashMap<Box<[u8]>, Positions>,
    /// By `method`, for any service.
    method: HashMap<Box<[u8]>, Positions>,
    /// By a prefix of whole segments.
    segments: HashMap<Box<[u8]>, Positions>,
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
        let (map, key) = match path {
            PathMatch::Exact(path) => (&mut self.exact, path.as_str()),
            PathMatch::Prefix(path) if service_of(path.as_bytes()) == Some(path.as_bytes()) => {
                (&mut self.service, path.as_str())
            }
            PathMatch::Regex(pattern) if method_of_any(pattern).is_some() => {
                (&mut self.method, &pattern[ANY_SERVICE.len()..])
            }
            PathMatch::Segments(path) if depth(path.as_bytes()) <= DEPTH_MAX => {
                (&mut self.segments, path.as_str())
            }
            PathMatch::Prefix(_) | PathMatch::Segments(_) | PathMatch::Regex(_) => {
                return self.rest.push(position);
            }
        };
        map.entry(key.as_bytes().into())
            .and_modify(|positions| positions.push(position))
            .or_insert(Positions::One([position]));
    }

    /// Positions of routes that may match, ascending, and whether their path is known to.
    pub(super) fn candidates<'a>(
        &'a self,
        path: &[u8],
    ) -> impl Iterator<Item = (usize, bool)> + 'a {
        let exact = self.exact.get(path);
        let service = service_of(path).and_then(|service| self.service.get(service));
        let method = method_of(path).and_then(|method| self.method.get(method));
        let mut lists = [&[][..]; LISTS_MAX];
        lists[0] = exact.map_or(&[][..], Positions::as_slice);
        lists[1] = service.map_or(&[][..], Positions::as_slice);
        lists[2] = method.map_or(&[][..], Positions::as_slice);
        lists[3] = &self.rest;
        let mut len = 4;
        if !self.segments.is_empty() {
            for end in ends_of_segments(path).take(DEPTH_MAX) {
                if let Some(positions) = self.segments.get(&path[..end]) {
                    lists[len] = positions.as_slice();
                    len += 1;
                }
            }
        }
        Merge { lists, len }
    }
}

/// Where the prefixes of whole segments end: `/a` and `/a/b` for `/a/b`.
fn ends_of_segments(path: &[u8]) -> impl Iterator<Item = usize> {
    let inner = (1..path.len()).filter(|at| path[*at] == b'/');
    inner.chain([path.len()])
}

fn depth(path: &[u8]) -> usize {
    path.split(|byte| *byte == b'/').count() - 1
}

/// `/service/` of `/service/method`; `None` when there is no second slash, or nothing before it.
fn service_of(path: &[u8]) -> Option<&[u8]> {
    let rest = path.strip_prefix(b"/")?;
    let slash = rest.iter().position(|byte| *byte == b'/')?;
    (slash > 0).then(|| &path[..slash + 2])
}

/// `method` of `/service/method`, as [`ANY_SERVICE`] takes a path apart: one slash at the beginning
/// and one in between.
fn method_of(path: &[u8]) -> Option<&[u8]> {
    let service = service_of(path)?;
    let method = &path[service.len()..];
    (!method.contains(&b'/')).then_some(method)
}

/// The method of an expression that means "this method of any service".
fn method_of_any(pattern: &str) -> Option<&str> {
    let literal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let method = pattern.strip_prefix(ANY_SERVICE)?;
    (!method.is_empty() && method.bytes().all(literal)).then_some(method)
}

/// Merges ascending lists, the first `len` of them; the path of those in the first two and behind
/// the fourth is known to match. (An expression has the last word on its own: it wants UTF-8.)
struct Merge<'a> {
    lists: [&'a [u32]; LISTS_MAX],
    len: usize,
}

impl Iterator for Merge<'_> {
    type Item = (usize, bool);

    fn next(&mut self) -> Option<(usize, bool)> {
        let lists = self.lists[..self.len].iter_mut().enumerate();
        let (at, list) = lists
            .filter(|(_, list)| !list.is_empty())
            .min_by_key(|(_, list)| list[0])?;
        let (first, rest) = list.split_first()?;
        *list = rest;
        Some((*first as usize, !matches!(at, 2 | 3)))
    }
}
