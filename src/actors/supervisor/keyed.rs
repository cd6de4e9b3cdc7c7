//! A transaction with a key: what is done so that its effect happens once.
//!
//! The key is locked before anything else is, so that two senders of it in this process run one after the other; then a view
//! looks for its answer. Between that look and the commit another process may have stored one: so the writer looks again, in the
//! transaction that carries the effect, and stores the answer there. Whoever drives a transaction does these in this order:
//! [`Keyed::object`] locked, [`Keyed::look_up`], the body, and on the writer [`Keyed::look`], the effect, [`Keyed::keep`].

use std::sync::Arc;

use super::runtime::{Admitted, Runtime};
use crate::env::{ANSWERS, AnswerStore, Ask, Core, Readable, UpdateBody, WriteTxn};
use crate::error::{DbError, Stage, TxnError};
use crate::locks::Object;
use crate::messages::supervisor::{Once, TxnOptions};
use crate::txn::answers::{Codec, Fingerprint, MAX_KEY, Seen};

/// The key of a transaction, bound to the answers of an environment.
pub(crate) struct Keyed<T> {
    key: Arc<[u8]>,
    fingerprint: Fingerprint,
    codec: Codec<T>,
    store: AnswerStore,
}

impl<T> Clone for Keyed<T> {
    fn clone(&self) -> Self {
        Self {
            key: Arc::clone(&self.key),
            fingerprint: self.fingerprint,
            codec: self.codec,
            store: self.store.clone(),
        }
    }
}

impl<T> Once<T> {
    /// Whether it can be a key at all, which needs no look at anything.
    pub(crate) fn check(&self) -> Result<(), TxnError> {
        match self.key.len() {
            1..=MAX_KEY => Ok(()),
            len => Err(TxnError::Database(DbError::KeySize { len, max: MAX_KEY })),
        }
    }
}

impl Runtime {
    /// Binds a key to the answers here, whose database is made at the first use.
    pub(crate) async fn keyed<T>(
        &self,
        once: Once<T>,
        options: &TxnOptions,
        admitted: &Admitted,
    ) -> Result<Keyed<T>, TxnError> {
        if self.locks.is_none() {
            return Err(TxnError::NoLockTable);
        }
        let clock = &self.env.shared.clock;
        let Some(store) = clock.until(admitted.deadline, self.env.answers()).await else {
            return Err(TxnError::DeadlineExceeded {
                deadline: admitted.span,
                stage: Stage::WasQueued,
            });
        };
        Ok(Keyed {
            key: once.key,
            fingerprint: Fingerprint::new(options.name.as_deref(), options.request),
            codec: once.codec,
            store: store?,
        })
    }
}

impl<T> Keyed<T> {
    /// What is locked while the transaction runs, and before everything else.
    pub(crate) fn object(&self) -> Object {
        Object::new(ANSWERS, &self.key)
    }

    /// The stored answer, if there is one: then nothing may run.
    ///
    /// # Errors
    ///
    /// [`TxnError::KeyReused`] and [`TxnError::AnswerUnreadable`]: then nothing may run either.
    pub(crate) fn look(&self, txn: &impl Readable) -> Result<Option<T>, TxnError> {
        let unreadable = |source| TxnError::AnswerUnreadable {
            key: Arc::clone(&self.key),
            source,
        };
        self.store
            .look(txn, &self.key, self.fingerprint, |seen| match seen {
                Seen::Fresh | Seen::Expired => Ok(None),
                Seen::Stored(answer) => self.codec.read(answer).map(Some).map_err(unreadable),
                Seen::Unreadable(error) => Err(unreadable(error)),
                Seen::Reused => Err(TxnError::KeyReused {
                    key: Arc::clone(&self.key),
                }),
            })?
    }

    /// [`Keyed::look`] in a view of its own, which is what an attempt begins with once the key is locked.
    pub(crate) async fn look_up(&self, core: &Core, ask: Ask) -> Result<Option<T>, TxnError>
    where
        T: Send + 'static,
    {
        let keyed = self.clone();
        core.look(ask, move |txn| keyed.look(txn)).await
    }

    /// What [`Keyed::keep`] is to store for `value`, and the value as everybody is answered it, the first sender included.
    ///
    /// # Errors
    ///
    /// [`TxnError::AnswerNotStorable`].
    pub(crate) fn prepare(&self, value: &T) -> Result<(Vec<u8>, T), TxnError> {
        self.codec
            .write(value)
            .map_err(|source| TxnError::AnswerNotStorable {
                key: Arc::clone(&self.key),
                source,
            })
    }

    /// Stores an answer in the transaction that carries the effect, after a [`Keyed::look`] in that same transaction.
    pub(crate) fn keep(&self, txn: &mut WriteTxn<'_>, answer: &[u8]) -> Result<(), TxnError> {
        let kept = self.store.keep(txn, &self.key, self.fingerprint, answer);
        kept.map_err(TxnError::Database)
    }

    /// A body that looks first, and stores its answer with its effect.
    pub(crate) fn wrap<E>(&self, mut body: UpdateBody<T, E>) -> UpdateBody<T, E>
    where
        T: 'static,
        E: 'static,
    {
        let keyed = self.clone();
        Box::new(move |txn| {
            if let Some(answer) = keyed.look(txn).map_err(TxnError::widen)? {
                return Ok(answer);
            }
            let value = body(txn)?;
            let (bytes, value) = keyed.prepare(&value).map_err(TxnError::widen)?;
            keyed.keep(txn, &bytes).map_err(TxnError::widen)?;
            Ok(value)
        })
    }
}
