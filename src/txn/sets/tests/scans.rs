//! Own writes on top of the entries of the database.

use super::*;

const BASE: [(&str, u8); 4] = [("b", 1), ("d", 2), ("f", 3), ("h", 4)];

/// Own writes: a put before, a replaced one, a deleted one, a put in a cleared range, one at the end.
fn busy(table: TableRef) -> Sets {
    let mut sets = sets();
    sets.put(table, boxed("a"), boxed("own")).unwrap();
    sets.put(table, boxed("d"), boxed("own")).unwrap();
    sets.delete(table, boxed("b")).unwrap();
    sets.clear(table, incl("f"), incl("f")).unwrap();
    sets.put(table, boxed("g"), boxed("own")).unwrap();
    sets.put(table, boxed("x"), boxed("own")).unwrap();
    sets
}

#[test]
fn puts_appear_deletes_and_clears_hide_and_values_replace() {
    let sets = busy(forwards());
    let seen = sets.overlay(whole(forwards(), false), BASE, true);
    assert_eq!(keys(&seen.entries), ["a*", "d*", "g*", "h", "x*"]);
    assert!(seen.rest.is_none());
    assert!(seen.entries.contains(&Visible::Base("h", 4)));
    assert!(seen.entries.contains(&Visible::Own(b"d", b"own")));

    let base = BASE.into_iter().rev();
    let seen = sets.overlay(whole(forwards(), true), base, true);
    assert_eq!(keys(&seen.entries), ["x*", "h", "g*", "d*", "a*"]);
}

#[test]
fn a_batch_shows_own_writes_as_far_as_it_reaches() {
    let sets = busy(forwards());
    let first = sets.overlay(whole(forwards(), false), BASE[..2].to_vec(), false);
    assert_eq!(keys(&first.entries), ["a*", "d*"]);
    let rest = first.rest.unwrap();
    assert_eq!((&rest.from, &rest.to), (&excl("d"), &Bound::Unbounded));
    let second = sets.overlay(rest, BASE[2..3].to_vec(), false);
    assert!(second.entries.is_empty(), "the whole batch is hidden");
    let rest = second.rest.unwrap();
    assert_eq!(rest.from, excl("f"));
    let third = sets.overlay(rest, BASE[3..].to_vec(), true);
    assert_eq!(keys(&third.entries), ["g*", "h", "x*"]);
    assert!(third.rest.is_none());
}

#[test]
fn a_backward_batch_goes_on_before_its_last_key() {
    let sets = busy(forwards());
    let seen = sets.overlay(whole(forwards(), true), [BASE[3], BASE[2]], false);
    assert_eq!(keys(&seen.entries), ["x*", "h", "g*"]);
    let rest = seen.rest.unwrap();
    assert_eq!((&rest.from, &rest.to), (&Bound::Unbounded, &excl("f")));
    assert!(rest.reverse);
    let seen = sets.overlay(rest, [BASE[1], BASE[0]], true);
    assert_eq!(keys(&seen.entries), ["d*", "a*"]);
}

#[test]
fn a_table_is_scanned_in_its_own_order() {
    let sets = busy(backwards());
    let base = BASE.into_iter().rev();
    let seen = sets.overlay(whole(backwards(), false), base, true);
    assert_eq!(keys(&seen.entries), ["x*", "h", "g*", "d*", "a*"]);
    let seen = sets.overlay(whole(backwards(), true), BASE, true);
    assert_eq!(keys(&seen.entries), ["a*", "d*", "g*", "h", "x*"]);
}

#[test]
fn own_writes_outside_the_range_or_of_another_table_are_not_seen() {
    let mut sets = busy(forwards());
    sets.put(backwards(), boxed("e"), boxed("own")).unwrap();
    let part = span(forwards(), excl("a"), excl("g"), false);
    let seen = sets.overlay(part, BASE[..3].to_vec(), true);
    assert_eq!(keys(&seen.entries), ["d*"]);
    let wrong_way = span(forwards(), incl("g"), incl("a"), false);
    let seen = sets.overlay(wrong_way, BASE[..0].to_vec(), true);
    assert!(seen.entries.is_empty());
}

#[test]
fn a_batch_that_reached_nothing_leaves_the_scan_where_it_was() {
    let sets = busy(forwards());
    let part = span(forwards(), incl("a"), excl("g"), false);
    let seen = sets.overlay(part, BASE[..0].to_vec(), false);
    assert!(seen.entries.is_empty());
    let rest = seen.rest.unwrap();
    assert_eq!((rest.from, rest.to), (incl("a"), excl("g")));
}

#[test]
fn keys_alone_are_enough_to_count() {
    let sets = busy(forwards());
    let base = BASE.map(|(key, _)| (key, ()));
    let seen = sets.overlay(whole(forwards(), false), base, true);
    assert_eq!(seen.entries.len(), 5);
}
