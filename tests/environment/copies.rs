//! Hot copies: backups while writes go on, and the way to shrink.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use lockkeeper::{CopyTo, EnvError};

use super::peer::entries;
use super::{LONG, MIB, builder, folder, hold_view, open, stats, store, value};

#[test]
fn a_copy_is_one_moment_of_an_environment_that_is_written_to() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    for key in 0..50 {
        keeper
            .blocking_update(store(blobs, 1000 + key, 10_000))
            .unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let committed = Arc::new(AtomicU64::new(0));
    let writer = {
        let (keeper, stop, committed) = (keeper.clone(), Arc::clone(&stop), Arc::clone(&committed));
        thread::spawn(move || {
            for n in 1_u64.. {
                // Two records that are always the same; and the map has to grow, now and then.
                keeper
                    .blocking_update(move |txn| {
                        blobs.put(txn, &1, &n.to_be_bytes())?;
                        blobs.put(txn, &(10_000 + n % 300), &value(n, 20_000))?;
                        Ok(blobs.put(txn, &u64::MAX, &n.to_be_bytes())?)
                    })
                    .unwrap();
                committed.store(n, Ordering::SeqCst);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        })
    };
    let copies = super::folder();
    for nth in 0..6 {
        let before = committed.load(Ordering::SeqCst);
        super::until("writes go on", || {
            committed.load(Ordering::SeqCst) > before + 3
        });
        let target = copies.path().join(format!("deep/copy {nth}"));
        let copy = CopyTo::new(&target);
        let copy = if nth % 2 == 0 { copy.compact() } else { copy };
        let begun = committed.load(Ordering::SeqCst);
        let size = keeper.blocking_send(copy).unwrap();
        let ended = committed.load(Ordering::SeqCst);
        assert_eq!(size, fs::metadata(target.join("data.mdb")).unwrap().len());
        let left: Vec<_> = fs::read_dir(&target).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");

        let found = entries(&target, "blobs");
        let number = |key: u64| u64::from_be_bytes(found[&key][..].try_into().unwrap());
        assert_eq!(number(1), number(u64::MAX));
        // What was committed before is in it; what was begun after its end is not.
        assert!(
            (begun..=ended + 1).contains(&number(1)),
            "{begun} {} {ended}",
            number(1)
        );
        assert!((1000..1050).all(|key| found[&key] == value(key, 10_000)));
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();

    // A copy is an environment like any other.
    let (copy, blobs) = open(builder(&copies.path().join("deep/copy 0")));
    copy.blocking_update(store(blobs, 5, 10)).unwrap();
    copy.blocking_shutdown(LONG).unwrap();
}

#[test]
fn a_compacting_copy_leaves_out_what_is_free() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    for key in 0..100 {
        keeper.blocking_update(store(blobs, key, 50_000)).unwrap();
    }
    keeper
        .blocking_update(move |txn| Ok(blobs.delete_range(txn, &(10..))?))
        .unwrap();
    let copies = super::folder();
    let whole = CopyTo::new(copies.path().join("whole"));
    let whole = keeper.blocking_send(whole).unwrap();
    let dense = CopyTo::new(copies.path().join("dense")).compact();
    let dense = keeper.blocking_send(dense).unwrap();
    assert!(whole > 5_000_000 && dense < 1_000_000, "{whole} {dense}");
    for copy in ["whole", "dense"] {
        let found = entries(&copies.path().join(copy), "blobs");
        assert_eq!(found.len(), 10);
        assert!(
            found
                .iter()
                .all(|(&key, bytes)| *bytes == value(key, 50_000))
        );
    }
}

#[test]
fn nothing_is_overwritten() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    keeper.blocking_update(store(blobs, 1, 10)).unwrap();
    let copies = super::folder();
    let target = copies.path().join("copy");
    keeper.blocking_send(CopyTo::new(&target)).unwrap();
    let file = target.join("data.mdb");
    let before = fs::read(&file).unwrap();
    keeper.blocking_update(store(blobs, 2, 10)).unwrap();
    for copy in [CopyTo::new(&target), CopyTo::new(&target).compact()] {
        let refused = keeper.blocking_send(copy);
        assert!(
            matches!(&refused, Err(EnvError::Exists(path)) if *path == file),
            "{refused:?}"
        );
    }
    // Not the environment itself, either.
    let refused = keeper.blocking_send(CopyTo::new(folder.path()));
    assert!(matches!(refused, Err(EnvError::Exists(_))), "{refused:?}");
    assert_eq!(fs::read(&file).unwrap(), before);
    keeper.blocking_update(store(blobs, 3, 10)).unwrap();
}

#[test]
fn a_copy_that_cannot_be_made_is_an_error_and_leaves_nothing() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let copies = super::folder();
    let target = copies.path().join("a file");
    fs::write(&target, "text").unwrap();
    let refused = keeper.blocking_send(CopyTo::new(&target));
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(fs::read(&target).unwrap(), b"text");
    keeper.blocking_update(store(blobs, 1, 10)).unwrap();
    let target = copies.path().join("copy");
    keeper.blocking_send(CopyTo::new(&target)).unwrap();
    assert_eq!(entries(&target, "blobs").len(), 1);
}

/// The map cannot grow while it is copied: what is nearly full grows before.
#[test]
fn a_map_that_is_nearly_full_grows_before_a_copy() {
    let (folder, copy) = (folder(), folder());
    let (keeper, blobs) = open(builder(folder.path()).map_size(MIB).grow_ahead(75));
    // A view that is open keeps it from growing ahead of need.
    let view = hold_view(&keeper, |_| Ok(()));
    while stats(&keeper).used_bytes * 100 < MIB * 80 {
        let key = stats(&keeper).last_txn_id;
        keeper.blocking_update(store(blobs, key, 50_000)).unwrap();
    }
    assert_eq!(stats(&keeper).map_resizes, 0);
    view.release().unwrap();
    keeper
        .blocking_send(CopyTo::new(copy.path().join("backup")))
        .unwrap();
    assert_eq!(stats(&keeper).map_resizes, 1);
}
