use std::time::Duration;

use super::*;
use crate::leases::Fence;

const LONG: Duration = Duration::from_secs(600);

fn key(name: &str) -> Key {
    Key {
        name: LeaseName::new(name).unwrap(),
        bytes: [b"dbmutex\0", name.as_bytes()].concat(),
    }
}

fn holder(id: &str) -> Holder {
    Holder {
        id: id.into(),
        host: "here".into(),
        pid: 1,
    }
}

fn claim(file: &mut File, id: &str) -> Result<Claimed, StoreError> {
    let key = key("job");
    let claim = Claim {
        name: key.name.clone(),
        holder: holder(id),
        expiration: LONG,
        unclean_delay: Duration::ZERO,
    };
    file.claim(&key, &claim)
}

fn file_in(folder: &tempfile::TempDir, clock: BootClock) -> File {
    File::new(folder.path().join("leases.mdb"), clock)
}

#[test]
fn after_another_boot_everything_has_expired_and_tokens_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let clock = BootClock::read().unwrap();
    let mut file = file_in(&folder, clock.of_boot(1));
    let ours = claim(&mut file, "before").unwrap();
    assert_eq!(ours, Claimed::Ours { token: Fence(1) });
    drop(file);

    let mut file = file_in(&folder, clock.of_boot(2));
    assert_eq!(file.look(&key("job")).unwrap().unwrap().remaining, None);
    let refresh = Refresh {
        name: key("job").name,
        holder: holder("before"),
        token: Fence(1),
        expiration: LONG,
    };
    let outcomes = file.refresh(&[(key("job"), refresh)]).unwrap();
    assert!(matches!(outcomes[..], [Refreshed::Lost(Some(_))]));
    let ours = claim(&mut file, "after").unwrap();
    assert_eq!(ours, Claimed::Ours { token: Fence(2) });
}

#[test]
fn what_cannot_be_read_is_never_taken_for_free() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = file_in(&folder, BootClock::read().unwrap());
    claim(&mut file, "one").unwrap();
    for damaged in [&[9, 1, 2][..], &[], &[1; 60]] {
        let open = file.opened().unwrap();
        let mut txn = open.env.write_txn().unwrap();
        let records = open.records;
        records.put(&mut txn, &key("job").bytes, damaged).unwrap();
        txn.commit().unwrap();
        for answer in [
            claim(&mut file, "two").map(drop),
            file.look(&key("job")).map(drop),
            file.list(b"dbmutex\0").map(drop),
            file.release(&key("job"), &holder("one")).map(drop),
            file.force_release(&key("job")).map(drop),
        ] {
            let Err(StoreError::WrongTable { why, .. }) = answer else {
                panic!("{answer:?}");
            };
            assert!(why.contains("\"job\""), "{why}");
        }
    }
}

#[test]
fn an_environment_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = file_in(&folder, BootClock::read().unwrap());
    let open = file.opened().unwrap();
    let mut txn = open.env.write_txn().unwrap();
    open.records.clear(&mut txn).unwrap();
    open.records.put(&mut txn, b"accounts", b"7").unwrap();
    txn.commit().unwrap();
    drop(file);
    let mut file = file_in(&folder, BootClock::read().unwrap());
    assert!(matches!(file.prepare(), Err(StoreError::WrongTable { .. })));
}

#[test]
fn a_hand_over_lets_nobody_in_between_and_its_token_grows() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = file_in(&folder, BootClock::read().unwrap());
    claim(&mut file, "one").unwrap();
    let mut pass = |from: &str, to: &str| {
        let key = key("job");
        let claim = Claim {
            name: key.name.clone(),
            holder: holder(to),
            expiration: LONG,
            unclean_delay: LONG,
        };
        file.hand_over(&key, &holder(from), &claim).unwrap()
    };
    let next = Claimed::Ours { token: Fence(2) };
    assert_eq!(pass("one", "two"), (Released::WasOurs, next));
    let (released, claimed) = pass("one", "three");
    assert_eq!(released, Released::WasLost);
    assert!(matches!(claimed, Claimed::Busy(_)));
}

#[test]
fn a_full_file_refuses_new_names_and_keeps_those_that_are_in_it_going() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = file_in(&folder, BootClock::read().unwrap());
    file.map_size = 32 << 20;
    let key = |n: usize| key(&format!("{n:0255}"));
    let wish = |n: usize, id: &str| Claim {
        name: key(n).name,
        holder: holder(id),
        expiration: LONG,
        unclean_delay: Duration::ZERO,
    };
    let mut names = 0;
    let refused = loop {
        // As if many had claimed them, one after another.
        let filled = file.write(|view| {
            let mut puts = Vec::new();
            for n in names..names + 500 {
                let taken = view.claim(None, &wish(n, "one"))?.unwrap();
                puts.push((key(n), taken));
            }
            Ok((puts, ()))
        });
        if let Err(error) = filled {
            break error;
        }
        names += 500;
    };
    let is_full = |error| matches!(error, StoreError::Full { bytes, .. } if bytes == 32 << 20);
    assert!(!refused.is_retryable(), "no waiting makes room");
    assert!(is_full(refused));
    let new = file.claim(&key(names), &wish(names, "one"));
    assert!(is_full(new.unwrap_err()));

    // Those that are in it, as many in one go as ever, each on a page of its own; again and again, since what is left behind
    // must serve again.
    let extended = |n| {
        let refresh = Refresh {
            name: key(n).name,
            holder: holder("one"),
            token: Fence(1),
            expiration: LONG,
        };
        (key(n), refresh)
    };
    let apart = names / 500;
    for begin in (0..apart).cycle().take(50) {
        let leases: Vec<_> = (0..500).map(|n| extended(begin + n * apart)).collect();
        let outcomes = file.refresh(&leases).unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == Refreshed::Held));
    }
    let (released, _) = file.release(&key(0), &holder("one")).unwrap();
    assert_eq!(released, Released::WasOurs);
    let claimed = file.claim(&key(0), &wish(0, "two")).unwrap();
    assert_eq!(claimed, Claimed::Ours { token: Fence(2) });
}
