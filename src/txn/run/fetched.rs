//! What a read of an interactive transaction answers: bytes that belong to the reader.

use std::fmt;
use std::marker::PhantomData;

use heed::BytesDecode;

use crate::error::DbError;

/// A key or a value that was read, as bytes of its own: it outlives the snapshot it came from, so it may be kept over awaits.
pub struct Fetched<C> {
    bytes: Box<[u8]>,
    codec: PhantomData<fn() -> C>,
}

impl<C> Fetched<C> {
    pub(super) fn new(bytes: Box<[u8]>) -> Self {
        Self {
            bytes,
            codec: PhantomData,
        }
    }

    /// The value.
    ///
    /// # Errors
    ///
    /// [`DbError::Heed`] if the bytes are not what the codec expects.
    pub fn decode<'a>(&'a self) -> Result<C::DItem, DbError>
    where
        C: BytesDecode<'a>,
    {
        C::bytes_decode(&self.bytes).map_err(|error| DbError::Heed(heed::Error::Decoding(error)))
    }

    /// The bytes, as they are stored.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, as they are stored.
    #[must_use]
    pub fn into_bytes(self) -> Box<[u8]> {
        self.bytes
    }
}

impl<C> Clone for Fetched<C> {
    fn clone(&self) -> Self {
        Self::new(self.bytes.clone())
    }
}

impl<C> fmt::Debug for Fetched<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}
