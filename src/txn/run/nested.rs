//! Savepoints, and transactions inside transactions.

use std::future::Future;
use std::panic::Location;
use std::sync::{Arc, Weak};

use super::attempt::{Attempt, Node, first_news};
use super::error::OpError;
use super::ops::Txn;
use super::state::NodeId;
use crate::error::{Site, TxnError};
use crate::txn::sets::Mark;

/// A place in a transaction that its writes can be rolled back to; see [`Txn::savepoint`].
#[derive(Debug, Clone)]
pub struct Savepoint {
    mark: Mark,
    node: NodeId,
    of: Weak<Attempt>,
}

impl Savepoint {
    fn is_of(&self, node: &Node) -> bool {
        self.node == node.id && std::ptr::eq(self.of.as_ptr(), &*node.attempt)
    }
}

impl Txn {
    /// Remembers what has been written so far. Savepoints nest; one that was set after another is gone when that other one is
    /// rolled back to or released.
    ///
    /// # Errors
    ///
    /// See [`OpError`].
    pub fn savepoint(&self) -> Result<Savepoint, OpError> {
        let mut state = self.node.attempt.state();
        state.usable(self.node.id)?;
        let mark = state.sets.savepoint();
        let node = self.node.id;
        let of = Arc::downgrade(&self.node.attempt);
        Ok(Savepoint { mark, node, of })
    }

    /// Takes back everything that was written since the savepoint, which stays set. What was read since has been seen: its
    /// locks stay, and it is compared at the commit all the same.
    ///
    /// # Errors
    ///
    /// [`TxnError::TransactionEnded`] if the savepoint is not one of this transaction, or has gone; otherwise see [`OpError`].
    pub fn rollback_to(&self, savepoint: &Savepoint) -> Result<(), OpError> {
        let mut state = self.node.attempt.state();
        state.usable(self.node.id)?;
        let is_own = savepoint.is_of(&self.node);
        let rolled_back = is_own && state.sets.rollback_to(savepoint.mark).is_ok();
        match rolled_back {
            true => {
                state.changed();
                Ok(())
            }
            false => Err(TxnError::TransactionEnded.into()),
        }
    }

    /// Forgets the savepoint; what was written since stays.
    ///
    /// # Errors
    ///
    /// As [`rollback_to`](Self::rollback_to).
    pub fn release(&self, savepoint: Savepoint) -> Result<(), OpError> {
        let mut state = self.node.attempt.state();
        state.usable(self.node.id)?;
        let is_own = savepoint.is_of(&self.node);
        match is_own && state.sets.release(savepoint.mark).is_ok() {
            true => Ok(()),
            false => Err(TxnError::TransactionEnded.into()),
        }
    }

    /// Runs `body` in a child: a transaction inside this one with a fate of its own. If the body answers `Ok`, what it wrote
    /// and locked is this transaction's; otherwise what it wrote is undone, and this one goes on as it was. (Berkeley DB's
    /// `txn_begin` with a parent.)
    ///
    /// What an undone child had read has been seen: its locks pass to this transaction, unless it was itself the victim of a
    /// conflict; then what was read is compared at the commit. Meanwhile this transaction answers [`TxnError::ChildOpen`].
    /// The child is not run again by itself: let its conflict out of the closure to run the whole, or run the child again.
    ///
    /// # Errors
    ///
    /// Those of the body; and [`TxnError`] if the child cannot begin.
    #[track_caller]
    pub fn nested<T, E, F, Fut>(
        &self,
        body: F,
    ) -> impl Future<Output = Result<T, TxnError<E>>> + Send + use<T, E, F, Fut>
    where
        F: FnOnce(Txn) -> Fut + Send,
        Fut: Future<Output = Result<T, TxnError<E>>> + Send,
        T: Send,
        E: Send,
    {
        let (parent, site) = (Arc::clone(&self.node), Location::caller());
        async move {
            let child = Child::begin(&parent, site).map_err(TxnError::widen)?;
            let value = body(Txn::new(Arc::clone(&child.node))).await?;
            child.commit().map_err(TxnError::widen)?;
            Ok(value)
        }
    }
}

/// A child that is open; undone when it is dropped.
struct Child {
    node: Arc<Node>,
}

impl Child {
    fn begin(parent: &Arc<Node>, site: Site) -> Result<Self, TxnError> {
        parent.check()?;
        let holder = parent.child_locker(site)?;
        let mut state = parent.attempt.state();
        state.usable(parent.id)?;
        let id = state.begin_child();
        Ok(Self {
            node: Arc::new(Node {
                attempt: Arc::clone(&parent.attempt),
                id,
                holder,
            }),
        })
    }

    fn commit(self) -> Result<(), TxnError> {
        let node = &self.node;
        let mut state = node.attempt.state();
        state.usable(node.id)?;
        if let Some(locker) = node.locker()
            && let Err(error) = locker.pass_up()
        {
            // Aborted in this moment: its locks are gone, and what it did is undone by the drop.
            state.must_compare = true;
            return Err(first_news(error));
        }
        if let Some(mut closed) = state.close(node.id) {
            if let Some(mark) = closed.began.take() {
                let _ = state.sets.release(mark);
            }
            state.inherit(closed);
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let node = &self.node;
        let mut state = node.attempt.state();
        if !state.is_open(node.id) {
            return;
        }
        let Some(mut closed) = state.close(node.id) else {
            return;
        };
        if let Some(mark) = closed.began.take() {
            let _ = state.sets.rollback_to(mark);
            state.changed();
            let _ = state.sets.release(mark);
        }
        let kept = match node.locker() {
            Some(locker) => locker.pass_up().is_ok(),
            None => true,
        };
        match kept {
            true => state.inherit(closed),
            false => state.must_compare = true,
        }
    }
}
