//! Names and prefixes keep leases apart.

use lockkeeper::{EtcdLeases, LeaseStore};

use crate::common::{name, run, store, take};
use crate::etcd::Etcd;

#[test]
fn names_compare_byte_for_byte_and_prefixes_keep_leases_apart() {
    let etcd = Etcd::start(1);
    run(async {
        let here = store(&etcd.url("a"));
        let inner = store(&etcd.url("a/b"));
        let mut names = [
            "job",
            "Job",
            "job ",
            "jöb",
            "jo\u{308}b",
            "b/job",
            "b%2Fjob",
            "job/",
            "%",
        ];
        for lease in names {
            take(&here, lease, "me").await;
        }
        for lease in ["job", "b/job"] {
            take(&inner, lease, "me").await;
        }
        take(&here, &"n".repeat(255), "me").await;
        here.force_release(&name(&"n".repeat(255))).await.unwrap();
        names.sort_unstable();
        let all = here.list().await.unwrap();
        let all: Vec<_> = all.iter().map(|record| record.name.as_str()).collect();
        assert_eq!(all, names);
        assert_eq!(inner.list().await.unwrap().len(), 2);
        let ids = [here.id().await.unwrap(), inner.id().await.unwrap()];
        assert_ne!(ids[0], ids[1]);
        assert_eq!(store(&etcd.url("a")).id().await.unwrap(), ids[0]);
    });
}

#[test]
fn the_applications_own_client_can_be_used() {
    let etcd = Etcd::start(1);
    run(async {
        let client = etcd_client::Client::connect([etcd.address(0)], None)
            .await
            .unwrap();
        let theirs = EtcdLeases::from_client(client, "t").unwrap();
        theirs.prepare().await.unwrap();
        let mut wakeups = theirs.wakeups().unwrap().await.unwrap();
        take(&theirs, "job", "me").await;
        let ours = store(&etcd.url("t"));
        let held = ours.look(&name("job")).await.unwrap().unwrap();
        assert_eq!(held.holder.unwrap().id, "me".into());
        ours.force_release(&name("job")).await.unwrap();
        assert_eq!(wakeups.next().await.unwrap(), Some(name("job")));
    });
}
