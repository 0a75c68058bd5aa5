//! W3C trace context: what a caller says about its trace, what this gateway says about it to whom it calls.
//!
//! Read strictly (<https://www.w3.org/TR/trace-context/>): a `traceparent` that breaks a rule is as if it were not there,
//! and without one a `tracestate` means nothing. Whether a call is recorded is its caller's decision where there is one
//! (parent-based sampling).

/// Bytes of a `traceparent` of version 00.
pub const TRACEPARENT_BYTES: usize = 55;
/// The flag of calls that are recorded.
const SAMPLED: u8 = 1;
const MILLION: u64 = 1_000_000;
/// Bounds of `tracestate`: members by the specification, bytes by us (it asks for 512 at least).
const MEMBERS_MAX: usize = 32;
const STATE_BYTES_MAX: usize = 1_024;

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; not 0.
    pub trace_id: u128,
    /// The span; not 0.
    pub span_id: u64,
    /// It is recorded.
    pub sampled: bool,
}

/// Whether a call is recorded that comes without a context; `random` uniform over all of `u64`.
#[must_use]
pub const fn samples(per_million: u32, random: u64) -> bool {
    // The upper bits times a million, so that every share is met exactly.
    ((random >> 32) * MILLION) >> 32 < per_million as u64
}

/// Whether a whole `tracestate` (its fields joined by commas) may be passed on.
#[must_use]
pub fn is_tracestate(value: &[u8]) -> bool {
    if value.len() > STATE_BYTES_MAX {
        return false;
    }
    let members = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let mut keys: Vec<&[u8]> = Vec::new();
    for member in members.filter(|member| !member.is_empty()) {
        let Some(at) = member.iter().position(|byte| *byte == b'=') else {
            return false;
        };
        let (key, value) = (&member[..at], &member[at + 1..]);
        if !is_key(key) || !is_value(value) || keys.contains(&key) || keys.len() == MEMBERS_MAX {
            return false;
        }
        keys.push(key);
    }
    true
}

/// `simple-key` or `tenant@system` (section 3.3.1.3.1).
fn is_key(key: &[u8]) -> bool {
    let rest = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
    let part = |part: &[u8], most: usize, digit: bool| {
        let first = part
            .first()
            .is_some_and(|byte| byte.is_ascii_lowercase() || digit && byte.is_ascii_digit());
        first && part.len() <= most && part.iter().all(rest)
    };
    match key.iter().position(|byte| *byte == b'@') {
        None => part(key, 256, false),
        Some(at) => part(&key[..at], 241, true) && part(&key[at + 1..], 14, false),
    }
}

fn is_value(value: &[u8]) -> bool {
    let visible = |byte: &u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b',' | b'=');
    (1..=256).contains(&value.len()) && value.iter().all(visible) && !value.ends_with(b" ")
}

fn hex<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        // Lower case alone is valid.
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = [0; BYTES];
    if text.len() != 2 * BYTES {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// Writes bytes as lower-case hexadecimal digits; `out` is twice as long.
pub fn write_hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

// === impl TraceContext ===

impl TraceContext {
    /// Reads a `traceparent`; `None` when it breaks a rule. A version above 00 is read as far as it is known.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let known = value.get(..TRACEPARENT_BYTES)?;
        let [version] = hex(&known[..2])?;
        let rest = &value[TRACEPARENT_BYTES..];
        let ends_well = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|byte| *byte == b'-'),
        };
        if !ends_well || [2, 35, 52].iter().any(|at| known[*at] != b'-') {
            return None;
        }
        let trace_id = u128::from_be_bytes(hex(&known[3..35])?);
        let span_id = u64::from_be_bytes(hex(&known[36..52])?);
        let [flags] = hex(&known[53..])?;
        (trace_id != 0 && span_id != 0).then_some(Self {
            trace_id,
            span_id,
            sampled: flags & SAMPLED != 0,
        })
    }

    /// As a `traceparent` of version 00.
    #[must_use]
    pub fn format(&self) -> [u8; TRACEPARENT_BYTES] {
        let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&self.trace_id.to_be_bytes(), &mut out[3..35]);
        write_hex(&self.span_id.to_be_bytes(), &mut out[36..52]);
        out[54] += u8::from(self.sampled);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::{TraceContext, is_tracestate, samples};
    use proptest::prelude::*;

    const FINE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_strictly() {
        let read = TraceContext::parse(FINE.as_bytes()).expect("is one");
        assert_eq!(read.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((read.span_id, read.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(read.format(), FINE.as_bytes());
        let unsampled = FINE.replace("-01", "-02");
        assert!(TraceContext::parse(unsampled.as_bytes()).is_some_and(|it| !it.sampled));
        let later = format!("{}-what-comes", FINE.replacen("00", "cc", 1));
        assert!(TraceContext::parse(later.as_bytes()).is_some_and(|it| it.sampled));
        for wrong in [
            "",
            "00",
            &FINE[..54],
            &FINE.to_uppercase(),
            &format!("{FINE}-"),
            &format!(" {FINE}"),
            &FINE.replacen("00", "ff", 1),
            &format!("{}x", FINE.replacen("00", "cc", 1)),
            &FINE.replace('-', "_"),
            &FINE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &FINE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &FINE.replace("b7-01", "b7-0g"),
        ] {
            assert_eq!(TraceContext::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_tracestate_is_read_strictly() {
        let many = |count: usize| {
            let members: Vec<_> = (0..count).map(|at| format!("k{at}=v")).collect();
            members.join(",")
        };
        for fine in ["", "a=1", "a=1, b=2,,", "1t@sys=x y", &many(32)] {
            assert!(is_tracestate(fine.as_bytes()), "{fine}");
        }
        for wrong in [
            "a",
            "=1",
            "A=1",
            "a=",
            "a=1=2",
            "a=1,a=2",
            "1a=1",
            "a@=1",
            "a=\u{e9}",
            &many(33),
            &format!("a={}", "v".repeat(257)),
        ] {
            assert!(!is_tracestate(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn none_and_all_are_exact() {
        for random in [0, 1 << 31, u64::MAX] {
            assert!(!samples(0, random) && samples(1_000_000, random));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace_id in 1u128.., span_id in 1u64.., sampled: bool) {
            let context = TraceContext { trace_id, span_id, sampled };
            prop_assert_eq!(TraceContext::parse(&context.format()), Some(context));
        }

        #[test]
        fn what_is_read_means_what_stands_there(value in "[0-9a-f]{2}-[0-9a-fA-F]{31,33}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?") {
            if let Some(context) = TraceContext::parse(value.as_bytes()) {
                let written = context.format();
                prop_assert_eq!(&written[3..52], &value.as_bytes()[3..52]);
            }
        }

        #[test]
        fn no_bytes_are_too_much(value in prop::collection::vec(any::<u8>(), 0..80)) {
            let _may_be_none = TraceContext::parse(&value);
            let _may_be_wrong = is_tracestate(&value);
        }

        #[test]
        fn a_share_is_a_share(per_million in 0u32..=1_000_000) {
            let steps = 10_000u64;
            let hits = (0..steps).filter(|step| samples(per_million, step * (u64::MAX / steps))).count();
            let wanted = f64::from(per_million) / 100.0;
            prop_assert!((hits as f64 - wanted).abs() <= 2.0);
        }
    }
}
