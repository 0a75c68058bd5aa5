//! RFC 7541 appendix C, and encoder against decoder.

use proptest::prelude::*;

use super::{Decoder, Encoder, HpackError};
use crate::event::{Events, Field};

type Owned = (Vec<u8>, Vec<u8>, bool);

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16);
    digits
        .chunks(2)
        .map(|pair| byte(pair).expect("hex"))
        .collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Owned>, HpackError> {
    let mut events = Events::new();
    let list = decoder.decode(block, &mut events)?;
    let fields = events.fields(list.block);
    Ok(fields
        .map(|f| (f.name.to_vec(), f.value.to_vec(), f.sensitive))
        .collect())
}

fn encode(encoder: &mut Encoder, fields: &[Owned]) -> Vec<u8> {
    let mut out = Vec::new();
    let fields = fields.iter();
    let fields = fields.map(|(name, value, sensitive)| Field {
        name,
        value,
        sensitive: *sensitive,
    });
    encoder.encode(fields, &mut out);
    out
}

fn owned(fields: &[(&str, &str)]) -> Vec<Owned> {
    fields
        .iter()
        .map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec(), false))
        .collect()
}

/// Decodes blocks in turn with one decoder.
fn check(blocks: &[&str], expected: &[&[(&str, &str)]]) {
    let mut decoder = Decoder::new(4096, 1 << 16);
    for (block, expected) in blocks.iter().zip(expected) {
        assert_eq!(decode(&mut decoder, &unhex(block)), Ok(owned(expected)));
    }
}

const REQUESTS: [&[(&str, &str)]; 3] = [
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
    ],
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ],
    &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ],
];

const COOKIE: &str = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";

const RESPONSES: [&[(&str, &str)]; 3] = [
    &[
        (":status", "302"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ],
    &[
        (":status", "307"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ],
    &[
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
        ("set-cookie", COOKIE),
    ],
];

#[test]
fn c2_single_fields() {
    let mut decoder = Decoder::new(4096, 1 << 16);
    let mut one = |hex: &str| decode(&mut decoder, &unhex(hex)).expect("valid").remove(0);
    let text = |(name, value, sensitive): Owned| {
        (
            String::from_utf8(name).expect("text"),
            String::from_utf8(value).expect("text"),
            sensitive,
        )
    };
    let literal = one("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572");
    assert_eq!(
        text(literal),
        ("custom-key".into(), "custom-header".into(), false)
    );
    let plain = one("040c 2f73 616d 706c 652f 7061 7468");
    assert_eq!(text(plain), (":path".into(), "/sample/path".into(), false));
    let never = one("1008 7061 7373 776f 7264 0673 6563 7265 74");
    assert_eq!(text(never), ("password".into(), "secret".into(), true));
    assert_eq!(text(one("82")), (":method".into(), "GET".into(), false));
}

#[test]
fn c3_requests_without_huffman() {
    check(
        &[
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        &REQUESTS,
    );
}

#[test]
fn c4_requests_with_huffman() {
    check(
        &[
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
        &REQUESTS,
    );
}

/// The table has 256 bytes in these two, said by a size update in front: entries are evicted.
#[test]
fn c5_responses_without_huffman() {
    check(
        &[
            "3fe1 01 4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
             2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65
             2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0
             5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851
             5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
        ],
        &RESPONSES,
    );
}

#[test]
fn c6_responses_with_huffman() {
    check(
        &[
            "3fe1 01 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
             2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad
             94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160
             65c0 03ed 4ee5 b106 3d50 07",
        ],
        &RESPONSES,
    );
}

#[test]
fn refuses_what_breaks_the_tables() {
    for (hex, why) in [
        ("80", "index 0"),
        ("be", "index into an empty table"),
        ("3fe2 1f", "size update above 4096"),
        ("82 20", "size update behind a field"),
        ("40", "cut off"),
        ("4001 61", "no value"),
        ("4083 ff", "string longer than the block"),
        ("ff ffff ffff 0f", "index too large"),
    ] {
        let result = decode(&mut Decoder::new(4096, 1 << 16), &unhex(hex));
        assert!(result.is_err(), "{why}: {result:?}");
    }
}

#[test]
fn a_list_over_the_limit_keeps_the_tables_in_step() {
    let mut decoder = Decoder::new(4096, 100);
    let mut encoder = Encoder::new();
    let large = owned(&[("x-a", "1"), ("x-b", &"b".repeat(200)), ("x-c", "3")]);
    let mut events = Events::new();
    let text = events.bytes.len();
    let block = encode(&mut encoder, &large);
    let list = decoder.decode(&block, &mut events).expect("decodes");
    assert!(list.too_large);
    assert_eq!(events.fields(list.block).count(), 1);
    assert!(
        events.bytes.len() < text + 10,
        "nothing of the rest is kept"
    );
    let small = owned(&[("x-c", "3")]);
    let block = encode(&mut encoder, &small);
    assert_eq!(block.len(), 1, "in the table since the first block");
    assert_eq!(decode(&mut decoder, &block), Ok(small));
}

/// A large entry, then one byte for each time it is meant again.
#[test]
fn a_bomb_is_not_stored() {
    let mut decoder = Decoder::new(4096, 1 << 16);
    let mut events = Events::new();
    let mut block = vec![0x40, 0x01, b'a', 0x7f, 0x80 | 0x21, 0x1e]; // 4,000 bytes of value
    block.extend(std::iter::repeat_n(b'x', 127 + 33 + (0x1e << 7)));
    block.extend(std::iter::repeat_n(0xbe, 10_000));
    let list = decoder.decode(&block, &mut events).expect("decodes");
    assert!(list.too_large);
    assert!(events.bytes.len() < 70_000);
}

#[test]
fn repeated_requests_become_small() {
    let mut encoder = Encoder::new();
    let request = owned(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/shop.Cart/Add"),
        (":authority", "cart.shop.svc.clusterset.local"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "grpc-go/1.84.0"),
    ]);
    let sizes: Vec<usize> = (0..3)
        .map(|_| encode(&mut encoder, &request).len())
        .collect();
    assert!(sizes[0] > 60);
    assert_eq!(sizes[2], request.len());
}

#[test]
fn secrets_are_never_indexed() {
    let mut encoder = Encoder::new();
    let fields = owned(&[("authorization", "Bearer x"), ("cookie", "a=b")]);
    let mut own = vec![(b"x-key".to_vec(), b"k".to_vec(), true)];
    own.extend(fields);
    for _ in 0..3 {
        let block = encode(&mut encoder, &own);
        let list = decode(&mut Decoder::new(4096, 1 << 16), &block).expect("needs no table");
        assert!(list.iter().all(|(_, _, sensitive)| *sensitive));
    }
}

#[test]
fn short_values_that_are_never_the_same_are_not_packed() {
    let mut encoder = Encoder::new();
    let [short, long] = [40, 80].map(|length| {
        encode(&mut encoder, &owned(&[("x-id", "warms the name up")]));
        let block = encode(&mut encoder, &owned(&[("x-id", &"e".repeat(length))]));
        block.len()
    });
    assert_eq!(short, 3 + 40);
    assert_eq!(long, 3 + 50, "five bits a letter");
}

#[test]
fn a_smaller_table_is_announced_before_it_is_used() {
    let mut encoder = Encoder::new();
    encoder.set_table_size(0);
    encoder.set_table_size(100);
    let block = encode(&mut encoder, &owned(&[(":method", "GET")]));
    assert_eq!(block, unhex("20 3f45 82"), "the smallest, then the last");
    assert_eq!(encode(&mut encoder, &owned(&[(":method", "GET")])), [0x82]);
}

fn field() -> impl Strategy<Value = Owned> {
    let name = prop_oneof![
        Just(":path".to_owned()),
        Just("content-type".to_owned()),
        Just("authorization".to_owned()),
        "[a-z][a-z0-9-]{0,12}",
        Just("x-same".to_owned()),
    ];
    let value = prop_oneof!["[ -~]{0,40}", "[ab]{1,2}", "[a-z]{300,400}"];
    (name, value, prop::bool::weighted(0.1))
        .prop_map(|(name, value, sensitive)| (name.into_bytes(), value.into_bytes(), sensitive))
}

proptest! {
    #[test]
    fn decoder_gives_back_what_encoder_took(
        blocks in prop::collection::vec(
            (prop::collection::vec(field(), 0..12), prop::option::of(0u32..5000)), 1..20)
    ) {
        let mut encoder = Encoder::new();
        let mut decoder = Decoder::new(4096, 1 << 20);
        for (fields, resize) in blocks {
            if let Some(size) = resize {
                encoder.set_table_size(size);
            }
            let block = encode(&mut encoder, &fields);
            let list = decode(&mut decoder, &block).expect("own block");
            let secret = |name: &[u8]| name == b"authorization";
            let expected: Vec<Owned> =
                fields.into_iter().map(|(n, v, s)| { let s = s || secret(&n); (n, v, s) }).collect();
            prop_assert_eq!(list, expected);
        }
    }

    #[test]
    fn decoder_never_panics(blocks in prop::collection::vec(any::<Vec<u8>>(), 1..5)) {
        let mut decoder = Decoder::new(4096, 500);
        for block in blocks {
            let _ = decode(&mut decoder, &block);
        }
    }
}
