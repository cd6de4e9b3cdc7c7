//! Which interactive transactions the future that is being polled on this thread belongs to.
//!
//! Tasks change threads between polls, so the mark is set for each poll anew. What is begun inside and would wait for the
//! transaction's own locks is refused (I14).

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::env::{EnvId, panic_message, quietly};
use crate::error::Site;

thread_local! {
    static POLLED: RefCell<Vec<(EnvId, Site)>> = const { RefCell::new(Vec::new()) };
}

/// The innermost transaction of `env` whose closure is being polled on this thread.
pub(crate) fn transaction(env: EnvId) -> Option<Site> {
    POLLED.with_borrow(|polled| {
        let of_env = polled.iter().rev().find(|(id, _)| *id == env);
        of_env.map(|&(_, site)| site)
    })
}

/// The future of a closure, known as such while it is polled. A panic ends it with its message.
pub(crate) struct Inside<F> {
    /// Until it is dropped.
    future: Option<Pin<Box<F>>>,
    env: EnvId,
    site: Site,
}

impl<F> Inside<F> {
    /// Has `begin` make the future, which is inside as well.
    pub(crate) fn begin(env: EnvId, site: Site, begin: impl FnOnce() -> F) -> Self {
        let future = {
            let _mark = Mark::set(env, site);
            begin()
        };
        Self::new(env, site, future)
    }

    fn new(env: EnvId, site: Site, future: F) -> Self {
        Self {
            future: Some(Box::pin(future)),
            env,
            site,
        }
    }
}

impl<F: Future> Future for Inside<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let _mark = Mark::set(self.env, self.site);
        // It is not polled again after that.
        let polled = catch_unwind(AssertUnwindSafe(|| match &mut self.future {
            Some(future) => future.as_mut().poll(context),
            None => Poll::Pending,
        }));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic_message(&*panic))),
        }
    }
}

impl<F> Drop for Inside<F> {
    fn drop(&mut self) {
        let _mark = Mark::set(self.env, self.site);
        // What it holds may panic, which is not to be told in the place of how the transaction ended.
        quietly(|| drop(self.future.take()));
    }
}

/// Taken away also when the poll panics.
struct Mark;

impl Mark {
    fn set(env: EnvId, site: Site) -> Self {
        POLLED.with_borrow_mut(|polled| polled.push((env, site)));
        Self
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        POLLED.with_borrow_mut(Vec::pop);
    }
}
