//! What is recorded of reads, and how it is compared.

use std::ops::{Bound, ControlFlow};

use super::*;
use crate::txn::sets::{Check, Content, RangeCheck, RangeId, Seen, TooMuch, WhichSet};

fn ranges(sets: &Sets) -> Vec<RangeCheck<'_>> {
    let range = |check| match check {
        Check::Key(_) => None,
        Check::Range(range) => Some(range),
    };
    sets.checks().filter_map(range).collect()
}

/// A scan of all of `forwards` that met these.
fn scanned(sets: &mut Sets, content: Content, met: &[(&str, &str)]) -> RangeId {
    let id = sets.begin_range(whole(forwards(), false), content).unwrap();
    for (key, value) in met {
        sets.extend_range(id, key.as_bytes(), value.as_bytes());
    }
    id
}

fn agrees(check: &RangeCheck<'_>, present: &[(&str, &str)]) -> bool {
    let mut fold = check.fold();
    let more = present
        .iter()
        .try_for_each(|(key, value)| fold.entry(key.as_bytes(), value.as_bytes()));
    assert!(more.is_continue() || !fold.agrees());
    fold.agrees()
}

#[test]
fn a_second_read_is_compared_with_the_first() {
    let (mut sets, table) = (sets(), forwards());
    assert_eq!(sets.read(table, &b"a"[..], Some(b"1")), Ok(Seen::First));
    assert_eq!(sets.read(table, &b"a"[..], Some(b"1")), Ok(Seen::Same));
    assert_eq!(sets.read(table, &b"a"[..], Some(b"2")), Ok(Seen::Changed));
    assert_eq!(sets.read(table, &b"a"[..], None), Ok(Seen::Changed));
    assert_eq!(sets.read(table, &b"a"[..], Some(b"1")), Ok(Seen::Same));
    assert_eq!(sets.read(table, &b"b"[..], None), Ok(Seen::First));
    assert_eq!(sets.read(table, &b"b"[..], None), Ok(Seen::Same));
    assert_eq!(sets.read(table, &b"b"[..], Some(b"")), Ok(Seen::Changed));
    assert_eq!(sets.read(backwards(), &b"a"[..], None), Ok(Seen::First));
    assert_eq!(sets.read_entries(), 3);
}

#[test]
fn what_the_transaction_has_written_is_not_recorded() {
    let (mut sets, table) = (sets(), forwards());
    sets.read(table, boxed("a"), Some(b"1")).unwrap();
    sets.put(table, boxed("a"), boxed("2")).unwrap();
    sets.put(table, boxed("b"), boxed("2")).unwrap();
    sets.delete(table, boxed("c")).unwrap();
    sets.clear(table, incl("x"), incl("z")).unwrap();
    for key in ["b", "c", "y"] {
        let seen = sets.read(table, boxed(key), Some(b"1"));
        assert_eq!(seen, Ok(Seen::First), "{key}");
    }
    assert_eq!(sets.read_entries(), 1);
    assert_eq!(sets.read(table, boxed("a"), Some(b"9")), Ok(Seen::Changed));
}

#[test]
fn reads_stay_when_writes_are_rolled_back() {
    let (mut sets, table) = (sets(), forwards());
    let mark = sets.savepoint();
    sets.read(table, boxed("a"), Some(b"1")).unwrap();
    sets.put(table, boxed("a"), boxed("2")).unwrap();
    scanned(&mut sets, Content::Entries, &[("a", "1")]);
    sets.rollback_to(mark).unwrap();
    assert!(sets.is_read_only());
    assert_eq!(sets.checks().count(), 2);
}

#[test]
fn a_key_agrees_with_what_was_read_and_nothing_else() {
    let (mut sets, table) = (sets(), forwards());
    sets.read(table, boxed("a"), Some(b"1")).unwrap();
    sets.read(table, boxed("b"), None).unwrap();
    sets.read(table, boxed("c"), Some(b"")).unwrap();
    let present = [None, Some(&b""[..]), Some(b"1"), Some(b"2")];
    let told: Vec<_> = sets
        .checks()
        .map(|check| match check {
            Check::Key(key) => (text(key.key), present.map(|value| key.agrees(value))),
            Check::Range(_) => unreachable!("no range was read"),
        })
        .collect();
    let expected = [
        ("a".to_owned(), [false, false, true, false]),
        ("b".to_owned(), [true, false, false, false]),
        ("c".to_owned(), [false, true, false, false]),
    ];
    assert_eq!(told, expected);
}

#[test]
fn the_read_set_is_full_at_its_limit_for_keys_and_ranges_alike() {
    let table = forwards();
    let full = TooMuch {
        which: WhichSet::ReadSet,
        limit: 2,
    };
    let mut sets = limited(2, 0);
    scanned(
        &mut sets,
        Content::Entries,
        &[("a", "1"), ("b", "2"), ("c", "3")],
    );
    sets.read(table, boxed("a"), None).unwrap();
    assert_eq!(sets.read(table, boxed("b"), None), Err(full));
    let refused = sets.begin_range(whole(table, false), Content::Keys);
    assert_eq!(refused, Err(full));
    assert_eq!(sets.read(table, boxed("a"), None), Ok(Seen::Same));
    assert_eq!((sets.read_entries(), sets.checks().count()), (2, 2));
}

#[test]
fn a_range_covers_what_was_met_until_its_end_is_known() {
    let mut sets = sets();
    for reverse in [false, true] {
        let span = span(forwards(), incl("a"), excl("x"), reverse);
        let id = sets.begin_range(span, Content::Entries).unwrap();
        assert_eq!(ranges(&sets).len(), usize::from(reverse));
        sets.extend_range(id, b"m", b"1");
        let covered = ranges(&sets).pop().map(|range| (range.from, range.to));
        let (a, m, x) = (
            Bound::Included(&b"a"[..]),
            Bound::Included(&b"m"[..]),
            Bound::Excluded(&b"x"[..]),
        );
        assert_eq!(covered, Some(if reverse { (m, x) } else { (a, m) }));
        sets.end_range(id);
        let covered = ranges(&sets).pop().map(|range| (range.from, range.to));
        assert_eq!(covered, Some((a, x)));
    }
    let directions: Vec<_> = ranges(&sets).iter().map(|range| range.reverse).collect();
    assert_eq!(directions, [false, true]);
}

#[test]
fn an_empty_range_that_was_scanned_agrees_with_an_empty_one_only() {
    let mut sets = sets();
    let id = scanned(&mut sets, Content::Entries, &[]);
    sets.end_range(id);
    let check = ranges(&sets)[0];
    assert!(agrees(&check, &[]));
    assert!(!agrees(&check, &[("a", "1")]));
}

#[test]
fn a_range_agrees_with_the_same_entries_only() {
    let mut sets = sets();
    scanned(&mut sets, Content::Entries, &[("a", "1"), ("b", "2")]);
    let check = ranges(&sets)[0];
    assert!(agrees(&check, &[("a", "1"), ("b", "2")]));
    for other in [
        &[][..],
        &[("a", "1")],
        &[("a", "1"), ("b", "3")],
        &[("a", "1"), ("c", "2")],
        &[("b", "2"), ("a", "1")],
        &[("a", "1"), ("b", "2"), ("c", "3")],
        &[("a", "1b"), ("", "2")],
    ] {
        assert!(!agrees(&check, other), "{other:?}");
    }
}

#[test]
fn a_range_of_keys_does_not_look_at_values() {
    let mut sets = sets();
    scanned(&mut sets, Content::Keys, &[("a", "1"), ("b", "2")]);
    let check = ranges(&sets)[0];
    assert!(agrees(&check, &[("a", "x"), ("b", "")]));
    assert!(!agrees(&check, &[("ab", "x"), ("", "")]));
}

#[test]
fn a_comparison_stops_when_there_are_more_entries_than_were_read() {
    let mut sets = sets();
    scanned(&mut sets, Content::Entries, &[("a", "1")]);
    let mut fold = ranges(&sets)[0].fold();
    assert_eq!(fold.entry(b"a", b"1"), ControlFlow::Continue(()));
    assert!(fold.agrees());
    assert_eq!(fold.entry(b"b", b"2"), ControlFlow::Break(()));
    assert!(!fold.agrees());
    assert_eq!(fold.entry(b"c", b"2"), ControlFlow::Break(()));
    assert!(!fold.agrees());
}
