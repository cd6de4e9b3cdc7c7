//! A group of workers that is started again together.

use std::time::Instant;

/// All workers from this number on are brought down, and started again when the delays of all their failures have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub from: usize,
    pub due: Instant,
}

impl Group {
    /// Another failure while the group comes down makes it larger and later, never smaller or earlier.
    pub(super) fn merged(self, other: Option<Self>) -> Self {
        match other {
            None => self,
            Some(other) => Self {
                from: self.from.min(other.from),
                due: self.due.max(other.due),
            },
        }
    }
}
