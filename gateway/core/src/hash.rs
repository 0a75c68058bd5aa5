//! Hashes that are the same in every process: consistent hashing shall send a key to the same
//! endpoint from whichever gateway it comes.

use std::net::{IpAddr, SocketAddr};

use crate::random::mix;

/// A hash of bytes; not for tables that an attacker fills unless `seed` is secret.
#[must_use]
pub fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    // The length is in it: the last word is padded.
    words.fold(
        mix(seed ^ bytes.len() as u64),
        |hash, word| mix(hash ^ word),
    )
}

/// A hash of an IP address.
#[must_use]
pub fn hash_ip(seed: u64, ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => hash_bytes(seed, &ip.octets()),
        IpAddr::V6(ip) => hash_bytes(seed, &ip.octets()),
    }
}

/// A hash of an address.
pub(crate) fn hash_address(seed: u64, address: SocketAddr) -> u64 {
    mix(hash_ip(seed, address.ip()) ^ u64::from(address.port()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hashes_never_change_between_versions() {
        // Gateways of two versions run side by side during an upgrade.
        assert_eq!(hash_bytes(0, b"user-1"), 0xde1d_baef_32e9_fbd0);
        let address = "10.0.0.7:50051".parse().unwrap();
        assert_eq!(hash_address(0, address), 0x65f9_537a_446e_f675);
        let mapped: IpAddr = "::ffff:10.0.0.7".parse().unwrap();
        assert_eq!(hash_ip(3, mapped), hash_ip(3, "10.0.0.7".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn every_byte_and_the_length_count(
            bytes in prop::collection::vec(any::<u8>(), 1..40),
            at: prop::sample::Index,
            seed: u64,
        ) {
            let mut other = bytes.clone();
            other[at.index(bytes.len())] ^= 1;
            prop_assert_ne!(hash_bytes(seed, &bytes), hash_bytes(seed, &other));
            let mut longer = bytes.clone();
            longer.push(0);
            prop_assert_ne!(hash_bytes(seed, &bytes), hash_bytes(seed, &longer));
        }
    }
}
