//! [`Keyword`]: one row of the table of a file that people bring along.

use std::fmt;

use crate::config::Settings;

/// A keyword, and what becomes of it.
#[derive(Debug)]
pub struct Keyword {
    /// Its name; with its flag after a blank, if it has one. A `*` at the end stands for any ending.
    pub name: &'static str,
    /// What becomes of it.
    pub meaning: Meaning,
}

/// What becomes of a keyword.
#[derive(Debug)]
pub enum Meaning {
    /// It sets something.
    Sets(Sets),
    /// It has no counterpart.
    Nothing {
        /// What it takes, if that is looked at.
        takes: Option<Takes>,
        /// Why it has none.
        reason: &'static str,
    },
}

/// A keyword that becomes settings.
#[derive(Debug)]
pub struct Sets {
    /// The settings that it can set.
    pub settings: &'static [&'static str],
    /// What it takes, for errors.
    pub takes: &'static str,
    /// Whether the range of its setting is also its own.
    pub ranged: bool,
    /// What is not the same here, for the docs.
    pub note: &'static str,
    /// Reads the value, or answers none if it is malformed.
    pub take: Take,
    /// Why a part of the value has no counterpart, if it has such a part.
    pub beside: fn(&str) -> Option<&'static str>,
}

/// Puts what a value means into the second settings; the first are what the rows before have set.
pub type Take = fn(&str, &Settings, &mut Settings) -> Option<()>;

/// The values of a keyword that sets nothing.
#[derive(Debug)]
pub struct Takes {
    /// What they are, for errors.
    pub name: &'static str,
    /// Whether a value is one of them.
    pub allow: fn(&str) -> bool,
}

impl Keyword {
    /// A keyword that becomes these settings.
    pub const fn sets(
        name: &'static str,
        settings: &'static [&'static str],
        takes: &'static str,
        note: &'static str,
        take: Take,
    ) -> Self {
        let sets = Sets {
            settings,
            takes,
            ranged: false,
            note,
            take,
            beside: |_| None,
        };
        Self {
            name,
            meaning: Meaning::Sets(sets),
        }
    }

    /// The same, with a value in the range of its one setting.
    pub const fn ranged(
        name: &'static str,
        settings: &'static [&'static str; 1],
        takes: &'static str,
        note: &'static str,
        take: Take,
    ) -> Self {
        let mut keyword = Self::sets(name, settings, takes, note, take);
        if let Meaning::Sets(sets) = &mut keyword.meaning {
            sets.ranged = true;
        }
        keyword
    }

    /// The same, with values that in part have no counterpart.
    pub const fn beside(mut self, beside: fn(&str) -> Option<&'static str>) -> Self {
        if let Meaning::Sets(sets) = &mut self.meaning {
            sets.beside = beside;
        }
        self
    }

    /// A keyword without a counterpart, whose value is not looked at.
    pub const fn nothing(name: &'static str, reason: &'static str) -> Self {
        let meaning = Meaning::Nothing {
            takes: None,
            reason,
        };
        Self { name, meaning }
    }

    /// A keyword without a counterpart that takes certain values.
    pub const fn nothing_for(name: &'static str, takes: Takes, reason: &'static str) -> Self {
        let meaning = Meaning::Nothing {
            takes: Some(takes),
            reason,
        };
        Self { name, meaning }
    }

    /// Whether this row is for the keyword `name`.
    pub fn names(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(family) => name.len() > family.len() && name.starts_with(family),
            None => name == self.name,
        }
    }

    /// Whether the two are one row.
    pub fn is(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Meaning {
    /// Why this value has no counterpart, or not in full.
    pub fn reason(&self, value: &str) -> Option<&'static str> {
        match self {
            Self::Sets(sets) => (sets.beside)(value),
            Self::Nothing { reason, .. } => Some(reason),
        }
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sets(sets) => {
                let names: Vec<_> = sets.settings.iter().map(|s| format!("`{s}`")).collect();
                write!(f, "{}", names.join(", "))?;
                if sets.note.is_empty() {
                    Ok(())
                } else {
                    write!(f, ": {}", sets.note)
                }
            }
            Self::Nothing { reason, .. } => write!(f, "no counterpart: {reason}"),
        }
    }
}
