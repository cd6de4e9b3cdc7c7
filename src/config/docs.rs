//! The docs of the settings, made from their table.

use std::fmt::{self, Write};

/// Whether a setting may change while the keeper runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Only before the start.
    Never,
    /// At any time.
    Always,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "no",
            Self::Always => "yes",
        })
    }
}

/// What is known about a setting.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SettingInfo {
    /// Its name, in code and in the file.
    pub name: &'static str,
    /// Its kind in a word: size, number, duration, …
    pub kind: &'static str,
    /// Its default, as it is written in the file.
    pub default: String,
    /// The values it may have.
    pub range: String,
    /// Whether it may change while the keeper runs.
    pub change: Change,
    /// What it does.
    pub doc: &'static str,
}

const INTRODUCTION: &str = "\
# Settings

Settings come from code (a setter of `Keeper::builder()` for each), then from the file `lockkeeper.toml` in the
environment's folder, and the file wins. A name that is not in this table, a value of the wrong kind and a value out of its range
are errors that name the file, the line and what was expected.

- A size is a number of bytes, or a string with a binary unit: `1048576`, `\"64MiB\"` (B, KiB, MiB, GiB, TiB).
- A duration is a string with its unit: `\"500ms\"`, `\"1m 30s\"`. Where the range names 0, `0`, `\"0s\"` and `\"off\"` mean the same.
- A backoff is a table: a delay is drawn at random from 0 up to `base` at first, and the span grows by `factor` with each attempt, up to `max`.

```toml
map_size = \"64MiB\"
growth = {step = \"16MiB\"}
durability = \"no-meta-sync\"
lock_timeout = \"500ms\"

[retry_backoff]
base = \"2ms\"
max = \"200ms\"
factor = 1.5
```

The last column but one says whether a setting may change while the keeper runs. On 32-bit machines the default of `map_size` is
256MiB, and that of `max_map_size`, which is also the largest, 1GiB.

| setting | kind | default | range | may change | what it does |
|---|---|---|---|---|---|
";

/// The table of all settings in Markdown, as it stands in `docs/settings.md`.
#[must_use]
pub fn settings_table() -> String {
    let mut page = INTRODUCTION.to_owned();
    for SettingInfo {
        name,
        kind,
        default,
        range,
        change,
        doc,
    } in super::infos()
    {
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| `{name}` | {kind} | `{default}` | {range} | {change} | {doc} |"
        );
    }
    page
}
