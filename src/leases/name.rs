//! What leases and their tables may be called.

use std::fmt;
use std::sync::Arc;

/// The longest name of a lease, in bytes: what the column of Go's `dbmutex` holds.
const LONGEST: usize = 255;
/// The longest name of a table, in bytes: PostgreSQL's limit, the lowest of all stores, below which nobody cuts it.
const LONGEST_TABLE: usize = 63;

/// The name of a lease: 1 to 255 bytes of UTF-8 without NUL. Names compare byte for byte in every store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseName(Arc<str>);

impl LeaseName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`BadLeaseName`] if it is empty, longer than 255 bytes, or contains NUL.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self, BadLeaseName> {
        let name = name.into();
        match name.len() {
            0 => Err(BadLeaseName::Empty),
            length if length > LONGEST => Err(BadLeaseName::TooLong { length }),
            _ if name.contains('\0') => Err(BadLeaseName::Nul),
            _ => Ok(Self(name)),
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Why a text is no name of a lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadLeaseName {
    /// A lease always has a name.
    #[error("the name of a lease is empty")]
    Empty,
    /// It would have to be cut, and then two names could be one.
    #[error("the name of a lease has {length} bytes, and at most {LONGEST} are possible")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// No store's text can hold it.
    #[error("the name of a lease contains a NUL")]
    Nul,
}

/// The name of a table of leases, perhaps with a schema before it (`locks.dbmutex`): ASCII letters, digits, `_` and `$`, at
/// most 63 bytes each, not beginning with a digit. It is quoted wherever it is used.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName(Arc<str>);

impl TableName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`BadTableName`] for anything else than the type's description says.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self, BadTableName> {
        let name = name.into();
        let is_part = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
            part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.len() <= LONGEST_TABLE
                && part.chars().all(allowed)
        };
        let parts = name.split('.').count();
        match parts <= 2 && name.split('.').all(is_part) {
            true => Ok(Self(name)),
            false => Err(BadTableName { name }),
        }
    }

    /// As it was given, with the schema if it has one.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The schema and the table itself.
    #[must_use]
    pub fn parts(&self) -> (Option<&str>, &str) {
        match self.0.split_once('.') {
            Some((schema, table)) => (Some(schema), table),
            None => (None, &self.0),
        }
    }
}

/// `dbmutex`, as Go's dbmutex calls it.
impl Default for TableName {
    fn default() -> Self {
        Self("dbmutex".into())
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A text is no name of a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} cannot name a table of leases: letters, digits, `_` and `$`, at most {LONGEST_TABLE} bytes and not beginning with \
     a digit, perhaps behind a schema and a dot"
)]
pub struct BadTableName {
    /// The text.
    pub name: Arc<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_have_to_be_cut_are_refused() {
        assert!(LeaseName::new("a".repeat(255)).is_ok());
        let error = LeaseName::new("ä".repeat(128)).unwrap_err();
        assert_eq!(error, BadLeaseName::TooLong { length: 256 });
        assert_eq!(LeaseName::new(""), Err(BadLeaseName::Empty));
        assert_eq!(LeaseName::new("a\0b"), Err(BadLeaseName::Nul));
    }

    #[test]
    fn tables_are_named_so_that_no_store_reads_them_as_something_else() {
        for good in ["dbmutex", "locks.dbmutex", "_a$1", &"t".repeat(63)] {
            assert!(TableName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "1a",
            "a b",
            "a\"b",
            "a`b",
            "a;b",
            "a.b.c",
            ".a",
            "a.",
            "ä",
            &"t".repeat(64),
        ] {
            assert!(TableName::new(bad).is_err(), "{bad}");
        }
        assert_eq!(TableName::new("s.t").unwrap().parts(), (Some("s"), "t"));
    }
}
