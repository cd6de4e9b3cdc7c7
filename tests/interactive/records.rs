//! Each operation, and what it sees: what is committed and what the transaction has written itself.

use std::borrow::Cow;

use lockkeeper::heed::types::Str;
use lockkeeper::heed::{BoxedError, BytesDecode, BytesEncode};
use lockkeeper::{DbError, ErrorClass, Isolation, TxnError};

use crate::door::{Gate, all, on_each_level, through_each};

#[test]
fn each_operation_sees_what_is_committed() {
    on_each_level(|door, how, world| async move {
        world.fill((0..10).map(|n| (n, n * 10))).await;
        let numbers = world.numbers;
        let ran = door.run(&world.keeper, how, move |txn| async move {
            assert_eq!(txn.get(numbers, &3).await?.unwrap().decode()?, 30);
            assert_eq!(txn.get_as(numbers, &3).await?, Some(30));
            assert_eq!(txn.get_as(numbers, &77).await?, None);
            assert_eq!(
                txn.get_for_update(numbers, &4).await?.unwrap().decode()?,
                40
            );
            assert_eq!(txn.get_for_update_as(numbers, &78).await?, None);
            assert!(!txn.put_if_absent(numbers, &5, &1).await?);
            assert!(!txn.delete(numbers, &79).await?);
            assert_eq!(txn.count(numbers, &..).await?, 10);
            assert_eq!(txn.count(numbers, &(2..5)).await?, 3);
            let found = all(txn.scan(numbers, &(2..5))).await?;
            assert_eq!(found, [(2, 20), (3, 30), (4, 40)]);
            let found = all(txn.scan(numbers, &(7..)).rev()).await?;
            assert_eq!(found, [(9, 90), (8, 80), (7, 70)]);
            let twice = all(txn.scan(numbers, &(..=1)).rev().rev()).await?;
            assert_eq!(twice, [(0, 0), (1, 10)]);
            Ok(txn.attempt())
        });
        assert_eq!(ran.await.unwrap(), 1);
        assert_eq!(world.committed().await.len(), 10);
    });
}

#[test]
fn each_operation_sees_what_the_transaction_has_written() {
    on_each_level(|door, how, world| async move {
        world.fill((0..6).map(|n| (n, n * 10))).await;
        let numbers = world.numbers;
        let ran = door.run(&world.keeper, how, move |txn| async move {
            txn.put(numbers, &1, &11).await?;
            txn.put(numbers, &9, &99).await?;
            assert!(txn.delete(numbers, &2).await?);
            assert!(!txn.delete(numbers, &2).await?, "it is gone already");
            assert_eq!(txn.get_as(numbers, &1).await?, Some(11));
            assert_eq!(txn.get_for_update_as(numbers, &1).await?, Some(11));
            assert_eq!(txn.get_as(numbers, &2).await?, None);
            assert_eq!(txn.get_for_update_as(numbers, &2).await?, None);
            assert!(!txn.put_if_absent(numbers, &9, &1).await?);
            assert!(txn.put_if_absent(numbers, &2, &22).await?);
            assert!(txn.delete(numbers, &2).await?, "its own");
            let seen = [(0, 0), (1, 11), (3, 30), (4, 40), (5, 50), (9, 99)];
            assert_eq!(all(txn.scan(numbers, &..)).await?, seen);
            let mut turned = all(txn.scan(numbers, &..).rev()).await?;
            turned.reverse();
            assert_eq!(turned, seen);
            assert_eq!(txn.count(numbers, &..).await?, 6);

            // A put into a cleared range lies on top of it.
            txn.clear_range(numbers, &(1..5)).await?;
            assert_eq!(txn.get_as(numbers, &3).await?, None);
            txn.put(numbers, &3, &33).await?;
            assert!(txn.put_if_absent(numbers, &4, &44).await?);
            assert!(!txn.delete(numbers, &1).await?);
            let seen = [(0, 0), (3, 33), (4, 44), (5, 50), (9, 99)];
            assert_eq!(all(txn.scan(numbers, &..)).await?, seen);
            assert_eq!(txn.count(numbers, &(1..=4)).await?, 2);
            // And a range that is cleared takes own writes with it.
            txn.clear_range(numbers, &(4..)).await?;
            assert_eq!(all(txn.scan(numbers, &..)).await?, [(0, 0), (3, 33)]);
            Ok(())
        });
        ran.await.unwrap();
        assert_eq!(world.committed().await, [(0, 0), (3, 33)]);
    });
}

#[test]
fn nothing_is_seen_by_others_before_the_commit() {
    on_each_level(|door, how, world| async move {
        world.fill([(1, 10), (2, 20)]).await;
        let (gate, numbers) = (Gate::new(), world.numbers);
        let inside = gate.clone();
        let running = door.spawn(&world.keeper, how, move |txn| {
            let inside = inside.clone();
            async move {
                txn.put(numbers, &1, &11).await?;
                txn.delete(numbers, &2).await?;
                txn.put(numbers, &3, &33).await?;
                txn.clear_range(numbers, &(7..9)).await?;
                inside.pass().await;
                Ok(())
            }
        });
        gate.reached().await;
        assert_eq!(world.committed().await, [(1, 10), (2, 20)]);
        // Who reads without locks sees the old state too.
        let reads = crate::door::How::level(Isolation::ReadCommitted);
        let seen = door.run(&world.keeper, reads, move |txn| async move {
            Ok(all(txn.scan(numbers, &..)).await?)
        });
        assert_eq!(seen.await.unwrap(), [(1, 10), (2, 20)]);
        gate.open();
        running.await.unwrap().unwrap();
        assert_eq!(world.committed().await, [(1, 11), (3, 33)]);
    });
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
fn ranges_without_keys_are_empty_and_no_error() {
    on_each_level(|door, how, world| async move {
        world.fill((0..9).map(|n| (n, n))).await;
        let numbers = world.numbers;
        let ran = door.run(&world.keeper, how, move |txn| async move {
            use std::ops::Bound::Excluded;
            for (from, to) in [(5, 5), (6, 2), (9, 9), (u64::MAX, 0)] {
                assert_eq!(all(txn.scan(numbers, &(from..to))).await?, []);
                assert_eq!(all(txn.scan(numbers, &(from..to)).rev()).await?, []);
                assert_eq!(txn.count(numbers, &(from..to)).await?, 0);
                txn.clear_range(numbers, &(from..to)).await?;
            }
            let between = (Excluded(4), Excluded(5));
            assert_eq!(all(txn.scan(numbers, &between)).await?, []);
            txn.clear_range(numbers, &between).await?;
            assert_eq!(txn.count(numbers, &(6..=2)).await?, 0);
            assert_eq!(txn.count(numbers, &..).await?, 9);
            Ok(())
        });
        ran.await.unwrap();
        assert_eq!(world.committed().await.len(), 9);
    });
}

#[test]
fn keys_that_lmdb_does_not_take_are_named_and_the_transaction_goes_on() {
    through_each(|door, world| async move {
        let words = world.words;
        let ran = door.run(&world.keeper, Default::default(), move |txn| async move {
            let long = "x".repeat(512);
            for key in ["", &long] {
                let refused = [
                    txn.get(words, key).await.map(drop),
                    txn.get_for_update(words, key).await.map(drop),
                    txn.put(words, key, "v").await,
                    txn.put_if_absent(words, key, "v").await.map(drop),
                    txn.delete(words, key).await.map(drop),
                ];
                for refused in refused {
                    let error = refused.unwrap_err();
                    assert_eq!(error.class(), ErrorClass::Usage);
                    assert!(
                        matches!(error.error(), TxnError::Database(DbError::KeySize { len, max: 511 }) if *len == key.len()),
                        "{error:?}"
                    );
                }
            }
            // As ends of ranges they are as good as any.
            use std::ops::Bound::{Excluded, Included};
            txn.put(words, "x", "1").await?;
            txn.put(words, "y", "2").await?;
            let ends = (Included(""), Excluded(long.as_str()));
            assert_eq!(txn.count(words, &ends).await?, 1);
            let scanned = crate::door::words(txn.scan(words, &ends).rev()).await?;
            assert_eq!(scanned, [("x".to_owned(), "1".to_owned())]);
            assert_eq!(crate::door::words(txn.scan_prefix(words, "")).await?.len(), 2);
            assert_eq!(crate::door::words(txn.scan_prefix(words, &long)).await?.len(), 0);
            txn.clear_range(words, &ends).await?;
            txn.put(words, &long[..511], "3").await?;
            assert_eq!(txn.count(words, &..).await?, 2);
            Ok(())
        });
        ran.await.unwrap();
    });
}

#[test]
fn prefixes_are_scanned_in_both_directions() {
    use lockkeeper::heed::types::{Bytes, Unit};
    on_each_level(|door, how, world| async move {
        let words = world.words;
        let bytes = world.keeper.records::<Bytes, Unit>("bytes").await.unwrap();
        let fill = door.run(&world.keeper, how, move |txn| async move {
            for key in ["a", "ab", "abc", "abd", "ac", "b"] {
                txn.put(words, key, key).await?;
            }
            for key in [
                &[1, 255][..],
                &[1, 255, 255],
                &[1, 255, 255, 7],
                &[2],
                &[255],
                &[255, 255, 1],
            ] {
                txn.put(bytes, key, &()).await?;
            }
            Ok(())
        });
        fill.await.unwrap();
        let ran = door.run(&world.keeper, how, move |txn| async move {
            txn.put(words, "abb", "own").await?;
            txn.delete(words, "abc").await?;
            let keys = |found: Vec<(String, String)>| -> Vec<String> {
                found.into_iter().map(|(key, _)| key).collect()
            };
            let there = keys(crate::door::words(txn.scan_prefix(words, "ab")).await?);
            assert_eq!(there, ["ab", "abb", "abd"]);
            let back = keys(crate::door::words(txn.scan_prefix(words, "ab").rev()).await?);
            assert_eq!(back, ["abd", "abb", "ab"]);
            let mut count = 0;
            let mut scan = txn.scan_prefix(bytes, &[1, 255, 255][..]);
            while scan.next().await?.is_some() {
                count += 1;
            }
            assert_eq!(count, 2, "a prefix that ends in the largest byte");
            let mut scan = txn.scan_prefix(bytes, &[255][..]).rev();
            assert_eq!(scan.next().await?.unwrap().0.bytes(), [255, 255, 1]);
            assert_eq!(scan.next().await?.unwrap().0.bytes(), [255]);
            assert!(scan.next().await?.is_none());
            assert!(scan.next().await?.is_none());
            Ok(())
        });
        ran.await.unwrap();
    });
}

/// Bytes that are read only if they are text.
enum Fussy {}

impl<'a> BytesEncode<'a> for Fussy {
    type EItem = [u8];

    fn bytes_encode(item: &'a [u8]) -> Result<Cow<'a, [u8]>, BoxedError> {
        match item {
            [] => Err("nothing to store".into()),
            item => Ok(Cow::Borrowed(item)),
        }
    }
}

impl BytesDecode<'_> for Fussy {
    type DItem = String;

    fn bytes_decode(bytes: &[u8]) -> Result<String, BoxedError> {
        Ok(String::from_utf8(bytes.to_vec())?)
    }
}

#[test]
fn a_value_that_cannot_be_read_or_stored_is_an_error_and_the_transaction_goes_on() {
    through_each(|door, world| async move {
        let fussy = world.keeper.records::<Str, Fussy>("fussy").await.unwrap();
        let ran = door.run(&world.keeper, Default::default(), move |txn| async move {
            for _ in 0..2 {
                txn.put(fussy, "bad", &[0xff, 0xfe]).await?;
                let fetched = txn.get(fussy, "bad").await?.unwrap();
                assert!(matches!(fetched.decode(), Err(DbError::Heed(_))));
                assert_eq!(fetched.bytes(), [0xff, 0xfe]);
                assert_eq!(&*fetched.clone().into_bytes(), [0xff, 0xfe]);
                let error = txn.get_as(fussy, "bad").await.unwrap_err();
                assert!(matches!(
                    error.error(),
                    TxnError::Database(DbError::Heed(_))
                ));
                let error = txn.get_for_update_as(fussy, "bad").await.unwrap_err();
                assert_eq!(error.class(), ErrorClass::Storage);
                assert!(!error.is_retryable());
                let error = txn.put(fussy, "x", &[]).await.unwrap_err();
                assert!(matches!(
                    error.error(),
                    TxnError::Database(DbError::Heed(_))
                ));
                let error = txn.put_if_absent(fussy, "x", &[]).await.unwrap_err();
                assert!(!error.is_retryable());
            }
            txn.put(fussy, "good", b"x").await?;
            assert_eq!(txn.get_as(fussy, "good").await?.as_deref(), Some("x"));
            Ok(())
        });
        ran.await.unwrap();
        assert_eq!(world.stats().await.retries, 0);
    });
}
