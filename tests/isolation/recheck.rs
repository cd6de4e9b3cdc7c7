//! What the re-check at the commit compares: values and ranges that were read, and nothing that was only written.

use std::cmp::Ordering;
use std::sync::atomic::{self, AtomicU64};

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Str, U64};
use lockkeeper::heed::{Comparator, DatabaseFlags};
use lockkeeper::{Begun, Isolation, Records, TxnError};

use super::matrix::MATRIX;
use super::script::SCANNED;
use super::{Shop, is_lost};

/// What a transaction does before and after an outside write, to see whether that is a conflict.
#[derive(Clone, Copy, Debug)]
enum Reads {
    Get,
    GetForUpdate,
    Absent,
    Scan,
    /// A scan that is given up after its first record.
    ScanPart,
    Count,
    /// Only written.
    Put,
    PutIfAbsent,
    Clear,
}

/// What is written in between, by a plain update.
#[derive(Clone, Copy, Debug)]
enum Outside {
    /// Another value under the key that was read.
    Change,
    /// Another value, and then the old one.
    ThereAndBack,
    /// A new key within the range that was read.
    Insert,
    /// Another value within the range that was read, behind its first key.
    ChangeLater,
    /// What was read as absent.
    Appear,
    /// A key that has nothing to do with it.
    Elsewhere,
}

impl Shop {
    async fn read(&self, txn: &Begun, reads: Reads) {
        let stock = self.stock;
        match reads {
            Reads::Get => {
                let read = txn.get_as(stock, "k1").await.unwrap();
                assert_eq!(read, Some(1));
            }
            Reads::GetForUpdate => {
                let read = txn.get_for_update_as(stock, "k1").await.unwrap();
                assert_eq!(read, Some(1));
            }
            Reads::Absent => assert!(txn.get(stock, "k0").await.unwrap().is_none()),
            Reads::Scan | Reads::ScanPart => {
                let mut scan = txn.scan(stock, &SCANNED);
                while let Some((key, _)) = scan.next().await.unwrap() {
                    assert!(key.decode().unwrap().starts_with('k'));
                    if matches!(reads, Reads::ScanPart) {
                        break;
                    }
                }
            }
            Reads::Count => assert_eq!(txn.count(stock, &SCANNED).await.unwrap(), 2),
            Reads::Put => txn.put(stock, "k1", &50).await.unwrap(),
            Reads::PutIfAbsent => assert!(txn.put_if_absent(stock, "k0", &50).await.unwrap()),
            Reads::Clear => txn.clear_range(stock, &SCANNED).await.unwrap(),
        }
    }

    async fn outside(&self, outside: Outside) {
        match outside {
            Outside::Change => self.write("k1", 7).await,
            Outside::ThereAndBack => {
                self.write("k1", 7).await;
                self.write("k1", 1).await;
            }
            Outside::Insert => self.write("k5", 7).await,
            Outside::ChangeLater => self.write("k9", 7).await,
            Outside::Appear => self.write("k0", 7).await,
            Outside::Elsewhere => self.write("other", 7).await,
        }
    }

    /// Whether a transaction is lost that reads, and after an outside write commits, with a write of its own or without.
    async fn is_lost(
        &self,
        isolation: Isolation,
        reads: Reads,
        outside: Outside,
        writes: bool,
    ) -> bool {
        let stock = self.stock;
        let reset = self.keeper.update(move |txn| {
            stock.clear(txn)?;
            for (key, value) in [("k1", 1), ("k9", 9)] {
                stock.put(txn, key, &value)?;
            }
            Ok(())
        });
        reset.await.unwrap();
        let txn = self.begin(isolation).await;
        self.read(&txn, reads).await;
        self.outside(outside).await;
        if writes {
            txn.put(stock, "z", &1).await.unwrap();
        }
        let outcome = txn.commit().await;
        let lost = is_lost(&outcome);
        match isolation {
            _ if outcome.is_ok() => {}
            Isolation::Snapshot => {
                assert!(
                    matches!(outcome, Err(TxnError::WriteConflict { .. })),
                    "{outcome:?}"
                );
            }
            _ => assert!(
                matches!(outcome, Err(TxnError::ReadChanged { .. })),
                "{outcome:?}"
            ),
        }
        let applied = self.value("z").await.is_some();
        assert_eq!(applied, writes && !lost, "all of it or nothing");
        lost
    }
}

const SERIALIZABLE: Isolation = Isolation::Serializable;
const REPEATABLE: Isolation = Isolation::RepeatableRead;
const COMMITTED: Isolation = Isolation::ReadCommitted;
const SNAPSHOT: Isolation = Isolation::Snapshot;
const OPTIMISTIC: Isolation = Isolation::Optimistic;

/// Which of all levels lose against it, in a transaction that writes something else too.
async fn losers(shop: &Shop, reads: Reads, outside: Outside) -> Vec<Isolation> {
    let mut losers = Vec::new();
    for (isolation, _) in MATRIX {
        if shop.is_lost(isolation, reads, outside, true).await {
            losers.push(isolation);
        }
    }
    losers
}

#[tokio::test]
async fn a_value_that_was_read_and_changed_outside_is_a_conflict_where_the_level_compares_reads() {
    let shop = Shop::open();
    let lost = losers(&shop, Reads::Get, Outside::Change).await;
    assert_eq!(lost, [SERIALIZABLE, REPEATABLE, OPTIMISTIC]);
    let lost = losers(&shop, Reads::GetForUpdate, Outside::Change).await;
    assert_eq!(
        lost,
        Isolation::ALL,
        "what is read for update counts on each level"
    );
    let lost = losers(&shop, Reads::Get, Outside::Elsewhere).await;
    assert_eq!(lost, []);
}

#[tokio::test]
async fn a_value_changed_outside_and_changed_back_is_no_conflict_on_any_level() {
    let shop = Shop::open();
    for reads in [Reads::Get, Reads::GetForUpdate, Reads::Scan, Reads::Put] {
        let lost = losers(&shop, reads, Outside::ThereAndBack).await;
        assert_eq!(lost, [], "{reads:?}");
    }
}

#[tokio::test]
async fn a_record_that_appears_outside_in_a_scanned_range_is_a_conflict() {
    let shop = Shop::open();
    for reads in [Reads::Scan, Reads::Count] {
        let lost = losers(&shop, reads, Outside::Insert).await;
        assert_eq!(lost, [SERIALIZABLE, OPTIMISTIC], "{reads:?}");
    }
    // The records that were met are compared at repeatable read as well; a count does not look at values anywhere.
    let lost = losers(&shop, Reads::Scan, Outside::ChangeLater).await;
    assert_eq!(lost, [SERIALIZABLE, REPEATABLE, OPTIMISTIC]);
    let lost = losers(&shop, Reads::Count, Outside::ChangeLater).await;
    assert_eq!(lost, [REPEATABLE]);
    let lost = losers(&shop, Reads::Scan, Outside::Elsewhere).await;
    assert_eq!(lost, []);
}

#[tokio::test]
async fn a_scan_that_is_given_up_is_compared_as_far_as_it_has_read() {
    let shop = Shop::open();
    // Portions are larger than this range: what was fetched has been read.
    let lost = losers(&shop, Reads::ScanPart, Outside::Change).await;
    assert_eq!(lost, [SERIALIZABLE, REPEATABLE, OPTIMISTIC]);
    // A long one, of which only the beginning was fetched, does not mind what changes at its end.
    let stock = shop.stock;
    let fill = shop.keeper.update(move |txn| {
        for number in 0..1000 {
            stock.put(txn, &format!("m{number:04}"), &0)?;
        }
        Ok(())
    });
    fill.await.unwrap();
    for isolation in [SERIALIZABLE, OPTIMISTIC] {
        let txn = shop.begin(isolation).await;
        let mut scan = txn.scan_prefix(stock, "m");
        assert!(scan.next().await.unwrap().is_some());
        shop.write("m0999", 1).await;
        txn.put(stock, "z", &1).await.unwrap();
        txn.commit().await.unwrap();

        let txn = shop.begin(isolation).await;
        let mut scan = txn.scan_prefix(stock, "m");
        assert!(scan.next().await.unwrap().is_some());
        let erase = shop
            .keeper
            .update(move |txn| Ok(stock.delete(txn, "m0000")?));
        assert!(erase.await.unwrap());
        txn.put(stock, "z", &1).await.unwrap();
        assert!(is_lost(&txn.commit().await));
        shop.write("m0000", 0).await;
    }
}

#[tokio::test]
async fn a_key_that_was_read_as_absent_and_appears_outside_is_a_conflict() {
    let shop = Shop::open();
    let lost = losers(&shop, Reads::Absent, Outside::Appear).await;
    assert_eq!(lost, [SERIALIZABLE, REPEATABLE, OPTIMISTIC]);
    let lost = losers(&shop, Reads::PutIfAbsent, Outside::Appear).await;
    assert_eq!(lost, Isolation::ALL, "it must not be written over");
}

#[tokio::test]
async fn a_key_that_is_only_written_is_no_conflict_but_in_a_snapshot() {
    let shop = Shop::open();
    let lost = losers(&shop, Reads::Put, Outside::Change).await;
    assert_eq!(lost, [SNAPSHOT], "the first to commit wins");
    let lost = losers(&shop, Reads::Clear, Outside::Insert).await;
    assert_eq!(lost, [SNAPSHOT]);
}

#[tokio::test]
async fn who_only_read_is_as_of_one_moment_and_no_conflict_even_if_that_has_passed() {
    let shop = Shop::open();
    for (isolation, _) in MATRIX {
        let lost = shop.is_lost(isolation, Reads::Get, Outside::Change, false);
        assert!(!lost.await, "{isolation}");
        let lost = shop.is_lost(isolation, Reads::Scan, Outside::Insert, false);
        // At repeatable read a record is read again under its lock: from the same state here.
        assert!(!lost.await, "{isolation}");
    }
}

#[tokio::test]
async fn who_only_read_from_two_states_that_do_not_agree_is_lost() {
    let shop = Shop::open();
    for (isolation, lost) in [
        (SERIALIZABLE, true),
        (REPEATABLE, true),
        (COMMITTED, false),
        (SNAPSHOT, false),
        (OPTIMISTIC, true),
    ] {
        shop.write("x", 0).await;
        shop.write("y", 0).await;
        let txn = shop.begin(isolation).await;
        txn.get(shop.stock, "x").await.unwrap();
        shop.write("x", 1).await;
        shop.write("y", 1).await;
        txn.get(shop.stock, "y").await.unwrap();
        assert_eq!(is_lost(&txn.commit().await), lost, "{isolation}");
    }
}

static COMPARED: AtomicU64 = AtomicU64::new(0);

/// The usual order, which counts how often keys are compared.
enum Counted {}

impl Comparator for Counted {
    fn compare(a: &[u8], b: &[u8]) -> Ordering {
        COMPARED.fetch_add(1, atomic::Ordering::Relaxed);
        a.cmp(b)
    }
}

#[tokio::test]
async fn without_an_outside_write_nothing_is_looked_at_again() {
    let shop = Shop::open();
    let opened = shop
        .keeper
        .database_with::<Str, U64<BigEndian>, Counted>("counted", DatabaseFlags::empty());
    let counted: Records<_, _, Counted> = shop.keeper.records_of(opened.await.unwrap()).unwrap();
    let fill = shop.keeper.update(move |txn| {
        for key in ["a", "b", "c"] {
            counted.put(txn, key, &1)?;
        }
        Ok(())
    });
    fill.await.unwrap();
    // The last commit is the keeper's own from now on.
    let warm = shop.begin(SERIALIZABLE).await;
    warm.put(shop.stock, "z", &0).await.unwrap();
    warm.commit().await.unwrap();

    for (isolation, outside, looks) in [
        (SERIALIZABLE, false, false),
        (REPEATABLE, false, false),
        (SERIALIZABLE, true, true),
        (REPEATABLE, true, true),
        // The outside write is no longer between a read and a commit.
        (SERIALIZABLE, false, false),
        // Nothing was locked: this one always looks.
        (OPTIMISTIC, false, true),
    ] {
        let txn = shop.begin(isolation).await;
        for key in ["a", "b"] {
            assert_eq!(txn.get_as(counted, key).await.unwrap(), Some(1));
        }
        assert_eq!(txn.count(counted, &..).await.unwrap(), 3);
        // Another transaction of the keeper's own, whom the locks keep away from what was read.
        let other = shop.begin(SERIALIZABLE).await;
        other.put(shop.stock, "other", &1).await.unwrap();
        other.commit().await.unwrap();
        if outside {
            shop.write("outside", 1).await;
        }
        txn.put(shop.stock, "z", &1).await.unwrap();
        let before = COMPARED.load(atomic::Ordering::Relaxed);
        txn.commit().await.unwrap();
        let compared = COMPARED.load(atomic::Ordering::Relaxed) - before;
        assert_eq!(compared > 0, looks, "{isolation} {outside}: {compared}");
        // What came of an outside write is the keeper's own again with the next commit.
        let settle = shop.begin(SERIALIZABLE).await;
        settle.put(shop.stock, "z", &2).await.unwrap();
        settle.commit().await.unwrap();
    }
}
