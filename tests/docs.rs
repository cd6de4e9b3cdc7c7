//! What the README and the pages under `docs/` say: each metric, statistic and test that they name is there, and their
//! advice works.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use lockkeeper::heed::types::{Bytes, Str};
use lockkeeper::{
    CopyTo, Keeper, Lock, LockConfig, Locker, LockerSpec, Locks, Mode, Object, ReadTxn, Wait,
};
use serde_json::Value;

fn page() -> String {
    fs::read_to_string("docs/observability.md").expect("the page is there")
}

/// All of `src`.
fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).expect("a folder of the crate") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all += &sources(&path);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            all += &fs::read_to_string(path).expect("a source file");
        }
    }
    all
}

/// What stands between `before` and the next `"` that follows it, wherever that is in `text`.
fn quoted_after<'t>(text: &'t str, before: &str) -> BTreeSet<&'t str> {
    text.split(before)
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect()
}

#[test]
fn every_metric_is_in_the_docs_and_no_other() {
    let (source, page) = (sources(Path::new("src")), page());
    let mut emitted = BTreeSet::new();
    for kind in ["counter", "gauge", "histogram"] {
        emitted.extend(quoted_after(&source, &format!("metrics::{kind}!(\"")));
    }
    let documented: BTreeSet<_> = page
        .split('`')
        .filter(|word| word.starts_with("lockkeeper_"))
        .collect();
    assert!(emitted.len() > 10, "{emitted:?}");
    assert_eq!(emitted, documented);
}

#[test]
fn every_statistic_is_in_the_docs() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    let stats = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(keeper.stats());
    let page = page();
    let mut names = 0;
    for (part, fields) in serde_json::to_value(&stats).unwrap().as_object().unwrap() {
        let section = page
            .split("\n### ")
            .find(|section| section.starts_with(&format!("`{part}`")))
            .unwrap_or_else(|| panic!("no section about {part}"));
        check(section, part, fields, &mut names);
    }
    assert!(names > 40, "{names} fields were looked for");
}

fn check(section: &str, of: &str, fields: &Value, names: &mut u32) {
    match fields {
        Value::Object(fields) => {
            for (name, value) in fields {
                *names += 1;
                assert!(
                    section.contains(&format!("`{name}`")),
                    "`{name}` of {of} is not in the docs"
                );
                check(section, name, value, names);
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| check(section, of, item, names)),
        _ => {}
    }
}

#[test]
fn every_test_that_the_readme_names_is_there() {
    let readme = fs::read_to_string("README.md").unwrap();
    let all = sources(Path::new("src")) + &sources(Path::new("tests"));
    let named: Vec<_> = readme
        .split('`')
        .filter(|word| word.starts_with('i') && word.get(3..4) == Some("_"))
        .filter(|word| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.len() > 4)
        .collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        assert!(
            all.contains(&format!("fn {name}(")),
            "there is no test {name}"
        );
    }
}

/// Each mode of Berkeley DB and each lock type of JE has a row, and where there is no counterpart, or another, it says why.
#[test]
fn the_page_about_locks_maps_every_mode_of_berkeley_db_and_je() {
    let page = fs::read_to_string("docs/locks.md").unwrap();
    let sections = [
        (
            "\n### Modes\n",
            &["N", "R", "W", "WT", "IW", "IR", "RIW", "DR", "WW"][..],
        ),
        (
            "\n### Lock types\n",
            &[
                "READ",
                "WRITE",
                "RANGE_READ",
                "RANGE_WRITE",
                "RANGE_INSERT",
                "RESTART",
                "NONE",
            ],
        ),
    ];
    for (heading, names) in sections {
        let section = page.split(heading).nth(1).unwrap();
        let section = section.split("\n##").next().unwrap();
        for name in names {
            let start = format!("| `{name}` ");
            let row = section.lines().find(|line| line.starts_with(&start));
            let row = row.unwrap_or_else(|| panic!("no row for {name}"));
            let cells: Vec<&str> = row.split(" |").map(str::trim).collect();
            let [_, here, why, ..] = cells[..] else {
                panic!("{row}");
            };
            let has_reason = why.len() > 1;
            assert!(has_reason || !here.contains("none"), "{row}");
        }
    }
}

/// Without what differs from one program to the next: where the lines of code are.
fn without_sites(report: &str) -> String {
    let mut lines = Vec::new();
    for line in report.lines() {
        let mut words: Vec<&str> = line.split(' ').collect();
        for after in 1..words.len() {
            if words[after - 1] == "at" {
                words[after] = "<line>";
            }
        }
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

#[track_caller]
fn write<'l>(locker: &'l Locker, object: &Object) -> Lock<'l> {
    locker.lock(object, Mode::Write, Wait::Default)
}

/// The page about locks explains a report line by line; this is the program that it gives for it.
#[tokio::test]
async fn the_deadlock_that_the_docs_show_is_told_as_they_show_it() {
    let page = fs::read_to_string("docs/locks.md").unwrap();
    let shown = page.split("```text\n").nth(1).unwrap();
    let shown = shown.split("\n```").next().unwrap();

    let locks = Locks::start(LockConfig::default());
    let [alice, bob] = ["alice", "bob"].map(|key| Object::new("accounts", key));
    let transfer = locks.locker(LockerSpec::new().name("transfer")).unwrap();
    let refund = locks.locker(LockerSpec::new().name("refund")).unwrap();
    write(&transfer, &alice).await.unwrap();
    write(&refund, &bob).await.unwrap();
    let (transferred, refunded) = tokio::join!(write(&transfer, &bob), async {
        let refunded = write(&refund, &alice).await;
        drop(refund);
        refunded
    });
    transferred.unwrap();
    let told = refunded.unwrap_err().to_string();
    assert_eq!(without_sites(&told), without_sites(shown));
}

#[test]
fn a_large_map_takes_no_disk() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::builder()
        .path(folder.path())
        .map_size(256 << 30)
        .open()
        .unwrap();
    let db = keeper.blocking_database::<Str, Str>("names").unwrap();
    keeper
        .blocking_update(move |txn| Ok(db.put(txn, "one", "eins")?))
        .unwrap();
    let file = fs::metadata(folder.path().join("data.mdb")).unwrap();
    let on_disk = file.blocks() * 512;
    assert!(on_disk < 1 << 20, "{on_disk} bytes");
}

/// The guide's way to restore a copy, which is also its way to shrink a file.
#[test]
fn a_file_shrinks_when_a_compacting_copy_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (live, copy) = (folder.path().join("live"), folder.path().join("copy"));
    let size = || fs::metadata(live.join("data.mdb")).unwrap().len();

    let keeper = Keeper::open(&live).unwrap();
    let db = keeper.blocking_database::<Str, Bytes>("values").unwrap();
    keeper
        .blocking_update(move |txn| {
            db.put(txn, "kept", b"value")?;
            Ok(db.put(txn, "large", &vec![1; 4 << 20])?)
        })
        .unwrap();
    keeper
        .blocking_update(move |txn| Ok(db.delete(txn, "large")?))
        .unwrap();
    assert!(size() > 4 << 20, "deleting made the file smaller");
    let whole = keeper
        .blocking_send(CopyTo::new(folder.path().join("whole")))
        .unwrap();
    assert!(whole > 4 << 20, "a plain copy leaves pages out");
    keeper.blocking_send(CopyTo::new(&copy).compact()).unwrap();
    keeper.blocking_shutdown(Duration::from_secs(10)).unwrap();

    fs::rename(copy.join("data.mdb"), live.join("data.mdb")).unwrap();
    fs::remove_file(live.join("lock.mdb")).unwrap();
    assert!(size() < 1 << 20, "{} bytes", size());
    let keeper = Keeper::open(&live).unwrap();
    let db = keeper.blocking_database::<Str, Bytes>("values").unwrap();
    let read = |key: &'static str| {
        let value = move |txn: &ReadTxn<'_>| Ok(db.get(txn, key)?.map(<[u8]>::to_vec));
        keeper.blocking_view(value).unwrap()
    };
    assert_eq!(read("kept").as_deref(), Some(&b"value"[..]));
    assert_eq!(read("large"), None);
}
