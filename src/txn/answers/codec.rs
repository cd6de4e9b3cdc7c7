//! Answers as JSON.

use std::io;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{AnswerError, MAX_ANSWER};

/// How the answers of one type are written and read, for those who do not know the type's traits.
pub(crate) struct Codec<T> {
    write: fn(&T) -> Result<Vec<u8>, AnswerError>,
    read: fn(&[u8]) -> Result<T, serde_json::Error>,
}

impl<T> Clone for Codec<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Codec<T> {}

impl<T> Codec<T> {
    pub(crate) fn new() -> Self
    where
        T: Serialize + DeserializeOwned,
    {
        Self {
            write: write::<T>,
            read: |bytes| serde_json::from_slice(bytes),
        }
    }

    /// The bytes to be stored, and the value as everybody who sends the same again will get it. What cannot be read back is
    /// refused while it can still be.
    pub(crate) fn write(&self, value: &T) -> Result<(Vec<u8>, T), AnswerError> {
        let bytes = (self.write)(value)?;
        let back = (self.read)(&bytes);
        let back = back.map_err(|error| AnswerError::NotReadBack(Arc::new(error)))?;
        Ok((bytes, back))
    }

    pub(crate) fn read(&self, bytes: &[u8]) -> Result<T, AnswerError> {
        (self.read)(bytes).map_err(|error| AnswerError::OtherType(Arc::new(error)))
    }
}

fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, AnswerError> {
    let mut bytes = Bounded(Vec::new());
    match serde_json::to_writer(&mut bytes, value) {
        Ok(()) => Ok(bytes.0),
        Err(error) if error.is_io() => Err(AnswerError::TooLarge { max: MAX_ANSWER }),
        Err(error) => Err(AnswerError::NotWritten(Arc::new(error))),
    }
}

/// Memory that ends at the largest answer.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_ANSWER {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_read_back_is_refused() {
        let outcome = Codec::<f64>::new().write(&f64::NAN);
        assert!(matches!(outcome, Err(AnswerError::NotReadBack(_))));
        let outcome = Codec::<BTreeMap<(u8, u8), u8>>::new().write(&[((1, 2), 3)].into());
        assert!(matches!(outcome, Err(AnswerError::NotWritten(_))));
    }

    #[test]
    fn the_largest_answer_is_stored_and_a_larger_one_is_not() {
        // With its two quotes.
        let largest = "x".repeat(MAX_ANSWER - 2);
        let (bytes, _) = Codec::new().write(&largest).unwrap();
        assert_eq!(bytes.len(), MAX_ANSWER);
        let outcome = Codec::new().write(&(largest + "x"));
        assert!(matches!(outcome, Err(AnswerError::TooLarge { max }) if max == MAX_ANSWER));
    }

    #[test]
    fn another_type_is_an_error() {
        let (bytes, ()) = Codec::new().write(&()).unwrap();
        let outcome = Codec::<u64>::new().read(&bytes);
        assert!(matches!(outcome, Err(AnswerError::OtherType(_))));
    }

    proptest! {
        /// To the last bit.
        #[test]
        fn numbers_survive(value in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL, whole in any::<u64>()) {
            let (bytes, (back, _)) = Codec::new().write(&(value, whole)).unwrap();
            prop_assert_eq!(back.to_bits(), value.to_bits());
            prop_assert_eq!(Codec::<(f64, u64)>::new().read(&bytes).unwrap(), (value, whole));
        }
    }
}
