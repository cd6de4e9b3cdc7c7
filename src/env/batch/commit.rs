//! The commit of a batch: what its callers, its durability and outside writes have to do with it.

use std::sync::atomic::Ordering;

use heed::{Env, MdbError};

use super::item::{Item, State};
use crate::config::Durability;
use crate::env::outside::Unsigned;
use crate::env::raw;
use crate::env::shared::Counters;
use crate::env::transaction::WriteTxn;
use crate::env::writer::Writer;
use crate::error::{StorageError, duplicate};

impl Writer {
    /// Commits `txn`. `Err(None)`: a caller gave up at the last moment, or the keeper's record cannot be written; the rest
    /// has to run again.
    pub(super) fn commit(
        &mut self,
        env: &Env,
        mut txn: WriteTxn<'_>,
        items: &mut [Item],
    ) -> Result<(), Option<heed::Error>> {
        let kept = |item: &Item| matches!(item.state, State::Kept);
        let mut begun = 0;
        let mut late = false;
        for item in items.iter_mut() {
            begun += 1;
            if kept(item) && !item.ask.ticket.begin_commit() {
                item.state = State::Gone;
                if item.wrote {
                    late = true;
                    break;
                }
            }
        }
        if late {
            for item in items.iter().take(begun) {
                item.ask.ticket.revert_commit();
            }
            txn.abort();
            return Err(None);
        }
        if !items.iter().any(kept) {
            txn.abort();
            return Ok(());
        }
        let signed = match self.sign(&mut txn, items) {
            Ok(signed) => signed,
            Err(unsigned) => {
                for item in items.iter() {
                    item.ask.ticket.revert_commit();
                }
                txn.abort();
                return Err(match unsigned {
                    Unsigned::Failed(error) => Some(error),
                    Unsigned::Again => None,
                });
            }
        };
        self.choose_durability(env, items);
        let outcome = txn.commit();
        match outcome {
            Ok(()) => {
                // Not the transaction's own id: LMDB skips a commit without a write, and gives the id to the next.
                let last = env.info().last_txn_id as u64;
                self.shared.last_committed.store(last, Ordering::Release);
                Counters::add(&self.shared.counters.commits, 1);
                self.account(items, signed);
                Ok(())
            }
            Err(heed::Error::Mdb(MdbError::MapFull)) => {
                self.record_in_the_way = signed.is_some();
                for item in items.iter() {
                    item.ask.ticket.revert_commit();
                }
                Err(Some(heed::Error::Mdb(MdbError::MapFull)))
            }
            Err(error) => Err(Some(error)),
        }
    }

    /// A batch takes the strictest durability of those in it.
    fn choose_durability(&mut self, env: &Env, items: &[Item]) {
        let default = self.shared.config.durability();
        if default == Durability::NoSync {
            return;
        }
        let strictest = items
            .iter()
            .filter(|item| item.wrote && matches!(item.state, State::Kept))
            .map(|item| item.ask.durability.unwrap_or(default))
            .max()
            .unwrap_or(default);
        let meta_sync = strictest == Durability::Full;
        if meta_sync != self.meta_sync && raw::set_meta_sync(env, meta_sync).is_ok() {
            self.meta_sync = meta_sync;
        }
    }
}

/// Whether a smaller commit might succeed where this one failed.
pub(super) fn is_too_much(error: &heed::Error) -> bool {
    matches!(error, heed::Error::Mdb(MdbError::TxnFull))
        || StorageError::new("commit", duplicate(error)).is_full()
}
