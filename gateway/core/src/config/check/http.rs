//! Checks of what only routes of HTTP have.

use super::route::{absolute, header_name};
use super::{Checked, each, ensure, under, within};
use crate::config::{Cors, PathRewrite, QueryMatch, Redirect, Rewrite};

const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

pub(super) fn query_match(query: &QueryMatch) -> Checked {
    ensure(!query.name.is_empty(), "name", || {
        "must not be empty".into()
    })?;
    let given = [
        query.exact.is_some(),
        query.regex.is_some(),
        query.present == Some(true),
    ];
    let count = given.iter().filter(|given| **given).count();
    ensure(count == 1 && query.present != Some(false), "", || {
        "needs exactly one of `exact`, `regex` and `present: true`".into()
    })
}

pub(super) fn method(path: &str, method: &str) -> Checked {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    ensure(
        !method.is_empty() && method.bytes().all(token),
        path,
        || format!("must be a method of HTTP; it is `{method}`"),
    )
}

pub(super) fn redirect(redirect: &Redirect) -> Checked {
    ensure(REDIRECTS.contains(&redirect.status), "status", || {
        format!(
            "must be 301, 302, 303, 307 or 308; it is {}",
            redirect.status
        )
    })?;
    let scheme = redirect.scheme.as_deref().unwrap_or("http");
    ensure(matches!(scheme, "http" | "https"), "scheme", || {
        format!("must be `http` or `https`; it is `{scheme}`")
    })?;
    within("port", redirect.port.unwrap_or(1).into(), 1, 65_535)?;
    authority("host", redirect.host.as_deref())?;
    path("path", redirect.path.as_ref())
}

pub(super) fn rewrite(rewrite: &Rewrite) -> Checked {
    authority("host", rewrite.host.as_deref())?;
    path("path", rewrite.path.as_ref())
}

fn authority(path: &str, host: Option<&str>) -> Checked {
    let Some(host) = host else { return Ok(()) };
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    ensure(!host.is_empty() && host.bytes().all(known), path, || {
        format!("must be a host name or an address; it is `{host}`")
    })
}

fn path(place: &str, rewrite: Option<&PathRewrite>) -> Checked {
    let (field, text) = match rewrite {
        Some(PathRewrite::Full(text)) => ("full", text),
        Some(PathRewrite::Prefix(text)) => ("prefix", text),
        Some(PathRewrite::Regex(_)) | None => return Ok(()),
    };
    under(place, absolute(field, text))?;
    ensure(
        text.bytes().all(|byte| byte.is_ascii_graphic()),
        format!("{place}.{field}"),
        || "must be visible ASCII; write other characters as %XX".into(),
    )
}

pub(super) fn cors(cors: &Cors) -> Checked {
    each("origins", &cors.origins, |origin| {
        let visible = origin.bytes().all(|byte| byte.is_ascii_graphic());
        ensure(!origin.is_empty() && visible, "", || {
            format!("must be `*` or an origin; it is `{origin}`")
        })
    })?;
    each("methods", &cors.methods, |name| method("", name))?;
    each("headers", &cors.headers, |name| header_name("", name))?;
    each("expose_headers", &cors.expose_headers, |name| {
        header_name("", name)
    })
}
