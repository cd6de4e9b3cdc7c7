//! A table whose key takes several names for one.

use lockkeeper::{Refreshed, Released, StoreError};

use crate::ground::{Ground, Kind, MINUTE, claim, holder, name, ours, refresh, run};

#[test]
fn names_that_the_key_takes_for_one_are_never_treated_as_one() {
    run(async {
        let ground = Ground::shared(Kind::Mariadb);
        let mut raw = ground.connect().await;
        // As dbmutex leaves it to the server.
        let ddl = ground
            .ddl()
            .replace("/*M! collate utf8mb4_nopad_bin */", "");
        raw.run(ddl).await;
        let store = ground.store().await;
        let token = ours(store.claim(&claim("A", "big", MINUTE)).await);
        for twin in ["a", "Ä", "A "] {
            let claimed = store.claim(&claim(twin, "small", MINUTE)).await;
            let Err(StoreError::WrongTable { why, .. }) = claimed else {
                panic!("{claimed:?}");
            };
            assert!(why.contains(&format!("{twin:?}")), "{why}");
            assert_eq!(store.look(&name(twin)).await.unwrap(), None);
            assert_eq!(store.force_release(&name(twin)).await.unwrap(), None);
            let released = store.release(&name(twin), &holder("big")).await.unwrap();
            assert_eq!(released, Released::WasLost);
            let leases = [refresh(twin, "big", token, MINUTE)];
            let outcomes = store.refresh(&leases).await.unwrap();
            assert_eq!(outcomes, [Refreshed::Lost(None)]);
        }
        let leases = [refresh("A", "big", token, MINUTE)];
        let outcomes = store.refresh(&leases).await.unwrap();
        assert_eq!(outcomes, [Refreshed::Held]);
    });
}
