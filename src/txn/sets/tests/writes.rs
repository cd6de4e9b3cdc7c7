//! Own writes, their order, their bytes, and savepoints.

use std::ops::Bound;

use super::*;
use crate::txn::sets::{Gone, Own, TooMuch, WhichSet};

#[test]
fn a_key_is_what_was_made_of_it_last() {
    let (mut sets, table) = (sets(), forwards());
    assert_eq!(sets.own(table, b"a"), Own::Untouched);
    sets.put(table, &b"a"[..], &b"1"[..]).unwrap();
    assert_eq!(sets.own(table, b"a"), Own::Put(b"1"));
    assert_eq!(sets.own(backwards(), b"a"), Own::Untouched);
    sets.delete(table, &b"a"[..]).unwrap();
    assert_eq!(sets.own(table, b"a"), Own::Gone);
    sets.put(table, &b"a"[..], &b""[..]).unwrap();
    assert_eq!(sets.own(table, b"a"), Own::Put(b""));
}

#[test]
fn a_clear_drops_the_writes_inside_and_later_puts_are_on_top() {
    let (mut sets, table) = (sets(), forwards());
    for key in ["a", "b", "c", "d"] {
        sets.put(table, boxed(key), boxed("1")).unwrap();
    }
    sets.clear(table, incl("b"), excl("d")).unwrap();
    assert_eq!(told(&sets), ["1:=b..d", "1:a=1", "1:d=1"]);
    assert_eq!(sets.own(table, b"b"), Own::Gone);
    assert_eq!(sets.own(table, b"bb"), Own::Gone);
    assert_eq!(sets.own(table, b"d"), Own::Put(b"1"));
    sets.put(table, boxed("c"), boxed("2")).unwrap();
    assert_eq!(sets.own(table, b"c"), Own::Put(b"2"));
    assert_eq!(told(&sets), ["1:=b..d", "1:a=1", "1:c=2", "1:d=1"]);
}

#[test]
fn writes_come_clears_first_then_by_table_and_its_order() {
    let mut sets = sets();
    sets.put(backwards(), boxed("x"), boxed("1")).unwrap();
    sets.put(backwards(), boxed("y"), boxed("2")).unwrap();
    sets.delete(forwards(), boxed("b")).unwrap();
    sets.put(forwards(), boxed("a"), boxed("3")).unwrap();
    sets.clear(caseless(), Bound::Unbounded, Bound::Unbounded)
        .unwrap();
    sets.clear(backwards(), incl("q"), excl("p")).unwrap();
    let all = ["2:=q..p", "3:..", "1:a=3", "1:b-", "2:y=2", "2:x=1"];
    assert_eq!(told(&sets), all);
}

#[test]
fn an_empty_range_is_no_write() {
    let mut sets = sets();
    sets.clear(forwards(), incl("b"), incl("a")).unwrap();
    sets.clear(forwards(), incl("a"), excl("a")).unwrap();
    sets.clear(forwards(), excl("a"), excl("a")).unwrap();
    sets.clear(backwards(), incl("a"), incl("b")).unwrap();
    assert!(sets.is_read_only());
    assert_eq!(sets.write_bytes(), 0);
    sets.clear(forwards(), incl("a"), incl("a")).unwrap();
    assert_eq!(told(&sets), ["1:=a..=a"]);
    assert!(!sets.is_read_only());
}

#[test]
fn cleared_ranges_that_overlap_or_touch_become_one() {
    let (mut sets, table) = (sets(), forwards());
    sets.clear(table, excl("e"), excl("g")).unwrap();
    sets.clear(table, incl("a"), excl("c")).unwrap();
    assert_eq!(told(&sets), ["1:=a..c", "1:e..g"]);
    sets.clear(table, excl("c"), excl("e")).unwrap();
    assert_eq!(told(&sets), ["1:=a..c", "1:c..e", "1:e..g"]);
    assert_eq!(sets.own(table, b"c"), Own::Untouched);
    assert_eq!(sets.own(table, b"e"), Own::Untouched);
    sets.clear(table, incl("c"), incl("c")).unwrap();
    assert_eq!(told(&sets), ["1:=a..e", "1:e..g"]);
    sets.clear(table, incl("b"), incl("d")).unwrap();
    assert_eq!(told(&sets), ["1:=a..e", "1:e..g"]);
    sets.clear(table, incl("e"), Bound::Unbounded).unwrap();
    assert_eq!(told(&sets), ["1:=a.."]);
    assert_eq!(sets.write_bytes(), ENTRY_OVERHEAD + 1);
}

#[test]
fn bytes_are_those_of_what_would_be_applied() {
    let (mut sets, table) = (sets(), forwards());
    sets.put(table, boxed("key"), boxed("value")).unwrap();
    assert_eq!(sets.write_bytes(), ENTRY_OVERHEAD + 8);
    sets.put(table, boxed("key"), boxed("v")).unwrap();
    assert_eq!(sets.write_bytes(), ENTRY_OVERHEAD + 4);
    sets.delete(table, boxed("key")).unwrap();
    assert_eq!(sets.write_bytes(), ENTRY_OVERHEAD + 3);
    sets.clear(table, incl("k"), Bound::Unbounded).unwrap();
    assert_eq!(sets.write_bytes(), ENTRY_OVERHEAD + 1);
    assert_eq!(sets.kept_bytes(), 0);
}

#[test]
fn what_is_refused_changes_nothing() {
    let table = forwards();
    let limit = 2 * ENTRY_OVERHEAD + 4;
    let full = TooMuch {
        which: WhichSet::WriteSet,
        limit,
    };
    let mut sets = limited(1, limit);
    sets.put(table, boxed("a"), boxed("1")).unwrap();
    sets.put(table, boxed("b"), boxed("2")).unwrap();
    let before = told(&sets);
    assert_eq!(sets.put(table, boxed("b"), boxed("22")), Err(full));
    assert_eq!(sets.put(table, boxed("c"), boxed("")), Err(full));
    assert_eq!(sets.delete(table, boxed("c")), Err(full));
    assert_eq!(sets.clear(table, incl("x"), incl("y")), Err(full));
    assert_eq!(told(&sets), before);
    assert_eq!(sets.write_bytes(), limit);

    // What makes it smaller is welcome.
    sets.put(table, boxed("b"), boxed("")).unwrap();
    sets.delete(table, boxed("a")).unwrap();
    sets.clear(table, incl("a"), incl("c")).unwrap();
    assert_eq!(told(&sets), ["1:=a..=c"]);
}

#[test]
fn what_a_savepoint_keeps_counts_against_the_limit() {
    let table = forwards();
    let mut sets = limited(1, 3 * ENTRY_OVERHEAD);
    let big = "x".repeat(ENTRY_OVERHEAD);
    sets.put(table, boxed("a"), boxed(&big)).unwrap();
    let mark = sets.savepoint();
    assert!(sets.put(table, boxed("a"), boxed(&big)).is_err());
    assert!(sets.clear(table, incl("a"), incl("a")).is_err());
    assert!(sets.delete(table, boxed("a")).is_err());
    assert_eq!(sets.own(table, b"a"), Own::Put(big.as_bytes()));
    assert_eq!(sets.kept_bytes(), 0);
    sets.release(mark).unwrap();
    sets.delete(table, boxed("a")).unwrap();
}

#[test]
fn text_of_a_refusal_names_set_limit_and_unit() {
    let refusal = |which| TooMuch { which, limit: 5 }.to_string();
    let reads = "the read set would outgrow its limit of 5 entries";
    let writes = "the write set would outgrow its limit of 5 bytes";
    assert_eq!(refusal(WhichSet::ReadSet), reads);
    assert_eq!(refusal(WhichSet::WriteSet), writes);
}

#[test]
fn rolling_back_undoes_writes_and_the_mark_stays_usable() {
    let (mut sets, table) = (sets(), forwards());
    sets.put(table, boxed("a"), boxed("1")).unwrap();
    sets.clear(table, incl("x"), incl("z")).unwrap();
    sets.put(table, boxed("y"), boxed("1")).unwrap();
    let (before, bytes) = (told(&sets), sets.write_bytes());
    let mark = sets.savepoint();
    for _ in 0..2 {
        sets.put(table, boxed("a"), boxed("2")).unwrap();
        sets.put(table, boxed("b"), boxed("2")).unwrap();
        sets.clear(table, incl("a"), incl("y")).unwrap();
        sets.put(table, boxed("a"), boxed("3")).unwrap();
        sets.delete(table, boxed("y")).unwrap();
        assert_eq!(told(&sets), ["1:=a..=z", "1:a=3", "1:y-"]);
        assert!(sets.kept_bytes() > 0);
        sets.rollback_to(mark).unwrap();
        assert_eq!(told(&sets), before);
        assert_eq!((sets.write_bytes(), sets.kept_bytes()), (bytes, 0));
    }
}

#[test]
fn rolling_back_and_releasing_end_the_later_marks() {
    let (mut sets, table) = (sets(), forwards());
    let outer = sets.savepoint();
    sets.put(table, boxed("a"), boxed("1")).unwrap();
    let inner = sets.savepoint();
    sets.put(table, boxed("a"), boxed("2")).unwrap();
    sets.rollback_to(outer).unwrap();
    assert_eq!(sets.rollback_to(inner), Err(Gone));
    assert_eq!(sets.release(inner), Err(Gone));
    assert!(sets.is_read_only());

    let again = sets.savepoint();
    assert_ne!(again, inner);
    sets.release(outer).unwrap();
    assert_eq!(sets.rollback_to(again), Err(Gone));
    assert_eq!(sets.release(outer), Err(Gone));
}

#[test]
fn what_a_released_mark_covered_belongs_to_the_one_before() {
    let (mut sets, table) = (sets(), forwards());
    sets.put(table, boxed("a"), boxed("0")).unwrap();
    let parent = sets.savepoint();
    sets.put(table, boxed("a"), boxed("1")).unwrap();
    let child = sets.savepoint();
    sets.put(table, boxed("a"), boxed("2")).unwrap();
    sets.put(table, boxed("b"), boxed("2")).unwrap();
    sets.clear(table, incl("a"), incl("a")).unwrap();
    sets.release(child).unwrap();
    assert_eq!(told(&sets), ["1:=a..=a", "1:b=2"]);
    sets.rollback_to(parent).unwrap();
    assert_eq!(told(&sets), ["1:a=0"]);
    assert_eq!(sets.kept_bytes(), 0);
}

#[test]
fn children_that_come_and_go_keep_one_old_value_for_each_key() {
    let (mut sets, table) = (sets(), forwards());
    sets.put(table, boxed("a"), boxed("0")).unwrap();
    let parent = sets.savepoint();
    let mut kept = None;
    for n in 0..100 {
        let child = sets.savepoint();
        sets.put(table, boxed("a"), boxed(&format!("{n:04}")))
            .unwrap();
        sets.put(table, boxed("a"), boxed(&format!("{n:05}")))
            .unwrap();
        sets.release(child).unwrap();
        assert_eq!(*kept.get_or_insert(sets.kept_bytes()), sets.kept_bytes());
    }
    assert_eq!(kept, Some(ENTRY_OVERHEAD + 2));
    sets.rollback_to(parent).unwrap();
    assert_eq!(told(&sets), ["1:a=0"]);
    sets.release(parent).unwrap();
    assert_eq!(sets.kept_bytes(), 0);
}

#[test]
fn a_key_keeps_its_first_bytes_where_others_are_equal() {
    let (mut sets, table) = (sets(), caseless());
    sets.put(table, boxed("a"), boxed("1")).unwrap();
    let mark = sets.savepoint();
    sets.put(table, boxed("A"), boxed("2")).unwrap();
    assert_eq!(told(&sets), ["3:a=2"]);
    sets.clear(table, incl("A"), incl("A")).unwrap();
    sets.put(table, boxed("A"), boxed("3")).unwrap();
    assert_eq!(told(&sets), ["3:=A..=A", "3:A=3"]);
    sets.rollback_to(mark).unwrap();
    assert_eq!(told(&sets), ["3:a=1"]);
}

#[test]
fn sets_can_be_sent_to_the_writer() {
    fn goes<T: Send + Sync + 'static>() {}
    goes::<Sets>();
}
