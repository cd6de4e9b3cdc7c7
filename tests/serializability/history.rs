//! What was asked of a store, and what it answered: the checker's input.
//!
//! Each attempt of a transaction is a transaction of its own here, and each element or value is written by at most one of
//! them, so that whoever reads it knows who wrote it.

use std::fmt;

/// What may be locked, read and written one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A list, to which elements are appended. It is absent as long as it is empty.
    List(u32),
    /// A value, written by those who have read it.
    Register(u32),
}

impl Key {
    /// The same kind of key with another number.
    pub fn with(self, number: u32) -> Self {
        match self {
            Self::List(_) => Self::List(number),
            Self::Register(_) => Self::Register(number),
        }
    }

    pub fn number(self) -> u32 {
        match self {
            Self::List(number) | Self::Register(number) => number,
        }
    }

    /// What is there before anybody wrote.
    pub fn absent(self) -> Value {
        match self {
            Self::List(_) => Value::List(Vec::new()),
            Self::Register(_) => Value::Register(None),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    List(Vec<u64>),
    Register(Option<u64>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Append {
        key: Key,
        element: u64,
    },
    /// `None` deletes. A register may be deleted if whoever made it had ended before anybody else began, and nobody writes
    /// it again: an absent register would say too little otherwise.
    Write {
        key: Key,
        value: Option<u64>,
    },
    Read {
        key: Key,
        value: Value,
    },
    /// A read of all keys of one kind with a number from `from` to just before `to`; those not seen were absent.
    Scan {
        from: Key,
        to: u32,
        seen: Vec<(Key, Value)>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    /// For certain.
    Aborted,
    /// Nobody was told.
    Unknown,
}

#[derive(Debug, Clone)]
pub struct Txn {
    pub session: usize,
    /// A moment before anything of it could happen, by a counter that all share.
    pub begin: u64,
    /// A moment after it had ended. Says nothing if the outcome is unknown.
    pub end: u64,
    pub outcome: Outcome,
    pub ops: Vec<Op>,
}

/// Transactions are named by their place in it.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub txns: Vec<Txn>,
}

impl History {
    /// When a transaction's outcome was known, if it ever was.
    pub fn answered(&self, id: usize) -> Option<u64> {
        let txn = &self.txns[id];
        (txn.outcome != Outcome::Unknown).then_some(txn.end)
    }
}

impl Op {
    /// The reads it stands for.
    pub fn reads(&self) -> Vec<(Key, Value)> {
        match self {
            Self::Append { .. } | Self::Write { .. } => Vec::new(),
            Self::Read { key, value } => vec![(*key, value.clone())],
            Self::Scan { from, to, seen } => (from.number()..*to)
                .map(|number| {
                    let key = from.with(number);
                    let value = seen.iter().find(|(other, _)| *other == key);
                    (key, value.map_or_else(|| key.absent(), |(_, v)| v.clone()))
                })
                .collect(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(number) => write!(f, "l{number}"),
            Self::Register(number) => write!(f, "r{number}"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The end of a long list is what tells versions apart.
            Self::List(elements) if elements.len() > 6 => {
                write!(f, "[.. {} more", elements.len() - 4)?;
                for element in &elements[elements.len() - 4..] {
                    write!(f, ", {element}")?;
                }
                write!(f, "]")
            }
            Self::List(elements) => write!(f, "{elements:?}"),
            Self::Register(Some(value)) => write!(f, "{value}"),
            Self::Register(None) => write!(f, "nothing"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append { key, element } => write!(f, "append {element} to {key}"),
            Self::Write {
                key,
                value: Some(value),
            } => write!(f, "write {value} to {key}"),
            Self::Write { key, value: None } => write!(f, "delete {key}"),
            Self::Read { key, value } => write!(f, "read {key}: {value}"),
            Self::Scan { from, to, seen } => {
                write!(f, "scan {from}..{}:", from.with(*to))?;
                for (key, value) in seen {
                    write!(f, " {key}={value}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Txn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            session,
            begin,
            end,
            outcome,
            ..
        } = self;
        write!(f, "session {session}, {begin}..{end}, {outcome:?}")?;
        for op in &self.ops {
            write!(f, "; {op}")?;
        }
        Ok(())
    }
}
