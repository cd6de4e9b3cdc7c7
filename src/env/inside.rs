//! Which bodies the current thread is inside of.
//!
//! What would deadlock inside one process is an error, not a hang (I14): a view, an update or the opening of a database
//! that is begun while a body of the same keeper runs on this thread is refused, and the error names that body.

use std::cell::RefCell;
use std::panic::Location;

use crate::env::EnvId;

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
    static INSIDE: RefCell<Vec<(EnvId, BodyKind, &'static Location<'static>)>> = const { RefCell::new(Vec::new()) };
}

/// Marks the thread as inside a body until it is dropped.
pub(crate) struct Inside(());

impl Inside {
    pub(crate) fn enter(env: EnvId, kind: BodyKind, site: &'static Location<'static>) -> Self {
        INSIDE.with_borrow_mut(|stack| stack.push((env, kind, site)));
        Self(())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with_borrow_mut(|stack| stack.pop());
    }
}

/// The body of `env` that this thread is inside of, if any.
pub(crate) fn inside(env: EnvId) -> Option<(BodyKind, &'static Location<'static>)> {
    INSIDE.with_borrow(|stack| {
        stack
            .iter()
            .rev()
            .find(|(id, ..)| *id == env)
            .map(|&(_, kind, site)| (kind, site))
    })
}
