//! The guard of several locks that came in one answer.

use std::fmt;
use std::sync::Arc;

use super::locker::{LockGuard, Locker};
use crate::locks::{Held, Mode, Object};

/// Locks of one locker that are released together, in one step, when this is dropped: what a
/// [`LockMany`](crate::LockMany) took. One by one they are guards of their own: see
/// [`into_iter`](Self::into_iter).
pub struct LockGuards {
    // One owner for all of them: a guard each would be counted as often.
    locker: Arc<Locker>,
    held: Option<Held>,
}

impl LockGuards {
    pub(super) fn new(locker: Arc<Locker>, held: Held) -> Self {
        let held = (!held.is_empty()).then_some(held);
        Self { locker, held }
    }

    /// Who holds them.
    #[must_use]
    pub fn locker(&self) -> &Arc<Locker> {
        &self.locker
    }

    /// How many there are: one for each reference.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_none()
    }

    /// What is locked, and in which mode, in the order in which it was asked for.
    pub fn iter(&self) -> impl Iterator<Item = (&Object, Mode)> {
        self.held.iter().flat_map(Held::iter)
    }

    /// Releases them now, all in one step; false if one of them had been released through its locker.
    pub fn release(mut self) -> bool {
        self.unlock()
    }

    fn unlock(&mut self) -> bool {
        let Some(held) = self.held.take() else {
            return true;
        };
        let shared = self.locker.shared();
        let released =
            shared.transition(|state, effects| state.table.unlock_these(held.locks(), effects));
        released.unwrap_or(false)
    }
}

impl Drop for LockGuards {
    fn drop(&mut self) {
        self.unlock();
    }
}

impl IntoIterator for LockGuards {
    type Item = LockGuard;
    type IntoIter = std::vec::IntoIter<LockGuard>;

    /// A guard for each of them.
    fn into_iter(mut self) -> Self::IntoIter {
        let held = self.held.take();
        let each = held.iter().flat_map(Held::each);
        let guards = each.map(|taken| LockGuard::of_taken(&self.locker, taken));
        guards.collect::<Vec<_>>().into_iter()
    }
}

impl fmt::Debug for LockGuards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuards")
            .field("locker", &self.locker.id())
            .field("held", &self.iter().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
