//! Conditions on path and headers, compiled.

use regex::bytes::{Regex, RegexBuilder};

use super::HeaderLookup;
use crate::ConfigError;
use crate::config::{HeaderMatch, Name, PathMatch};

/// Memory that one compiled expression may take; the default of the crate, 10 MiB, is for programs
/// that have one.
const REGEX_BYTES_MAX: usize = 256 * 1024;

/// A condition on the path.
#[derive(Debug)]
pub(super) enum PathMatcher {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Regex(Regex),
}

/// A condition on one header.
#[derive(Debug)]
pub(crate) struct HeaderMatcher {
    name: Name,
    value: ValueMatcher,
}

#[derive(Debug)]
enum ValueMatcher {
    Exact(Box<[u8]>),
    Regex(Regex),
    Present,
}

/// Compiles an expression that has to match the whole of its subject.
fn compile_regex(pattern: &str) -> Result<Regex, ConfigError> {
    let build = |pattern: &str| {
        let regex = RegexBuilder::new(pattern)
            .size_limit(REGEX_BYTES_MAX)
            .build();
        regex.map_err(|error| {
            ConfigError::new("regex", format!("must be a regular expression: {error}"))
        })
    };
    // By itself first: the parentheses would make `a)(b` whole.
    build(pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
}

impl PathMatcher {
    pub(super) fn compile(config: &PathMatch) -> Result<Self, ConfigError> {
        Ok(match config {
            PathMatch::Exact(path) => Self::Exact(path.as_bytes().into()),
            PathMatch::Prefix(path) => Self::Prefix(path.as_bytes().into()),
            PathMatch::Regex(pattern) => Self::Regex(compile_regex(pattern)?),
        })
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => path == &**exact,
            Self::Prefix(prefix) => path.starts_with(prefix),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

impl HeaderMatcher {
    pub(crate) fn compile(config: &HeaderMatch) -> Result<Self, ConfigError> {
        let value = match (&config.exact, &config.regex) {
            (Some(exact), _) => ValueMatcher::Exact(exact.as_bytes().into()),
            (None, Some(pattern)) => ValueMatcher::Regex(compile_regex(pattern)?),
            (None, None) => ValueMatcher::Present,
        };
        Ok(Self {
            name: config.name.clone(),
            value,
        })
    }

    pub(crate) fn matches(&self, headers: &impl HeaderLookup) -> bool {
        headers.any(&self.name, &|value| match &self.value {
            ValueMatcher::Exact(exact) => value == &**exact,
            ValueMatcher::Regex(regex) => regex.is_match(value),
            ValueMatcher::Present => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_expressions_are_refused() {
        for pattern in ["(", "a)(b", "(a{1000}){1000}"] {
            assert_eq!(
                compile_regex(pattern).unwrap_err().path,
                "regex",
                "{pattern}"
            );
        }
    }
}
