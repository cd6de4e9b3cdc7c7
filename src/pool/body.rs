//! What a pool's workers do.

use std::pin::Pin;
use std::sync::Arc;

use super::builder::BoxError;
use super::worker::Worker;

/// What one run of a worker comes to.
pub(crate) type Outcome = Result<(), BoxError>;
type Task = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Makes the workers of a pool.
#[derive(Clone)]
pub(crate) enum Body {
    /// Tasks on the runtime of the keeper's pools.
    Async(Arc<dyn Fn(Worker) -> Task + Send + Sync>),
    /// Functions on threads of their own.
    Blocking(Arc<dyn Fn(Worker) -> Outcome + Send + Sync>),
}

impl Body {
    pub(super) fn asynchronous<F, Fut>(body: F) -> Self
    where
        F: Fn(Worker) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        Self::Async(Arc::new(move |worker| Box::pin(body(worker))))
    }

    pub(super) fn blocking(body: impl Fn(Worker) -> Outcome + Send + Sync + 'static) -> Self {
        Self::Blocking(Arc::new(body))
    }

    pub(super) const fn is_blocking(&self) -> bool {
        matches!(self, Self::Blocking(_))
    }
}
