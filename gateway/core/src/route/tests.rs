use proptest::prelude::*;

use super::*;
use crate::config::{HeaderMatch, PathMatch, QueryMatch, RouteMatch};

struct Headers(Vec<(&'static str, &'static str)>);

impl HeaderLookup for Headers {
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.as_bytes())
    }

    fn any(&self, name: &str, test: &dyn Fn(&[u8]) -> bool) -> bool {
        let mut named = self.0.iter().filter(|(key, _)| *key == name);
        named.any(|(_, value)| test(value.as_bytes()))
    }
}

const NONE: Headers = Headers(Vec::new());

fn route(name: &str, path: PathMatch, headers: Vec<HeaderMatch>) -> RouteConfig {
    RouteConfig {
        name: name.into(),
        matches: RouteMatch {
            path,
            headers,
            query: Vec::new(),
            method: None,
            grpc: false,
        },
        action: Action::Reply(Reply {
            grpc_status: 14,
            http_status: None,
            message: String::new(),
        }),
        request_headers: None,
        response_headers: None,
        timeout_ms: None,
        max_stream_ms: None,
        idle_timeout_ms: None,
        retry: None,
        rate_limits: Vec::new(),
        fault: None,
        mirrors: Vec::new(),
        session: None,
        rewrite: None,
        cors: None,
        tracing: None,
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
    RouteTable::compile(
        RouteTableConfig {
            name: "main".into(),
            virtual_hosts: vec![host],
        },
        &KnownLimits::default(),
    )
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
fn any_value_of_a_repeated_header_fits() {
    let table = table(vec![
        route(
            "both",
            prefix("/"),
            vec![header("v", "a"), header("v", "b")],
        ),
        route("one", prefix("/"), vec![header("v", "b")]),
    ]);
    let of = |values: &[&'static str]| {
        let headers = Headers(values.iter().map(|value| ("v", *value)).collect());
        name_of(&table, "/x", &headers)
    };
    assert_eq!(of(&["b"]).as_deref(), Some("one"));
    assert_eq!(of(&["c", "b"]).as_deref(), Some("one"));
    assert_eq!(of(&["b", "a"]).as_deref(), Some("both"));
    assert_eq!(of(&["a,b"]), None);
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
    let table = RouteTable::compile(
        RouteTableConfig {
            name: "t".into(),
            virtual_hosts: vec![host],
        },
        &KnownLimits::default(),
    )
    .unwrap();
    assert!(table.lookup(b"A.com:1", b"/x", &NONE, true).is_ok());
    assert_eq!(
        table.lookup(b"a.com", b"/x", &NONE, false).unwrap_err(),
        NoRoute::NotGrpc
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
        mirrors: Vec::new(),
    };
    let mut split = route("split", prefix("/"), vec![]);
    split.action = Action::Weighted(vec![part("a", 0), part("b", 7), part("c", 0)]);
    let routes = table(vec![split]);
    let route = routes.routes().next().unwrap();
    for random in 0..1_000 {
        assert_eq!(route.pick(random), Target::Cluster(1));
    }
    let mut none = self::route("none", prefix("/"), vec![]);
    none.action = Action::Weighted(vec![part("a", 0)]);
    assert_eq!(
        table(vec![none]).routes().next().unwrap().pick(1),
        Target::NoWeight
    );
}

/// The matches of a `GRPCRoute`, as they come here.
#[test]
fn every_form_of_a_grpc_route_matches() {
    let mut by_regex = header("x-env", "");
    (by_regex.exact, by_regex.regex) = (None, Some("stag.*".into()));
    let mut present = header("x-debug", "");
    (present.exact, present.present) = (None, Some(true));
    let table = table(vec![
        route("service+method", exact("/a.Users/Get"), vec![]),
        route("header regex", prefix("/a.Users/"), vec![by_regex]),
        route("header present", prefix("/a.Users/"), vec![present]),
        route("service", prefix("/a.Users/"), vec![]),
        route("method", regex("/[^/]+/List"), vec![]),
        route("regex both", regex("/b\\.[A-Z]\\w*/(Get|Put)"), vec![]),
        route("header only", prefix("/"), vec![header("x-any", "1")]),
    ]);
    let cases: [(&str, Headers, Option<&str>); 10] = [
        (
            "/a.Users/Get",
            Headers(vec![("x-env", "staging")]),
            Some("service+method"),
        ),
        (
            "/a.Users/Put",
            Headers(vec![("x-env", "staging")]),
            Some("header regex"),
        ),
        (
            "/a.Users/Put",
            Headers(vec![("x-env", "my-staging"), ("x-debug", "")]),
            Some("header present"),
        ),
        (
            "/a.Users/Put",
            Headers(vec![("x-env", "prod")]),
            Some("service"),
        ),
        ("/a.users/Get", NONE, None),
        ("/c.Orders/List", NONE, Some("method")),
        ("/c.Orders/Lists", NONE, None),
        ("/b.Orders/Put", NONE, Some("regex both")),
        ("/b.orders/Put", NONE, None),
        (
            "/c.Orders/Get",
            Headers(vec![("x-any", "1")]),
            Some("header only"),
        ),
    ];
    for (path, headers, expected) in cases {
        assert_eq!(
            name_of(&table, path, &headers).as_deref(),
            expected,
            "{path}"
        );
    }
}

fn known(table: &RouteTable) -> KnownLimits {
    let mut known = KnownLimits::default();
    known.add(table);
    known
}

fn limited(name: &str, limit: &str, requests: u64) -> RouteConfig {
    let mut limited = route(name, exact(name), vec![]);
    limited.rate_limits = serde_json::from_value(serde_json::json!([
        {"name": limit, "requests": requests, "unit": "hour"}]))
    .unwrap();
    limited
}

#[test]
fn a_limit_outlives_its_table_and_is_shared_by_routes() {
    let first = table(vec![limited("/a", "l", 2), limited("/b", "l", 2)]);
    let passes = |table: &RouteTable| {
        let passed = table.routes().filter(|route| route.pass(&NONE, 1).is_ok());
        passed.count()
    };
    assert_eq!((passes(&first), passes(&first)), (2, 0));
    let config = |routes| RouteTableConfig {
        name: "main".into(),
        virtual_hosts: vec![VirtualHostConfig {
            name: "all".into(),
            hostnames: vec!["*".into()],
            routes,
        }],
    };
    let next = config(vec![limited("/c", "l", 2), limited("/d", "other", 1)]);
    let next = RouteTable::compile(next, &known(&first)).unwrap();
    assert_eq!(passes(&next), 1, "only the new limit has calls left");
    assert_eq!(next.limits().count(), 2);
    assert_eq!(next.limit("l").unwrap().demand().passed, 2);
    let clash = config(vec![limited("/a", "l", 2), limited("/b", "l", 3)]);
    let error = RouteTable::compile(clash, &KnownLimits::default()).unwrap_err();
    assert_eq!(error.path, "virtual_hosts[0].routes[1].rate_limits[0].name");
}

#[test]
fn mirrors_of_route_and_part_are_drawn_apart() {
    let mirror = |cluster: &str, numerator| Mirror {
        cluster: cluster.into(),
        numerator,
        denominator: 100,
        request_headers: None,
    };
    let mut mirrored = route("m", prefix("/"), vec![]);
    mirrored.mirrors = vec![mirror("all", 100), mirror("none", 0), mirror("half", 50)];
    mirrored.action = Action::Weighted(vec![WeightedCluster {
        cluster: "a".into(),
        weight: 1,
        request_headers: None,
        response_headers: None,
        mirrors: vec![mirror("part", 50)],
    }]);
    let table = table(vec![mirrored]);
    let route = table.routes().next().unwrap();
    let mut counts = std::collections::BTreeMap::new();
    let mut both = 0;
    for random in 0..1_000 {
        let names: Vec<_> = route.mirrors(&route.clusters()[0], random).collect();
        both += usize::from(names.len() == 3);
        for mirror in names {
            *counts.entry(mirror.cluster.to_string()).or_insert(0) += 1;
        }
    }
    assert_eq!(counts["all"], 1_000);
    assert!(!counts.contains_key("none"));
    assert!((430..570).contains(&counts["half"]) && (430..570).contains(&counts["part"]));
    assert!((190..310).contains(&both), "{both}");
}

#[test]
fn a_session_holds_to_a_part_that_has_weight() {
    let part = |cluster: &str, weight| WeightedCluster {
        cluster: cluster.into(),
        weight,
        request_headers: None,
        response_headers: None,
        mirrors: Vec::new(),
    };
    let mut sticky = route("s", prefix("/"), vec![]);
    sticky.action = Action::Weighted(vec![part("a", 1), part("b", 0)]);
    sticky.session =
        serde_json::from_value(serde_json::json!({"name": "x-s", "kind": "header"})).ok();
    let table = table(vec![sticky]);
    let route = table.routes().next().unwrap();
    let session = route.session().unwrap();
    let held = |cluster: &str| {
        let address = "10.0.0.1:80".parse().unwrap();
        let token = session
            .write(None, cluster, address, 9, true)
            .unwrap()
            .value;
        session.read(&Owned(token), 9).unwrap()
    };
    assert_eq!(route.held(&held("a")), Some(0));
    assert_eq!(route.held(&held("b")), None, "it has no weight any more");
    assert_eq!(route.held(&held("c")), None);
}

#[test]
fn segments_are_whole() {
    let deep = "/1/2/3/4/5/6/7/8/9";
    let table = table(vec![
        route("deep", PathMatch::Segments(deep.into()), vec![]),
        route("ab", PathMatch::Segments("/a/b".into()), vec![]),
        route("a", PathMatch::Segments("/a".into()), vec![]),
    ]);
    for (path, expected) in [
        ("/a", Some("a")),
        ("/a/", Some("a")),
        ("/a?b", Some("a")),
        ("/ab", None),
        ("/a/b", Some("ab")),
        ("/a/b/c", Some("ab")),
        ("/a/bc", Some("a")),
        ("/1/2/3/4/5/6/7/8/9/10", Some("deep")),
        ("/", None),
    ] {
        assert_eq!(name_of(&table, path, &NONE).as_deref(), expected, "{path}");
    }
}

#[test]
fn query_and_method_are_conditions_too() {
    let query = |name: &str, exact: Option<&str>, regex: Option<&str>| QueryMatch {
        name: name.into(),
        exact: exact.map(Into::into),
        regex: regex.map(Into::into),
        present: (exact.is_none() && regex.is_none()).then_some(true),
    };
    let mut posted = route("posted", prefix("/"), vec![]);
    posted.matches.method = Some("POST".into());
    let mut paged = route("paged", prefix("/"), vec![]);
    paged.matches.query = vec![query("page", Some("2"), None), query("all", None, None)];
    let mut sorted = route("sorted", prefix("/"), vec![]);
    sorted.matches.query = vec![query("sort", None, Some("[a-z]+"))];
    let table = table(vec![posted, paged, sorted]);
    let get = Headers(vec![(":method", "GET")]);
    let post = Headers(vec![(":method", "POST")]);
    for (path, headers, expected) in [
        ("/", &post, Some("posted")),
        ("/", &get, None),
        ("/?page=2&all", &get, Some("paged")),
        ("/?all=&page=2", &get, Some("paged")),
        ("/?page=2", &get, None),
        ("/?page=1&page=2&all", &get, None),
        ("/?xpage=2&all", &get, None),
        ("/?sort=up", &get, Some("sorted")),
        ("/?sort=UP", &get, None),
        ("/?sort", &get, None),
    ] {
        assert_eq!(
            name_of(&table, path, headers).as_deref(),
            expected,
            "{path}"
        );
    }
}

#[test]
fn a_rule_for_grpc_alone_says_so() {
    let mut grpc = route("g", prefix("/a/"), vec![]);
    grpc.matches.grpc = true;
    let table = table(vec![grpc]);
    let refusal = |path: &[u8]| table.lookup(b"h", path, &NONE, false).unwrap_err();
    assert_eq!(refusal(b"/a/b"), NoRoute::NotGrpc);
    assert_eq!(refusal(b"/b"), NoRoute::NoRule);
    assert!(table.lookup(b"h", b"/a/b", &NONE, true).is_ok());
}

struct Owned(String);

impl HeaderLookup for Owned {
    fn first(&self, _: &str) -> Option<&[u8]> {
        Some(self.0.as_bytes())
    }
}

fn any_path() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "/",
        "/a/",
        "/a/x",
        "/a/y",
        "/b/x",
        "/b",
        "//",
        "//x",
        "/a/x/y",
        "/ab/x",
        "a/x",
        "///x",
        "/a//x",
        "/\u{e9}/x",
    ])
    .prop_map(Into::into)
}

fn any_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        any_path().prop_map(PathMatch::Exact),
        any_path().prop_map(PathMatch::Prefix),
        prop::sample::select(vec!["/a", "/a/x", "/b", "//x", "/a/x/y", "/ab"])
            .prop_map(|path| PathMatch::Segments(path.into())),
        prop::sample::select(vec![
            "/.*",
            "/a/.",
            "/[ab]/x",
            ".*",
            "/[^/]+/x",
            "/[^/]+/y",
            "/[^/]+/[xy]"
        ])
        .prop_map(regex),
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
        let matches = |route: &&Arc<Route>| {
            route.path.matches(path.as_bytes()) && route.matches_beside_path(&headers, b"")
        };
        let linear = table.routes().find(matches);
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

#[test]
fn a_rule_says_which_route_it_is_of() {
    for (rule, route) in [
        ("GRPCRoute app/users rule 0", "GRPCRoute app/users"),
        ("app/users/rule-0", "app/users"),
        ("plain", "plain"),
    ] {
        assert_eq!(Route::parent_of(rule), route);
    }
}
