//! Settings that cannot work are refused before anything is asked of a store.

use std::time::Duration;

use lockkeeper::{Keeper, LeaseError, LeaseSettingsError, OpenError};

use crate::store::{Memory, Op, soon};
use crate::{MS, builder, leases};

#[tokio::test]
async fn what_cannot_work_is_refused() {
    let store = Memory::new();
    let refused = |leases: Result<lockkeeper::Leases, LeaseError>| match leases {
        Err(LeaseError::BadSettings(error)) => error,
        other => panic!("{other:?}"),
    };
    let zero = Duration::ZERO;
    assert_eq!(
        refused(builder(&store).refresh(zero).start()),
        LeaseSettingsError::ZeroRefresh
    );
    assert_eq!(
        refused(builder(&store).expiration(zero).start()),
        LeaseSettingsError::ZeroExpiration
    );
    assert_eq!(
        refused(builder(&store).poll(zero).start()),
        LeaseSettingsError::ZeroPoll
    );
    let slow = refused(builder(&store).refresh(10_001 * MS).start());
    assert!(
        matches!(slow, LeaseSettingsError::RefreshTooSlow { .. }),
        "{slow}"
    );
    let short = refused(builder(&store).max_clock_skew(29_500 * MS).start());
    assert!(
        matches!(short, LeaseSettingsError::ExpirationTooShort { .. }),
        "{short}"
    );
    assert!(matches!(
        refused(builder(&store).max_local_waiters(0).start()),
        LeaseSettingsError::Zero { .. }
    ));

    let leases = leases(&store);
    for lease in [
        leases.lease("job").refresh(zero),
        leases.lease("job").expiration(zero),
        leases.lease("job").poll(zero),
        leases.lease("job").refresh(10_001 * MS),
        leases.lease("job").label("l".repeat(300)),
        leases.lease("job").unclean_delay(Duration::MAX),
    ] {
        let error = soon(lease.acquire()).await.unwrap_err();
        assert!(matches!(error, LeaseError::BadSettings(_)), "{error:?}");
    }
    for name in ["", &"n".repeat(256), "a\0b"] {
        let error = soon(leases.acquire(name)).await.unwrap_err();
        assert!(matches!(error, LeaseError::BadName(_)), "{error:?}");
    }
    assert_eq!(store.asked(Op::Claim), 0);
}

#[test]
fn settings_of_a_keeper_that_do_not_go_together_are_refused_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let opened = Keeper::builder()
        .path(folder.path())
        .lease_refresh(Duration::from_secs(2))
        .lease_expiration(Duration::from_secs(5))
        .open();
    assert!(matches!(opened, Err(OpenError::Config(_))), "{opened:?}");
}
