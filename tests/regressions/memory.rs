//! What happens when the address space ends: a body that swallows the error, and a map that cannot grow.

use std::fs;

use lockkeeper::heed::types::{Bytes, Str};
use lockkeeper::{Growth, Keeper, OnFatal, Recover, TxnError};

use crate::alone;
use crate::support::{Plug, SOON, Sent, stats, until};

const MIB: u64 = 1 << 20;

/// Lets the process have so many bytes more than it has now; `None` is as many as it likes.
#[expect(unsafe_code, reason = "the standard library sets no limits")]
fn limit_memory(more: Option<u64>) {
    let limit = match more {
        None => libc::RLIM_INFINITY,
        Some(more) => {
            let pages = fs::read_to_string("/proc/self/statm").unwrap();
            let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
            // SAFETY: asks for a constant.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            pages * u64::try_from(page).unwrap() + more
        }
    };
    let limit = libc::rlimit {
        rlim_cur: limit,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the structure is whole.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(set, 0);
}

#[test]
fn i02_a_body_that_swallows_a_failed_write_is_never_answered_committed() {
    let Some(folder) =
        alone("memory::i02_a_body_that_swallows_a_failed_write_is_never_answered_committed")
    else {
        return;
    };
    let keeper = Keeper::open(folder).unwrap();
    let blobs = keeper.blocking_database::<Str, Bytes>("blobs").unwrap();
    let has = |key: &'static str| {
        keeper
            .blocking_view(move |txn| Ok(blobs.get(txn, key)?.is_some()))
            .unwrap()
    };
    // By itself, and among neighbours.
    for among in [false, true] {
        let big = vec![1; 128 * MIB as usize];
        let swallows = keeper.update(move |txn| {
            blobs.put(txn, "small", b"1")?;
            limit_memory(Some(32 * MIB));
            let put = blobs.put(txn, "big", &big);
            limit_memory(None);
            assert!(put.is_err(), "there was memory");
            // The body can live without the big one; LMDB's transaction cannot.
            Ok(())
        });
        let plug = Plug::hold(&keeper);
        let neighbour = |key: &'static str| {
            among.then(|| Sent::new(keeper.update(move |txn| Ok(blobs.put(txn, key, b"1")?))))
        };
        let before = neighbour("before");
        let swallows = Sent::new(swallows);
        let after = neighbour("after");
        plug.release().unwrap();
        let answer = swallows.answer();
        assert!(
            matches!(&answer, Err(TxnError::Storage(error)) if error.errno() == Some(libc::ENOMEM)),
            "{answer:?}"
        );
        assert!(!has("small") && !has("big"));
        for neighbour in [before, after].into_iter().flatten() {
            neighbour.answer().unwrap();
        }
        assert_eq!((has("before"), has("after")), (among, among));
    }
    assert_eq!(stats(&keeper).environment.poisonings, 0);
    keeper.blocking_shutdown(SOON).unwrap();
}

#[test]
fn i11_after_a_resize_that_failed_nobody_touches_the_map_until_it_has_recovered() {
    let Some(folder) = alone(
        "memory::i11_after_a_resize_that_failed_nobody_touches_the_map_until_it_has_recovered",
    ) else {
        return;
    };
    for policy in [OnFatal::Wait, OnFatal::Recover] {
        let keeper = Keeper::builder()
            .path(folder.join(format!("{policy:?}")))
            .map_size(MIB)
            .max_map_size(1 << 40)
            .growth(Growth::function(|_| Some(16 << 30)))
            .on_fatal(policy)
            .open()
            .unwrap();
        let blobs = keeper.blocking_database::<Str, Bytes>("blobs").unwrap();
        keeper
            .blocking_update(move |txn| Ok(blobs.put(txn, "early", b"1")?))
            .unwrap();
        // Queued behind the one that fails, so that the writer has something to go on with.
        limit_memory(Some(1024 * MIB));
        let plug = Plug::hold(&keeper);
        let large = vec![1; 2 * MIB as usize];
        let mut queued = vec![Sent::new(keeper.update(move |txn| {
            blobs.put(txn, "large", &large)?;
            Ok(())
        }))];
        for _ in 0..8 {
            queued.push(Sent::new(
                keeper.update(move |txn| Ok(blobs.put(txn, "late", b"1")?)),
            ));
        }
        plug.release().unwrap();
        for sent in queued {
            let answer = sent.answer();
            assert!(
                matches!(answer, Err(TxnError::RecoveryNeeded(_))),
                "{answer:?}"
            );
        }
        if policy == OnFatal::Wait {
            let needed = |answer: Result<bool, TxnError>| {
                assert!(
                    matches!(answer, Err(TxnError::RecoveryNeeded(_))),
                    "{answer:?}"
                );
            };
            needed(keeper.blocking_view(move |txn| Ok(blobs.get(txn, "early")?.is_some())));
            needed(keeper.blocking_update(move |txn| Ok(blobs.get(txn, "early")?.is_some())));
            assert!(stats(&keeper).environment.unreadable.is_some());
            keeper.blocking_send(Recover).unwrap();
        }
        until("recovered", || keeper.blocking_view(|_| Ok(())).is_ok());
        let found = keeper.blocking_view(move |txn| {
            let has = |key| Ok::<_, TxnError>(blobs.get(txn, key)?.is_some());
            Ok((has("early")?, has("large")?, has("late")?))
        });
        assert_eq!(found.unwrap(), (true, false, false));
        // With memory the same update grows the same map.
        limit_memory(None);
        let large = vec![1; 2 * MIB as usize];
        keeper
            .blocking_update(move |txn| Ok(blobs.put(txn, "large", &large)?))
            .unwrap();
        let now = stats(&keeper).environment;
        assert_eq!(
            (now.map_size, now.poisonings, now.recoveries),
            (16 << 30, 1, 1)
        );
        keeper.blocking_shutdown(SOON).unwrap();
    }
}
