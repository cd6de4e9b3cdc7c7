//! What tells one request from another, also after a restart.

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// 128 bits of a request: enough that two requests with one key are never taken for the same by chance. It guards against
/// mistakes, not against people who look for collisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// Of a transaction's name and of the hash of its request.
    pub(crate) fn new(name: Option<&str>, request: Option<[u8; 16]>) -> Self {
        let name = name.map(|name| hash(&[name.as_bytes()]));
        let part = |part: &Option<[u8; 16]>| match part {
            // Nothing is not the same as something empty.
            None => [0; 17],
            Some(hash) => {
                let mut bytes = [1; 17];
                bytes[1..].copy_from_slice(hash);
                bytes
            }
        };
        Self(hash(&[&part(&name), &part(&request)]))
    }
}

/// A hash of `parts` that is the same on every machine and in every run. It belongs to the format of the records.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = SipHasher13::new_with_keys(KEYS.0, KEYS.1);
    for part in parts {
        // With its length, so that what is in one part is never taken for a piece of the next.
        hasher.write(&(part.len() as u64).to_be_bytes());
        hasher.write(part);
    }
    hasher.finish128().as_u128().to_be_bytes()
}

/// Fixed: "lockkeeper answers" would not be found again under others.
const KEYS: (u64, u64) = (0x6c6f_636b_6b65_6570, 0x6572_5f61_6e73_7731);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_requests_tell_requests_apart() {
        let of = |name, request: Option<&[u8]>| {
            Fingerprint::new(name, request.map(|request| hash(&[request])))
        };
        let all = [
            of(None, None),
            of(Some(""), None),
            of(None, Some(b"")),
            of(Some(""), Some(b"")),
            of(Some("pay"), None),
            of(None, Some(b"pay")),
            of(Some("pay"), Some(b"10")),
            of(Some("pay1"), Some(b"0")),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one), "{at}");
        }
        assert_eq!(of(Some("pay"), Some(b"10")), of(Some("pay"), Some(b"10")));
    }

    /// What is on disk was hashed by another process, perhaps an older one: a change needs another version of the format.
    #[test]
    fn the_hash_is_part_of_the_format() {
        let known = u128::from_be_bytes(hash(&[b"one", b"two"]));
        assert_eq!(known, KNOWN, "{known:#034x}");
    }

    const KNOWN: u128 = 0xa185_92e8_a59f_cb60_5352_f156_8d72_7b95;
}
