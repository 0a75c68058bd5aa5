use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::parse_update;

const DOCUMENT: &str = include_str!("../../tests/data/update.json");

fn update(document: &Value) -> Update {
    parse_update(document.to_string().as_bytes()).unwrap()
}

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

fn first() -> Snapshot {
    Snapshot::apply(&Snapshot::default(), update(&document()), 0).unwrap()
}

fn delta(prev: &Snapshot, document: &Value) -> Result<Snapshot, ConfigError> {
    Snapshot::apply(prev, update(document), 1)
}

fn endpoints(cluster: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|address| json!({"address": address}))
        .collect();
    let locality = json!({"cluster_id": "c", "region": "r", "priority": 0, "weight": 1,
        "endpoints": endpoints});
    json!({"cluster": cluster, "localities": [locality]})
}

/// Kinds and names of objects that are the same in both.
fn shared(one: &Snapshot, other: &Snapshot) -> Vec<String> {
    let listeners = one
        .listeners()
        .iter()
        .filter(|a| other.listeners().iter().any(|b| Arc::ptr_eq(a, b)));
    let tables = one
        .tables()
        .filter(|a| other.table(a.name()).is_some_and(|b| Arc::ptr_eq(a, b)));
    let clusters = one.clusters().filter(|a| {
        other
            .cluster(&a.config.name)
            .is_some_and(|b| Arc::ptr_eq(a, b))
    });
    let secrets = one
        .secrets
        .values()
        .filter(|a| other.secret(&a.name).is_some_and(|b| Arc::ptr_eq(a, b)));
    let mut names: Vec<_> = listeners
        .map(|listener| format!("listener {}", listener.name))
        .chain(tables.map(|table| format!("table {}", table.name())))
        .chain(clusters.map(|cluster| format!("cluster {}", cluster.config.name)))
        .chain(secrets.map(|secret| format!("secret {}", secret.name)))
        .collect();
    names.sort();
    names
}

const ALL: [&str; 9] = [
    "cluster users",
    "cluster users-next",
    "listener peers",
    "listener plain",
    "listener public",
    "secret clusterset-ca",
    "secret identity",
    "secret web",
    "table main",
];

#[test]
fn tables_share_a_limit_while_they_agree_on_it() {
    let tables = |limits: &[(&str, u64)]| -> Vec<Value> {
        let table = |(name, requests): &(&str, u64)| {
            json!({"name": name, "virtual_hosts": [{"name": "h", "hostnames": ["*"], "routes": [
                {"name": "r", "match": {"path": {"prefix": "/"}}, 
                 "action": {"reply": {"grpc_status": 14, "message": ""}},
                 "rate_limits": [{"name": "l", "requests": requests, "unit": "hour"}]}]}]})
        };
        limits.iter().map(table).collect()
    };
    let change = |limits| json!({"version": "2", "full": false, "route_tables": tables(limits)});
    let two = delta(&first(), &change(&[("a", 2), ("b", 2)])).unwrap();
    assert_eq!(two.rate_limits().len(), 1);
    let kept = Arc::clone(two.rate_limits()[0]);
    let parted = delta(&two, &change(&[("b", 3)])).unwrap();
    assert_eq!(parted.rate_limits().len(), 2);
    let again = delta(&parted, &change(&[("b", 2), ("c", 2)])).unwrap();
    assert!(matches!(&again.rate_limits()[..], [one] if Arc::ptr_eq(one, &kept)));
}

#[test]
fn the_example_document_makes_a_snapshot() {
    let snapshot = first();
    assert_eq!(snapshot.version(), "42");
    let names: Vec<_> = snapshot
        .listeners()
        .iter()
        .map(|listener| &*listener.name)
        .collect();
    assert_eq!(names, ["peers", "plain", "public"]);
    assert_eq!(
        snapshot
            .cluster("users")
            .unwrap()
            .endpoints
            .endpoints()
            .len(),
        4
    );
    assert!(
        snapshot
            .endpoint("users", "10.0.0.7:50051".parse().unwrap())
            .is_some()
    );
    assert!(
        snapshot
            .endpoint("users", "10.0.0.99:50051".parse().unwrap())
            .is_none()
    );
}

#[test]
fn the_same_again_keeps_every_object() {
    let snapshot = first();
    let again = delta(&snapshot, &document()).unwrap();
    assert_eq!(shared(&snapshot, &again), ALL);
    let nothing = delta(&snapshot, &json!({"version": "43", "full": false})).unwrap();
    assert_eq!(shared(&snapshot, &nothing), ALL);
    assert!(Arc::ptr_eq(&snapshot.clusters, &nothing.clusters));
    assert_eq!(nothing.version(), "43");
}

#[test]
fn an_endpoint_change_costs_one_cluster_and_keeps_what_was_learned() {
    let snapshot = first();
    let set = endpoints("users", &["10.0.0.7:50051", "10.0.0.9:50051"]);
    let change = json!({"version": "43", "full": false, "endpoints": [set]});
    let next = delta(&snapshot, &change).unwrap();
    assert_eq!(shared(&snapshot, &next), ALL[1..]);
    let address = "10.0.0.7:50051".parse().unwrap();
    assert!(Arc::ptr_eq(
        snapshot.endpoint("users", address).unwrap(),
        next.endpoint("users", address).unwrap()
    ));
    let [before, after] = [&snapshot, &next].map(|snapshot| snapshot.cluster("users").unwrap());
    assert!(
        Arc::ptr_eq(&before.config, &after.config) && Arc::ptr_eq(&before.shared, &after.shared)
    );
    assert_eq!(
        before.shared.members(),
        2,
        "the cap counts the newest endpoints"
    );
}

#[test]
fn a_changed_cluster_keeps_its_endpoints() {
    let snapshot = first();
    let mut cluster = document()["clusters"][0].clone();
    cluster["panic_percent"] = json!(10);
    let next = delta(
        &snapshot,
        &json!({"version": "43", "full": false, "clusters": [cluster]}),
    )
    .unwrap();
    let [before, after] = [&snapshot, &next].map(|snapshot| snapshot.cluster("users").unwrap());
    assert_eq!(after.config.panic_percent, 10);
    assert_eq!(
        after.endpoints.differences(&before.endpoints),
        crate::Differences::default()
    );
    assert!(!Arc::ptr_eq(&before.endpoints, &after.endpoints));
}

#[test]
fn removed_objects_are_gone_and_removed_endpoints_leave_the_cluster() {
    let snapshot = first();
    let removed = json!({"version": "43", "full": false, "removed":
        {"listeners": ["public", "unknown"], "secrets": ["web"], "endpoints": ["users"]}});
    let next = delta(&snapshot, &removed).unwrap();
    assert!(
        next.listeners()
            .iter()
            .all(|listener| &*listener.name != "public")
    );
    assert!(next.secret("web").is_none() && snapshot.secret("web").is_some());
    assert!(
        next.cluster("users")
            .unwrap()
            .endpoints
            .endpoints()
            .is_empty()
    );
    let full = delta(&snapshot, &json!({"version": "44", "full": true})).unwrap();
    assert!(
        full.listeners().is_empty()
            && full.clusters().next().is_none()
            && full.tables().next().is_none()
    );
}

#[test]
fn dangling_names_are_refused_with_the_path_of_who_has_them() {
    let snapshot = first();
    let refused = |change: Value| delta(&snapshot, &change).unwrap_err().to_string();
    let removed = |kind: &str, name: &str| {
        refused(json!({"version": "43", "full": false, "removed": {kind: [name]}}))
    };
    assert!(
        removed("secrets", "web")
            .starts_with("listeners(public).tls.certificates[0]: there is no secret `web`")
    );
    assert!(
        removed("route_tables", "main")
            .starts_with("listeners(peers).route_table: there is no route table `main`")
    );
    assert!(removed("clusters", "users").starts_with(
        "route_tables(main).virtual_hosts[0].routes[0].action.weighted[0].cluster: there is no cluster `users`"
    ));
    let set = endpoints("nobody", &["10.0.0.1:1"]);
    let orphan = json!({"version": "43", "full": false, "endpoints": [set]});
    assert!(refused(orphan).starts_with("endpoints[0].cluster: there is no cluster `nobody`"));
    let secret = json!({"version": "43", "full": false, "secrets": [{"name": "clusterset-ca"}]});
    assert_eq!(
        refused(secret),
        "listeners(peers).tls.client_ca: the secret `clusterset-ca` has no `ca_pem`"
    );
    let mut listener = document()["listeners"][0].clone();
    listener["route_table"] = json!("other");
    assert!(
        refused(json!({"version": "43", "full": false, "listeners": [listener]}))
            .starts_with("listeners[0].route_table: ")
    );
    let mut peer = endpoints("users-next", &["10.0.0.1:1"]);
    peer["localities"][0]["endpoints"][0]["peer"] = json!(true);
    assert_eq!(
        refused(json!({"version": "43", "full": false, "endpoints": [peer]})),
        "endpoints[0].localities[0]: `10.0.0.1:1` is a gateway of another cluster: needs `peer_tls` in the cluster \
         `users-next`"
    );
    let mut cluster = document()["clusters"][0].clone();
    cluster["peer_tls"]["ca"] = json!("web");
    assert_eq!(
        refused(json!({"version": "43", "full": false, "clusters": [cluster]})),
        "clusters[0].peer_tls.ca: the secret `web` has no `ca_pem`"
    );
}

#[test]
fn expressions_that_do_not_compile_are_refused_with_their_path() {
    let mut table = document()["route_tables"][0].clone();
    table["virtual_hosts"][0]["routes"][2]["match"]["path"] = json!({"regex": "("});
    let refused = |table: &Value| {
        delta(
            &first(),
            &json!({"version": "43", "full": false, "route_tables": [table]}),
        )
        .unwrap_err()
        .path
    };
    assert_eq!(
        refused(&table),
        "route_tables[0].virtual_hosts[0].routes[2].match.path.regex"
    );
    table["virtual_hosts"][0]["routes"][0]["match"]["headers"][1]["regex"] = json!("[");
    assert_eq!(
        refused(&table),
        "route_tables[0].virtual_hosts[0].routes[0].match.headers[1].regex"
    );
}

#[test]
fn a_refused_update_changes_nothing_that_endpoints_share() {
    let snapshot = first();
    let set = endpoints("users", &["10.0.0.7:50051"]);
    let change = json!({"version": "43", "full": false, "endpoints": [set],
        "removed": {"secrets": ["web"]}});
    assert!(delta(&snapshot, &change).is_err());
    assert_eq!(snapshot.cluster("users").unwrap().shared.members(), 4);
}

#[test]
fn a_delta_of_endpoints_changes_what_it_names() {
    let snapshot = first();
    let changed = endpoints("users", &["10.0.0.99:50051"]);
    let delta_of = |removed: &str| {
        json!({"version": "43", "full": false, "endpoint_deltas": [
            {"cluster": "users", "localities": changed["localities"], "removed": [removed]}]})
    };
    let next = delta(&snapshot, &delta_of("10.0.0.7:50051")).unwrap();
    assert_eq!(shared(&snapshot, &next), ALL[1..]);
    let table = &next.cluster("users").unwrap().endpoints;
    assert_eq!(table.len(), 4);
    assert!(
        next.endpoint("users", "10.0.0.7:50051".parse().unwrap())
            .is_none()
    );
    let again = delta(&next, &delta_of("10.0.0.7:50051")).unwrap();
    assert_eq!(
        shared(&next, &again),
        ALL,
        "applied twice it changes nothing"
    );
}

#[test]
fn a_delta_of_endpoints_stands_alone() {
    let refused = |change: &Value| {
        let update = parse_update(change.to_string().as_bytes());
        update
            .and_then(|update| Snapshot::apply(&first(), update, 1))
            .unwrap_err()
            .path
    };
    let mut change = json!({"version": "43", "full": false, "endpoint_deltas": [
        {"cluster": "nobody"}]});
    assert_eq!(refused(&change), "endpoint_deltas[0].cluster");
    change["endpoint_deltas"][0]["cluster"] = json!("users");
    change["removed"] = json!({"endpoints": ["users"]});
    assert_eq!(refused(&change), "endpoint_deltas[0].cluster");
    change["removed"] = json!({});
    change["full"] = json!(true);
    assert_eq!(refused(&change), "endpoint_deltas[0].cluster");
    change["full"] = json!(false);
    change["endpoint_deltas"][0]["removed"] = json!(["10.0.0.1:1", "10.0.0.1:1"]);
    assert_eq!(refused(&change), "endpoint_deltas[0].removed[1]");
}

proptest! {
    /// Deltas one after the other give what one full update gives, and share what they do not name.
    #[test]
    fn deltas_lead_where_a_full_update_leads(
        steps in prop::collection::vec((0..4_usize, prop::collection::vec(1..9_u8, 0..4), any::<bool>()), 1..12),
    ) {
        let names = ["a", "b", "c", "d"];
        let mut expected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut snapshot = Snapshot::default();
        for (at, octets, remove) in steps {
            let name = names[at];
            let addresses = octets.iter().map(|octet| format!("10.0.0.{octet}:80"));
            let mut addresses: Vec<_> = addresses.collect();
            addresses.sort();
            addresses.dedup();
            let change = if remove {
                expected.remove(name);
                json!({"version": "x", "full": false, "removed": {"clusters": [name]}})
            } else {
                expected.insert(name, addresses.clone());
                let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
                json!({"version": "x", "full": false, "clusters": [{"name": name}],
                    "endpoints": [endpoints(name, &addresses)]})
            };
            let next = delta(&snapshot, &change).unwrap();
            for other in names.iter().filter(|other| **other != name) {
                let [before, after] = [&snapshot, &next].map(|snapshot| snapshot.cluster(other));
                prop_assert_eq!(before.is_some(), after.is_some());
                let both = before.zip(after);
                prop_assert!(both.is_none_or(|(before, after)| Arc::ptr_eq(before, after)));
            }
            snapshot = next;
        }
        let mut found: Vec<_> = snapshot.clusters().map(|cluster| {
            let endpoints = cluster.endpoints.endpoints().iter();
            let addresses = endpoints.map(|endpoint| endpoint.address.to_string());
            let mut addresses: Vec<_> = addresses.collect();
            addresses.sort();
            (cluster.config.name.to_string(), addresses)
        }).collect();
        found.sort();
        let expected = expected.into_iter().map(|(name, addresses)| (name.to_owned(), addresses));
        let expected: Vec<_> = expected.collect();
        prop_assert_eq!(found, expected);
    }
}
