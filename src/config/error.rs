//! What is wrong with a setting, and where it stands.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// The settings do not make a configuration. Nothing was opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value in a file is not of the setting's type, or not what the keyword of another system's file takes. Write it as
    /// `expected` says.
    #[error("setting {setting} = {value} at {}:{line}: expected {expected}", file.display())]
    Malformed {
        /// The name of the setting, or the keyword.
        setting: &'static str,
        /// The value as it stands in the file.
        value: String,
        /// What would be right.
        expected: String,
        /// The file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// A value is of the right type and outside its range. Choose one that is inside.
    #[error("setting {setting} = {value} {place}: expected {expected}")]
    OutOfRange {
        /// The setting's name.
        setting: &'static str,
        /// The value.
        value: String,
        /// The range.
        expected: String,
        /// Where the value was set.
        place: Place,
    },
    /// A value is in its range and does not go with another setting. Change one of the two.
    #[error("setting {setting} = {value} {place}: expected {expected}")]
    Contradiction {
        /// The setting's name.
        setting: &'static str,
        /// The value.
        value: String,
        /// What the other setting allows.
        expected: String,
        /// Where the value was set.
        place: Place,
    },
    /// A file sets something that is no setting, and no keyword of such a file. Correct the name, or remove the line.
    #[error("unknown setting {setting} = {value} at {}:{line}: expected {expected}", file.display())]
    Unknown {
        /// The name as it stands in the file.
        setting: String,
        /// The value as it stands in the file.
        value: String,
        /// The name that was probably meant, or all of them.
        expected: String,
        /// The file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// The file is not what such a file looks like: `lockkeeper.toml` is no TOML, or a value is missing. The text says what was
    /// expected at that line.
    #[error("{}:{line}: {expected}", file.display())]
    Syntax {
        /// What was missed.
        expected: String,
        /// The file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// A file is there and cannot be read. Make it a readable file, or remove it.
    #[error("cannot read the settings in {}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Where a value was set, for an error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// Nobody set it: it is the default.
    Default,
    /// The program set it.
    Code,
    /// A file set it.
    File {
        /// The file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("by default"),
            Self::Code => f.write_str("in code"),
            Self::File { file, line } => write!(f, "at {}:{line}", file.display()),
        }
    }
}
