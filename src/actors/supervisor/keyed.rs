//! A transaction with a key: what is done so that its effect happens once.
//!
//! The key is locked before anything else is, so that two senders of it in this process run one after the other; then a view
//! looks for its answer. Between that look and the commit another process may have stored one: so the writer looks again, in the
//! transaction that carries the effect, and stores the answer there.

use std::sync::Arc;

use parking_lot::Mutex;

use super::admission::Admitted;
use super::runtime::Runtime;
use crate::env::{AnswerStore, Ask, Core, Readable, Reserved, UpdateBody, WriteTxn};
use crate::error::{DbError, Stage, TxnError};
use crate::locks::Object;
use crate::messages::supervisor::{Once, TxnOptions};
use crate::txn::answers::{AnswerError, Codec, Fingerprint, MAX_KEY, Seen};
use crate::txn::run::WithCommit;

/// A key, bound to the answers of an environment, whatever they are.
#[derive(Clone)]
struct Slot {
    key: Arc<[u8]>,
    fingerprint: Fingerprint,
    store: AnswerStore,
}

/// The key of a transaction that answers with a `T`.
pub(crate) struct Keyed<T> {
    slot: Slot,
    codec: Codec<T>,
}

/// The answer that the writer has found in the place of the one that it was to store, if it has.
pub(crate) type Found = Arc<Mutex<Option<Vec<u8>>>>;

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
            slot: Slot {
                key: once.key,
                fingerprint: Fingerprint::new(options.name.as_deref(), options.request),
                store: store?,
            },
            codec: once.codec,
        })
    }
}

impl Slot {
    /// Has `read` read the stored answer, if there is one: then nothing may run, nor after any error.
    fn look<A>(
        &self,
        txn: &impl Readable,
        read: impl FnOnce(&[u8]) -> Result<A, AnswerError>,
    ) -> Result<Option<A>, TxnError> {
        let found = self
            .store
            .look(txn, &self.key, self.fingerprint, |seen| match seen {
                Seen::Fresh | Seen::Expired => Ok(None),
                Seen::Stored(answer) => read(answer)
                    .map(Some)
                    .map_err(|error| self.unreadable(error)),
                Seen::Unreadable(error) => Err(self.unreadable(error)),
                Seen::Reused => Err(TxnError::KeyReused {
                    key: Arc::clone(&self.key),
                }),
            });
        found?
    }

    fn keep(&self, txn: &mut WriteTxn<'_>, answer: &[u8]) -> Result<(), TxnError> {
        let kept = self.store.keep(txn, &self.key, self.fingerprint, answer);
        kept.map_err(TxnError::Database)
    }

    fn unreadable(&self, source: AnswerError) -> TxnError {
        TxnError::AnswerUnreadable {
            key: Arc::clone(&self.key),
            source,
        }
    }
}

impl<T> Keyed<T> {
    /// What is locked while the transaction runs, and before everything else.
    pub(crate) fn object(&self) -> Object {
        Object::new(Reserved::Answers.name(), &self.slot.key)
    }

    /// The stored answer, in a view of its own, which is what an attempt begins with once the key is locked.
    ///
    /// # Errors
    ///
    /// [`TxnError::KeyReused`], [`TxnError::AnswerUnreadable`], and what can keep a view from being run: after each of them
    /// nothing may run.
    pub(crate) async fn look_up(&self, core: &Core, ask: Ask) -> Result<Option<T>, TxnError> {
        let slot = self.slot.clone();
        let found = core.look(ask, move |txn| slot.look(txn, |answer| Ok(answer.to_vec())));
        found.await?.map(|answer| self.read(&answer)).transpose()
    }

    /// A stored answer, as a value.
    pub(crate) fn read(&self, answer: &[u8]) -> Result<T, TxnError> {
        let read = self.codec.read(answer);
        read.map_err(|error| self.slot.unreadable(error))
    }

    /// What is to be stored for `value`, and the value as everybody is answered it, the first sender included.
    ///
    /// # Errors
    ///
    /// [`TxnError::AnswerNotStorable`].
    pub(crate) fn prepare(&self, value: &T) -> Result<(Vec<u8>, T), TxnError> {
        self.codec
            .write(value)
            .map_err(|source| TxnError::AnswerNotStorable {
                key: Arc::clone(&self.slot.key),
                source,
            })
    }

    /// What is to be done on the writer with the effect of a transaction that answers `answer`: store it, unless another
    /// process has stored one meanwhile. Then the effect is undone, by an error that nobody is answered, and what was stored is
    /// in [`Found`].
    pub(crate) fn with_commit(&self, answer: Vec<u8>) -> (WithCommit, Found) {
        let found = Found::default();
        let (slot, stored) = (self.slot.clone(), Arc::clone(&found));
        let with = move |txn: &mut WriteTxn<'_>| {
            let earlier = slot.look(txn, |answer| Ok(answer.to_vec()))?;
            let is_first = earlier.is_none();
            *stored.lock() = earlier;
            match is_first {
                true => slot.keep(txn, &answer),
                false => Err(TxnError::KeyReused {
                    key: Arc::clone(&slot.key),
                }),
            }
        };
        (Box::new(with), found)
    }

    /// A body that looks first, and stores its answer with its effect.
    pub(crate) fn wrap<E>(&self, mut body: UpdateBody<T, E>) -> UpdateBody<T, E>
    where
        T: 'static,
        E: 'static,
    {
        let keyed = Self {
            slot: self.slot.clone(),
            codec: self.codec,
        };
        Box::new(move |txn| {
            let stored = keyed.slot.look(txn, |answer| keyed.codec.read(answer));
            if let Some(answer) = stored.map_err(TxnError::widen)? {
                return Ok(answer);
            }
            let value = body(txn)?;
            let (bytes, value) = keyed.prepare(&value).map_err(TxnError::widen)?;
            keyed.slot.keep(txn, &bytes).map_err(TxnError::widen)?;
            Ok(value)
        })
    }
}
