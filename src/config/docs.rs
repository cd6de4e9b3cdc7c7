//! The docs of the settings, made from their table.

use std::fmt::{self, Write};

use super::foreign::keyword_table;

/// Whether a setting may change while the keeper runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Only before the start.
    Never,
    /// At any time.
    Always,
    /// At any time, and never below what is in use.
    Upward,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "no",
            Self::Always => "yes",
            Self::Upward => "yes, not below what is in use",
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

Settings come from code (a setter of `Keeper::builder()` for each) and from files in the environment's folder. A file wins over
code, and of the files each wins over those before it, setting by setting:

1. code
2. `je.properties`, as JE has it
3. `DB_CONFIG`, as Berkeley DB has it
4. `lockkeeper.toml`, which is described here; [the other two](#files-brought-along) have sections of their own

A name that is not in this table, a value of the wrong kind and a value out of its range are errors that name the file, the line
and what was expected; nothing is opened then. The files are read once, when the keeper is opened.

- A size is a number of bytes, or a string with a binary unit: `1048576`, `\"64MiB\"` (B, KiB, MiB, GiB, TiB).
- A duration is a string with its unit: `\"500ms\"`, `\"1m 30s\"`. Where the range names 0, `0`, `\"0s\"` and `\"off\"` mean the same.
- A backoff is a table: a delay is drawn at random from 0 up to `base` at first, and the span grows by `factor` with each attempt, up to `max`.

```toml
map_size = \"64MiB\"
growth = {step = \"16MiB\"}
durability = \"no-meta-sync\"
lock_timeout = \"500ms\"
txn_timeout = \"off\"
detect_policy = \"min-write\"

[retry_backoff]
base = \"2ms\"
max = \"200ms\"
factor = 1.5
```

The last column but one says whether a setting may change while the keeper runs: by a message (`SetMapSize`, `SetDetect`,
`SetTimeouts`, `SetLimits`), not by a change of the file. On 32-bit machines the default of `map_size` is
256MiB, and that of `max_map_size`, which is also the largest, 1GiB.

| setting | kind | default | range | may change | what it does |
|---|---|---|---|---|---|
";

const SHOWING: &str = "
## What is in force

`keeper.config()` answers the settings that the keeper was opened with; each has a getter. What was changed since by a message is not in it; `LockConfigQuery`
answers how the lock table is set now. To see all of them, with where each came from, print it:

```rust
use lockkeeper::{Keeper, OpenError};

fn show(folder: &std::path::Path) -> Result<(), OpenError> {
    let keeper = Keeper::open(folder)?;
    println!(\"{}\", keeper.config());
    Ok(())
}
```

```toml
detect_policy = \"min-write\"          # DB_CONFIG:4
lock_timeout = \"500ms\"               # lockkeeper.toml:2
no_wait = false                      # default
max_lockers = 5000                   # code

# Without a counterpart:
# DB_CONFIG:9: set_lk_tablesize 4096: the lock table grows as it is used
```

(The lines in between are left out here.) It is a `lockkeeper.toml` that makes the same configuration again. In code, `Config::describe` goes through the same lines,
and `Config::without_counterpart` through the last part. `Settings::resolve(folder)` answers a `Config` without opening anything, to
check files before they are used.

## Files brought along

A `DB_CONFIG` and a `je.properties` in the environment's folder are read for the settings of locks and transactions that people
bring along. A keyword has an exact counterpart here, or a nearest one, or none. One without has no effect; it is logged as a warning when the keeper is
opened, and kept for `Config::without_counterpart`. A keyword that is in none of these tables is an error, and so is a value that is malformed, missing, out
of the range of the setting it becomes, or one too many; that holds for every line, also for one that another outweighs. If a keyword stands on several lines, the last of them wins,
as in Berkeley DB and JE. A `*` stands for any ending. Lines may end in CRLF, and a byte-order mark at the beginning is passed over.
";

const DB_CONFIG: &str = "
### `DB_CONFIG`

One keyword and its value a line; empty lines, and those that begin with `#`, are passed over. Names are taken as they are
written here, values like `db_lock_minwrite` in capitals, too; times are in microseconds. A flag of `set_flags` may be followed by `on` or `off`.

";

const JE_PROPERTIES: &str = "
### `je.properties`

The syntax is that of Java's properties: `#` and `!` begin a comment, `=`, `:` or a blank follows the name, and a backslash at the end of a
line goes on with the next. A time is a number with its unit (ns, us, ms, s, min, h), or a number of microseconds.

";

/// The page about all settings in Markdown, as it stands in `docs/settings.md`.
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
    page += SHOWING;
    page += DB_CONFIG;
    page += &keyword_table("DB_CONFIG");
    page += JE_PROPERTIES;
    page += &keyword_table("je.properties");
    page
}
