//! Settings from files, as a person who opens a keeper meets them.

mod db_config;
mod effective;
mod fixtures;
mod in_force;
mod je_properties;
#[path = "../support/listening.rs"]
mod listening;
mod lockkeeper_toml;
mod precedence;

use std::fs;
use std::path::Path;

use lockkeeper::{Config, ConfigError, Keeper, NoCounterpart, OpenError, Settings, Source};
use tempfile::TempDir;

const TOML: &str = "lockkeeper.toml";
const DB_CONFIG: &str = "DB_CONFIG";
const JE: &str = "je.properties";

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    folder
}

/// What these files make of the defaults.
fn config(files: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let files: Vec<_> = files.iter().map(|(n, t)| (*n, t.as_bytes())).collect();
    Settings::default().resolve(folder(&files).path())
}

/// The error of one file, without its folder; the keeper that would be opened has the same.
fn complaint(name: &str, text: &[u8]) -> String {
    let folder = folder(&[(name, text)]);
    let plain = |text: String| text.replace(&format!("{}/", folder.path().display()), "");
    let error = plain(
        Settings::default()
            .resolve(folder.path())
            .expect_err("an error")
            .to_string(),
    );
    let opened = Keeper::open(folder.path()).expect_err("no keeper");
    let OpenError::Config(opened) = opened else {
        panic!("{opened}")
    };
    assert_eq!(plain(opened.to_string()), error);
    assert!(
        !folder.path().join("data.mdb").exists(),
        "something was opened"
    );
    error
}

fn line(file: &'static str, line: usize) -> Source {
    Source::File { file, line }
}

/// The settings that are not at their defaults: name, value, source.
fn set(config: &Config) -> Vec<(&'static str, String, Source)> {
    config
        .describe()
        .filter(|(.., source)| *source != Source::Default)
        .collect()
}

/// What has no counterpart: keyword, value, source.
fn without(config: &Config) -> Vec<(&str, &str, Source)> {
    let parts = |one: &'_ NoCounterpart| one.source;
    config
        .without_counterpart()
        .iter()
        .map(|one| (one.keyword.as_str(), one.value.as_str(), parts(one)))
        .collect()
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new("tests/fixtures").join(name)).expect("a fixture")
}
