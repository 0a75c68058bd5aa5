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
    exact: HashMap<Box<[u8]>, Vec<u32>>,
    /// By `/service/`.
    service: HashMap<Box<[u8]>, Vec<u32>>,
    rest: Vec<u32>,
}

impl PathIndex {
    pub(super) fn new<'a>(paths: impl Iterator<Item = &'a PathMatch>) -> Self {
        let mut index = Self::default();
        for (position, path) in (0_u32..).zip(paths) {
            index.list_for(path).push(position);
        }
        index
    }

    fn list_for(&mut self, path: &PathMatch) -> &mut Vec<u32> {
        match path {
            PathMatch::Exact(path) => self.exact.entry(path.as_bytes().into()).or_default(),
            PathMatch::Prefix(path) if service_of(path.as_bytes()) == Some(path.as_bytes()) => {
                self.service.entry(path.as_bytes().into()).or_default()
            }
            PathMatch::Prefix(_) | PathMatch::Regex(_) => &mut self.rest,
        }
    }

    /// Positions of routes that may match, ascending.
    pub(super) fn candidates(&self, path: &[u8]) -> impl Iterator<Item = usize> {
        let exact = self.exact.get(path);
        let service = service_of(path).and_then(|service| self.service.get(service));
        Merge([exact, service, Some(&self.rest)].map(|list| list.map_or(&[][..], Vec::as_slice)))
    }
}

/// `/service/` of `/service/method`; `None` when there is no second slash, or nothing before it.
fn service_of(path: &[u8]) -> Option<&[u8]> {
    let rest = path.strip_prefix(b"/")?;
    let slash = rest.iter().position(|byte| *byte == b'/')?;
    (slash > 0).then(|| &path[..slash + 2])
}

/// Merges ascending lists.
struct Merge<'a>([&'a [u32]; 3]);

impl Iterator for Merge<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let list = self
            .0
            .iter_mut()
            .filter(|list| !list.is_empty())
            .min_by_key(|list| list[0])?;
        let (first, rest) = list.split_first()?;
        *list = rest;
        Some(*first as usize)
    }
}
