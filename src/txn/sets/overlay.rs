//! What a transaction sees when it scans: the entries of the database with its own writes on top.

use std::iter::Peekable;
use std::ops::Bound;

use super::place::{TableRef, borrowed};
use super::writes::WriteSet;

/// A range to be scanned, or what is left of it.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// Of which table.
    pub(crate) table: TableRef,
    /// Where it begins by the order of the table, whatever the direction.
    pub(crate) from: Bound<Box<[u8]>>,
    /// Where it ends.
    pub(crate) to: Bound<Box<[u8]>>,
    /// Whether the scan goes from `to` to `from`.
    pub(crate) reverse: bool,
}

impl Span {
    /// What is left when the scan has gone as far as `key`.
    #[must_use]
    fn after(mut self, key: Box<[u8]>) -> Self {
        let near = if self.reverse {
            &mut self.to
        } else {
            &mut self.from
        };
        *near = Bound::Excluded(key);
        self
    }
}

/// An entry that a scan meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visible<'a, K, V> {
    /// One of the database, as it was handed in.
    Base(K, V),
    /// One that the transaction has put: key and value.
    Own(&'a [u8], &'a [u8]),
}

/// One batch of a scan, as the transaction sees it.
#[derive(Clone, Debug)]
pub(crate) struct Overlaid<'a, K, V> {
    /// In the direction of the scan. May be empty although the scan goes on, since own writes can hide a whole batch.
    pub(crate) entries: Vec<Visible<'a, K, V>>,
    /// From where the next batch is to be read; `None` at the end.
    pub(crate) rest: Option<Span>,
}

/// See [`Sets::overlay`](super::Sets::overlay).
pub(super) fn overlay<K, V>(
    writes: &WriteSet,
    span: Span,
    base: impl IntoIterator<Item = (K, V)>,
    base_end: bool,
) -> Overlaid<'_, K, V>
where
    K: AsRef<[u8]>,
{
    let mut own = writes.between(span.table, borrowed(&span.from), borrowed(&span.to));
    let mut own = std::iter::from_fn(|| match span.reverse {
        true => own.next_back(),
        false => own.next(),
    })
    .peekable();
    let mut base: Peekable<_> = base.into_iter().peekable();
    let mut entries = Vec::with_capacity(base.size_hint().0);
    let mut last = None;

    while let Some((key, value)) = base.next() {
        let place = key.as_ref();
        if !base_end && base.peek().is_none() {
            last = Some(Box::from(place));
        }
        let mut replaced = false;
        while let Some((slot, entry)) = own.next_if(|(slot, _)| {
            let ordering = (span.table.order)(&slot.key, place);
            replaced = ordering.is_eq();
            replaced || ordering.is_lt() != span.reverse
        }) {
            entries.extend(
                entry
                    .value
                    .as_deref()
                    .map(|value| Visible::Own(&slot.key, value)),
            );
            if replaced {
                break;
            }
        }
        if !replaced && !writes.is_cleared(span.table, place) {
            entries.push(Visible::Base(key, value));
        }
    }
    if base_end {
        entries.extend(own.filter_map(|(slot, entry)| {
            let value = entry.value.as_deref()?;
            Some(Visible::Own(&slot.key, value))
        }));
    }

    let rest = (!base_end).then(|| match last {
        Some(key) => span.after(key),
        None => span,
    });
    Overlaid { entries, rest }
}
