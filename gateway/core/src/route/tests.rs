use proptest::prelude::*;

use super::*;
use crate::config::{HeaderMatch, PathMatch, RouteMatch};

struct Headers(Vec<(&'static str, &'static str)>);

impl HeaderLookup for Headers {
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.as_bytes())
    }
}

const NONE: Headers = Headers(Vec::new());

fn route(name: &str, path: PathMatch, headers: Vec<HeaderMatch>) -> RouteConfig {
    RouteConfig {
        name: name.into(),
        matches: RouteMatch {
            path,
            headers,
            grpc: false,
        },
        action: Action::Reply(Reply {
            grpc_status: 14,
            message: String::new(),
        }),
        request_headers: None,
        response_headers: None,
        timeout_ms: None,
        max_stream_ms: None,
        idle_timeout_ms: None,
        retry: None,
    }
}

fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.into())
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.into())
}

fn regex(pattern: &str) -> PathMatch {
    PathMatch::Regex(pattern.into())
}

fn header(name: &str, value: &str) -> HeaderMatch {
    HeaderMatch {
        name: name.into(),
        exact: Some(value.into()),
        regex: None,
        present: None,
    }
}

fn table(routes: Vec<RouteConfig>) -> RouteTable {
    let host = VirtualHostConfig {
        name: "all".into(),
        hostnames: vec!["*".into()],
        routes,
    };
    RouteTable::compile(RouteTableConfig {
        name: "main".into(),
        virtual_hosts: vec![host],
    })
    .unwrap()
}

fn name_of(table: &RouteTable, path: &str, headers: &Headers) -> Option<String> {
    table
        .lookup(b"any", path.as_bytes(), headers, true)
        .ok()
        .map(|route| route.name().to_string())
}

#[test]
fn the_first_route_that_matches_wins_whatever_its_kind() {
    let table = table(vec![
        route(
            "service with header",
            prefix("/a.S/"),
            vec![header("version", "2")],
        ),
        route("method", exact("/a.S/M"), vec![]),
        route("pattern", regex("/a\\.[ST]/.*"), vec![]),
        route("service", prefix("/a.S/"), vec![]),
        route("all", prefix("/"), vec![]),
    ]);
    let second = Headers(vec![("version", "2")]);
    let cases = [
        ("/a.S/M", &NONE, "method"),
        ("/a.S/M?x=/y", &NONE, "method"),
        ("/a.S/M", &second, "service with header"),
        ("/a.S/N", &NONE, "pattern"),
        ("/a.T/N", &NONE, "pattern"),
        ("/a.S/", &NONE, "pattern"),
        ("/a.s/m", &NONE, "all"),
        ("/", &NONE, "all"),
    ];
    for (path, headers, expected) in cases {
        assert_eq!(
            name_of(&table, path, headers).as_deref(),
            Some(expected),
            "{path}"
        );
    }
    assert_eq!(name_of(&table, "", &NONE), None);
}

#[test]
fn headers_are_all_needed_and_the_first_rule_of_equals_wins() {
    // gateway-api's conformance case: `version: two` and `color: blue` go to the rule that stands
    // first.
    let table = table(vec![
        route(
            "both",
            prefix("/"),
            vec![header("version", "two"), header("color", "orange")],
        ),
        route("v2", prefix("/"), vec![header("version", "two")]),
        route("blue", prefix("/"), vec![header("color", "blue")]),
    ]);
    let request = |pairs: &[(&'static str, &'static str)]| {
        name_of(&table, "/a.S/M", &Headers(pairs.to_vec()))
    };
    assert_eq!(
        request(&[("version", "two"), ("color", "blue")]).as_deref(),
        Some("v2")
    );
    assert_eq!(
        request(&[("version", "two"), ("color", "orange")]).as_deref(),
        Some("both")
    );
    assert_eq!(request(&[("color", "blue")]).as_deref(), Some("blue"));
    assert_eq!(request(&[("version", "twofold")]), None);
}

#[test]
fn expressions_match_the_whole_value() {
    let by = |regex: Option<&str>, present| HeaderMatch {
        name: "v".into(),
        exact: None,
        regex: regex.map(Into::into),
        present,
    };
    let table = table(vec![
        route("number", prefix("/"), vec![by(Some("a|[0-9]+"), None)]),
        route("any", prefix("/"), vec![by(None, Some(true))]),
    ]);
    for (value, expected) in [
        ("a", "number"),
        ("12", "number"),
        ("ab", "any"),
        ("12x", "any"),
        ("", "any"),
    ] {
        assert_eq!(
            name_of(&table, "/", &Headers(vec![("v", value)])).as_deref(),
            Some(expected),
            "{value}"
        );
    }
}

#[test]
fn grpc_routes_take_grpc_only_and_hosts_are_told_from_rules() {
    let mut only = route("grpc", prefix("/"), vec![]);
    only.matches.grpc = true;
    let host = VirtualHostConfig {
        name: "h".into(),
        hostnames: vec!["a.com".into()],
        routes: vec![only],
    };
    let table = RouteTable::compile(RouteTableConfig {
        name: "t".into(),
        virtual_hosts: vec![host],
    })
    .unwrap();
    assert!(table.lookup(b"A.com:1", b"/x", &NONE, true).is_ok());
    assert_eq!(
        table.lookup(b"a.com", b"/x", &NONE, false).unwrap_err(),
        NoRoute::NoRule
    );
    assert_eq!(
        table.lookup(b"b.com", b"/x", &NONE, true).unwrap_err(),
        NoRoute::NoHost
    );
}

#[test]
fn weights_of_zero_get_nothing() {
    let part = |cluster: &str, weight| WeightedCluster {
        cluster: cluster.into(),
        weight,
        request_headers: None,
        response_headers: None,
    };
    let mut split = route("split", prefix("/"), vec![]);
    split.action = Action::Weighted(vec![part("a", 0), part("b", 7), part("c", 0)]);
    let routes = table(vec![split]);
    let route = routes.routes().next().unwrap();
    for random in 0..1_000 {
        assert!(matches!(route.pick(random), Target::Cluster(part) if &*part.cluster == "b"));
    }
    let mut none = self::route("none", prefix("/"), vec![]);
    none.action = Action::Weighted(vec![part("a", 0)]);
    assert_eq!(
        table(vec![none]).routes().next().unwrap().pick(1),
        Target::NoWeight
    );
}

fn any_path() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "/", "/a/", "/a/x", "/a/y", "/b/x", "/b", "//", "//x", "/a/x/y", "/ab/x", "a/x",
    ])
    .prop_map(Into::into)
}

fn any_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        any_path().prop_map(PathMatch::Exact),
        any_path().prop_map(PathMatch::Prefix),
        prop::sample::select(vec!["/.*", "/a/.", "/[ab]/x", ".*"]).prop_map(regex),
    ]
}

proptest! {
    #[test]
    fn the_index_gives_what_trying_each_route_in_order_gives(
        matches in prop::collection::vec((any_match(), any::<bool>()), 0..24),
        path in any_path(),
        second: bool,
    ) {
        let compile = |(position, (path, needs_header)): (usize, (PathMatch, bool))| {
            let headers = if needs_header { vec![header("v", "2")] } else { vec![] };
            route(&position.to_string(), path, headers)
        };
        let routes: Vec<_> = matches.into_iter().enumerate().map(compile).collect();
        let headers = if second { Headers(vec![("v", "2")]) } else { NONE };
        let table = table(routes);
        let linear = table.routes().find(|route| route.matches(path.as_bytes(), &headers, true));
        let linear = linear.map(|route| route.name().to_string());
        prop_assert_eq!(name_of(&table, &path, &headers), linear);
    }

    #[test]
    fn lookups_never_panic(
        host in prop::collection::vec(any::<u8>(), 0..300),
        path in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let routes = vec![route("a", prefix("/a/"), vec![]), route("b", regex(".*x"), vec![])];
        let table = table(routes);
        let _ = table.lookup(&host, &path, &NONE, true);
    }
}
