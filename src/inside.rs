//! Which code of the application's a thread is inside of that a keeper would wait for if it stopped.
//!
//! Two things follow from it. A worker of a keeper's pool is still served while the keeper stops, until the pool has been
//! joined: what it has begun it can finish. And whoever waits for the keeper's end inside of what the keeper waits for would wait
//! for itself: that is refused instead (I14). Bodies and interactive transactions have marks of their own.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::env::EnvId;

/// Whose code it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The keeper of this environment.
    Env(EnvId),
    /// The keeper, if any, that has these leases: they do not know of it.
    Leases(usize),
}

/// What the thread is inside of.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A worker of the pool of this name.
    Worker(Arc<str>),
    /// A handler or a listener, by what it is.
    Callback(&'static str),
}

thread_local! {
    static PLACES: RefCell<Vec<(Owner, Place)>> = const { RefCell::new(Vec::new()) };
    static LENT: Cell<Option<EnvId>> = const { Cell::new(None) };
}

/// The thread is inside until this is dropped.
#[derive(Debug)]
pub(crate) struct Inside(());

impl Drop for Inside {
    fn drop(&mut self) {
        PLACES.with_borrow_mut(Vec::pop);
    }
}

fn enter(owner: Owner, place: Place) -> Inside {
    PLACES.with_borrow_mut(|places| places.push((owner, place)));
    Inside(())
}

/// The thread runs a worker of the pool `pool` of the keeper of `env`, until the answer is dropped.
pub(crate) fn worker(env: EnvId, pool: &Arc<str>) -> Inside {
    enter(Owner::Env(env), Place::Worker(Arc::clone(pool)))
}

/// The thread runs a handler or a listener, until the answer is dropped.
pub(crate) fn callback(owner: Owner, what: &'static str) -> Inside {
    enter(owner, Place::Callback(what))
}

/// The calling thread is one of the runtime that the keeper of `env` lends its workers, and is joined when the keeper stops.
pub(crate) fn lend_thread(env: EnvId) {
    LENT.set(Some(env));
}

/// Whether it is, whatever it runs: a task that a worker has left behind has no mark.
pub(crate) fn is_lent_by(env: EnvId) -> bool {
    LENT.get() == Some(env)
}

/// The innermost place that belongs to one of these.
pub(crate) fn place(of: impl Fn(Owner) -> bool) -> Option<Place> {
    PLACES.with_borrow(|places| {
        let found = places.iter().rev().find(|(owner, _)| of(*owner));
        found.map(|(_, place)| place.clone())
    })
}

/// Whether this thread runs a worker of the keeper of `env`.
pub(crate) fn is_worker_of(env: EnvId) -> bool {
    PLACES.with_borrow(|places| {
        let mut places = places.iter();
        places.any(|(owner, place)| *owner == Owner::Env(env) && matches!(place, Place::Worker(_)))
    })
}

/// Whether this thread runs a worker of this pool of the keeper of `env`.
pub(crate) fn is_worker_of_pool(env: EnvId, pool: &str) -> bool {
    PLACES.with_borrow(|places| {
        let mut places = places.iter();
        places.any(|(owner, place)| {
            *owner == Owner::Env(env) && matches!(place, Place::Worker(name) if **name == *pool)
        })
    })
}

/// Whether this thread runs a worker of any keeper: for what does not know whose it is.
pub(crate) fn is_worker() -> bool {
    PLACES.with_borrow(|places| {
        let mut places = places.iter();
        places.any(|(_, place)| matches!(place, Place::Worker(_)))
    })
}

/// The future of a worker, known as such during each poll: tasks change threads. It is inside also while it is dropped.
pub(crate) struct AsWorker<F> {
    future: Option<Pin<Box<F>>>,
    env: EnvId,
    pool: Arc<str>,
}

impl<F> AsWorker<F> {
    pub(crate) fn new(env: EnvId, pool: &Arc<str>, future: F) -> Self {
        Self {
            future: Some(Box::pin(future)),
            env,
            pool: Arc::clone(pool),
        }
    }
}

impl<F: Future> Future for AsWorker<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let _inside = worker(self.env, &self.pool);
        match &mut self.future {
            Some(future) => future.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for AsWorker<F> {
    fn drop(&mut self) {
        let _inside = worker(self.env, &self.pool);
        drop(self.future.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_inside_as_long_as_the_mark_lives_and_of_its_owner_alone() {
        let (env, other) = (EnvId::next(), EnvId::next());
        let pool: Arc<str> = "import".into();
        assert!(place(|_| true).is_none());
        {
            let _worker = worker(env, &pool);
            let _callback = callback(Owner::Env(other), "a listener");
            assert!(is_worker_of(env) && is_worker() && !is_worker_of(other));
            assert!(matches!(
                place(|_| true),
                Some(Place::Callback("a listener"))
            ));
            let own = place(|owner| owner == Owner::Env(env));
            assert!(matches!(own, Some(Place::Worker(name)) if name == pool));
        }
        assert!(place(|_| true).is_none() && !is_worker());
    }

    #[test]
    fn a_workers_future_is_inside_while_it_is_polled_and_while_it_is_dropped() {
        struct Sees(EnvId, Arc<parking_lot::Mutex<Vec<bool>>>);
        impl Drop for Sees {
            fn drop(&mut self) {
                self.1.lock().push(is_worker_of(self.0));
            }
        }
        let env = EnvId::next();
        let seen = Arc::default();
        let sees = Sees(env, Arc::clone(&seen));
        let mut future = AsWorker::new(env, &"import".into(), async move {
            let sees = sees;
            sees.1.lock().push(is_worker_of(sees.0));
            std::future::pending::<()>().await;
        });
        let polled = Pin::new(&mut future).poll(&mut Context::from_waker(std::task::Waker::noop()));
        assert!(polled.is_pending() && !is_worker());
        drop(future);
        assert_eq!(*seen.lock(), [true, true]);
        assert!(!is_worker());
    }
}
