use sqlx::sqlite::SqliteJournalMode;

use super::*;
use crate::leases::{Claimed, LeaseStore as _, Released};

fn wish(id: &str) -> Claim {
    Claim {
        name: LeaseName::new("job").unwrap(),
        holder: Holder {
            id: id.into(),
            host: "here".into(),
            pid: 1,
        },
        expiration: Duration::from_secs(60),
        unclean_delay: Duration::ZERO,
    }
}

#[tokio::test]
async fn i10_tokens_are_on_the_disk_where_the_applications_pool_is_content_with_less() {
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteConnectOptions::new().filename(folder.path().join("app.db"));
    let file = file.synchronous(SqliteSynchronous::Off);
    let backend = SqliteBackend::new(vec![file], &Options::default()).unwrap();
    let mut connection = backend.open(Duration::from_secs(5)).await.unwrap();
    let level = sqlx::query("pragma synchronous").fetch_one(&mut connection);
    let level: i64 = level.await.unwrap().try_get(0).unwrap();
    assert_eq!(level, 3, "EXTRA");
}

/// Else the application's next connection could not set it back: that takes a file that nobody else has open.
#[tokio::test]
async fn a_new_file_of_the_applications_has_the_journal_that_its_pool_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteConnectOptions::new().filename(folder.path().join("app.db"));
    let file = file.create_if_missing(true).busy_timeout(Duration::ZERO);
    let file = file.journal_mode(SqliteJournalMode::Delete);
    let pool = sqlx::SqlitePool::connect_lazy_with(file);
    let store = SqliteLeases::from_pool(&pool).unwrap();
    store.prepare().await.unwrap();
    store.claim(&wish("first")).await.unwrap();
    let mode = sqlx::query("pragma journal_mode").fetch_one(&pool);
    let mode: String = mode.await.unwrap().try_get(0).unwrap();
    assert_eq!(mode, "delete");
}

#[tokio::test]
async fn i09_a_claim_whose_commit_fails_is_not_granted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    // A file of the application's, with a rollback journal: who reads keeps others from committing.
    let file = SqliteConnectOptions::new().filename(&path);
    let file = file.journal_mode(SqliteJournalMode::Delete);
    let mut reader = file.create_if_missing(true).connect().await.unwrap();
    let make = sqlx::raw_sql("create table app (x); insert into app values (1)");
    make.execute(&mut reader).await.unwrap();
    let store = SqliteLeases::from_url(&format!("sqlite://{}", path.display())).unwrap();
    store.prepare().await.unwrap();
    let first = wish("first");
    let claimed = store.claim(&first).await.unwrap();
    assert_eq!(claimed, Claimed::Ours { token: Fence(1) });
    let released = store.release(&first.name, &first.holder).await;
    assert_eq!(released.unwrap(), Released::WasOurs);

    let mut reading = reader.begin().await.unwrap();
    let read = sqlx::query("select x from app").fetch_all(&mut *reading);
    assert_eq!(read.await.unwrap().len(), 1);
    let claimed = store.claim(&wish("second")).await;
    assert!(
        !matches!(claimed, Ok(Claimed::Ours { .. })),
        "nothing was committed: {claimed:?}"
    );
    reading.rollback().await.unwrap();
    let record = store.look(&first.name).await.unwrap().unwrap();
    assert_eq!((record.token, record.remaining), (Fence(1), None));
    let claimed = store.claim(&wish("second")).await.unwrap();
    assert_eq!(claimed, Claimed::Ours { token: Fence(2) });
}
