//! Integers with a prefix of some bits (RFC 7541 section 5.1).

use super::HpackError;

/// Above this no length or index can be valid; also keeps the arithmetic in 32 bits.
const LIMIT: u32 = 1 << 28;

/// Reads an integer whose prefix is the low `prefix_bits` of the first byte of `input`, and moves
/// `input` behind it.
#[inline]
pub(super) fn decode(input: &mut &[u8], prefix_bits: u32) -> Result<u32, HpackError> {
    let mask = (1u32 << prefix_bits) - 1;
    let (&first, rest) = input
        .split_first()
        .ok_or(HpackError("header block cut off"))?;
    *input = rest;
    let value = u32::from(first) & mask;
    if value < mask {
        Ok(value)
    } else {
        decode_tail(input, mask)
    }
}

fn decode_tail(input: &mut &[u8], prefix: u32) -> Result<u32, HpackError> {
    let mut value = prefix;
    for shift in [0, 7, 14, 21] {
        let (&byte, rest) = input
            .split_first()
            .ok_or(HpackError("header block cut off"))?;
        *input = rest;
        value += u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return if value < LIMIT {
                Ok(value)
            } else {
                Err(HpackError("integer too large"))
            };
        }
    }
    Err(HpackError("integer too large"))
}

/// Appends `value`; `pattern` has the bits above the prefix.
#[inline]
pub(super) fn encode(value: u32, prefix_bits: u32, pattern: u8, out: &mut Vec<u8>) {
    let mask = (1u32 << prefix_bits) - 1;
    if value < mask {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_examples() {
        for (value, prefix_bits, bytes) in [
            (10, 5, &[0x0a][..]),
            (1337, 5, &[0x1f, 0x9a, 0x0a]),
            (42, 8, &[0x2a]),
        ] {
            let mut out = Vec::new();
            encode(value, prefix_bits, 0, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(decode(&mut &bytes[..], prefix_bits), Ok(value));
        }
    }

    #[test]
    fn refuses_what_is_cut_off_or_too_large() {
        assert!(decode(&mut &[][..], 5).is_err());
        assert!(decode(&mut &[0x1f, 0x9a][..], 5).is_err());
        assert!(decode(&mut &[0x1f, 0xff, 0xff, 0xff, 0xff, 0x0f][..], 5).is_err());
        assert!(decode(&mut &[0x1f, 0x80, 0x80, 0x80, 0x80, 0x00][..], 5).is_err());
    }

    proptest! {
        #[test]
        fn gives_back_what_it_took(value in 0..LIMIT, prefix_bits in 4u32..=7) {
            let mut out = Vec::new();
            encode(value, prefix_bits, 0, &mut out);
            let mut input = &out[..];
            prop_assert_eq!(decode(&mut input, prefix_bits), Ok(value));
            prop_assert!(input.is_empty());
        }
    }
}
