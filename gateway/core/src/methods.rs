//! Services and methods that have a name in metrics.
//!
//! Decides which labels a call's path has: those that a route names (a whole path, or the prefix of
//! a service) or that reflection knows. A name that only a client thought up is `other`. Leaves to
//! others counting (`gateway-proxy`), and asking for reflection (Python).
//!
//! Invariants: a lookup allocates nothing; there are never more labels than routes and
//! [`REFLECTED_MAX`] methods name.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use serde::Deserialize;

use crate::config::{Name, PathMatch};

/// Methods that may be told beside those of routes; further ones are `other`.
pub const REFLECTED_MAX: usize = 4_096;
/// The label of everything without one of its own.
pub const OTHER: &str = "other";

/// How a method streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodType {
    /// One request, one response.
    Unary,
    /// Many requests, one response.
    ClientStream,
    /// One request, many responses.
    ServerStream,
    /// Many of both.
    BidiStream,
    /// Nobody said.
    #[default]
    Unknown,
}

/// A method as reflection knows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reflected {
    /// `package.Service`.
    pub service: Name,
    /// `Method`.
    pub method: Name,
    /// How it streams.
    #[serde(rename = "type", default)]
    pub kind: MethodType,
}

/// The labels of a call's path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MethodLabels {
    /// `package.Service`, or [`OTHER`].
    pub service: Name,
    /// `Method`, or [`OTHER`].
    pub method: Name,
    /// How it streams.
    pub kind: MethodType,
}

/// All of them, looked up by path.
#[derive(Debug)]
pub struct KnownMethods {
    /// The first is that of everything else.
    all: Vec<MethodLabels>,
    /// By `/service/method`.
    methods: HashMap<Box<[u8]>, u32>,
    /// By `/service/`: of methods that have no labels themselves.
    services: HashMap<Box<[u8]>, u32>,
    set: HashSet<MethodLabels>,
}

// === impl MethodType ===

impl MethodType {
    /// The word for labels.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ClientStream => "client_stream",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
            Self::Unknown => "unknown",
        }
    }
}

// === impl MethodLabels ===

impl MethodLabels {
    fn of_service(service: &str, other: &Name) -> Self {
        Self {
            service: Arc::from(service),
            method: other.clone(),
            kind: MethodType::Unknown,
        }
    }
}

// === impl KnownMethods ===

impl Default for KnownMethods {
    fn default() -> Self {
        Self::new(std::iter::empty(), &[])
    }
}

impl KnownMethods {
    /// Of what routes match, and of what reflection knows (its first [`REFLECTED_MAX`] methods).
    pub fn new<'a>(paths: impl Iterator<Item = &'a PathMatch>, reflected: &[Reflected]) -> Self {
        let other: Name = Arc::from(OTHER);
        let mut known = Self {
            all: vec![MethodLabels::of_service(OTHER, &other)],
            methods: HashMap::new(),
            services: HashMap::new(),
            set: HashSet::new(),
        };
        for entry in reflected.iter().take(REFLECTED_MAX) {
            known.add_service(&entry.service, &other);
            known.add_method(&entry.service, &entry.method, entry.kind);
        }
        for path in paths {
            match path {
                PathMatch::Exact(path) => {
                    if let Some((service, method)) = split(path) {
                        known.add_service(service, &other);
                        known.add_method(service, method, MethodType::Unknown);
                    }
                }
                PathMatch::Prefix(path) | PathMatch::Segments(path) => {
                    let name = path.strip_prefix('/').unwrap_or_default();
                    let name = name.strip_suffix('/').unwrap_or(name);
                    if !name.is_empty() && !name.contains('/') {
                        known.add_service(name, &other);
                    }
                }
                PathMatch::Regex(_) => {}
            }
        }
        known.set = known.all.iter().cloned().collect();
        known
    }

    fn add_service(&mut self, service: &str, other: &Name) {
        let key = format!("/{service}/").into_bytes().into_boxed_slice();
        let all = &mut self.all;
        self.services.entry(key).or_insert_with(|| {
            all.push(MethodLabels::of_service(service, other));
            all.len() as u32 - 1
        });
    }

    fn add_method(&mut self, service: &str, method: &str, kind: MethodType) {
        let key = format!("/{service}/{method}").into_bytes();
        let all = &mut self.all;
        self.methods
            .entry(key.into_boxed_slice())
            .or_insert_with(|| {
                all.push(MethodLabels {
                    service: Arc::from(service),
                    method: Arc::from(method),
                    kind,
                });
                all.len() as u32 - 1
            });
    }

    /// The position of a path's labels; `path` is `:path` as it came.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> usize {
        if let Some(found) = self.methods.get(path) {
            return *found as usize;
        }
        let end = path.iter().position(|byte| *byte == b'?');
        let path = &path[..end.unwrap_or(path.len())];
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let service = &path[..slash.map_or(0, |at| at + 1)];
        let method = end.and_then(|_| self.methods.get(path));
        let found = method.or_else(|| self.services.get(service));
        found.map_or(0, |found| *found as usize)
    }

    /// The labels at a position that [`Self::find`] gave.
    ///
    /// # Panics
    /// With a position that it did not give.
    #[must_use]
    pub fn labels(&self, position: usize) -> &MethodLabels {
        &self.all[position]
    }

    /// How many labels there are: positions are below it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Never: everything else has labels too.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether some path has these labels.
    #[must_use]
    pub fn has(&self, labels: &MethodLabels) -> bool {
        self.set.contains(labels)
    }
}

/// `service` and `method` of `/service/method`.
fn split(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    (!service.is_empty() && !method.is_empty() && !method.contains('/'))
        .then_some((service, method))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{KnownMethods, MethodType, REFLECTED_MAX, Reflected};
    use crate::config::PathMatch;

    fn found(known: &KnownMethods, path: &str) -> (String, String, MethodType) {
        let labels = known.labels(known.find(path.as_bytes()));
        let (service, method) = (labels.service.to_string(), labels.method.to_string());
        assert!(known.has(labels));
        (service, method, labels.kind)
    }

    fn unknown(service: &str, method: &str) -> (String, String, MethodType) {
        (service.to_owned(), method.to_owned(), MethodType::Unknown)
    }

    fn reflected(method: &str, kind: MethodType) -> Reflected {
        Reflected {
            service: Arc::from("b.B"),
            method: Arc::from(method),
            kind,
        }
    }

    #[test]
    fn only_names_of_routes_and_reflection_are_labels() {
        let paths = [
            PathMatch::Exact("/a.A/Get".into()),
            PathMatch::Prefix("/c.C/".into()),
            PathMatch::Segments("/d.D".into()),
            PathMatch::Prefix("/".into()),
            PathMatch::Exact("/one".into()),
            PathMatch::Exact("/b.B/Watch".into()),
            PathMatch::Regex("/[^/]+/Any".into()),
        ];
        let known = KnownMethods::new(
            paths.iter(),
            &[reflected("Watch", MethodType::ServerStream)],
        );
        assert_eq!(found(&known, "/a.A/Get"), unknown("a.A", "Get"));
        assert_eq!(found(&known, "/a.A/Get?x=/1"), unknown("a.A", "Get"));
        assert_eq!(found(&known, "/a.A/Put"), unknown("a.A", "other"));
        assert_eq!(found(&known, "/c.C/Made-up"), unknown("c.C", "other"));
        assert_eq!(found(&known, "/d.D/x"), unknown("d.D", "other"));
        for path in ["/e.E/Get", "/one", "/", "", "*", "/a.A/Get/more", "/x/Any"] {
            assert_eq!(found(&known, path), unknown("other", "other"), "{path}");
        }
        let watch = ("b.B".to_owned(), "Watch".to_owned());
        assert_eq!(
            found(&known, "/b.B/Watch"),
            (watch.0, watch.1, MethodType::ServerStream),
            "the route does not hide how it streams"
        );
    }

    #[test]
    fn reflection_is_bounded() {
        let many: Vec<_> = (0..REFLECTED_MAX + 5)
            .map(|at| reflected(&format!("M{at}"), MethodType::Unary))
            .collect();
        let known = KnownMethods::new(std::iter::empty(), &many);
        assert_eq!(known.len(), REFLECTED_MAX + 2);
        let last = format!("/b.B/M{REFLECTED_MAX}");
        assert_eq!(found(&known, &last), unknown("b.B", "other"));
    }
}
