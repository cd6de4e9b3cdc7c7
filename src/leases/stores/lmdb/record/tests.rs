use super::*;

const BOOT: [u8; 16] = [7; 16];

fn at(seconds: u64) -> Moment {
    Moment {
        boot: BOOT,
        nanos: seconds * 1_000_000_000,
    }
}

fn after_a_boot(seconds: u64) -> Moment {
    Moment {
        boot: [8; 16],
        ..at(seconds)
    }
}

fn holder(id: &str) -> Holder {
    Holder {
        id: id.into(),
        host: "höst".into(),
        pid: 12,
    }
}

fn claim(id: &str) -> Claim {
    Claim {
        name: LeaseName::new("job").unwrap(),
        holder: holder(id),
        expiration: Duration::from_secs(10),
        unclean_delay: Duration::ZERO,
    }
}

fn refresh(id: &str, token: u64) -> Refresh {
    Refresh {
        name: LeaseName::new("job").unwrap(),
        holder: holder(id),
        token: Fence(token),
        expiration: Duration::from_secs(10),
    }
}

fn taken(found: Option<&Stored>, claim: &Claim, now: Moment) -> Stored {
    match Stored::claim(found, claim, now) {
        Decided::Take(stored) => stored,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_record_survives_its_file_and_every_damage_is_noticed() {
    let stored = taken(None, &claim("a"), at(5));
    let bytes = stored.encode(b"job");
    assert_eq!(Stored::decode(b"job", &bytes), Ok(stored));
    assert_eq!(Stored::decode(b"jab", &bytes), Err(BadRecord::Damaged));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(Stored::decode(b"job", &damaged).is_err(), "byte {at}");
        assert!(Stored::decode(b"job", &bytes[..at]).is_err(), "cut at {at}");
    }
    let mut later = bytes;
    later[0] = 2;
    assert_eq!(Stored::decode(b"job", &later), Err(BadRecord::Version(2)));
}

#[test]
fn i10_tokens_grow_over_releases_expiries_force_and_boots() {
    let first = taken(None, &claim("a"), at(0));
    assert_eq!(first.token, Fence(1));
    let (released, free) = first.release(&holder("a"));
    assert_eq!(released, Released::WasOurs);
    let second = taken(free.as_ref(), &claim("b"), at(1));
    assert_eq!(second.token, Fence(2));
    let third = taken(Some(&second), &claim("c"), at(11));
    assert_eq!(third.token, Fence(3));
    let forced = third.force_release().unwrap();
    assert_eq!(forced.token, Fence(4));
    assert_eq!(forced.force_release(), None);
    let fifth = taken(Some(&forced), &claim("d"), at(11));
    assert_eq!(fifth.token, Fence(5));
    let sixth = taken(Some(&fifth), &claim("e"), after_a_boot(1));
    assert_eq!(sixth.token, Fence(6));
    let spent = Stored {
        token: Fence(u64::MAX),
        ..sixth
    };
    let spent = Stored::claim(Some(&spent), &claim("f"), after_a_boot(100));
    assert_eq!(spent, Decided::Spent);
}

#[test]
fn who_is_told_that_it_is_busy_is_told_by_whom_and_for_how_long() {
    let first = taken(None, &claim("a"), at(0));
    let Decided::Busy(record) = Stored::claim(Some(&first), &claim("b"), at(4)) else {
        panic!("two holders");
    };
    assert_eq!(record.holder, Some(holder("a")));
    assert_eq!(record.remaining, Some(Duration::from_secs(6)));
    assert_eq!(record.token, Fence(1));
}

#[test]
fn a_claim_whose_answer_was_lost_is_recognised_and_has_its_whole_time() {
    let first = taken(None, &claim("a"), at(0));
    let again = taken(Some(&first), &claim("a"), at(9));
    assert_eq!(again.token, first.token);
    assert_eq!(again.remaining(at(9)), Some(Duration::from_secs(10)));
}

#[test]
fn what_has_expired_is_lost_also_if_nobody_took_it() {
    let first = taken(None, &claim("a"), at(0));
    let refreshed = first.refresh(&refresh("a", 1), at(9)).unwrap();
    assert_eq!(refreshed.remaining(at(9)), Some(Duration::from_secs(10)));
    assert_eq!(first.refresh(&refresh("a", 1), at(10)), None);
    assert_eq!(first.refresh(&refresh("a", 2), at(1)), None);
    assert_eq!(first.refresh(&refresh("b", 1), at(1)), None);
    assert_eq!(first.refresh(&refresh("a", 1), after_a_boot(1)), None);
    let (late, free) = first.release(&holder("a"));
    assert_eq!((late, free.unwrap().locked), (Released::WasOurs, false));
    assert_eq!(first.release(&holder("b")), (Released::WasLost, None));
}

#[test]
fn after_an_unclean_end_nobody_gets_it_before_the_delay() {
    let mut late = claim("b");
    late.unclean_delay = Duration::from_secs(5);
    let first = taken(None, &claim("a"), at(0));
    let Decided::Busy(record) = Stored::claim(Some(&first), &late, at(12)) else {
        panic!("too early");
    };
    assert_eq!(record.remaining, Some(Duration::from_secs(3)));
    assert_eq!(taken(Some(&first), &late, at(15)).token, Fence(2));
    // Since the boot at least.
    assert!(matches!(
        Stored::claim(Some(&first), &late, after_a_boot(4)),
        Decided::Busy(_)
    ));
    assert_eq!(taken(Some(&first), &late, after_a_boot(5)).token, Fence(2));
    // Given back, it is free at once.
    let (_, free) = first.release(&holder("a"));
    assert_eq!(taken(free.as_ref(), &late, at(1)).token, Fence(2));
}
