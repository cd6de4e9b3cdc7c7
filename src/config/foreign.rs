//! The settings files that people bring along from Berkeley DB and JE.
//!
//! Each keyword of such a file has a row in the file's table: it becomes settings of ours, or it has no counterpart here and the
//! row says why. Nothing is dropped in silence: what has no counterpart is kept in the [`Config`](super::Config) and logged at
//! the start, and what is in no row is an error. Every line has to be right, also one that a later line or file outweighs.

mod db_config;
mod je;
mod keyword;
mod properties;
mod without;

use std::path::{Path, PathBuf};

pub use without::NoCounterpart;

use super::error::ConfigError;
use super::file::{bytes_of, nearest, shown};
use super::values::Source;
use super::{Filed, Settings, outside, range_of};
use keyword::{Keyword, Meaning};

/// The kinds of files; each wins over those before it.
pub const FILES: [&ForeignFile; 2] = [&je::FILE, &db_config::FILE];

/// One kind of file.
#[derive(Debug)]
pub struct ForeignFile {
    /// Its name in the environment's folder.
    pub name: &'static str,
    /// Whose file it is.
    pub owner: &'static str,
    /// All that may stand in it. Of two that set one thing, the later row sees what the earlier one set.
    pub keywords: &'static [Keyword],
    /// Takes the text apart, or says what it expected and on which line.
    lines: fn(&[u8]) -> Result<Vec<Line>, Garbled>,
}

/// One line that sets something, or in `je.properties` several that are one.
#[derive(Debug)]
struct Line {
    name: String,
    value: String,
    number: usize,
}

/// What a file expected instead of what it has.
#[derive(Debug)]
struct Garbled {
    line: usize,
    expected: &'static str,
}

impl ForeignFile {
    /// Takes what the file of `folder` says, if there is one, over what was `filed` before.
    pub fn read(&self, folder: &Path, filed: &mut Filed) -> Result<(), ConfigError> {
        let path = folder.join(self.name);
        let Some(bytes) = bytes_of(&path)? else {
            return Ok(());
        };
        let lines =
            (self.lines)(&bytes).map_err(|Garbled { line, expected }| ConfigError::Syntax {
                expected: expected.to_owned(),
                file: path.clone(),
                line,
            })?;
        let reading = Reading { file: self, path };
        let known: Vec<_> = lines
            .iter()
            .map(|line| Ok((line, reading.check(line)?)))
            .collect::<Result<_, ConfigError>>()?;
        let mut so_far = Filed::default();
        for keyword in self.keywords {
            // The last line of a keyword wins, as it does for those who wrote the file.
            let last = known.iter().rev().find(|(_, found)| found.is(keyword));
            if let (Some((line, _)), Meaning::Sets(sets)) = (last, &keyword.meaning) {
                let mut values = Settings::default();
                (sets.take)(&line.value, &so_far.values, &mut values);
                so_far.set(&values, self.source(line));
            }
        }
        filed.lay_over(&so_far);
        filed.without.extend(self.without(&known));
        Ok(())
    }

    /// What has no counterpart, each name once.
    fn without(&self, known: &[(&Line, &'static Keyword)]) -> Vec<NoCounterpart> {
        let last = |(at, (line, keyword)): (usize, &(&Line, &'static Keyword))| {
            let reason = keyword.meaning.reason(&line.value)?;
            let later = known.get(at + 1..).unwrap_or_default();
            let again = later.iter().any(|(other, _)| other.name == line.name);
            (!again).then(|| NoCounterpart {
                keyword: shown(&line.name),
                value: shown(&line.value),
                source: self.source(line),
                reason,
            })
        };
        known.iter().enumerate().filter_map(last).collect()
    }

    const fn source(&self, line: &Line) -> Source {
        Source::File {
            file: self.name,
            line: line.number,
        }
    }
}

/// One file while it is read.
struct Reading<'a> {
    file: &'a ForeignFile,
    path: PathBuf,
}

impl Reading<'_> {
    /// The keyword of a line that is right.
    fn check(&self, line: &Line) -> Result<&'static Keyword, ConfigError> {
        let missing = |expected: &str| ConfigError::Syntax {
            expected: format!("expected a value after {}{expected}", shown(&line.name)),
            file: self.path.clone(),
            line: line.number,
        };
        let flags = self.flags(&line.name);
        if line.value.is_empty() && !flags.is_empty() {
            return Err(missing(&format!(": one of {}", flags.join(", "))));
        }
        let keyword = self.file.keywords.iter().find(|row| row.names(&line.name));
        let keyword = keyword.ok_or_else(|| self.unknown(line))?;
        if line.value.is_empty() {
            let expected = expected(keyword).map_or_else(String::new, |what| format!(": {what}"));
            return Err(missing(&expected));
        }
        let right = match &keyword.meaning {
            Meaning::Sets(sets) => {
                let mut values = Settings::default();
                (sets.take)(&line.value, &Settings::default(), &mut values).is_some()
                    && !sets.settings.iter().any(|name| outside(&values, name))
            }
            Meaning::Nothing { takes: None, .. } => true,
            Meaning::Nothing {
                takes: Some(takes), ..
            } => (takes.allow)(&line.value),
        };
        if right {
            return Ok(keyword);
        }
        Err(ConfigError::Malformed {
            setting: keyword.name,
            value: shown(&line.value),
            expected: expected(keyword).unwrap_or_default(),
            file: self.path.clone(),
            line: line.number,
        })
    }

    /// The flags that a keyword takes, if it takes flags.
    fn flags(&self, name: &str) -> Vec<&'static str> {
        let rows = self.file.keywords.iter();
        rows.filter_map(|row| row.name.split_once(' '))
            .filter_map(|(of, flag)| (of == name).then_some(flag))
            .collect()
    }

    fn unknown(&self, line: &Line) -> ConfigError {
        let (unknown, known) = match line.name.split_once(' ') {
            Some((of, flag)) => (flag, self.flags(of)),
            None => {
                let rows = self.file.keywords.iter();
                let mut names: Vec<_> = rows.filter_map(|row| row.name.split(' ').next()).collect();
                names.dedup();
                (line.name.as_str(), names)
            }
        };
        let expected = match nearest(unknown, &known) {
            Some(name) => format!("a keyword of {}; did you mean {name}?", self.file.owner),
            None => format!("one of {}", known.join(", ")),
        };
        ConfigError::Unknown {
            setting: shown(&line.name),
            value: shown(&line.value),
            expected,
            file: self.path.clone(),
            line: line.number,
        }
    }
}

/// What a keyword takes, with the range of the setting that it becomes; none if that is not looked at.
fn expected(keyword: &Keyword) -> Option<String> {
    match &keyword.meaning {
        Meaning::Sets(sets) => Some(match sets.settings {
            [one] if sets.ranged => format!("{}: {}", sets.takes, range_of(one)),
            _ => sets.takes.to_owned(),
        }),
        Meaning::Nothing { takes, .. } => Some(takes.as_ref()?.name.to_owned()),
    }
}

/// The table of the keywords of the file `name`, in Markdown.
pub fn keyword_table(name: &str) -> String {
    let rows = FILES.iter().filter(|file| file.name == name);
    let mut table = "| keyword | what it becomes |\n|---|---|\n".to_owned();
    for row in rows.flat_map(|file| file.keywords) {
        table += &format!("| `{}` | {} |\n", row.name, row.meaning);
    }
    table
}

/// A whole number in decimal digits.
fn whole(text: &str) -> Option<u64> {
    // `parse` would take a sign, too.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn count(text: &str) -> Option<usize> {
    usize::try_from(whole(text)?).ok()
}
