//! The example document reads, and every refusal names the field's path.

use gateway_core::config::{Action, Health, LoadBalancing, RetryOn};
use gateway_core::{Snapshot, parse_update};
use proptest::prelude::*;
use serde_json::{Value, json};

const DOCUMENT: &str = include_str!("data/update.json");

/// The message for the document with one place changed.
fn refusal(pointer: &str, value: Value) -> String {
    let mut document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
    *document.pointer_mut(pointer).expect("the place exists") = value;
    parse_update(document.to_string().as_bytes())
        .expect_err("refused")
        .to_string()
}

#[test]
fn the_example_document_is_accepted() {
    let update = parse_update(DOCUMENT.as_bytes()).expect("accepted");
    assert_eq!((update.version.as_str(), update.full), ("42", true));
    assert_eq!(update.listeners[2].tls, None);
    let routes = &update.route_tables[0].virtual_hosts[0].routes;
    assert_eq!(
        routes[0].retry.as_ref().map(|retry| retry.on[0]),
        Some(RetryOn::ServerError)
    );
    assert!(matches!(&routes[2].action, Action::Reply(reply) if reply.grpc_status == 14));
    assert_eq!(update.clusters[1].lb, LoadBalancing::RoundRobin);
    let drained = &update.endpoints[0].localities[0].endpoints[1];
    assert_eq!(
        (drained.health, drained.drain_grace_ms),
        (Health::Draining, Some(30_000))
    );
}

#[test]
fn the_documented_example_is_accepted() {
    let source = include_str!("../src/config.rs");
    let lines = source.lines().filter_map(|line| line.strip_prefix("//! "));
    let lines = lines
        .skip_while(|line| *line != "```json")
        .skip(1)
        .take_while(|line| *line != "```");
    let without_comments: String = lines.filter_map(|line| line.split(" // ").next()).collect();
    let update = parse_update(without_comments.as_bytes()).expect("accepted");
    assert_eq!(update.clusters.len(), 1);
}

#[test]
fn what_routes_of_http_cannot_do_is_refused() {
    let route = |fields: Value| {
        let mut route = json!({"name": "r", "match": {"path": {"segments": "/a"}},
            "action": {"weighted": [{"cluster": "c", "weight": 1}]}});
        for (name, value) in fields.as_object().expect("fields") {
            route[name] = value.clone();
        }
        let document = json!({"version": "1", "full": true, "clusters": [{"name": "c"}],
            "route_tables": [{"name": "t", "virtual_hosts": [
                {"name": "h", "hostnames": ["*"], "routes": [route]}]}]});
        let update = parse_update(document.to_string().as_bytes())?;
        Snapshot::apply(&Snapshot::default(), update, 0)
    };
    route(json!({})).expect("is fine");
    for (fields, error) in [
        (
            json!({"match": {"path": {"segments": "/a/"}}}),
            "match.path.segments: must not end",
        ),
        (
            json!({"match": {"path": {"prefix": "/"}, "method": "A B"}}),
            "match.method: must be",
        ),
        (
            json!({"match": {"path": {"prefix": "/"}, "query": [{"name": "a"}]}}),
            "match.query[0]: needs exactly one",
        ),
        (
            json!({"match": {"path": {"prefix": "/"}, "query": [{"name": "a", "regex": "("}]}}),
            "match.query[0].regex: must be a regular expression",
        ),
        (
            json!({"action": {"redirect": {"status": 300}}}),
            "action.redirect.status: must be 301",
        ),
        (
            json!({"action": {"redirect": {"status": 302, "scheme": "ftp"}}}),
            "action.redirect.scheme: must be `http`",
        ),
        (
            json!({"action": {"redirect": {"status": 302, "port": 0}}}),
            "action.redirect.port: must be 1 to 65535",
        ),
        (
            json!({"action": {"redirect": {"status": 302, "path": {"full": "a"}}}}),
            "action.redirect.path.full: must begin with `/`",
        ),
        (
            json!({"rewrite": {"host": "a b"}}),
            "rewrite.host: must be a host name",
        ),
        (
            json!({"rewrite": {"path": {"full": "/a b"}}}),
            "rewrite.path.full: must be visible",
        ),
        (
            json!({"match": {"path": {"exact": "/"}}, "rewrite": {"path": {"prefix": "/b"}}}),
            "rewrite.path.prefix: needs a route that matches",
        ),
        (
            json!({"cors": {"origin_regexes": ["("]}}),
            "cors.origin_regexes[0].regex: must be",
        ),
        (
            json!({"cors": {"origins": ["*"], "methods": [""]}}),
            "cors.methods[0]: must be",
        ),
        (
            json!({"action": {"reply": {"grpc_status": 14, "http_status": 99, "message": ""}}}),
            "action.reply.http_status: must be 200 to 599",
        ),
    ] {
        let message = route(fields).expect_err("refused").to_string();
        let expected = format!("route_tables[0].virtual_hosts[0].routes[0].{error}");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn fields_with_defaults_may_be_absent() {
    let minimal = r#"{"version": "1", "full": false, "clusters": [{"name": "a"}],
        "endpoints": [{"cluster": "a", "localities": [{"cluster_id": "c", "region": "r",
            "priority": 0, "weight": 1, "endpoints": [{"address": "[::1]:1"}]}]}]}"#;
    let update = parse_update(minimal.as_bytes()).expect("accepted");
    let cluster = &update.clusters[0];
    assert_eq!(
        (
            cluster.connect_timeout_ms,
            cluster.panic_percent,
            cluster.overprovision_percent
        ),
        (5_000, 50, 140)
    );
    assert_eq!(update.endpoints[0].localities[0].endpoints[0].weight, 1);
}

#[test]
fn types_and_names_are_refused_with_their_path() {
    let table = [
        (
            "/clusters/0/outlier/max_ejection_percent",
            json!("half"),
            "clusters[0].outlier.max_ejection_percent: ",
        ),
        (
            "/clusters/0/outlier/max_ejection_percent",
            json!(-1),
            "clusters[0].outlier.max_ejection_percent: ",
        ),
        (
            "/listeners/0/kind",
            json!("egress"),
            "listeners[0].kind: unknown variant `egress`",
        ),
        (
            "/listeners/0/address",
            json!("localhost"),
            "listeners[0].address: ",
        ),
        (
            "/listeners/0/tls",
            json!({"certs": []}),
            "listeners[0].tls.certs: unknown field `certs`",
        ),
        (
            "/endpoints/0/localities/0/endpoints/0/address",
            json!("pod:80"),
            "endpoints[0].localities[0].endpoints[0].address: ",
        ),
        (
            "/route_tables/0/virtual_hosts/0/routes/0/action",
            json!({"mirror": []}),
            "route_tables[0].virtual_hosts[0].routes[0].action",
        ),
        (
            "/route_tables/0/virtual_hosts/0/routes/0/retry/on/0",
            json!("4xx"),
            "route_tables[0].virtual_hosts[0].routes[0].retry.on[0]: ",
        ),
        (
            "/clusters/1",
            json!({}),
            "clusters[1]: missing field `name`",
        ),
    ];
    for (pointer, value, message) in table {
        let refusal = refusal(pointer, value);
        assert!(refusal.starts_with(message), "{pointer}: {refusal}");
    }
}

#[test]
fn values_are_refused_with_their_path() {
    let table = [
        (
            "/clusters/0/outlier/max_ejection_percent",
            json!(101),
            "clusters[0].outlier.max_ejection_percent: must be 0 to 100; it is 101",
        ),
        (
            "/clusters/0/overprovision_percent",
            json!(99),
            "clusters[0].overprovision_percent: must be 100 to 1000; it is 99",
        ),
        (
            "/clusters/0/max_connections",
            json!(0),
            "clusters[0].max_connections: must be above 0",
        ),
        (
            "/clusters/1/name",
            json!("users"),
            "clusters[1].name: `users` is in this update twice",
        ),
        (
            "/clusters/0/peer_tls/allowed_spiffe/0",
            json!("spiffe://*/x"),
            "clusters[0].peer_tls.allowed_spiffe[0]: must be a SPIFFE id",
        ),
        (
            "/listeners/0/tls/certificates",
            json!([]),
            "listeners[0].tls.certificates: needs at least one secret",
        ),
        (
            "/listeners/1/tls/client_ca",
            json!(null),
            "listeners[1].tls.allowed_spiffe: needs `client_ca`",
        ),
        (
            "/secrets/0/private_key_pem",
            json!(null),
            "secrets[0].private_key_pem: ",
        ),
        (
            "/removed/secrets",
            json!(["old"]),
            "removed.secrets[0]: must not be in a full update",
        ),
        (
            "/endpoints/0/localities/1/endpoints/0/address",
            json!("10.0.0.7:50051"),
            "endpoints[0].localities[1].endpoints[0].address: `10.0.0.7:50051` is in this set twice",
        ),
        (
            "/endpoints/0/localities/0/endpoints/0/weight",
            json!(0),
            "endpoints[0].localities[0].endpoints[0].weight: must be 1 to 1000000; it is 0",
        ),
        (
            "/route_tables/0/virtual_hosts/1/hostnames/0",
            json!("*.example.com"),
            "route_tables[0].virtual_hosts[1].hostnames[0]: `*.example.com` is in this table twice",
        ),
        (
            "/route_tables/0/virtual_hosts/1/hostnames/0",
            json!("Example.com"),
            "route_tables[0].virtual_hosts[1].hostnames[0]: must be",
        ),
    ];
    for (pointer, value, message) in table {
        let refusal = refusal(pointer, value);
        assert!(refusal.starts_with(message), "{pointer}: {refusal}");
    }
}

#[test]
fn values_of_routes_are_refused_with_their_path() {
    let table = [
        (
            "/match/path",
            json!({"exact": "x"}),
            "match.path.exact: must begin with `/`",
        ),
        (
            "/match/headers/0",
            json!({"name": "a", "exact": "1", "present": true}),
            "match.headers[0]: needs exactly one of",
        ),
        (
            "/match/headers/0/name",
            json!("Version"),
            "match.headers[0].name: must be a lower-case",
        ),
        (
            "/action/weighted/1/weight",
            json!(1_000_001),
            "action.weighted[1].weight: must be 0 to 1000000",
        ),
        (
            "/action/weighted/1/request_headers/set/0/0",
            json!(":path"),
            "action.weighted[1].request_headers.set[0][0]: must be",
        ),
        (
            "/request_headers/add/0/0",
            json!("te"),
            "request_headers.add[0][0]: `te` belongs",
        ),
        (
            "/request_headers/add/0/1",
            json!("a\nb"),
            "request_headers.add[0][1]: must not contain",
        ),
        (
            "/retry/attempts",
            json!(17),
            "retry.attempts: must be 0 to 16; it is 17",
        ),
        (
            "/retry/max_ms",
            json!(1),
            "retry.max_ms: must be at least `base_ms`, 200",
        ),
        ("/timeout_ms", json!(0), "timeout_ms: must be above 0"),
    ];
    for (pointer, value, message) in table {
        let pointer = format!("/route_tables/0/virtual_hosts/0/routes/0{pointer}");
        let refusal = refusal(&pointer, value);
        let message = format!("route_tables[0].virtual_hosts[0].routes[0].{message}");
        assert!(refusal.starts_with(&message), "{pointer}: {refusal}");
    }
}

#[test]
#[allow(clippy::too_many_lines)] // a table
fn values_of_policies_are_refused_with_their_path() {
    let (route, cluster) = ("/route_tables/0/virtual_hosts/0/routes/0", "/clusters/0");
    let limit = |field: &str, value: Value| {
        let mut limit = json!({"name": "l", "requests": 1, "unit": "second"});
        limit[field] = value;
        json!([limit])
    };
    let header = |header: Value| limit("headers", json!([header]));
    let table = [
        (
            route,
            "rate_limits",
            limit("name", json!("")),
            "[0].name: must not be empty",
        ),
        (
            route,
            "rate_limits",
            limit("requests", json!(10_000_001)),
            "[0].requests: must be 0 to 10000000",
        ),
        (
            route,
            "rate_limits",
            limit("unit", json!("week")),
            "[0].unit: unknown variant",
        ),
        (
            route,
            "rate_limits",
            limit("keys_max", json!(7)),
            "[0].keys_max: must be 8 to 1048576",
        ),
        (
            route,
            "rate_limits",
            limit("first_share_per_million", json!(1_000_001)),
            "[0].first_share_per_million: ",
        ),
        (
            route,
            "rate_limits",
            header(json!({"name": "x"})),
            "[0].headers[0]: needs exactly one of",
        ),
        (
            route,
            "rate_limits",
            header(json!({"name": "x", "distinct": false})),
            "[0].headers[0]: needs exactly",
        ),
        (
            route,
            "rate_limits",
            header(json!({"name": "X", "present": true})),
            "[0].headers[0].name: must be",
        ),
        (
            route,
            "fault",
            json!({"delay": {"ms": 0, "per_million": 1}}),
            ".delay.ms: must be 1 to 3600000",
        ),
        (
            route,
            "fault",
            json!({"abort": {"reply": {"grpc_status": 17, "message": ""}, "per_million": 1}}),
            ".abort.reply.grpc_status: must be 0 to 16",
        ),
        (
            route,
            "fault",
            json!({"abort": {"reply": {"grpc_status": 1, "message": ""}, "per_million": 1_000_001}}),
            ".abort.per_million: ",
        ),
        (
            route,
            "mirrors",
            json!([{"cluster": "users", "denominator": 0}]),
            "[0].denominator: must be above 0",
        ),
        (
            route,
            "mirrors",
            json!([{"cluster": "users", "numerator": 101}]),
            "[0].numerator: must be 0 to 100",
        ),
        (
            route,
            "session",
            json!({"name": "a;b"}),
            ".name: must be a cookie name",
        ),
        (
            route,
            "session",
            json!({"name": "A", "kind": "header"}),
            ".name: must be a lower-case field name",
        ),
        (
            route,
            "session",
            json!({"name": "a", "idle_ms": 999}),
            ".idle_ms: must be at least 1000",
        ),
        (
            route,
            "session",
            json!({"name": "a", "permanent": true}),
            ".permanent: needs `absolute_ms`",
        ),
        (cluster, "hash_on", json!([{}]), "[0]: needs exactly one of"),
        (
            cluster,
            "hash_on",
            json!([{"header": "x", "source": true}]),
            "[0]: needs exactly one of",
        ),
        (
            cluster,
            "table_size",
            json!(65_536),
            ": must be a prime, got 65536",
        ),
        (
            cluster,
            "table_size",
            json!(5_000_017),
            ": must be 2 to 5000011",
        ),
        (cluster, "max_requests", json!(0), ": must be above 0"),
        (
            cluster,
            "slow_start",
            json!({"window_ms": 0}),
            ".window_ms: must be 1 to 3600000",
        ),
        (
            cluster,
            "slow_start",
            json!({"window_ms": 1, "min_percent": 0}),
            ".min_percent: must be 1 to 100",
        ),
        (cluster, "lb", json!("random"), ": unknown variant"),
        (
            cluster,
            "outlier",
            json!({"failure_percentage": {"threshold_percent": 0}}),
            ".failure_percentage.threshold_percent: must be 1 to 100",
        ),
        (
            cluster,
            "outlier",
            json!({"failure_percentage": {"request_volume": 0}}),
            ".failure_percentage.request_volume: must be",
        ),
        (
            "/listeners/0",
            "connection",
            json!({"max_age_ms": 0}),
            ".max_age_ms: must be above 0",
        ),
        (
            "/listeners/0",
            "connection",
            json!({"max_age_grace_ms": 1}),
            ".max_age_grace_ms: needs `max_age_ms`",
        ),
        (
            "/listeners/0",
            "connection",
            json!({"ping_timeout_ms": 1}),
            ".ping_timeout_ms: needs `ping_after_ms`",
        ),
    ];
    for (parent, field, value, message) in table {
        let mut document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        document.pointer_mut(parent).expect("is there")[field] = value;
        let refusal = parse_update(document.to_string().as_bytes())
            .unwrap_err()
            .to_string();
        let path = parent[1..].replace('/', ".");
        let path = path.replace(".0", "[0]");
        assert!(
            refusal.starts_with(&format!("{path}.{field}{message}")),
            "{field}: {refusal}"
        );
    }
}

#[test]
fn what_is_no_document_is_refused() {
    for document in [
        "",
        "{",
        "[]",
        "{} {}",
        r#"{"version": "1", "full": true} x"#,
        r#"{"version": "1", "full": true, "extra": 1}"#,
    ] {
        assert!(parse_update(document.as_bytes()).is_err(), "{document}");
    }
}

#[test]
fn a_name_is_sent_or_removed_but_not_both() {
    let document = r#"{"version": "1", "full": false, "clusters": [{"name": "a"}],
        "removed": {"clusters": ["b", "a"]}}"#;
    let refusal = parse_update(document.as_bytes())
        .expect_err("refused")
        .to_string();
    assert_eq!(
        refusal,
        "removed.clusters[1]: `a` is in `clusters` of this update too"
    );
}

#[test]
fn secrets_print_redacted() {
    let update = parse_update(DOCUMENT.as_bytes()).expect("accepted");
    let printed = format!("{:?}", update.secrets);
    assert!(printed.contains("<redacted>") && printed.contains("web"));
    assert!(!printed.contains("BEGIN"));
}

proptest! {
    /// Whatever comes instead of a document, the answer is a snapshot or a refusal with a path.
    #[test]
    fn damaged_documents_never_panic(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        cut_short: bool,
    ) {
        let mut document = DOCUMENT.as_bytes().to_vec();
        for (place, byte) in places {
            let place = place.index(document.len());
            document[place] = byte;
        }
        if cut_short {
            document.truncate(cut.index(document.len()));
        }
        let apply = |update| Snapshot::apply(&Snapshot::default(), update, 0);
        let snapshot = parse_update(&document).and_then(apply);
        if let Err(error) = snapshot {
            prop_assert!(!error.path.is_empty() && !error.message.is_empty());
        }
    }
}

#[test]
fn what_is_told_about_calls_is_checked_with_its_path() {
    let listener = "/listeners/0/telemetry";
    for (pointer, value, error) in [
        (
            "/tracing/sampling_per_million",
            json!(1_000_001),
            "tracing.sampling_per_million: must be 0 to 1000000",
        ),
        (
            "/tracing/collector",
            json!(""),
            "tracing.collector: must not be empty",
        ),
        (
            "/tracing/tags/0/header",
            json!("x-a"),
            "tracing.tags[0]: needs exactly one",
        ),
        (
            "/tracing/tags/1/name",
            json!("cluster"),
            "tracing.tags[1]: `cluster` is there twice",
        ),
        (
            "/tracing/tags/1/header",
            json!("X"),
            "tracing.tags[1].header: must be",
        ),
        (
            "/access_logs/1/sink/file",
            json!("log"),
            "access_logs[1].sink.file: must be an absolute path",
        ),
        (
            "/access_logs/1/format/json/0/1",
            json!("%START%"),
            "access_logs[1].format.json[0][1]: `%START%` is no field",
        ),
        (
            "/access_logs/2/format/text",
            json!("5 %"),
            "access_logs[2].format.text: `%` at byte 2",
        ),
        (
            "/access_logs/0/format",
            json!("xml"),
            "access_logs[0].format",
        ),
    ] {
        let place = format!("{listener}{pointer}");
        let mut document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        // A field that is not there yet is added to its object.
        let (parent, field) = place.rsplit_once('/').expect("a path");
        let parent = document.pointer_mut(parent).expect("the place exists");
        match parent {
            Value::Array(items) => items[field.parse::<usize>().expect("an index")] = value,
            _ => parent[field] = value,
        }
        let message = parse_update(document.to_string().as_bytes())
            .expect_err("refused")
            .to_string();
        let expected = format!("listeners[0].telemetry.{error}");
        assert!(message.starts_with(&expected), "{message}");
    }
    let tracing = "/route_tables/0/virtual_hosts/0/routes/0";
    let mut document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
    document.pointer_mut(tracing).expect("a route")["tracing"] =
        json!({"sampling_per_million": 2_000_000});
    let message = parse_update(document.to_string().as_bytes()).expect_err("refused");
    let expected = "route_tables[0].virtual_hosts[0].routes[0].tracing.sampling_per_million: must";
    assert!(message.to_string().starts_with(expected), "{message}");
}
