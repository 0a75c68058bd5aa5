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
