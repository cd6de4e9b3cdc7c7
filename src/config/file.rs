//! `lockkeeper.toml`: read once, taken apart in the order of its lines, with the place of each for errors.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::kinds::Malformed;
use super::values::Source;

/// Longest part of a value that an error repeats.
const SHOWN: usize = 60;

/// The file's text.
pub struct SettingsFile {
    path: PathBuf,
    text: String,
}

/// One setting of the file.
pub struct Entry<'a, 'i> {
    /// Its name as it stands there.
    pub name: &'a str,
    /// Its value, with its place in the text.
    pub value: &'a Spanned<DeValue<'i>>,
    /// The place of its name in the text.
    pub span: Range<usize>,
}

impl SettingsFile {
    /// Reads the file of `folder`, if there is one.
    pub fn read(folder: &Path) -> Result<Option<Self>, ConfigError> {
        let path = folder.join(super::FILE_NAME);
        let Some(bytes) = bytes_of(&path)? else {
            return Ok(None);
        };
        let text = String::from_utf8(bytes).map_err(|e| {
            let line = line_at(e.as_bytes(), e.utf8_error().valid_up_to());
            ConfigError::Syntax {
                expected: "expected UTF-8".to_owned(),
                file: path.clone(),
                line,
            }
        })?;
        Ok(Some(Self { path, text }))
    }

    /// Calls `take` for each setting, from the top down, up to the first error.
    pub fn each(
        &self,
        mut take: impl FnMut(&Entry<'_, '_>) -> Result<(), ConfigError>,
    ) -> Result<(), ConfigError> {
        let table = self.parse()?;
        let mut entries: Vec<_> = table
            .iter()
            .map(|(name, value)| Entry {
                name: name.get_ref(),
                value,
                span: name.span(),
            })
            .collect();
        entries.sort_by_key(|entry| entry.span.start);
        entries.iter().try_for_each(&mut take)
    }

    /// Where a setting came from that stands in the file.
    pub fn source(&self, entry: &Entry<'_, '_>) -> Source {
        Source::File {
            file: super::FILE_NAME,
            line: self.line(&entry.span),
        }
    }

    /// The error for a value that is not what its setting takes.
    pub fn malformed(
        &self,
        setting: &'static str,
        entry: &Entry<'_, '_>,
        malformed: Malformed,
        expected: impl FnOnce() -> String,
    ) -> ConfigError {
        // A table says more by its member that is wrong than by its first line.
        let inner = malformed.expected.is_some();
        ConfigError::Malformed {
            setting,
            value: self.shown(&malformed.span),
            expected: malformed.expected.unwrap_or_else(expected),
            file: self.path.clone(),
            line: self.line(if inner { &malformed.span } else { &entry.span }),
        }
    }

    /// The error for a name that is no setting.
    pub fn unknown(&self, entry: &Entry<'_, '_>, known: &[&str]) -> ConfigError {
        let expected = match nearest(entry.name, known) {
            Some(name) => format!("a setting; did you mean {name}?"),
            None => format!("one of {}", known.join(", ")),
        };
        ConfigError::Unknown {
            setting: entry.name.to_owned(),
            value: self.shown(&entry.value.span()),
            expected,
            file: self.path.clone(),
            line: self.line(&entry.span),
        }
    }

    fn parse(&self) -> Result<DeTable<'_>, ConfigError> {
        DeTable::parse(&self.text)
            .map(Spanned::into_inner)
            .map_err(|e| ConfigError::Syntax {
                expected: e.message().to_owned(),
                file: self.path.clone(),
                line: self.line(&e.span().unwrap_or(0..0)),
            })
    }

    fn line(&self, span: &Range<usize>) -> usize {
        line_at(self.text.as_bytes(), span.start)
    }

    fn shown(&self, span: &Range<usize>) -> String {
        shown(self.text.get(span.clone()).unwrap_or_default())
    }
}

/// The content of a file, if there is one.
pub fn bytes_of(path: &Path) -> Result<Option<Vec<u8>>, ConfigError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        // A folder that is a file is for whoever opens the environment to complain about.
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(ConfigError::Unreadable {
            file: path.to_owned(),
            source,
        }),
    }
}

/// The beginning of a text that came from a file, fit for one line of a log.
pub fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut shown = String::new();
    for c in line.chars().take(SHOWN) {
        if c.is_control() && c != '\t' {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    let whole = text.len() == line.len() && line.chars().nth(SHOWN).is_none();
    if whole { shown } else { shown + "…" }
}

/// The line, counted from 1, of the byte at `offset`.
fn line_at(text: &[u8], offset: usize) -> usize {
    1 + text
        .iter()
        .take(offset)
        .filter(|&&byte| byte == b'\n')
        .count()
}

/// The known name that `name` was probably meant to be.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = name.replace('-', "_").to_lowercase();
    let distance = |name: &str, known: &str| distance(name, &known.to_lowercase());
    // More than a third wrong is another word.
    let close = |known: &&&str| distance(&name, known) * 3 <= known.len();
    known
        .iter()
        .filter(close)
        .min_by_key(|known| distance(&name, known))
        .copied()
}

/// How many letters have to be added, removed or replaced to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    // A name that long is near to nothing, and its distance is dear.
    if a.len() > SHOWN {
        return usize::MAX / 4;
    }
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (pair, y) in row.windows(2).zip(b.chars()) {
            let [diagonal, above] = *pair else { continue };
            let left = next.last().copied().unwrap_or_default();
            next.push(
                (diagonal + usize::from(x != y))
                    .min(above + 1)
                    .min(left + 1),
            );
        }
        row = next;
    }
    row.pop().unwrap_or_default()
}
