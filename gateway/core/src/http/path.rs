//! Paths into other paths.

use std::borrow::Cow;

use regex::bytes::Regex;

use crate::ConfigError;
use crate::config::{PathMatch, PathRewrite, RegexRewrite};
use crate::route::compile_regex;

/// A compiled [`PathRewrite`].
#[derive(Debug)]
pub(super) enum PathRewriter {
    Full(Box<[u8]>),
    Prefix { len: usize, by: Box<[u8]> },
    Regex { pattern: Regex, by: Box<[u8]> },
}

impl PathRewriter {
    /// `matched` is what the route matches; `ConfigError::path` is relative to the rewrite.
    pub(super) fn compile(config: &PathRewrite, matched: &PathMatch) -> Result<Self, ConfigError> {
        Ok(match (config, matched) {
            (PathRewrite::Full(path), _) => Self::Full(path.as_bytes().into()),
            (PathRewrite::Prefix(by), PathMatch::Prefix(prefix) | PathMatch::Segments(prefix)) => {
                Self::Prefix {
                    len: prefix.len(),
                    by: by.as_bytes().into(),
                }
            }
            (PathRewrite::Prefix(_), _) => {
                let message = "needs a route that matches by `prefix` or `segments`";
                return Err(ConfigError::new("prefix", message));
            }
            (PathRewrite::Regex(rewrite), _) => Self::Regex {
                pattern: compile_regex(&rewrite.pattern)
                    .map_err(|error| ConfigError::new("regex.pattern", error.message))?,
                by: substitution(rewrite)?.into_bytes().into(),
            },
        })
    }

    /// `path` (with its query) as it is afterwards.
    pub(super) fn rewrite<'a>(&self, path: &'a [u8]) -> Cow<'a, [u8]> {
        let end = path.iter().position(|byte| *byte == b'?');
        let (path, query) = path.split_at(end.unwrap_or(path.len()));
        let mut out = match self {
            Self::Full(full) => full.to_vec(),
            // The route matched, so the prefix is there.
            Self::Prefix { len, by } => [by, &path[(*len).min(path.len())..]].concat(),
            Self::Regex { pattern, by } => pattern.replace_all(path, &by[..]).into_owned(),
        };
        if out.first() != Some(&b'/') {
            out.insert(0, b'/');
        }
        out.extend_from_slice(query);
        Cow::Owned(out)
    }
}

/// Envoy's `\1` in the words of crate `regex`.
fn substitution(rewrite: &RegexRewrite) -> Result<String, ConfigError> {
    let mut out = String::with_capacity(rewrite.substitution.len() + 8);
    let mut rest = rewrite.substitution.chars();
    while let Some(next) = rest.next() {
        match next {
            '$' => out.push_str("$$"),
            '\\' => match rest.next() {
                Some('\\') => out.push('\\'),
                Some(group) if group.is_ascii_digit() => {
                    out.push_str("${");
                    out.push(group);
                    out.push('}');
                }
                _ => {
                    let message = "a backslash goes with a digit or another backslash";
                    return Err(ConfigError::new("regex.substitution", message));
                }
            },
            other => out.push(other),
        }
    }
    Ok(out)
}
