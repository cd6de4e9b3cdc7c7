//! Tests of the sets, by rule and against a naive model.

mod model;
mod reads;
mod scans;
mod writes;

use std::cmp::Ordering;
use std::ops::Bound;

use super::{ENTRY_OVERHEAD, Limits, Sets, Span, TableRef, Visible, Write};

const SEED: [u64; 2] = [7, 11];

/// A table in the default order.
fn forwards() -> TableRef {
    TableRef::bytewise(1)
}

/// One whose order is the reverse.
fn backwards() -> TableRef {
    let order = |a: &[u8], b: &[u8]| b.cmp(a);
    TableRef { id: 2, order }
}

/// One that holds `a` and `A` for the same key.
fn caseless() -> TableRef {
    fn order(a: &[u8], b: &[u8]) -> Ordering {
        a.to_ascii_lowercase().cmp(&b.to_ascii_lowercase())
    }
    TableRef { id: 3, order }
}

fn sets() -> Sets {
    Sets::new(Limits::default(), SEED)
}

fn limited(read_entries: usize, write_bytes: usize) -> Sets {
    let limits = Limits {
        read_entries,
        write_bytes,
    };
    Sets::new(limits, SEED)
}

fn boxed(key: &str) -> Box<[u8]> {
    key.as_bytes().into()
}

fn incl(key: &str) -> Bound<Box<[u8]>> {
    Bound::Included(boxed(key))
}

fn excl(key: &str) -> Bound<Box<[u8]>> {
    Bound::Excluded(boxed(key))
}

fn span(table: TableRef, from: Bound<Box<[u8]>>, to: Bound<Box<[u8]>>, reverse: bool) -> Span {
    Span {
        table,
        from,
        to,
        reverse,
    }
}

fn whole(table: TableRef, reverse: bool) -> Span {
    span(table, Bound::Unbounded, Bound::Unbounded, reverse)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The writes in their order, one short word each.
fn told(sets: &Sets) -> Vec<String> {
    let end = |bound: Bound<&[u8]>| match bound {
        Bound::Included(key) => format!("={}", text(key)),
        Bound::Excluded(key) => text(key),
        Bound::Unbounded => String::new(),
    };
    let tell = |write| match write {
        Write::Clear { table, from, to } => format!("{}:{}..{}", table.id, end(from), end(to)),
        Write::Put { table, key, value } => format!("{}:{}={}", table.id, text(key), text(value)),
        Write::Delete { table, key } => format!("{}:{}-", table.id, text(key)),
    };
    sets.writes().map(tell).collect()
}

/// The entries of a batch: keys of the database as they are, own ones with a star.
fn keys<K: AsRef<[u8]>, V>(entries: &[Visible<'_, K, V>]) -> Vec<String> {
    let tell = |entry: &Visible<'_, K, V>| match entry {
        Visible::Base(key, _) => text(key.as_ref()),
        Visible::Own(key, _) => format!("{}*", text(key)),
    };
    entries.iter().map(tell).collect()
}
