//! Why an answer cannot be stored, or not be read back.

use std::sync::Arc;

/// Why the answer of a transaction with a key cannot be stored, or a stored one not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The record is cut short or was changed by something else than this crate. Remedy: look whether the effect is there, and
    /// use another key.
    #[error("the record is damaged")]
    Damaged,
    /// The record was written by another version of this crate. Remedy: that version, or wait until the window is over.
    #[error("the record has the format {0}, which is unknown here")]
    UnknownFormat(u8),
    /// The stored answer is not one of the type that the transaction answers with now. Remedy: the type it had, for as long as
    /// the window lasts.
    #[error("the stored answer is of another type")]
    OtherType(#[source] Arc<serde_json::Error>),
    /// The value cannot be written as JSON. Remedy: a type that can.
    #[error("the answer cannot be written")]
    NotWritten(#[source] Arc<serde_json::Error>),
    /// The value can be written as JSON, but what was written is not a value of its type. Remedy: a type that survives the round
    /// trip; a `NaN`, for example, does not.
    #[error("the answer cannot be read back")]
    NotReadBack(#[source] Arc<serde_json::Error>),
    /// The answer is too large to be stored. Remedy: answer with a key of the data instead of the data.
    #[error("the answer has more than {max} bytes of JSON")]
    TooLarge {
        /// The largest answer, in bytes of JSON.
        max: usize,
    },
}
