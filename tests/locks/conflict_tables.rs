//! A conflict table of the application's own, in the lock table of a keeper.

use lockkeeper::{ConflictTable, Keeper, Mode, Object, Wait};

#[tokio::test]
async fn the_locks_of_a_namespace_go_by_the_table_that_the_keeper_was_given_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let append = ConflictTable::new(
        &[Mode::Read, Mode::Write],
        &[&[false, false], &[false, true]],
    );
    let keeper = Keeper::builder()
        .path(folder.path())
        .conflicts("journals", ConflictTable::standard())
        .conflicts("journals", append.unwrap())
        .open()
        .unwrap();
    let [reader, writer] = [(); 2].map(|()| keeper.locks().locker(Default::default()).unwrap());
    for (namespace, together) in [("journals", true), ("ledgers", false)] {
        let object = Object::new(namespace, b"2026");
        reader.lock(&object, Mode::Read, Wait::No).await.unwrap();
        let wrote = writer.lock(&object, Mode::Write, Wait::No).await;
        assert_eq!(wrote.is_ok(), together, "{namespace}");
    }
}
