//! The static Huffman code of RFC 7541 appendix B.
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, and a
//! shorter code is below every longer one. So the lengths alone give everything; codes and tables are
//! computed at compile time. Decoding looks at ten bits at a time, which is the whole code for every
//! character that is common in headers; longer codes are found by comparing with the end of each length.

use super::HpackError;

/// Code length of each symbol, bits; the last is EOS.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

const SYMBOLS: usize = 257;
const EOS: u16 = 256;
const LENGTH_MAX: usize = 30;
/// Bits that one look at the table covers.
const LOOK_BITS: usize = 10;

/// Canonical code of every byte, right-aligned.
const CODES: [u32; SYMBOLS] = canonical().codes;
/// For ten bits from the stream: `length << 8 | symbol`, or 0 when the code is longer.
static LOOK: [u16; 1 << LOOK_BITS] = look_table();
/// The longer codes.
static LONG: Canonical = canonical();

/// The code, sorted by length and symbol.
struct Canonical {
    codes: [u32; SYMBOLS],
    sorted: [u16; SYMBOLS],
    /// First code of a length, right-aligned.
    first: [u32; LENGTH_MAX + 1],
    /// Where the symbols of a length begin in `sorted`.
    offset: [u16; LENGTH_MAX + 1],
    /// The first 32-bit window above all codes of this length and shorter; 64 bits, for 2^32 is one.
    end: [u64; LENGTH_MAX + 1],
}

/// Appends the decoded bytes of `source` to `out`.
pub(super) fn decode(source: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    // The shortest code has 5 bits.
    out.reserve(source.len() * 8 / 5 + 1);
    let mut rest = source;
    let mut window = 0u64; // next bits, left-aligned
    let mut bits = 0usize; // how many of them are real
    loop {
        if let Some(next) = rest.first_chunk::<8>() {
            window |= u64::from_be_bytes(*next) >> bits;
            let taken = (63 - bits) >> 3;
            rest = &rest[taken..];
            bits += taken * 8;
            // Bits of a byte that was taken in part are seen again, the same, by the next round.
            window &= !0 << (64 - bits);
        } else {
            while bits <= 56 {
                let Some((&byte, tail)) = rest.split_first() else {
                    break;
                };
                window |= u64::from(byte) << (56 - bits);
                bits += 8;
                rest = tail;
            }
        }
        // Until a code could be cut off by the end of the window.
        while bits >= LENGTH_MAX {
            let (symbol, length) = next_symbol(window)?;
            out.push(symbol);
            window <<= length;
            bits -= length;
        }
        if rest.is_empty() {
            return decode_tail(window, bits, out);
        }
    }
}

/// The last bits: codes, then padding of fewer than eight ones (RFC 7541 section 5.2).
fn decode_tail(mut window: u64, mut bits: usize, out: &mut Vec<u8>) -> Result<(), HpackError> {
    while bits > 0 {
        if bits < 8 && window >> (64 - bits) == (1 << bits) - 1 {
            return Ok(());
        }
        let (symbol, length) = next_symbol(window)?;
        if length > bits {
            return Err(HpackError("bad Huffman padding"));
        }
        out.push(symbol);
        window <<= length;
        bits -= length;
    }
    Ok(())
}

#[inline]
fn next_symbol(window: u64) -> Result<(u8, usize), HpackError> {
    let entry = LOOK[(window >> (64 - LOOK_BITS)) as usize];
    if entry != 0 {
        return Ok((entry as u8, usize::from(entry >> 8)));
    }
    long_symbol(window)
}

#[cold]
fn long_symbol(window: u64) -> Result<(u8, usize), HpackError> {
    let window = window >> 32;
    let length = (LOOK_BITS + 1..=LENGTH_MAX).find(|&length| window < LONG.end[length]);
    let length = length.unwrap_or(LENGTH_MAX);
    let nth = (window >> (32 - length)) as u32 - LONG.first[length];
    match LONG.sorted[usize::from(LONG.offset[length]) + nth as usize] {
        EOS => Err(HpackError("EOS inside a Huffman string")),
        symbol => Ok((symbol as u8, length)),
    }
}

/// Bytes that `source` takes when encoded.
pub(super) fn encoded_len(source: &[u8]) -> usize {
    let bits: usize = source
        .iter()
        .map(|&byte| usize::from(LENGTHS[usize::from(byte)]))
        .sum();
    bits.div_ceil(8)
}

/// Appends the encoded bytes of `source` to `out`.
pub(super) fn encode(source: &[u8], out: &mut Vec<u8>) {
    let mut window = 0u64; // right-aligned
    let mut bits = 0u32;
    for &byte in source {
        let symbol = usize::from(byte);
        window = window << LENGTHS[symbol] | u64::from(CODES[symbol]);
        bits += u32::from(LENGTHS[symbol]);
        if bits >= 32 {
            bits -= 32;
            out.extend_from_slice(&((window >> bits) as u32).to_be_bytes());
        }
    }
    if bits > 0 {
        let padding = (8 - bits % 8) % 8;
        let tail = (window << padding | ((1 << padding) - 1)) as u32;
        let bytes = (bits + padding) / 8;
        out.extend_from_slice(&tail.to_be_bytes()[4 - bytes as usize..]);
    }
}

const fn canonical() -> Canonical {
    let mut table = Canonical {
        codes: [0; SYMBOLS],
        sorted: [0; SYMBOLS],
        first: [0; LENGTH_MAX + 1],
        offset: [0; LENGTH_MAX + 1],
        end: [0; LENGTH_MAX + 1],
    };
    let mut code = 0u32;
    let mut placed = 0;
    let mut length = 1;
    while length <= LENGTH_MAX {
        code <<= 1;
        table.first[length] = code;
        table.offset[length] = placed as u16;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                table.codes[symbol] = code;
                table.sorted[placed] = symbol as u16;
                code += 1;
                placed += 1;
            }
            symbol += 1;
        }
        table.end[length] = (code as u64) << (32 - length);
        length += 1;
    }
    table
}

const fn look_table() -> [u16; 1 << LOOK_BITS] {
    let mut table = [0u16; 1 << LOOK_BITS];
    let mut symbol = 0;
    while symbol < SYMBOLS {
        let length = LENGTHS[symbol] as usize;
        if length <= LOOK_BITS {
            let first = (CODES[symbol] as usize) << (LOOK_BITS - length);
            let mut nth = 0;
            while nth < 1 << (LOOK_BITS - length) {
                table[first + nth] = (length << 8 | symbol) as u16;
                nth += 1;
            }
        }
        symbol += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(source: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(source, &mut out);
        out
    }

    fn decoded(source: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = Vec::new();
        decode(source, &mut out).map(|()| out)
    }

    #[test]
    fn eos_is_thirty_ones() {
        assert_eq!(CODES[256], (1 << 30) - 1);
    }

    #[test]
    fn encodes_the_rfc_examples() {
        let example = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(encoded(b"www.example.com"), example);
        assert_eq!(encoded(b"no-cache"), [0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]);
        assert_eq!(decoded(&example).as_deref(), Ok(&b"www.example.com"[..]));
    }

    #[test]
    fn refuses_bad_endings() {
        assert!(decoded(&[0xff, 0xff, 0xff, 0xff]).is_err(), "EOS");
        assert!(decoded(&[0x1f, 0xff]).is_err(), "eight bits of padding");
        assert!(decoded(&[0x18]).is_err(), "padding of zeros");
        assert_eq!(decoded(&[0x1f]).as_deref(), Ok(&b"a"[..]));
    }

    #[test]
    fn every_byte_at_every_offset() {
        for byte in 0..=255u8 {
            for lead in 0..9 {
                let mut source = vec![b'0'; lead];
                source.extend([byte, b'z', byte]);
                assert_eq!(decoded(&encoded(&source)).as_ref(), Ok(&source));
            }
        }
    }

    proptest! {
        #[test]
        fn gives_back_what_it_took(source: Vec<u8>) {
            let bytes = encoded(&source);
            prop_assert_eq!(bytes.len(), encoded_len(&source));
            prop_assert_eq!(decoded(&bytes), Ok(source));
        }

        #[test]
        fn never_panics_and_is_unambiguous(source: Vec<u8>) {
            if let Ok(text) = decoded(&source) {
                prop_assert_eq!(encoded(&text), source);
            }
        }
    }
}
