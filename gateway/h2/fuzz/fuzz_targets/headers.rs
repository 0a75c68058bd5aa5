//! Header lists of a request: accepted exactly when a second, naive reading of RFC 9113 section 8 accepts them,
//! and what is accepted reads the same at the next hop.

#![no_main]

use gateway_h2::{Config, Events};
use gateway_h2_fuzz::{
    END_HEADERS, END_STREAM, Fields, HEADERS, Input, forwarded, frame, plain_block, requests,
    server,
};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 18] = [
    ":method",
    ":scheme",
    ":authority",
    ":path",
    ":status",
    ":protocol",
    "host",
    "te",
    "content-length",
    "connection",
    "transfer-encoding",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "cookie",
    "x-a",
    "X-A",
    "",
];
const VALUES: [&str; 16] = [
    "POST",
    "http",
    "/a.B/C",
    "example.com:80",
    "200",
    "trailers",
    "0",
    "17",
    "*",
    "CONNECT",
    "OPTIONS",
    "user@host",
    "/a#b",
    "/a b",
    "a\r\nb: c",
    "a\0",
];
const GOOD: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/a.B/C"),
    (":authority", "example.com"),
];

/// A text of the list, or bytes of the fuzzer's own.
fn text(input: &mut Input<'_>, known: &[&str]) -> Vec<u8> {
    let choice = usize::from(input.byte());
    match known.get(choice) {
        Some(text) => text.as_bytes().to_vec(),
        None => {
            let len = usize::from(input.byte() % 24);
            input.bytes(len).to_vec()
        }
    }
}

fn list(input: &mut Input<'_>) -> Fields {
    let shape = input.byte();
    let good = GOOD.iter().enumerate();
    let mut list: Fields = good
        .filter(|(at, _)| shape >> at & 1 == 0)
        .map(|(_, (name, value))| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect();
    while !input.is_empty() && list.len() < 12 {
        let place = usize::from(input.byte()) % (list.len() + 1);
        let field = (text(input, &NAMES), text(input, &VALUES));
        list.insert(place, field);
    }
    list
}

// The naive reading: one rule after the other, each over the whole list.

fn all(list: &Fields, name: &str) -> Vec<String> {
    let found = list.iter().filter(|field| field.0 == name.as_bytes());
    found
        .map(|field| field.1.iter().map(|byte| char::from(*byte)).collect())
        .collect()
}

fn is_token_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn fields_are_clean(list: &Fields) -> bool {
    list.iter().all(|(name, value)| {
        let known_pseudo = [":method", ":scheme", ":authority", ":path"];
        let is_pseudo = known_pseudo.iter().any(|it| it.as_bytes() == name);
        let is_token = !name.is_empty()
            && name
                .iter()
                .all(|&byte| is_token_char(byte) && !byte.is_ascii_uppercase());
        let is_clean = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        let edges = [value.first(), value.last()];
        let no_blank_edge = edges.iter().all(|it| !matches!(it, Some(b' ' | b'\t')));
        (is_pseudo || is_token) && value.iter().all(is_clean) && no_blank_edge
    })
}

fn order_is_right(list: &Fields) -> bool {
    let first_regular = list.iter().position(|field| !field.0.starts_with(b":"));
    let rest = &list[first_regular.unwrap_or(list.len())..];
    rest.iter().all(|field| !field.0.starts_with(b":"))
}

fn hop_fields_are_absent(list: &Fields) -> bool {
    let forbidden = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ];
    forbidden.iter().all(|name| all(list, name).is_empty())
        && all(list, "te")
            .iter()
            .all(|it| it.eq_ignore_ascii_case("trailers"))
}

fn lengths_agree(list: &Fields) -> bool {
    let lengths = all(list, "content-length");
    // Without a body only 0 can be right.
    lengths
        .iter()
        .all(|it| (1..=18).contains(&it.len()) && it.chars().all(|digit| digit == '0'))
}

fn visible(text: &str, except: &str) -> bool {
    text.chars()
        .all(|it| it.is_ascii_graphic() && !except.contains(it))
}

fn target_is_right(list: &Fields) -> bool {
    let [methods, schemes, authorities, paths] =
        [":method", ":scheme", ":authority", ":path"].map(|name| all(list, name));
    let hosts = all(list, "host");
    let at_most_once = [&schemes, &authorities, &paths, &hosts]
        .iter()
        .all(|it| it.len() <= 1);
    let mut names = authorities.iter().chain(&hosts);
    let names_are_right = names.all(|it| visible(it, "@/?#\\\"<>^`{|}"));
    if methods.len() != 1 || !at_most_once || !names_are_right {
        return false;
    }
    let method = &methods[0];
    if method.is_empty() || !method.bytes().all(is_token_char) {
        return false;
    }
    if method == "CONNECT" {
        return schemes.is_empty() && paths.is_empty() && authorities.len() == 1;
    }
    let scheme = schemes.first().is_some_and(|it| {
        it.starts_with(|first: char| first.is_ascii_alphabetic())
            && it
                .chars()
                .all(|it| it.is_ascii_alphanumeric() || "+-.".contains(it))
    });
    let path = paths.first().is_some_and(|it| match it.as_str() {
        "*" => method == "OPTIONS",
        path => path.starts_with('/') && visible(path, "#"),
    });
    scheme && path
}

fn is_well_formed(list: &Fields) -> bool {
    fields_are_clean(list)
        && order_is_right(list)
        && hop_fields_are_absent(list)
        && lengths_agree(list)
        && target_is_right(list)
}

fuzz_target!(|input: &[u8]| {
    let list = list(&mut Input(input));
    let mut server = server(Config::server());
    let mut events = Events::new();
    let bytes = frame(HEADERS, END_HEADERS | END_STREAM, 1, &plain_block(&list));
    let used = server.receive(&bytes, &mut events);
    assert_eq!(used, Ok(bytes.len()), "a bad list ends its stream alone");
    let seen = requests(&events).pop();
    assert_eq!(seen.is_some(), is_well_formed(&list), "{list:?}");
    if let Some(seen) = seen {
        assert_eq!(seen, list);
        assert_eq!(forwarded(&seen), Some(seen));
    }
});
