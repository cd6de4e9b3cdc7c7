//! What an application puts between an outcome and the caller.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Site, TxnError};

/// How an attempt ended, or what a handler made of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The transaction is committed (or the view has read); that stays so, whatever a handler answers.
    Committed,
    /// The body said no; the application's error goes to the caller.
    Aborted,
    /// It failed with this error.
    Failed(TxnError),
    /// Run it again, as lmdbsync's `ErrTxnRetry`. It counts against the retry budget and the deadline. Where nobody can say
    /// what became of the attempt ([`TxnError::MaybeCommitted`], an expired deadline) it has no effect.
    Retry,
}

/// A piece of application code that sees the outcome of each attempt, once, and may change it.
///
/// It runs outside of the gate and holds no lock, in the task of the caller (or of the supervisor, for a message), and should
/// be short. If it panics, the outcome stays as it was before the handlers. It answers lmdbsync's `Handler`.
///
/// ```
/// use lockkeeper::{Handler, HandlerChain, HandlerContext, Outcome};
///
/// /// Tries an attempt that found a busy map once more.
/// struct OnceMore;
///
/// impl Handler for OnceMore {
///     fn handle(&self, context: &mut HandlerContext, outcome: Outcome) -> Outcome {
///         match outcome {
///             Outcome::Failed(lockkeeper::TxnError::MapBusy(_)) if context.attempt() == 1 => Outcome::Retry,
///             outcome => outcome,
///         }
///     }
/// }
///
/// let chain = HandlerChain::new().append(OnceMore);
/// assert_eq!(chain.len(), 1);
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Answers `outcome`, as the handler before it left it, or something in its place.
    fn handle(&self, context: &mut HandlerContext, outcome: Outcome) -> Outcome;
}

impl<F> Handler for F
where
    F: Fn(&mut HandlerContext, Outcome) -> Outcome + Send + Sync + 'static,
{
    fn handle(&self, context: &mut HandlerContext, outcome: Outcome) -> Outcome {
        self(context, outcome)
    }
}

/// What lasts over the attempts of one transaction, for its handlers.
pub struct HandlerContext {
    name: Option<Arc<str>>,
    site: Site,
    attempt: u32,
    waited: Duration,
    values: HashMap<TypeId, Box<dyn Any + Send>>,
}

impl HandlerContext {
    pub(crate) fn new(name: Option<Arc<str>>, site: Site) -> Self {
        Self {
            name,
            site,
            attempt: 0,
            waited: Duration::ZERO,
            values: HashMap::new(),
        }
    }

    pub(crate) fn next_attempt(&mut self, waited: Duration) {
        self.attempt += 1;
        self.waited = waited;
    }

    /// The transaction's name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where the transaction was asked for.
    pub fn site(&self) -> Site {
        self.site
    }

    /// Which attempt has ended: 1 for the first.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The time since the transaction was sent.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// A value of the handlers' own, made at its first use and kept over the attempts of this transaction.
    pub fn value<V: Any + Send + Default>(&mut self) -> &mut V {
        let value = self
            .values
            .entry(TypeId::of::<V>())
            .or_insert_with(|| Box::<V>::default());
        match value.downcast_mut() {
            Some(value) => value,
            None => unreachable!("a value is stored under its own type"),
        }
    }
}

impl fmt::Debug for HandlerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerContext")
            .field("name", &self.name)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// Handlers in an order; a value: [`HandlerChain::append`] gives a new one and leaves the old one as it was.
#[derive(Clone, Default)]
pub struct HandlerChain {
    handlers: Arc<[Arc<dyn Handler>]>,
}

impl HandlerChain {
    /// A chain without handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// This chain with one more handler, which sees what those before it decided.
    #[must_use]
    pub fn append(&self, handler: impl Handler) -> Self {
        let mut handlers = self.handlers.to_vec();
        handlers.push(Arc::new(handler));
        Self {
            handlers: handlers.into(),
        }
    }

    /// This chain followed by another one.
    #[must_use]
    pub fn then(&self, other: &Self) -> Self {
        Self {
            handlers: self
                .handlers
                .iter()
                .chain(&*other.handlers)
                .cloned()
                .collect(),
        }
    }

    /// The number of handlers.
    pub fn len(&self) -> usize {
        self.handlers.len()
    }

    /// Whether there are no handlers.
    pub fn is_empty(&self) -> bool {
        self.handlers.is_empty()
    }

    /// Shows an outcome to each handler in turn.
    pub(crate) fn run(&self, context: &mut HandlerContext, outcome: Outcome) -> Outcome {
        self.handlers
            .iter()
            .fold(outcome, |outcome, handler| handler.handle(context, outcome))
    }
}

impl fmt::Debug for HandlerChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandlerChain({} handlers)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::*;

    #[test]
    fn each_handler_sees_what_the_one_before_it_decided() {
        let retry = |_: &mut HandlerContext, _| Outcome::Retry;
        let replace = |context: &mut HandlerContext, outcome| {
            *context.value::<u32>() += 1;
            match outcome {
                Outcome::Retry => Outcome::Failed(TxnError::ShuttingDown),
                other => other,
            }
        };
        let first = HandlerChain::new().append(retry);
        let both = first.append(replace);
        assert_eq!((first.len(), both.len()), (1, 2));

        let mut context = HandlerContext::new(None, Location::caller());
        assert!(matches!(
            first.run(&mut context, Outcome::Aborted),
            Outcome::Retry
        ));
        assert!(matches!(
            both.run(&mut context, Outcome::Aborted),
            Outcome::Failed(TxnError::ShuttingDown)
        ));
        both.run(&mut context, Outcome::Committed);
        assert_eq!(*context.value::<u32>(), 2);
    }
}
