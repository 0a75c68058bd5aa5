//! What only routes of HTTP do: where a redirect leads, how a path is rewritten, who may call from
//! a foreign page.
//!
//! Decides the words; leaves to `gateway-proxy` when they are sent. Invariants: a rewritten path is
//! absolute and keeps the query; nothing that a client sent gets into a `location` but its own
//! host, path and query.

mod cors;
mod path;

use std::borrow::Cow;

pub use self::cors::CorsPolicy;
use self::path::PathRewriter;
use crate::ConfigError;
use crate::config::{Cors, PathMatch, Redirect, Rewrite};

/// A compiled [`Redirect`].
#[derive(Debug)]
pub struct Redirection {
    config: Redirect,
    path: Option<PathRewriter>,
}

/// What a route of HTTP changes besides header fields.
#[derive(Debug)]
pub struct HttpChanges {
    host: Option<Box<str>>,
    path: Option<PathRewriter>,
    cors: Option<CorsPolicy>,
}

/// Whom and what a request asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// How the client reached the gateway: `http` or `https`.
    pub scheme: &'a str,
    /// The authority, with its port if it has one.
    pub authority: &'a [u8],
    /// `:path`, with its query.
    pub path: &'a [u8],
}

// === impl Redirection ===

/// What is compiled follows from what is configured.
impl PartialEq for Redirection {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config
    }
}

impl Redirection {
    pub(crate) fn compile(config: Redirect, matched: &PathMatch) -> Result<Self, ConfigError> {
        let path = config
            .path
            .as_ref()
            .map(|path| PathRewriter::compile(path, matched));
        let path = path.transpose().map_err(|error| error.under("path"))?;
        Ok(Self { config, path })
    }

    /// As configured.
    #[must_use]
    pub const fn config(&self) -> &Redirect {
        &self.config
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.config.status
    }

    /// The value of `location`. The client's port stays only where scheme and host do.
    #[must_use]
    pub fn location(&self, asked: Asked<'_>) -> Vec<u8> {
        let config = &self.config;
        let mut out = Vec::with_capacity(asked.authority.len() + asked.path.len() + 32);
        let scheme = config.scheme.as_deref().unwrap_or(asked.scheme);
        out.extend_from_slice(scheme.as_bytes());
        out.extend_from_slice(b"://");
        let moves = config.scheme.is_some() || config.host.is_some() || config.port.is_some();
        match &config.host {
            Some(host) => out.extend_from_slice(host.as_bytes()),
            None if moves => out.extend_from_slice(without_port(asked.authority)),
            None => out.extend_from_slice(asked.authority),
        }
        if let Some(port) = config.port {
            out.push(b':');
            out.extend_from_slice(port.to_string().as_bytes());
        }
        match &self.path {
            Some(path) => out.extend_from_slice(&path.rewrite(asked.path)),
            None => out.extend_from_slice(asked.path),
        }
        out
    }
}

/// Host of an authority; an address of IPv6 stands in brackets.
fn without_port(authority: &[u8]) -> &[u8] {
    let name_end = authority.iter().rposition(|byte| *byte == b']');
    let colon = authority.iter().rposition(|byte| *byte == b':');
    match (colon, name_end) {
        (Some(colon), Some(end)) if colon < end => authority,
        (Some(colon), _) => &authority[..colon],
        (None, _) => authority,
    }
}

// === impl HttpChanges ===

impl HttpChanges {
    /// `None` when there are none.
    pub(crate) fn compile(
        rewrite: Option<&Rewrite>,
        cors: Option<&Cors>,
        matched: &PathMatch,
    ) -> Result<Option<Box<Self>>, ConfigError> {
        if rewrite.is_none() && cors.is_none() {
            return Ok(None);
        }
        let path = rewrite.and_then(|rewrite| rewrite.path.as_ref());
        let path = path.map(|path| PathRewriter::compile(path, matched));
        Ok(Some(Box::new(Self {
            host: rewrite.and_then(|rewrite| rewrite.host.as_deref().map(Into::into)),
            path: path
                .transpose()
                .map_err(|error| error.under("rewrite.path"))?,
            cors: cors.map(CorsPolicy::compile).transpose()?,
        })))
    }

    /// The authority for the endpoint; `None`: the client's.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The path for the endpoint, with the query of `path`; `None`: it stays.
    #[must_use]
    pub fn path<'a>(&self, path: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        self.path.as_ref().map(|rewriter| rewriter.rewrite(path))
    }

    /// Who may call from a foreign page; `None`: that is the service's own business.
    #[must_use]
    pub const fn cors(&self) -> Option<&CorsPolicy> {
        self.cors.as_ref()
    }
}

#[cfg(test)]
mod tests;
