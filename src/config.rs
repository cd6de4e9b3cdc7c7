//! Every setting: its name, type, default and range, and whether it may change while the keeper runs.
//!
//! Settings come from code, then from files in the environment's folder, and **a file wins over code**, so that who runs a
//! program can change what its author chose. Of the files `lockkeeper.toml`, which was written for this crate, wins over
//! `DB_CONFIG`, and that over `je.properties`, setting by setting. A [`Config`] is made by [`Settings::resolve`] alone, and once
//! made it is valid: nobody checks a value again. All that is known about a setting stands in one table (`config/table.rs`).

mod docs;
mod error;
mod file;
mod filed;
mod foreign;
mod kinds;
mod show;
mod table;
mod values;

use std::path::Path;
use std::time::Duration;

pub use docs::{Change, SettingInfo, settings_table};
pub use error::{ConfigError, Place};
pub use foreign::NoCounterpart;
pub use values::{Durability, Growth, OnFatal, Source, WhenFull};

pub(crate) use table::{builder_setters, with_settings};

use crate::backoff::{Backoff, Delay};
use crate::leases::state::Timing;
use crate::locks::VictimPolicy;
use file::{Entry, SettingsFile};
use filed::Filed;
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
            without: Vec<NoCounterpart>,
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

            /// Every setting with its value as `lockkeeper.toml` has it, if it can be written there.
            fn lines(&self) -> impl Iterator<Item = (&'static str, Option<String>, Source)> + use<> {
                [$((stringify!($name), <$kind>::toml(&self.$name), self.sources.$name),)+].into_iter()
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

        /// Takes one line of `lockkeeper.toml`.
        fn take_entry(file: &SettingsFile, entry: &Entry<'_, '_>, filed: &mut Filed) -> Result<(), ConfigError> {
            let mut line = Settings::default();
            match entry.name {
                $(stringify!($name) => {
                    let expected = || <$kind>::expected(&$range);
                    let value = <$kind>::parse(entry.value)
                        .map_err(|malformed| file.malformed(stringify!($name), entry, malformed, expected))?;
                    line.$name = Some(value);
                })+
                _ => return Err(file.unknown(entry, &[$(stringify!($name)),+])),
            }
            filed.set(&line, file.source(entry));
            Ok(())
        }

        impl Settings {
            /// Puts what is set in `over` in the place of what is set here, and names it to `each`.
            fn lay_over(&mut self, over: &Self, mut each: impl FnMut(&'static str)) {
                $(if over.$name.is_some() {
                    self.$name.clone_from(&over.$name);
                    each(stringify!($name));
                })+
            }
        }

        /// Whether a setting has a value outside its range.
        fn outside(settings: &Settings, setting: &str) -> bool {
            match setting {
                $(stringify!($name) => settings.$name.as_ref().is_some_and(|value| !<$kind>::allows(&$range, value)),)+
                _ => false,
            }
        }

        /// The values that win, all of them in their ranges.
        fn choose(code: &Settings, filed: &Filed) -> Result<Config, ConfigError> {
            $(
                let (value, source) = match (&filed.values.$name, &code.$name) {
                    (Some(value), _) => (value.clone(), filed.source(stringify!($name))),
                    (None, Some(value)) => (value.clone(), Source::Code),
                    (None, None) => ($default, Source::Default),
                };
                if !<$kind>::allows(&$range, &value) {
                    return Err(ConfigError::OutOfRange {
                        setting: stringify!($name),
                        value: <$kind>::text(&value),
                        expected: <$kind>::expected(&$range),
                        place: filed.place(source),
                    });
                }
                let $name = (value, source);
            )+
            let without = filed.without.clone();
            Ok(Config { $($name: $name.0,)+ sources: Sources { $($name: $name.1,)+ }, without })
        }
    };
}

with_settings!(define_settings);

/// The range of a setting, for a person.
fn range_of(setting: &str) -> String {
    let info = infos().into_iter().find(|info| info.name == setting);
    info.map(|info| info.range).unwrap_or_default()
}

impl Config {
    /// Whether the times of leases go together.
    fn check_leases(&self, filed: &Filed) -> Result<(), ConfigError> {
        let (refresh, expiration) = (self.lease_refresh, self.lease_expiration);
        let Err(error) = Timing::new(refresh, expiration, self.lease_max_clock_skew) else {
            return Ok(());
        };
        Err(ConfigError::Contradiction {
            setting: "lease_expiration",
            value: humantime::format_duration(expiration).to_string(),
            expected: format!("one that goes with lease_refresh and lease_max_clock_skew: {error}"),
            place: filed.place(self.sources.lease_expiration),
        })
    }

    /// What a `DB_CONFIG` or a `je.properties` asks for and has no counterpart here, each with the reason. It has no effect, and was
    /// logged as a warning.
    #[must_use]
    pub fn without_counterpart(&self) -> &[NoCounterpart] {
        &self.without
    }
}

impl Settings {
    /// The configuration for the environment in `folder`, whose `je.properties`, `DB_CONFIG` and `lockkeeper.toml` are read if they
    /// are there. Of those that set one thing the last in this order wins, and each wins over what was set in code.
    ///
    /// Blocks for as long as it takes to read the files.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a file cannot be read or understood, if a value is out of its range, or if two values do not go
    /// together.
    pub fn resolve(&self, folder: &Path) -> Result<Config, ConfigError> {
        self.resolve_with(folder, page_size())
    }

    /// The same as [`resolve`](Self::resolve), for pages of `page` bytes.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    pub fn resolve_with(&self, folder: &Path, page: u64) -> Result<Config, ConfigError> {
        let mut filed = Filed::of(folder);
        for file in foreign::FILES {
            file.read(folder, &mut filed)?;
        }
        if let Some(file) = SettingsFile::read(folder)? {
            file.each(|entry| take_entry(&file, entry, &mut filed))?;
        }
        let config = self.finish(&filed, page)?;
        for NoCounterpart {
            keyword,
            value,
            source,
            reason,
        } in &config.without
        {
            tracing::warn!(target: "lockkeeper", folder = %folder.display(), keyword, value, %source, reason, "a setting has no counterpart");
        }
        Ok(config)
    }

    /// The configuration from code and defaults alone.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a value is out of its range, or if two values do not go together.
    pub fn resolve_without_file(&self) -> Result<Config, ConfigError> {
        self.finish(&Filed::default(), page_size())
    }

    fn finish(&self, filed: &Filed, page: u64) -> Result<Config, ConfigError> {
        let mut config = choose(self, filed)?;
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
                    filed.place(config.sources.max_map_size)
                ),
                place: filed.place(config.sources.map_size),
            });
        }
        config.check_leases(filed)?;
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
