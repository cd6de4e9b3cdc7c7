//! Which bodies the current thread is inside of.
//!
//! What would deadlock inside one process is an error, not a hang (I14): a view, an update or the opening of a database
//! that is begun while a body of the same keeper runs on this thread is refused, and the error names that body.

use std::cell::{Cell, RefCell};

use crate::env::EnvId;
use crate::error::Site;

/// What kind of body a thread is inside of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyKind {
    /// A body that may only read.
    View,
    /// A body that may write.
    Update,
}

impl std::fmt::Display for BodyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::View => "view",
            Self::Update => "update",
        })
    }
}

thread_local! {
    /// The updates that this thread is inside of; a view is known by its thread's place in the gate.
    static UPDATES: RefCell<Vec<(EnvId, Site)>> = const { RefCell::new(Vec::new()) };
    /// How many of them there are: nearly always none, which is all that a view has to know.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Marks the thread as inside the body of an update until it is dropped.
pub(crate) struct InsideUpdate(());

impl InsideUpdate {
    pub(crate) fn enter(env: EnvId, site: Site) -> Self {
        UPDATES.with_borrow_mut(|updates| updates.push((env, site)));
        DEPTH.set(DEPTH.get() + 1);
        Self(())
    }
}

impl Drop for InsideUpdate {
    fn drop(&mut self) {
        UPDATES.with_borrow_mut(Vec::pop);
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// The update of `env` that this thread is inside of, if any.
#[inline]
pub(crate) fn update(env: EnvId) -> Option<Site> {
    if DEPTH.get() == 0 {
        return None;
    }
    UPDATES.with_borrow(|updates| {
        updates
            .iter()
            .rev()
            .find(|(id, _)| *id == env)
            .map(|&(_, site)| site)
    })
}
