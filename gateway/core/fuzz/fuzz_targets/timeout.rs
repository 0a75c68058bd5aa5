//! `grpc-timeout`: read as a second, naive reading does, and never longer after being written for the next hop.

#![no_main]

use gateway_core::deadline::{format_grpc_timeout, parse_grpc_timeout};
use libfuzzer_sys::fuzz_target;

/// By text and in nanoseconds, where the other works on bytes and in milliseconds.
fn naive(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.chars().all(|it| it.is_ascii_digit());
    let amount: u128 = digits.parse().ok().filter(|_| is_number)?;
    let ns: u128 = match unit {
        'H' => 3_600_000_000_000,
        'M' => 60_000_000_000,
        'S' => 1_000_000_000,
        'm' => 1_000_000,
        'u' => 1_000,
        'n' => 1,
        _ => return None,
    };
    u64::try_from((amount * ns).div_ceil(1_000_000)).ok()
}

fuzz_target!(|input: &[u8]| {
    let read = parse_grpc_timeout(input).ok();
    assert_eq!(read, naive(input));
    let number = input.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    for ms in read.into_iter().chain(number) {
        let mut buffer = [0; 16];
        let text = format_grpc_timeout(ms, &mut buffer);
        let again = parse_grpc_timeout(text.as_bytes()).expect("one of ours");
        assert!(again <= ms.max(1), "{ms} ms grows to {again} as {text}");
        // Eight digits are kept: what is lost is less than one of the unit's.
        assert!(
            ms > 99_999_999 * 3_600_000 || again >= ms - ms / 1_000_000 * 60,
            "{text}"
        );
    }
});
