//! The settings in force, printed: a `lockkeeper.toml` with where each value came from.

use lockkeeper::{Backoff, Growth};
use std::time::Duration;

use super::*;

/// What is printed, from the page that shows it.
const PAGE: &str = "docs/settings.md";

#[test]
fn what_is_printed_makes_the_same_configuration_again() {
    let sources = folder(&[
        (DB_CONFIG, &fixture(DB_CONFIG)),
        (JE, &fixture(JE)),
        (
            TOML,
            b"growth = {step = \"16MiB\"}\nlock_timeout = \"1m 30s\"\ngather = \"off\"",
        ),
    ]);
    let code = Settings::default()
        .retry_backoff(Backoff::new(
            Duration::from_millis(3),
            Duration::from_millis(90),
            1.5,
        ))
        .max_hold(Duration::from_secs(7));
    let config = code.resolve(sources.path()).unwrap();
    let printed = config.to_string();

    let again = folder(&[(TOML, printed.as_bytes())]);
    let again = Settings::default().resolve(again.path()).unwrap();
    let values = |config: &Config| {
        let pairs = config.describe().map(|(name, value, _)| (name, value));
        pairs.collect::<Vec<_>>()
    };
    assert_eq!(values(&again), values(&config), "{printed}");
    for ((name, _, source), line) in config.describe().zip(printed.lines()) {
        assert!(line.starts_with(&format!("{name} = ")), "{line}");
        assert!(line.ends_with(&format!(" # {source}")), "{line}");
    }
    for one in config.without_counterpart() {
        let line = format!("# {one}");
        assert_eq!(printed.lines().filter(|l| *l == line).count(), 1, "{line}");
    }
}

#[test]
fn a_function_is_printed_as_a_comment() {
    let settings = Settings::default().growth(Growth::function(|_| None));
    let config = settings.resolve_without_file().unwrap();
    let printed = config.to_string();
    let line = printed.lines().find(|l| l.contains("growth")).unwrap();
    assert!(line.starts_with("# growth is a function "), "{line}");
    assert!(line.ends_with(" # code"), "{line}");
    assert!(!printed.contains("counterpart"), "{printed}");
}

#[test]
fn the_page_shows_what_is_printed() {
    let folder = folder(&[
        (
            DB_CONFIG,
            b"\n\n\nset_lk_detect DB_LOCK_MINWRITE\n\n\n\n\nset_lk_tablesize 4096\n",
        ),
        (TOML, b"\nlock_timeout = \"500ms\""),
    ]);
    let keeper = Keeper::builder()
        .path(folder.path())
        .max_lockers(5000)
        .open()
        .unwrap();
    let printed = keeper.config().to_string();
    let page = fs::read_to_string(PAGE).unwrap();
    let shown = page
        .split("```toml\n")
        .nth(2)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let mut rest = printed.lines();
    for line in shown.lines() {
        assert!(
            rest.any(|printed| printed == line),
            "{line:?} is not in\n{printed}"
        );
    }
    assert!(shown.lines().count() >= 7, "{shown}");
}

/// Each keyword of the fixtures is on the page, in its section.
#[test]
fn the_page_maps_every_keyword_of_the_fixtures() {
    let page = fs::read_to_string(PAGE).unwrap();
    let (_, sections) = page.split_once("### `DB_CONFIG`").unwrap();
    let (db_config, je) = sections.split_once("### `je.properties`").unwrap();
    let rows = |section: &str| -> Vec<String> {
        let rows = section.lines().filter_map(|row| row.strip_prefix("| `"));
        rows.filter_map(|row| row.split('`').next().map(str::to_owned))
            .collect()
    };
    let known = |rows: &[String], name: &str| {
        rows.iter().any(|row| match row.strip_suffix('*') {
            Some(family) => name.starts_with(family),
            None => name == row,
        })
    };
    for (file, section) in [(DB_CONFIG, db_config), (JE, je)] {
        let rows = rows(section);
        let text = String::from_utf8(fixture(file)).unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.starts_with(['#', '!', ' ']) && !line.is_empty());
        let mut names = 0;
        for line in lines {
            let words: Vec<_> = line.split([' ', '=', ':']).collect();
            let name = match words[0] {
                "set_flags" => format!("set_flags {}", words[1].to_lowercase()),
                name => name.to_owned(),
            };
            assert!(known(&rows, &name), "{name} is not on the page");
            names += 1;
        }
        assert!(names >= 10, "{names}");
    }
}
