//! Where waiters are not woken, whoever gives a lease back hears whether another wanted it meanwhile.

use std::time::{Duration, Instant};

use lockkeeper::{Claim, Claimed, Holder, LeaseName, Refresh, Refreshed, Released, store_from_url};

use crate::ground::{Ground, Kind, MS, run};

fn holder(id: &str) -> Holder {
    Holder {
        id: id.into(),
        host: "here".into(),
        pid: 1,
    }
}

pub fn test(kind: Kind) {
    let ground = Ground::new(kind);
    let [ours, theirs] = [(); 2].map(|()| store_from_url(&ground.url).unwrap());
    let name = LeaseName::new("wanted").unwrap();
    let claim = |id: &str| Claim {
        name: name.clone(),
        holder: holder(id),
        expiration: Duration::from_secs(60),
        unclean_delay: Duration::ZERO,
    };
    run(async {
        ours.prepare().await.unwrap();
        theirs.prepare().await.unwrap();
        for (wanted, refreshed) in [(false, false), (true, false), (true, true), (false, true)] {
            let Claimed::Ours { token } = ours.claim(&claim("a")).await.unwrap() else {
                panic!("it is free");
            };
            for _ in 0..2 {
                if wanted {
                    loop {
                        let begun = Instant::now();
                        let claimed = theirs.claim(&claim("b")).await.unwrap();
                        assert!(matches!(claimed, Claimed::Busy(_)), "{claimed:?}");
                        // Where the disk is slow nobody waits until it is noted.
                        if begun.elapsed() < 200 * MS {
                            break;
                        }
                    }
                }
            }
            if refreshed {
                let lease = Refresh {
                    name: name.clone(),
                    holder: holder("a"),
                    token,
                    expiration: Duration::from_secs(60),
                };
                let answers = ours.refresh(&[lease]).await.unwrap();
                assert_eq!(answers, [Refreshed::Held]);
            }
            let released = ours.give_back(&name, &holder("a")).await.unwrap();
            assert_eq!(
                released,
                (Released::WasOurs, wanted),
                "refreshed: {refreshed}"
            );
            let again = ours.give_back(&name, &holder("a")).await.unwrap();
            assert_eq!(again, (Released::WasLost, false));
        }
        ours.close().await.unwrap();
        theirs.close().await.unwrap();
    });
}
