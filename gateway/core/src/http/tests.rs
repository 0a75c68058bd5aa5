use proptest::prelude::*;

use super::*;
use crate::config::{PathRewrite, RegexRewrite};

fn rewriter(config: &PathRewrite, matched: &str) -> PathRewriter {
    PathRewriter::compile(config, &PathMatch::Segments(matched.into())).unwrap()
}

fn rewrite(config: &PathRewrite, matched: &str, path: &str) -> String {
    let path = rewriter(config, matched).rewrite(path.as_bytes());
    String::from_utf8(path.into_owned()).unwrap()
}

fn regex(pattern: &str, substitution: &str) -> PathRewrite {
    PathRewrite::Regex(RegexRewrite {
        pattern: pattern.into(),
        substitution: substitution.into(),
    })
}

#[test]
fn prefixes_are_replaced_and_queries_stay() {
    let by = PathRewrite::Prefix("/xyz".into());
    let cases = [
        ("/foo/bar", "/xyz/bar"),
        ("/foo", "/xyz"),
        ("/foo/", "/xyz/"),
        ("/foo?a=/foo", "/xyz?a=/foo"),
    ];
    for (path, expected) in cases {
        assert_eq!(rewrite(&by, "/foo", path), expected);
    }
}

#[test]
fn whole_paths_are_replaced() {
    let by = PathRewrite::Full("/one".into());
    assert_eq!(rewrite(&by, "/", "/any/thing?q=1"), "/one?q=1");
}

#[test]
fn expressions_are_replaced_with_their_groups() {
    let by = regex("^/foo/*", "/");
    for (path, expected) in [("/foo", "/"), ("/foo/", "/"), ("/foo/bar?x", "/bar?x")] {
        assert_eq!(rewrite(&by, "/foo", path), expected);
    }
    let by = regex("^/service/([^/]+)(/.*)$", r"\2/for/\1");
    let to = rewrite(&by, "/", "/service/foo/v1/api");
    assert_eq!(to, "/v1/api/for/foo");
    assert_eq!(rewrite(&regex("b", r"$1\\"), "/", "/abc"), r"/a$1\c");
}

#[test]
fn rewrites_that_cannot_work_are_refused() {
    let exact = PathMatch::Exact("/a".into());
    let by = PathRewrite::Prefix("/b".into());
    assert_eq!(
        PathRewriter::compile(&by, &exact).unwrap_err().path,
        "prefix"
    );
    for (pattern, substitution, path) in [
        ("(", "", "regex.pattern"),
        ("a", r"\x", "regex.substitution"),
        ("a", r"\", "regex.substitution"),
    ] {
        let error = PathRewriter::compile(&regex(pattern, substitution), &exact);
        assert_eq!(error.unwrap_err().path, path);
    }
}

fn redirect() -> Redirect {
    Redirect {
        status: 302,
        scheme: None,
        host: None,
        port: None,
        path: None,
    }
}

fn location(config: Redirect, authority: &str) -> String {
    let compiled = Redirection::compile(config, &PathMatch::Segments("/a".into())).unwrap();
    let asked = Asked {
        scheme: "http",
        authority: authority.as_bytes(),
        path: b"/a/b?c=d",
    };
    String::from_utf8(compiled.location(asked)).unwrap()
}

#[test]
fn locations() {
    let host = Some("example.org".to_owned());
    let https = Some("https".to_owned());
    assert_eq!(location(redirect(), "h:8080"), "http://h:8080/a/b?c=d");
    let config = Redirect { host, ..redirect() };
    assert_eq!(location(config, "h:8080"), "http://example.org/a/b?c=d");
    let config = Redirect {
        scheme: https,
        port: Some(8443),
        ..redirect()
    };
    assert_eq!(location(config.clone(), "h:1"), "https://h:8443/a/b?c=d");
    assert_eq!(location(config, "[::1]:1"), "https://[::1]:8443/a/b?c=d");
    let path = Some(PathRewrite::Prefix("/z".into()));
    let config = Redirect { path, ..redirect() };
    assert_eq!(location(config, "h"), "http://h/z/b?c=d");
    assert_eq!(without_port(b"[::1]"), b"[::1]");
}

fn cors(origins: &[&str]) -> Cors {
    Cors {
        origins: origins.iter().map(|origin| (*origin).into()).collect(),
        origin_regexes: vec![r"https://[A-Za-z0-9.\-]+\.example\.com".into()],
        methods: vec!["PUT".into(), "DELETE".into()],
        headers: vec!["*".into()],
        expose_headers: vec!["x-trace".into()],
        credentials: false,
        max_age_s: Some(5),
        forward_foreign: false,
    }
}

fn preflight(config: &Cors) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    CorsPolicy::compile(config).unwrap().preflight(
        b"https://a.example.com",
        b"PUT",
        Some(b"x-mine"),
        |name, value| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            fields.push((text(name), text(value)));
        },
    );
    fields
}

fn value<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = fields.iter().find(|(field, _)| field == name);
    found.map(|(_, value)| value.as_str())
}

#[test]
fn origins_are_compared_whole() {
    let policy = CorsPolicy::compile(&cors(&["http://b:1"])).unwrap();
    for (origin, allowed) in [
        ("https://a.example.com", true),
        ("https://a.b.example.com", true),
        ("https://example.com", false),
        ("http://a.example.com", false),
        ("https://evil.org/.example.com", false),
        ("http://b:1", true),
        ("http://b:2", false),
    ] {
        assert_eq!(policy.allows(origin.as_bytes()), allowed, "{origin}");
    }
    let every = CorsPolicy::compile(&cors(&["*"])).unwrap();
    assert!(every.allows(b"null"));
}

#[test]
fn questions_are_answered() {
    let open = preflight(&cors(&["*"]));
    assert_eq!(value(&open, "access-control-allow-origin"), Some("*"));
    assert_eq!(
        value(&open, "access-control-allow-methods"),
        Some("PUT, DELETE")
    );
    assert_eq!(value(&open, "access-control-allow-headers"), Some("*"));
    assert_eq!(value(&open, "access-control-max-age"), Some("5"));
    let exposed = value(&open, "access-control-expose-headers");
    assert_eq!(exposed, Some("x-trace"));
    assert_eq!(value(&open, "access-control-allow-credentials"), None);
    let with_cookies = preflight(&Cors {
        credentials: true,
        ..cors(&["*"])
    });
    let allowed = value(&with_cookies, "access-control-allow-origin");
    assert_eq!(allowed, Some("https://a.example.com"));
    let headers = value(&with_cookies, "access-control-allow-headers");
    assert_eq!(headers, Some("x-mine"));
    assert_eq!(value(&with_cookies, "vary"), Some("origin"));
}

proptest! {
    #[test]
    fn rewritten_paths_are_absolute_and_keep_their_query(
        path in "/[a-z/]{0,20}", query in "(\\?[a-z/=]{0,10})?", by in "/[a-z/]{0,9}",
    ) {
        let asked = format!("{path}{query}");
        for config in [PathRewrite::Full(by.clone()), regex("[a-z]", &by), regex("/", "")] {
            let to = rewrite(&config, "/", &asked);
            prop_assert!(to.starts_with('/'));
            prop_assert!(to.ends_with(&query));
        }
    }
}
