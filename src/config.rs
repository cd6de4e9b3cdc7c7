//! Every setting: its name, type, default and range, and whether it may change while the keeper runs.
//!
//! Settings come from code, then from `lockkeeper.toml` in the environment's folder, and **the file wins**, so that who
//! runs a program can change what its author chose. A [`Config`] is made by [`Settings::resolve`] alone, and once made it
//! is valid: nobody checks a value again. All that is known about a setting stands in one table (`config/table.rs`).

mod docs;
mod error;
mod file;
mod kinds;
mod table;
mod values;

use std::path::Path;
use std::time::Duration;

pub use docs::{Change, SettingInfo, settings_table};
pub use error::{ConfigError, Place};
pub use values::{Durability, Growth, OnFatal, Source, WhenFull};

pub(crate) use table::{builder_setters, with_settings};

use crate::backoff::{Backoff, Delay};
use file::{Entry, SettingsFile};
use kinds::{
    Count, DelayPolicy, GrowthPolicy, Kind, Randomised, Size, Switch, Time, Word, bounds,
    size_text, zero_or,
};

/// The settings file, in the environment's folder.
pub const FILE_NAME: &str = "lockkeeper.toml";

const KIB: u64 = 1 << 10;
const HAS_64_BITS: bool = cfg!(target_pointer_width = "64");
const DEFAULT_MAP: u64 = if HAS_64_BITS { 1 << 30 } else { 256 << 20 };
const DEFAULT_MAX_MAP: u64 = if HAS_64_BITS { 1 << 40 } else { 1 << 30 };
/// Half of the addresses that a process has at the least.
const LARGEST_MAP: u64 = if HAS_64_BITS { 64 << 40 } else { 1 << 30 };

const HOUR: Duration = secs(3600);
const DAY: Duration = secs(24 * 3600);
const MONTH: Duration = secs(30 * 24 * 3600);

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

const fn backoff(base_millis: u64, max_millis: u64) -> Backoff {
    Backoff::new(millis(base_millis), millis(max_millis), 2.0)
}

macro_rules! getter {
    (copy $(#[$meta:meta])+ $name:ident $ty:ty) => {
        $(#[$meta])+
        #[must_use]
        pub const fn $name(&self) -> $ty {
            self.$name
        }
    };
    (borrow $(#[$meta:meta])+ $name:ident $ty:ty) => {
        $(#[$meta])+
        #[must_use]
        pub const fn $name(&self) -> &$ty {
            &self.$name
        }
    };
}

macro_rules! define_settings {
    ($($(#[doc = $doc:literal])+ $name:ident : $ty:ty [$how:ident, $kind:ty, $change:expr] = $default:expr, $text:literal, $range:expr;)+) => {
        /// What the program sets; `None` leaves a setting to the file, or to its default.
        ///
        /// There is a field and a setter for each setting, and nothing is checked before [`resolve`](Self::resolve).
        #[derive(Clone, Debug, Default)]
        pub struct Settings {
            $($(#[doc = $doc])+ #[doc = concat!("\n\nDefault: `", $text, "`.")] pub $name: Option<$ty>,)+
        }

        /// A valid configuration: every setting has a value in its range, and all go together.
        #[derive(Clone, Debug)]
        pub struct Config {
            $($name: $ty,)+
            sources: Sources,
        }

        #[derive(Clone, Debug)]
        struct Sources {
            $($name: Source,)+
        }

        impl Config {
            $(getter! { $how $(#[doc = $doc])+ $name $ty })+

            /// Every setting with its value, as it is written in the file, and with where the value came from.
            pub fn describe(&self) -> impl Iterator<Item = (&'static str, String, Source)> + use<> {
                [$((stringify!($name), <$kind>::text(&self.$name), self.sources.$name),)+].into_iter()
            }
        }

        /// What is known about every setting, in the order of the table.
        fn infos() -> Vec<SettingInfo> {
            vec![$(SettingInfo {
                name: stringify!($name),
                kind: <$kind>::NAME,
                default: <$kind>::text(&$default),
                range: <$kind>::allowed(&$range),
                change: $change,
                doc: concat!($($doc),+).trim_ascii(),
            },)+]
        }

        /// Takes one line of the file into `settings`.
        fn take_entry(file: &SettingsFile, entry: &Entry<'_, '_>, settings: &mut Settings) -> Result<(), ConfigError> {
            match entry.name {
                $(stringify!($name) => {
                    let expected = || <$kind>::expected(&$range);
                    let value = <$kind>::parse(entry.value)
                        .map_err(|malformed| file.malformed(stringify!($name), entry, malformed, expected))?;
                    settings.$name = Some(value);
                })+
                _ => return Err(file.unknown(entry, &[$(stringify!($name)),+])),
            }
            Ok(())
        }

        /// The values that win, all of them in their ranges.
        fn choose(code: &Settings, filed: &Settings, file: Option<&SettingsFile>) -> Result<Config, ConfigError> {
            $(
                let line = file.map_or(0, |file| file.line_of(stringify!($name)));
                let (value, source) = match (&filed.$name, &code.$name) {
                    (Some(value), _) => (value.clone(), Source::File { line }),
                    (None, Some(value)) => (value.clone(), Source::Code),
                    (None, None) => ($default, Source::Default),
                };
                if !<$kind>::allows(&$range, &value) {
                    return Err(ConfigError::OutOfRange {
                        setting: stringify!($name),
                        value: <$kind>::text(&value),
                        expected: <$kind>::expected(&$range),
                        place: place(source, file),
                    });
                }
                let $name = (value, source);
            )+
            Ok(Config { $($name: $name.0,)+ sources: Sources { $($name: $name.1,)+ } })
        }
    };
}

with_settings!(define_settings);

fn place(source: Source, file: Option<&SettingsFile>) -> Place {
    match (source, file) {
        (Source::File { line }, Some(file)) => Place::File {
            file: file.path().to_owned(),
            line,
        },
        (Source::Default, _) => Place::Default,
        _ => Place::Code,
    }
}

impl Settings {
    /// The configuration for the environment in `folder`, whose `lockkeeper.toml` is read if it is there.
    ///
    /// Blocks for as long as it takes to read that file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the file cannot be read or understood, if a value that wins is out of its range, or if two
    /// values do not go together.
    pub fn resolve(&self, folder: &Path) -> Result<Config, ConfigError> {
        self.resolve_with(folder, page_size())
    }

    /// The same as [`resolve`](Self::resolve), for pages of `page` bytes.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    pub fn resolve_with(&self, folder: &Path, page: u64) -> Result<Config, ConfigError> {
        let file = SettingsFile::read(folder)?;
        let mut filed = Self::default();
        if let Some(file) = &file {
            file.each(|entry| take_entry(file, entry, &mut filed))?;
        }
        self.finish(&filed, file.as_ref(), page)
    }

    /// The configuration from code and defaults alone.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a value is out of its range, or if two values do not go together.
    pub fn resolve_without_file(&self) -> Result<Config, ConfigError> {
        self.finish(&Self::default(), None, page_size())
    }

    fn finish(
        &self,
        filed: &Self,
        file: Option<&SettingsFile>,
        page: u64,
    ) -> Result<Config, ConfigError> {
        let mut config = choose(self, filed, file)?;
        let page = page.max(1);
        config.map_size = config.map_size.next_multiple_of(page);
        config.max_map_size = config.max_map_size.next_multiple_of(page);
        if config.map_size > config.max_map_size {
            let most = size_text(config.max_map_size);
            return Err(ConfigError::Contradiction {
                setting: "map_size",
                value: size_text(config.map_size),
                expected: format!(
                    "at most max_map_size, which is {most} {}",
                    place(config.sources.max_map_size, file)
                ),
                place: place(config.sources.map_size, file),
            });
        }
        Ok(config)
    }

    const fn settings_mut(&mut self) -> &mut Self {
        self
    }

    with_settings!(builder_setters);
}

impl Default for Config {
    /// Every setting at its default, rounded to this machine's pages.
    fn default() -> Self {
        Settings::default()
            .resolve_without_file()
            .expect("the defaults are in their ranges, as a test asserts")
    }
}

/// The size of a page on this machine.
#[must_use]
pub fn page_size() -> u64 {
    u64::try_from(page_size::get()).unwrap_or(4096)
}

#[cfg(test)]
mod tests;
