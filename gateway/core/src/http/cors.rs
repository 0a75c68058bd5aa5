//! CORS: which foreign pages may call, by the Fetch standard (section "CORS protocol").

use regex::bytes::Regex;

use crate::ConfigError;
use crate::config::Cors;
use crate::route::compile_whole;

/// A compiled [`Cors`].
#[derive(Debug)]
pub struct CorsPolicy {
    origins: Vec<Box<[u8]>>,
    patterns: Vec<Regex>,
    any_origin: bool,
    methods: List,
    headers: List,
    expose: List,
    credentials: bool,
    max_age: Option<Box<str>>,
    forward_foreign: bool,
}

/// Names for one header field.
#[derive(Debug)]
struct List {
    any: bool,
    joined: Box<[u8]>,
}

// === impl CorsPolicy ===

impl CorsPolicy {
    pub(super) fn compile(config: &Cors) -> Result<Self, ConfigError> {
        let origins = config.origins.iter().map(|origin| origin.as_bytes().into());
        let patterns = config.origin_regexes.iter().enumerate();
        let patterns = patterns.map(|(position, pattern)| {
            compile_whole(pattern)
                .map_err(|error| error.under(&format!("cors.origin_regexes[{position}]")))
        });
        Ok(Self {
            origins: origins.collect(),
            patterns: patterns.collect::<Result<_, _>>()?,
            any_origin: config.origins.iter().any(|origin| origin == "*"),
            methods: List::new(&config.methods),
            headers: List::new(&config.headers),
            expose: List::new(&config.expose_headers),
            credentials: config.credentials,
            max_age: config.max_age_s.map(|seconds| seconds.to_string().into()),
            forward_foreign: config.forward_foreign,
        })
    }

    /// Whether a page of this origin may call.
    #[must_use]
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.any_origin
            || self.origins.iter().any(|allowed| **allowed == *origin)
            || self.patterns.iter().any(|pattern| pattern.is_match(origin))
    }

    /// Whether a browser's question from another origin is the service's to answer.
    #[must_use]
    pub const fn forwards_foreign(&self) -> bool {
        self.forward_foreign
    }

    /// The fields of the answer to a browser's question (`OPTIONS` with
    /// `access-control-request-method`) from an allowed origin; `asked_*` are what it asks for.
    pub fn preflight(
        &self,
        origin: &[u8],
        asked_method: &[u8],
        asked_headers: Option<&[u8]>,
        mut add: impl FnMut(&'static [u8], &[u8]),
    ) {
        self.response(origin, &mut add);
        let methods = self.methods.answer(asked_method, self.credentials);
        if !methods.is_empty() {
            add(b"access-control-allow-methods", methods);
        }
        if let Some(asked) = asked_headers {
            let headers = self.headers.answer(asked, self.credentials);
            if !headers.is_empty() {
                add(b"access-control-allow-headers", headers);
            }
        }
        if let Some(seconds) = &self.max_age {
            add(b"access-control-max-age", seconds.as_bytes());
        }
    }

    /// The fields of a response to an allowed origin.
    pub fn response(&self, origin: &[u8], mut add: impl FnMut(&'static [u8], &[u8])) {
        if self.any_origin && !self.credentials {
            add(b"access-control-allow-origin", b"*");
        } else {
            // `*` does not go with credentials, and caches must keep the answers apart.
            add(b"access-control-allow-origin", origin);
            add(b"vary", b"origin");
        }
        if self.credentials {
            add(b"access-control-allow-credentials", b"true");
        }
        if !self.expose.joined.is_empty() {
            add(b"access-control-expose-headers", &self.expose.joined);
        }
    }
}

// === impl List ===

impl List {
    fn new(names: &[String]) -> Self {
        Self {
            any: names.iter().any(|name| name == "*"),
            joined: names.join(", ").into_bytes().into(),
        }
    }

    /// `*` does not go with credentials: then what was asked for is named.
    fn answer<'a>(&'a self, asked: &'a [u8], credentials: bool) -> &'a [u8] {
        match (self.any, credentials) {
            (true, true) => asked,
            (true, false) => b"*",
            (false, _) => &self.joined,
        }
    }
}
