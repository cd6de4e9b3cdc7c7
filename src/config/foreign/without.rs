//! [`NoCounterpart`]: what a file asks for and cannot have here.

use std::fmt;

use crate::config::Source;

/// A line of `DB_CONFIG` or `je.properties` that is understood, and that nothing here corresponds to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoCounterpart {
    /// The keyword; with its flag, if it has one.
    pub keyword: String,
    /// Its value, as it stands in the file; cut if it is long.
    pub value: String,
    /// The line; of several with this keyword the last.
    pub source: Source,
    /// Why there is nothing that it could set.
    pub reason: &'static str,
}

impl fmt::Display for NoCounterpart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            keyword,
            value,
            source,
            reason,
        } = self;
        write!(f, "{source}: {keyword} {value}: {reason}")
    }
}
