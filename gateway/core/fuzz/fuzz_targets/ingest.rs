//! Configuration documents, arbitrary ones and a good one with random places changed: each is taken whole or refused
//! with words and changes nothing; what is taken has no dangling name and answers every question.

#![no_main]

use std::collections::HashSet;
use std::sync::LazyLock;

use gateway_core::{HeaderLookup, PickContext, Snapshot, Target, parse_update};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const DOCUMENT: &str = include_str!("../../tests/data/update.json");
const CHANGES_MAX: usize = 24;
const UPDATES_MAX: usize = 6;

static BASE: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(DOCUMENT).expect("JSON"));

/// Takes what a change needs off the front of the fuzzer's bytes; zeros when nothing is left.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes([0; 8].map(|_: u8| self.byte()))
    }

    fn value(&mut self) -> Value {
        match self.byte() % 12 {
            0 => Value::Null,
            1 => json!(self.byte() & 1 == 0),
            2 => json!(self.byte()),
            3 => json!(self.number()),
            4 => json!(-i64::from(self.byte())),
            5 => json!(0.5),
            6 => json!(""),
            7 => json!([]),
            8 => json!({}),
            9 => json!(["*", "**", "*.", "a.b", "main", "users"][usize::from(self.byte() % 6)]),
            10 => json!(["(", "a{9999}", ".*", "[[:^a", "a|"][usize::from(self.byte() % 5)]),
            _ => {
                let len = usize::from(self.byte() % 16).min(self.0.len());
                let (text, rest) = self.0.split_at(len);
                self.0 = rest;
                json!(String::from_utf8_lossy(text))
            }
        }
    }
}

/// The JSON pointers of all places in a document, the root left out.
fn places(value: &Value, here: &str, found: &mut Vec<String>) {
    let mut add = |key: &str, inner: &Value| {
        let at = format!("{here}/{key}");
        found.push(at.clone());
        places(inner, &at, found);
    };
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(key, inner)| add(&key.replace('~', "~0").replace('/', "~1"), inner)),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(at, inner)| add(&at.to_string(), inner));
        }
        _ => {}
    }
}

fn change(document: &mut Value, input: &mut Input<'_>) {
    let mut all = Vec::new();
    places(document, "", &mut all);
    let what = input.byte();
    let at = all[input.word() % all.len()].clone();
    match what % 5 {
        0 | 1 => {
            if let Some(place) = document.pointer_mut(&at) {
                *place = input.value();
            }
        }
        2 => {
            let from = &all[input.word() % all.len()];
            let copy = document.pointer(from).cloned();
            if let (Some(place), Some(copy)) = (document.pointer_mut(&at), copy) {
                *place = copy;
            }
        }
        3 => match document.pointer_mut(&at) {
            Some(Value::Array(items)) => {
                let copy = items.first().cloned();
                items.extend(copy);
            }
            Some(Value::Object(fields)) => {
                let name = ["name", "weight", "regex", "removed", "extra"][input.word() % 5];
                fields.insert(name.to_owned(), input.value());
            }
            _ => {}
        },
        _ => {
            let (parent, key) = at.rsplit_once('/').unwrap_or_default();
            match document.pointer_mut(parent) {
                Some(Value::Object(fields)) => drop(fields.remove(key)),
                Some(Value::Array(items)) => {
                    if let Ok(position) = key.parse() {
                        drop((position < items.len()).then(|| items.remove(position)));
                    }
                }
                _ => {}
            }
        }
    }
}

struct Headers(Vec<u8>);

impl HeaderLookup for Headers {
    fn first(&self, _name: &str) -> Option<&[u8]> {
        Some(&self.0)
    }
}

/// Asks a snapshot everything that a gateway asks.
fn ask(snapshot: &Snapshot, random: u64) {
    for listener in snapshot.listeners() {
        let mut tables = listener.route_table.iter();
        assert!(tables.all(|name| snapshot.table(name).is_some()));
        for name in listener.tls.iter().flat_map(|tls| &tls.certificates) {
            assert!(snapshot.secret(name).is_some());
        }
    }
    let headers = Headers(b"2".to_vec());
    for table in snapshot.tables() {
        for host in [&b"grpc.example.com"[..], b"", b"a.example.com:443"] {
            for path in [&b"/users.v1.UserService/GetUser"[..], b"/", b""] {
                let _no_route = table.lookup(host, path, &headers, random & 1 == 0);
            }
        }
        for route in table.routes() {
            let names: HashSet<_> = route.clusters().iter().map(|part| &part.cluster).collect();
            assert!(names.iter().all(|name| snapshot.cluster(name).is_some()));
            if let Target::Cluster(at) = route.pick(random) {
                let part = &route.clusters()[at];
                assert!(part.weight > 0 && names.contains(&part.cluster));
            }
            let _limited = route.pass(&headers, random >> 20);
            let _fault = route.inject(random);
        }
    }
    for cluster in snapshot.clusters() {
        let number = cluster.endpoints.iter().count();
        let picked = cluster.endpoints.pick(&PickContext {
            now_ms: random >> 20,
            random,
            tried: &[],
            tried_clusters: &[],
            outstanding: &|_| 1,
        });
        assert!(picked.is_ok() || number == 0 || cluster.endpoints.loads(0).is_empty());
        if let Ok(picked) = picked {
            assert!((picked.index.0 as usize) < number);
        }
    }
}

/// Takes one document; the snapshot after it.
fn take(prev: &Snapshot, bytes: &[u8], random: u64) -> Option<Snapshot> {
    let outcome = parse_update(bytes).and_then(|update| {
        let alone = update
            .full
            .then(|| Snapshot::apply(&Snapshot::default(), update.clone(), 0));
        let next = Snapshot::apply(prev, update, 0);
        if let Some(alone) = alone {
            assert_eq!(
                alone.is_ok(),
                next.is_ok(),
                "a full one depends on what was before"
            );
        }
        next
    });
    match outcome {
        Ok(next) => {
            ask(&next, random);
            Some(next)
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            ask(prev, random);
            None
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&mode, rest)) = input.split_first() else {
        return;
    };
    if mode == 0 {
        take(&Snapshot::default(), rest, 7);
        return;
    }
    let mut input = Input(rest);
    let mut snapshot = Snapshot::default();
    for _ in 0..UPDATES_MAX {
        let mut document = BASE.clone();
        for _ in 0..usize::from(input.byte()) % CHANGES_MAX {
            if document.as_object().is_none_or(serde_json::Map::is_empty) {
                break;
            }
            change(&mut document, &mut input);
        }
        document["full"] = json!(input.byte() & 1 == 0);
        let random = input.number();
        if let Some(next) = take(&snapshot, document.to_string().as_bytes(), random) {
            snapshot = next;
        }
        if input.0.is_empty() {
            return;
        }
    }
});
