//! The answers in their database: by key, and once more by expiry, so that what has expired is found without a search.
//!
//! | key | value |
//! |---|---|
//! | `0` | the clock |
//! | `1 · key` | the record |
//! | `2 · expiry (8) · key` | nothing |

use std::time::Duration;

use super::record::Record;
use super::{Anchor, Fingerprint, MAX_WINDOW, Seen, Ticks};

/// What is stored, as bytes in the order of their keys.
pub(crate) trait Pages {
    type Error;
    fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, Self::Error>;
    /// At most `most` keys from `from` on, below `below`.
    fn keys(&self, from: &[u8], below: &[u8], most: usize) -> Result<Vec<Vec<u8>>, Self::Error>;
    /// The last key from `from` on, below `below`.
    fn last(&self, from: &[u8], below: &[u8]) -> Result<Option<Vec<u8>>, Self::Error>;
}

/// The same in an update.
pub(crate) trait PagesMut: Pages {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Self::Error>;
    fn delete(&mut self, key: &[u8]) -> Result<(), Self::Error>;
}

const CLOCK: &[u8] = &[0];
const RECORDS: u8 = 1;
const BY_EXPIRY: u8 = 2;
const AFTER: &[u8] = &[3];

fn record_key(key: &[u8]) -> Vec<u8> {
    [&[RECORDS], key].concat()
}

fn expiry_key(expires: Ticks, key: &[u8]) -> Vec<u8> {
    [&[BY_EXPIRY][..], &expires.0.to_be_bytes(), key].concat()
}

/// Expiry and key of an entry of the index.
fn expiry_of(entry: &[u8]) -> Option<(Ticks, &[u8])> {
    let (_, rest) = entry.split_first()?;
    let (expires, key) = rest.split_first_chunk()?;
    Some((Ticks(u64::from_be_bytes(*expires)), key))
}

/// The clock as it was persisted. One that cannot be read is replaced by the earliest time that it can have shown: entries live
/// longer then, but for a window at most, and none expires early.
pub(crate) fn persisted_clock<P: Pages>(pages: &P) -> Result<Option<Anchor>, P::Error> {
    let found = match pages.get(CLOCK)?.map(Anchor::decode) {
        Some(Ok(anchor)) => return Ok(Some(anchor)),
        found => found,
    };
    let Some(last) = pages.last(&[BY_EXPIRY], AFTER)? else {
        return Ok(None);
    };
    if let Some(Err(error)) = found {
        tracing::warn!(target: "lockkeeper", %error, "the clock of the stored answers cannot be read");
    }
    Ok(expiry_of(&last).map(|(expires, _)| Anchor::lost(expires.before(MAX_WINDOW))))
}

/// What there is under `key` for a request with this fingerprint.
pub(crate) fn look<'p, P: Pages>(
    pages: &'p P,
    key: &[u8],
    fingerprint: Fingerprint,
    now: Ticks,
) -> Result<Seen<&'p [u8]>, P::Error> {
    let Some(bytes) = pages.get(&record_key(key))? else {
        return Ok(Seen::Fresh);
    };
    Ok(match Record::decode(key, bytes) {
        Err(error) => Seen::Unreadable(error),
        Ok(record) if record.expires <= now => Seen::Expired,
        Ok(record) if record.fingerprint != fingerprint => Seen::Reused,
        Ok(record) => Seen::Stored(record.answer),
    })
}

/// Stores an answer, and removes at most `most` that have expired. Whoever stores has looked, in the same transaction.
pub(crate) fn keep<P: PagesMut>(
    pages: &mut P,
    key: &[u8],
    (fingerprint, answer): (Fingerprint, &[u8]),
    clock: &Anchor,
    window: Duration,
    most: usize,
) -> Result<(), P::Error> {
    sweep(pages, clock, most)?;
    let stored = record_key(key);
    let earlier = pages.get(&stored)?;
    let earlier = earlier.and_then(|bytes| Record::decode(key, bytes).ok());
    if let Some(expired) = earlier.map(|record| record.expires) {
        pages.delete(&expiry_key(expired, key))?;
    }
    let record = Record {
        fingerprint,
        expires: clock.ticks.after(window),
        answer,
    };
    pages.put(&stored, &record.encode(key))?;
    pages.put(&expiry_key(record.expires, key), &[])
}

/// Whether there is something to be swept.
pub(crate) fn anything_expired<P: Pages>(pages: &P, now: Ticks) -> Result<bool, P::Error> {
    Ok(!expired(pages, now, 1)?.is_empty())
}

fn expired<P: Pages>(pages: &P, now: Ticks, most: usize) -> Result<Vec<Vec<u8>>, P::Error> {
    let below = expiry_key(Ticks(now.0.saturating_add(1)), &[]);
    pages.keys(&[BY_EXPIRY], &below, most)
}

/// Removes at most `most` answers that have expired, and persists the clock. Answers how many there were.
pub(crate) fn sweep<P: PagesMut>(
    pages: &mut P,
    clock: &Anchor,
    most: usize,
) -> Result<usize, P::Error> {
    pages.put(CLOCK, &clock.encode())?;
    let entries = expired(pages, clock.ticks, most)?;
    for entry in &entries {
        if let Some((expires, key)) = expiry_of(entry) {
            let stored = record_key(key);
            let ends = pages.get(&stored)?.map(|bytes| {
                let record = Record::decode(key, bytes);
                record.map_or(expires, |record| record.expires)
            });
            // One that was stored anew has an entry of its own.
            if ends == Some(expires) {
                pages.delete(&stored)?;
            }
        }
        pages.delete(entry)?;
    }
    Ok(entries.len())
}

#[cfg(test)]
mod tests;
