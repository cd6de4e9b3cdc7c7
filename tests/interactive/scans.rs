//! Scans: in portions, with own writes ahead of them and behind, and as streams.

use futures_util::TryStreamExt;
use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Bytes, U64};
use lockkeeper::heed::{Comparator, DatabaseFlags};
use lockkeeper::{Isolation, TxnError};

use crate::door::{How, all, on_each_level, rest, through_each};

#[test]
fn what_is_written_ahead_of_a_running_scan_is_seen_and_what_is_behind_is_not() {
    on_each_level(|door, how, world| async move {
        // All of them in one portion, and some in later ones.
        for count in [10, 400] {
            world.fill((0..count).map(|n| (n * 10, n))).await;
            let (numbers, last) = (world.numbers, (count - 1) * 10);
            let ran = door.run(&world.keeper, how, move |txn| async move {
                let mut scan = txn.scan(numbers, &..);
                for n in 0..3 {
                    assert_eq!(scan.next().await?.unwrap().0.decode()?, n * 10);
                }
                txn.put(numbers, &5, &1).await?; // behind
                txn.delete(numbers, &10).await?; // behind
                txn.put(numbers, &20, &1).await?; // where it stands
                txn.delete(numbers, &30).await?; // next
                txn.put(numbers, &35, &7).await?;
                txn.put(numbers, &40, &8).await?;
                txn.delete(numbers, &last).await?;
                txn.put(numbers, &(last + 1), &9).await?;
                let found = rest(&mut scan).await?;
                assert_eq!(found[..3], [(35, 7), (40, 8), (50, 5)]);
                assert_eq!(found[found.len() - 1], (last + 1, 9));
                assert_eq!(found[found.len() - 2], (last - 10, count - 2));
                assert_eq!(found.len() as u64, count - 3);
                assert!(scan.next().await?.is_none());

                let mut back = txn.scan(numbers, &..).rev();
                assert_eq!(back.next().await?.unwrap().0.decode()?, last + 1);
                assert_eq!(back.next().await?.unwrap().0.decode()?, last - 10);
                txn.put(numbers, &(last - 5), &1).await?; // behind
                txn.put(numbers, &(last - 15), &6).await?; // next
                txn.clear_range(numbers, &(0..=20)).await?;
                txn.put(numbers, &15, &5).await?;
                let found = rest(&mut back).await?;
                assert_eq!(found[0], (last - 15, 6));
                assert_eq!(found[found.len() - 1], (15, 5));
                Err::<(), _>(TxnError::ShuttingDown)
            });
            assert!(matches!(ran.await, Err(TxnError::ShuttingDown)));
        }
    });
}

#[test]
fn a_running_scan_sees_what_is_rolled_back() {
    on_each_level(|door, how, world| async move {
        world.fill((0..10).map(|n| (n, n))).await;
        let numbers = world.numbers;
        let ran = door.run(&world.keeper, how, move |txn| async move {
            let before = txn.savepoint()?;
            txn.put(numbers, &5, &50).await?;
            txn.delete(numbers, &6).await?;
            txn.put(numbers, &70, &70).await?;
            let mut scan = txn.scan(numbers, &(4..));
            assert_eq!(scan.next().await?.unwrap().0.decode()?, 4);
            txn.rollback_to(&before)?;
            let found = rest(&mut scan).await?;
            assert_eq!(found, [(5, 5), (6, 6), (7, 7), (8, 8), (9, 9)]);
            Ok(())
        });
        ran.await.unwrap();
        assert_eq!(world.committed().await.len(), 10);
    });
}

#[test]
fn thousands_of_records_come_in_order_with_own_writes_between_them() {
    on_each_level(|door, how, world| async move {
        world.fill((0..5000).map(|n| (n * 2, n))).await;
        let numbers = world.numbers;
        // Read locks on each record met would be more than the default.
        let how = match how.isolation {
            Isolation::RepeatableRead => How { ..how },
            _ => how,
        };
        let ran = door.run(&world.keeper, how, move |txn| async move {
            for n in 0..500 {
                txn.put(numbers, &(n * 20 + 1), &n).await?;
                txn.delete(numbers, &(n * 20 + 4)).await?;
            }
            let found = all(txn.scan(numbers, &..)).await?;
            assert_eq!(found.len(), 5000);
            assert!(found.is_sorted_by(|a, b| a.0 < b.0));
            let mut back = all(txn.scan(numbers, &..).rev()).await?;
            back.reverse();
            assert_eq!(found, back);
            assert_eq!(txn.count(numbers, &..).await?, 5000);
            // The same as a stream.
            let stream: Vec<_> = txn.scan(numbers, &..).try_collect().await?;
            assert_eq!(stream.len(), 5000);
            let keys = stream.iter().map(|(key, _)| key.decode().unwrap());
            assert!(keys.eq(found.iter().map(|entry| entry.0)));
            txn.clear_range(numbers, &(100..)).await?;
            assert_eq!(txn.count(numbers, &..).await?, 50);
            Ok(())
        });
        ran.await.unwrap();
        assert_eq!(world.committed().await.len(), 50);
    });
}

#[test]
fn large_values_come_in_small_portions() {
    through_each(|door, world| async move {
        let large = world
            .keeper
            .records::<U64<BigEndian>, Bytes>("large")
            .await
            .unwrap();
        let fill = world.keeper.update(move |txn| {
            for n in 0..64 {
                large.put(txn, &n, &vec![n as u8; 300 << 10])?;
            }
            Ok(())
        });
        fill.await.unwrap();
        let ran = door.run(&world.keeper, How::default(), move |txn| async move {
            txn.put(large, &7, &[1][..]).await?;
            let mut scan = txn.scan(large, &..).rev();
            let mut next = 64;
            while let Some((key, value)) = scan.next().await? {
                next -= 1;
                assert_eq!(key.decode()?, next);
                assert_eq!(value.bytes().len(), if next == 7 { 1 } else { 300 << 10 });
            }
            assert_eq!(next, 0);
            Ok(())
        });
        ran.await.unwrap();
    });
}

/// The larger first.
enum Down {}

impl Comparator for Down {
    fn compare(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
        b.cmp(a)
    }
}

#[test]
#[expect(
    clippy::reversed_empty_ranges,
    reason = "the order is the other way round"
)]
fn a_database_with_an_order_of_its_own_is_scanned_in_that_order_and_locked_as_a_whole() {
    on_each_level(|door, how, world| async move {
        let opened = world
            .keeper
            .database_with::<U64<BigEndian>, U64<BigEndian>, Down>("down", DatabaseFlags::empty());
        let down = world.keeper.records_of(opened.await.unwrap()).unwrap();
        let keeper = world.keeper.clone();
        let ran = door.run(&world.keeper, how, move |txn| {
            let keeper = keeper.clone();
            async move {
                for n in 0..40 {
                    txn.put(down, &(n * 2), &n).await?;
                }
                let found = all(txn.scan(down, &(20..10))).await?;
                assert_eq!(found, [(20, 10), (18, 9), (16, 8), (14, 7), (12, 6)]);
                let found = all(txn.scan(down, &(20..=16)).rev()).await?;
                assert_eq!(found, [(16, 8), (18, 9), (20, 10)]);
                assert_eq!(all(txn.scan(down, &(10..20))).await?, []);
                txn.clear_range(down, &(70..=4)).await?;
                assert_eq!(all(txn.scan(down, &..)).await?.len(), 6);
                let held = keeper.locks().snapshot().held;
                let whole = held.iter().filter(|lock| lock.object.is_range()).count();
                assert_eq!(whole > 0, txn.isolation() != Isolation::Optimistic);
                Ok(())
            }
        });
        ran.await.unwrap();
        let left = world.keeper.view(move |txn| {
            let keys = down.iter(txn)?.map(|entry| entry.map(|(key, _)| key));
            Ok(keys.collect::<Result<Vec<_>, _>>()?)
        });
        assert_eq!(left.await.unwrap(), [78, 76, 74, 72, 2, 0]);
    });
}

#[test]
fn a_scan_holds_no_snapshot_between_its_portions() {
    through_each(|door, world| async move {
        world.fill((0..1000).map(|n| (n, n))).await;
        let (numbers, outside) = (world.numbers, world.clone());
        let how = How::level(Isolation::ReadCommitted);
        let ran = door.run(&world.keeper, how, move |txn| {
            let outside = outside.clone();
            async move {
                let mut scan = txn.scan(numbers, &..);
                scan.next().await?;
                let stats = outside.keeper.stats().await;
                assert!(stats.environment.views.is_empty());
                // The map can change while the scan is open.
                let grow = lockkeeper::SetMapSize(128 << 20);
                outside.keeper.send(grow).await.unwrap();
                assert_eq!(rest(&mut scan).await?.len(), 999);
                Ok(())
            }
        });
        ran.await.unwrap();
    });
}
