//! A stored answer, as bytes: `version · check (16) · fingerprint (16) · expiry (8) · answer`.
//!
//! The check covers the key and everything behind it: bytes that something else has written there are damage, and must not be
//! taken for the answer to another request, or for no answer at all.

use super::fingerprint::hash;
use super::{AnswerError, Fingerprint, Ticks};

const VERSION: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub fingerprint: Fingerprint,
    pub expires: Ticks,
    /// JSON.
    pub answer: &'a [u8],
}

impl<'a> Record<'a> {
    pub(crate) fn encode(&self, key: &[u8]) -> Vec<u8> {
        let expires = self.expires.0.to_be_bytes();
        let check = hash(&[key, &self.fingerprint.0, &expires, self.answer]);
        [
            &[VERSION][..],
            &check,
            &self.fingerprint.0,
            &expires,
            self.answer,
        ]
        .concat()
    }

    pub(crate) fn decode(key: &[u8], bytes: &'a [u8]) -> Result<Self, AnswerError> {
        let (&version, rest) = bytes.split_first().ok_or(AnswerError::Damaged)?;
        if version != VERSION {
            return Err(AnswerError::UnknownFormat(version));
        }
        let (check, rest) = rest.split_first_chunk().ok_or(AnswerError::Damaged)?;
        let (fingerprint, rest) = rest.split_first_chunk().ok_or(AnswerError::Damaged)?;
        let (expires, answer) = rest.split_first_chunk().ok_or(AnswerError::Damaged)?;
        if hash(&[key, fingerprint, expires, answer]) != *check {
            return Err(AnswerError::Damaged);
        }
        Ok(Self {
            fingerprint: Fingerprint(*fingerprint),
            expires: Ticks(u64::from_be_bytes(*expires)),
            answer,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_and_nothing_else_is(
            key in proptest::collection::vec(any::<u8>(), 1..40),
            fingerprint in any::<[u8; 16]>(),
            expires in any::<u64>(),
            answer in proptest::collection::vec(any::<u8>(), 0..60),
            at in any::<prop::sample::Index>(),
            flip in 1..=u8::MAX,
        ) {
            let record = Record { fingerprint: Fingerprint(fingerprint), expires: Ticks(expires), answer: &answer };
            let bytes = record.encode(&key);
            prop_assert_eq!(Record::decode(&key, &bytes).unwrap(), record);

            let mut other = bytes.clone();
            other[at.index(bytes.len())] ^= flip;
            prop_assert!(Record::decode(&key, &other).is_err());
            prop_assert!(Record::decode(&key, &bytes[..at.index(bytes.len())]).is_err());
            let mut other_key = key.clone();
            other_key[at.index(key.len())] ^= flip;
            prop_assert!(Record::decode(&other_key, &bytes).is_err());
        }

        #[test]
        fn anything_can_be_looked_at(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Record::decode(b"key", &bytes).is_err());
        }
    }

    #[test]
    fn another_version_says_so() {
        let found = Record::decode(b"key", &[9, 1, 2]);
        assert!(matches!(found, Err(AnswerError::UnknownFormat(9))));
    }
}
