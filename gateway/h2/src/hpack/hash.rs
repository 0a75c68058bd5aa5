//! A quick hash for short names and values; also at compile time, for the static table.
//!
//! Nothing trusts it: who finds an entry by hash compares the bytes, and a collision costs
//! compression, not correctness. So it needs no secret.

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hash of `bytes`.
#[inline]
pub(super) const fn hash(bytes: &[u8]) -> u32 {
    let mut state = (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let mut rest = bytes;
    while rest.len() > 8 {
        let Some((head, tail)) = rest.split_first_chunk::<8>() else {
            break;
        };
        state = mix(state ^ u64::from_le_bytes(*head));
        rest = tail;
    }
    state = mix(state ^ tail_word(rest));
    (state >> 32) as u32
}

/// Hash of a pair from the hashes of its parts.
#[inline]
pub(super) const fn pair(name: u32, value: u32) -> u32 {
    (mix((name as u64) << 32 | value as u64) >> 32) as u32
}

/// Up to eight bytes as one word; bytes may appear twice in it, none is left out.
#[inline]
const fn tail_word(rest: &[u8]) -> u64 {
    if let Some(word) = rest.first_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    if let (Some(head), Some(tail)) = (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        return (u32::from_le_bytes(*head) as u64) << 32 | u32::from_le_bytes(*tail) as u64;
    }
    match rest {
        [] => 0,
        [first, ..] => {
            (*first as u64) << 16 | (rest[rest.len() / 2] as u64) << 8 | rest[rest.len() - 1] as u64
        }
    }
}

#[inline]
const fn mix(word: u64) -> u64 {
    let product = (word ^ MULTIPLIER) as u128 * 0xa076_1d64_78bd_642f_u128;
    (product >> 64) as u64 ^ product as u64
}
