//! The pages under `docs/` name what is there: each metric, span and statistic of the library.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lockkeeper::Keeper;
use serde_json::Value;

fn page() -> String {
    fs::read_to_string("docs/observability.md").unwrap()
}

/// All of `src`.
fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all += &sources(&path);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            all += &fs::read_to_string(path).unwrap();
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
