//! Conditions on path and headers, compiled.

use regex::bytes::{Regex, RegexBuilder};

use super::HeaderLookup;
use crate::ConfigError;
use crate::config::{HeaderMatch, Name, PathMatch, QueryMatch};

/// Memory that one compiled expression may take; the default of the crate, 10 MiB, is for programs
/// that have one.
const REGEX_BYTES_MAX: usize = 256 * 1024;

/// A condition on the path.
#[derive(Debug)]
pub(super) enum PathMatcher {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Segments(Box<[u8]>),
    Regex(Regex),
}

/// A condition on one parameter of the query.
#[derive(Debug)]
pub(super) struct QueryMatcher {
    name: Box<[u8]>,
    value: ValueMatcher,
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

/// Compiles an expression that may match anywhere in its subject.
pub(crate) fn compile_regex(pattern: &str) -> Result<Regex, ConfigError> {
    let regex = RegexBuilder::new(pattern)
        .size_limit(REGEX_BYTES_MAX)
        .build();
    regex.map_err(|error| {
        ConfigError::new("regex", format!("must be a regular expression: {error}"))
    })
}

/// Compiles an expression that has to match the whole of its subject.
pub(crate) fn compile_whole(pattern: &str) -> Result<Regex, ConfigError> {
    // By itself first: the parentheses would make `a)(b` whole.
    compile_regex(pattern)?;
    compile_regex(&format!(r"\A(?:{pattern})\z"))
}

impl PathMatcher {
    pub(super) fn compile(config: &PathMatch) -> Result<Self, ConfigError> {
        Ok(match config {
            PathMatch::Exact(path) => Self::Exact(path.as_bytes().into()),
            PathMatch::Prefix(path) => Self::Prefix(path.as_bytes().into()),
            PathMatch::Segments(path) => Self::Segments(path.as_bytes().into()),
            PathMatch::Regex(pattern) => Self::Regex(compile_whole(pattern)?),
        })
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => path == &**exact,
            Self::Prefix(prefix) => path.starts_with(prefix),
            Self::Segments(prefix) => path
                .strip_prefix(&**prefix)
                .is_some_and(|rest| matches!(rest.first(), None | Some(b'/'))),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

impl HeaderMatcher {
    pub(crate) fn compile(config: &HeaderMatch) -> Result<Self, ConfigError> {
        Ok(Self {
            name: config.name.clone(),
            value: ValueMatcher::compile(config.exact.as_deref(), config.regex.as_deref())?,
        })
    }

    pub(crate) fn matches(&self, headers: &impl HeaderLookup) -> bool {
        headers.any(&self.name, &|value| self.value.matches(value))
    }
}

impl QueryMatcher {
    pub(super) fn compile(config: &QueryMatch) -> Result<Self, ConfigError> {
        Ok(Self {
            name: config.name.as_bytes().into(),
            value: ValueMatcher::compile(config.exact.as_deref(), config.regex.as_deref())?,
        })
    }

    /// `query` is what stands behind the `?`.
    pub(super) fn matches(&self, query: &[u8]) -> bool {
        let mut parameters = query.split(|byte| *byte == b'&');
        let value = parameters.find_map(|parameter| {
            let end = parameter.iter().position(|byte| *byte == b'=');
            let (name, value) = parameter.split_at(end.unwrap_or(parameter.len()));
            (name == &*self.name).then(|| value.strip_prefix(b"=").unwrap_or(value))
        });
        value.is_some_and(|value| self.value.matches(value))
    }
}

impl ValueMatcher {
    /// Neither: any value will do.
    fn compile(exact: Option<&str>, regex: Option<&str>) -> Result<Self, ConfigError> {
        Ok(match (exact, regex) {
            (Some(exact), _) => Self::Exact(exact.as_bytes().into()),
            (None, Some(pattern)) => Self::Regex(compile_whole(pattern)?),
            (None, None) => Self::Present,
        })
    }

    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => value == &**exact,
            Self::Regex(regex) => regex.is_match(value),
            Self::Present => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_expressions_are_refused() {
        for pattern in ["(", "a)(b", "(a{1000}){1000}"] {
            assert_eq!(
                compile_whole(pattern).unwrap_err().path,
                "regex",
                "{pattern}"
            );
        }
    }
}
