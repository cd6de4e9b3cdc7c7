//! [`Filed`]: what the files of a folder say, laid one over the other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::Place;
use super::foreign::NoCounterpart;
use super::{Settings, Source};

/// The settings that stand in files, each from the file that wins.
#[derive(Debug, Default)]
pub struct Filed {
    /// The values.
    pub values: Settings,
    /// What has no counterpart.
    pub without: Vec<NoCounterpart>,
    sources: BTreeMap<&'static str, Source>,
    folder: PathBuf,
}

impl Filed {
    /// Nothing as yet, from the files of `folder`.
    pub fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            ..Self::default()
        }
    }

    /// Takes what is set in `values`.
    pub fn set(&mut self, values: &Settings, source: Source) {
        let sources = &mut self.sources;
        self.values.lay_over(values, |name| {
            sources.insert(name, source);
        });
    }

    /// Takes the values of `other`, with their sources.
    pub fn lay_over(&mut self, other: &Self) {
        self.values.lay_over(&other.values, |_| ());
        self.sources.extend(&other.sources);
    }

    /// Where the value of a setting came from that stands in a file.
    pub fn source(&self, setting: &str) -> Source {
        let source = self.sources.get(setting);
        source.copied().unwrap_or(Source::Default)
    }

    /// The same place, with the whole path of its file.
    pub fn place(&self, source: Source) -> Place {
        match source {
            Source::Default => Place::Default,
            Source::Code => Place::Code,
            Source::File { file, line } => Place::File {
                file: self.folder.join(file),
                line,
            },
        }
    }
}
