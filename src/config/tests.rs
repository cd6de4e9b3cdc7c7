use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::kinds::{parse_size, size_text};
use super::*;

const PAGE: u64 = 4096;

/// A folder with this settings file.
fn folder(text: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join(FILE_NAME), text).expect("a settings file");
    folder
}

fn resolve(settings: &Settings, text: &str) -> Result<Config, ConfigError> {
    settings.resolve_with(folder(text).path(), PAGE)
}

fn from_file(text: &str) -> Result<Config, ConfigError> {
    resolve(&Settings::default(), text)
}

/// The text of the error, without the folder.
fn complaint(text: &str) -> String {
    let folder = folder(text);
    let error = Settings::default()
        .resolve_with(folder.path(), PAGE)
        .expect_err(text);
    error
        .to_string()
        .replace(&format!("{}/", folder.path().display()), "")
}

fn described(config: &Config, name: &str) -> (String, Source) {
    let (_, text, source) = config
        .describe()
        .find(|(found, ..)| *found == name)
        .expect(name);
    (text, source)
}

const fn toml_line(line: usize) -> Source {
    Source::File {
        file: FILE_NAME,
        line,
    }
}

#[test]
fn the_defaults_are_a_valid_configuration() {
    let config = Config::default();
    if HAS_64_BITS {
        assert_eq!(
            (config.map_size(), config.max_map_size()),
            (1 << 30, 1 << 40)
        );
    }
    assert!(matches!(config.growth(), Growth::Doubling));
    assert_eq!(config.durability(), Durability::Full);
    assert_eq!(
        (config.queue(), config.batch(), config.retries()),
        (4096, 1024, 10)
    );
    assert_eq!(config.lock_timeout(), secs(5));
    assert!(
        config
            .describe()
            .all(|(_, _, source)| source == Source::Default)
    );
}

#[test]
#[cfg(target_pointer_width = "64")]
fn the_docs_of_the_setters_name_the_defaults() {
    macro_rules! texts {
        ($($(#[$meta:meta])+ $name:ident : $ty:ty [$($what:tt)+] = $default:expr, $text:literal, $range:expr;)+) => {
            [$((stringify!($name), $text)),+]
        };
    }
    let texts = with_settings!(texts);
    let infos = infos();
    assert_eq!(texts.len(), infos.len());
    for ((name, text), info) in texts.into_iter().zip(&infos) {
        assert_eq!((name, text), (info.name, info.default.as_str()));
    }
}

#[test]
#[cfg(target_pointer_width = "64")]
fn the_settings_page_is_what_the_table_says() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, settings_table()).expect("docs/settings.md can be written");
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        page,
        settings_table(),
        "run the tests with UPDATE_DOCS=1 and commit docs/settings.md"
    );
}

#[test]
fn the_example_of_the_settings_page_is_accepted() {
    let page = settings_table();
    let example = page
        .split("```")
        .nth(1)
        .expect("an example")
        .trim_start_matches("toml");
    let config = from_file(example).expect("the example is valid");
    assert_eq!(config.lock_timeout(), millis(500));
    assert_eq!(
        config.retry_backoff(),
        Backoff::new(millis(2), millis(200), 1.5)
    );
}

#[test]
fn every_default_can_be_written_in_the_file() {
    let quote = |kind: &str, text: &str| match kind {
        "duration" | "size in bytes" => format!("\"{text}\""),
        _ => text.to_owned(),
    };
    let lines: Vec<_> = infos()
        .iter()
        .map(|info| format!("{} = {}", info.name, quote(info.kind, &info.default)))
        .collect();
    let config = from_file(&lines.join("\n")).expect("the defaults are valid");
    let texts = |config: &Config| {
        config
            .describe()
            .map(|(name, text, _)| (name, text))
            .collect::<Vec<_>>()
    };
    assert_eq!(texts(&config), texts(&Config::default()));
    for (n, (name, _, source)) in config.describe().enumerate() {
        assert_eq!(source, toml_line(n + 1), "{name}");
    }
}

#[test]
fn no_file_and_no_folder_leave_the_code_and_the_defaults() {
    let empty = tempfile::tempdir().expect("a temporary folder");
    let settings = Settings::default().queue(7);
    for path in [empty.path().to_owned(), empty.path().join("not/there")] {
        let config = settings.resolve_with(&path, PAGE).expect("valid");
        assert_eq!(config.queue(), 7);
        assert_eq!(described(&config, "queue"), ("7".to_owned(), Source::Code));
    }
}

#[test]
fn the_file_wins_over_code_setting_by_setting() {
    let settings = Settings::default().queue(7).batch(8).growth(Growth::Fixed);
    let config = resolve(
        &settings,
        "# ours\n\nqueue = 9\ngrowth = {step = \"1MiB\"}\n",
    )
    .expect("valid");
    assert_eq!((config.queue(), config.batch()), (9, 8));
    assert!(matches!(config.growth(), Growth::Step(step) if *step == 1 << 20));
    assert_eq!(described(&config, "queue"), ("9".to_owned(), toml_line(3)));
    assert_eq!(described(&config, "batch"), ("8".to_owned(), Source::Code));
    assert_eq!(
        described(&config, "growth"),
        ("{step = \"1MiB\"}".to_owned(), toml_line(4))
    );
    assert_eq!(
        described(&config, "deadline"),
        ("30s".to_owned(), Source::Default)
    );
    assert_eq!(
        described(&config, "queue").1.to_string(),
        "lockkeeper.toml:3"
    );
}

#[test]
fn all_ways_to_write_a_value_are_read() {
    for (line, name, text) in [
        ("map_size = 1_048_576", "map_size", "1MiB"),
        ("map_size = 0x10_0000", "map_size", "1MiB"),
        ("map_size = \"1mib\"", "map_size", "1MiB"),
        ("map_size = \"64 MiB\"", "map_size", "64MiB"),
        ("lock_timeout = \"1m 30s\"", "lock_timeout", "1m 30s"),
        ("lock_timeout = 0", "lock_timeout", "0s"),
        ("lock_timeout = \"off\"", "lock_timeout", "0s"),
        ("lock_timeout = \"0s\"", "lock_timeout", "0s"),
        ("grow_ahead = \"off\"", "grow_ahead", "0"),
        ("grow_ahead = 100", "grow_ahead", "100"),
        ("growth = \"fixed\"", "growth", "\"fixed\""),
        ("[growth]\nstep = 4096", "growth", "{step = \"4KiB\"}"),
        ("durability = \"no-sync\"", "durability", "\"no-sync\""),
        ("when_full = \"refuse\"", "when_full", "\"refuse\""),
        ("on_fatal = \"abort\"", "on_fatal", "\"abort\""),
        ("no_lock = true", "no_lock", "true"),
        (
            "[adopt_backoff]\nbase = 0\nmax = \"5ms\"\nfactor = 1.5",
            "adopt_backoff",
            "{base = \"0s\", max = \"5ms\", factor = 1.5}",
        ),
    ] {
        let config = from_file(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(
            described(&config, name),
            (text.to_owned(), toml_line(1)),
            "{line}"
        );
    }
}

#[test]
fn a_malformed_value_is_an_error_with_file_line_and_what_was_expected() {
    for (text, expected) in [
        (
            "queue = 1\nmap_size = \"12 parsecs\"",
            "setting map_size = \"12 parsecs\" at lockkeeper.toml:2: expected a number of bytes, \
             or a string like \"64MiB\" (B, KiB, MiB, GiB, TiB): 64KiB to 64TiB",
        ),
        (
            "\n\nlock_timeout = 5",
            "setting lock_timeout = 5 at lockkeeper.toml:3: expected a duration with its unit, like \"500ms\", \
             or \"off\" for 0: 0 (none), or 1us to 30days",
        ),
        (
            "queue = \"many\"",
            "setting queue = \"many\" at lockkeeper.toml:1: expected a whole number: 1 to 1000000",
        ),
        (
            "queue = -1",
            "setting queue = -1 at lockkeeper.toml:1: expected a whole number: 1 to 1000000",
        ),
        (
            "max_readers = 4294967296",
            "setting max_readers = 4294967296 at lockkeeper.toml:1: expected a whole number: 1 to 100000",
        ),
        (
            "no_lock = 1",
            "setting no_lock = 1 at lockkeeper.toml:1: expected true or false",
        ),
        (
            "durability = \"most\"",
            "setting durability = \"most\" at lockkeeper.toml:1: expected one of \"full\", \"no-meta-sync\", \"no-sync\"",
        ),
        (
            "growth = \"threefold\"",
            "setting growth = \"threefold\" at lockkeeper.toml:1: \
             expected \"fixed\", \"doubling\" or {step = \"64MiB\"} with a step of 1B or more",
        ),
        (
            "[growth]\nstep = true",
            "setting growth = true at lockkeeper.toml:2: expected a size like \"64MiB\"",
        ),
        (
            "[retry_backoff]\nbase = \"1ms\"\nmax = \"2ms\"\nfaktor = 2",
            "setting retry_backoff = faktor at lockkeeper.toml:4: expected base, max, factor and nothing else",
        ),
        (
            "retry_backoff = {base = \"1ms\", factor = 2}",
            "setting retry_backoff = {base = \"1ms\", factor = 2} at lockkeeper.toml:1: \
             expected base, max, factor and nothing else",
        ),
        (
            "retry_backoff = {base = \"1ms\", max = 7, factor = 2}",
            "setting retry_backoff = 7 at lockkeeper.toml:1: \
             expected a duration with its unit, like \"5ms\"",
        ),
    ] {
        assert_eq!(complaint(text), expected);
    }
}

#[test]
fn an_unknown_setting_is_an_error_that_names_what_was_probably_meant() {
    assert_eq!(
        complaint("queue = 5\nmapsize = 1"),
        "unknown setting mapsize = 1 at lockkeeper.toml:2: expected a setting; did you mean map_size?"
    );
    assert!(complaint("Lock-Timeout = 1").ends_with("did you mean lock_timeout?"));
    let all = complaint("[server]\nport = 80");
    assert!(
        all.starts_with(
            "unknown setting server = [server] at lockkeeper.toml:1: expected one of map_size, "
        ),
        "{all}"
    );
    assert!(complaint(&format!("{} = 1", "x".repeat(10_000))).contains("expected one of"));
}

#[test]
fn the_first_error_of_the_file_is_the_one_that_is_told() {
    assert!(complaint("zzz = 1\naaa = 1").contains("unknown setting zzz"));
}

#[test]
fn a_file_that_is_not_toml_is_an_error_with_its_line() {
    assert!(complaint("queue = 1\nbatch = = 2\n").starts_with("lockkeeper.toml:2: "));
    assert!(complaint("queue = 1\nqueue = 2\n").starts_with("lockkeeper.toml:2: "));
    assert!(complaint("queue").starts_with("lockkeeper.toml:1: "));
    let folder = folder("");
    fs::write(folder.path().join(FILE_NAME), b"queue = 1\n# \xff\n").expect("written");
    let error = Settings::default()
        .resolve(folder.path())
        .expect_err("not UTF-8");
    assert!(
        matches!(error, ConfigError::Syntax { line: 2, .. }),
        "{error}"
    );
}

#[test]
fn a_settings_file_that_cannot_be_read_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(folder.path().join(FILE_NAME)).expect("a folder in the place of the file");
    let error = Settings::default()
        .resolve(folder.path())
        .expect_err("a folder is no file");
    assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn a_value_out_of_its_range_is_an_error_wherever_it_was_set() {
    let code = |settings: Settings| {
        settings
            .resolve_without_file()
            .map(drop)
            .map_err(|e| e.to_string())
    };
    let outside = |what: &str| Err(format!("setting {what}"));
    assert_eq!(
        code(Settings::default().max_databases(0)),
        outside("max_databases = 0 in code: expected a whole number: 1 to 10000")
    );
    assert_eq!(
        code(Settings::default().grow_ahead(101)),
        outside(
            "grow_ahead = 101 in code: expected a whole number, or \"off\" for 0: 0 (off), or 1 to 100"
        )
    );
    for settings in [
        Settings::default().map_size(1),
        Settings::default().map_size(u64::MAX),
        Settings::default().growth(Growth::Step(0)),
        Settings::default().batch(65_537),
        Settings::default().gather(Duration::from_nanos(1)),
        Settings::default().deadline(Duration::MAX),
        Settings::default().deadline(Duration::ZERO),
        Settings::default().retry_backoff(Backoff::new(millis(2), millis(1), 2.0)),
        Settings::default().retry_backoff(Backoff::new(millis(1), millis(2), f64::NAN)),
        Settings::default().retry_backoff(Backoff::new(millis(1), millis(2), 0.5)),
        Settings::default().adopt_backoff(Backoff::new(millis(1), Duration::MAX, 2.0)),
    ] {
        let error = settings.resolve_without_file().expect_err("out of range");
        assert!(
            matches!(
                error,
                ConfigError::OutOfRange {
                    place: Place::Code,
                    ..
                }
            ),
            "{error}"
        );
    }
    assert_eq!(
        complaint("\nreader_threads = 65"),
        "setting reader_threads = 65 at lockkeeper.toml:2: expected a whole number: 1 to 64"
    );
}

#[test]
fn zero_is_allowed_exactly_where_the_table_gives_it_a_meaning() {
    for info in infos()
        .iter()
        .filter(|info| matches!(info.kind, "duration" | "number" | "percent"))
    {
        let meaning = info.range.starts_with("0 (");
        assert_eq!(
            from_file(&format!("{} = \"off\"", info.name)).is_ok(),
            meaning,
            "{}",
            info.name
        );
        assert_eq!(
            from_file(&format!("{} = 0", info.name)).is_ok(),
            meaning,
            "{}",
            info.name
        );
    }
}

#[test]
fn a_good_value_in_the_file_stands_in_for_a_bad_one_in_code() {
    let settings = Settings::default().queue(0);
    assert!(settings.resolve_without_file().is_err());
    assert_eq!(resolve(&settings, "queue = 3").expect("valid").queue(), 3);
}

#[test]
fn map_sizes_are_rounded_up_to_pages_and_go_together() {
    let sizes = |size, max, page| {
        let settings = Settings::default().map_size(size).max_map_size(max);
        let config = settings.resolve_with(folder("").path(), page);
        config.map(|config| (config.map_size(), config.max_map_size()))
    };
    assert_eq!(
        sizes(100_000, 200_000, PAGE).expect("valid"),
        (102_400, 200_704)
    );
    assert_eq!(
        sizes(100_000, 200_000, 65_536).expect("valid"),
        (131_072, 262_144)
    );
    assert_eq!(
        sizes(100_001, 100_000, PAGE).expect("one page holds both"),
        (102_400, 102_400)
    );
    assert_eq!(
        sizes(100_000, 100_000, 0).expect("no page size"),
        (100_000, 100_000)
    );
    let error = sizes(1 << 20, 1 << 19, PAGE).expect_err("more than the most");
    assert_eq!(
        error.to_string(),
        "setting map_size = 1MiB in code: expected at most max_map_size, which is 512KiB in code"
    );
    assert_eq!(
        complaint("max_map_size = \"1MiB\""),
        "setting map_size = 1GiB by default: expected at most max_map_size, which is 1MiB at lockkeeper.toml:1"
    );
}

#[test]
fn functions_come_from_code_and_say_so() {
    let settings = Settings::default()
        .growth(Growth::function(|size| Some(size + 1)))
        .adopt_backoff(Delay::function(|attempt| millis(u64::from(attempt))));
    let config = settings.resolve_without_file().expect("valid");
    assert_eq!(
        described(&config, "growth"),
        ("a function".to_owned(), Source::Code)
    );
    assert_eq!(config.adopt_backoff().after(4, 0.0), millis(4));
    assert!(format!("{config:?}").contains("Function(..)"));
}

#[test]
fn the_strictest_durability_is_the_largest() {
    assert_eq!(
        Durability::NoSync.max(Durability::NoMetaSync),
        Durability::NoMetaSync
    );
    assert_eq!(
        Durability::NoMetaSync.max(Durability::Full),
        Durability::Full
    );
}

#[test]
fn sizes_that_are_no_sizes_are_refused() {
    for text in [
        "",
        "MiB",
        "-1",
        "+1",
        "1.5GiB",
        "1MB",
        "64 Mi B",
        "1e6",
        "16777216TiB",
        "18446744073709551616",
        "٣",
    ] {
        assert_eq!(parse_size(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn a_size_is_read_as_it_is_written(bytes in prop_oneof![any::<u64>(), (0..64_u32).prop_map(|n| 1 << n)]) {
        prop_assert_eq!(parse_size(&size_text(bytes)), Some(bytes));
        prop_assert_eq!(parse_size(&bytes.to_string()), Some(bytes));
    }

    #[test]
    fn no_text_makes_the_parser_panic(name in "[a-z_]{1,12}|map_size|growth|lock_timeout", value in "\\PC{0,24}") {
        let _ = from_file(&format!("{name} = {value}\n"));
        let _ = from_file(&value);
    }

    #[test]
    fn a_resolved_configuration_is_within_its_table(
        map in any::<u64>(), max in any::<u64>(), queue in any::<usize>(), percent in any::<u8>(), page in any::<u16>(),
    ) {
        let settings = Settings::default().map_size(map).max_map_size(max).queue(queue).grow_ahead(percent);
        if let Ok(config) = settings.resolve_with(folder("").path(), u64::from(page)) {
            prop_assert!(map <= config.map_size() && config.map_size() <= config.max_map_size());
            prop_assert_eq!(config.map_size() % u64::from(page.max(1)), 0);
            prop_assert!((1..=1_000_000).contains(&config.queue()) && config.grow_ahead() <= 100);
        }
    }
}
