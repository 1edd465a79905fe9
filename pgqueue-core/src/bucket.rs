//! Which lane of a by-key subscription a message belongs to.

use sha2::{Digest, Sha256};

/// Returns the bucket of a key in a topic of `buckets` buckets, the same on every driver and for ever.
///
/// It is the first four bytes of the key's SHA-256, big-endian, modulo `buckets`: an SQL expression gives the same on
/// every PostgreSQL, FIPS mode included. No buckets count as one.
///
/// ```
/// assert_eq!(pgqueue_core::bucket("customer-4", 16), 4);
/// ```
#[must_use]
pub fn bucket(key: &str, buckets: u16) -> u16 {
    let bucket = key_hash(key) % u32::from(buckets.max(1));
    bucket as u16 // the remainder of a u16
}

/// Returns the number that spreads keys over buckets: see [`bucket`]. For drivers that leave the modulo to their store.
#[must_use]
pub fn key_hash(key: &str) -> u32 {
    let digest = Sha256::digest(key.as_bytes());
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `select (('x' || encode(substr(sha256(convert_to(key, 'UTF8')), 1, 4), 'hex'))::bit(32)::bigint) % 16`
    #[test]
    fn buckets_are_what_postgresql_computes() {
        for (key, expected) in [("", 2), ("us", 2), ("nc", 3), ("customer-4", 4), ("naïve ☃", 5), ("ci", 9)] {
            assert_eq!(bucket(key, 16), expected, "{key}");
        }
    }

    #[test]
    fn keys_spread_over_all_buckets() {
        let mut counts = [0; 16];
        (0..1600).for_each(|n| counts[usize::from(bucket(&format!("key-{n}"), 16))] += 1);
        assert!(counts.iter().all(|&count| (60..=140).contains(&count)), "{counts:?}");
    }
}
