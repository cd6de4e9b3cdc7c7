//! How a lease is claimed: which statement comes after which.

use std::sync::atomic::{AtomicBool, Ordering};

use super::backend::{Kind, Taken};
use super::{Backend, Row, SqlStore};
use crate::leases::{Claim, Claimed, Fence, LeaseRecord};

/// How often a row may change between two statements before the claim is given up.
const RESTLESS: u32 = 8;

/// What came of the statements.
pub(super) enum Attempt {
    /// An answer.
    Claimed(Claimed),
    /// Somebody holds it, who is not told yet that others want it.
    Unnoted(Claimed),
    /// Another name stands in the way of the row.
    Clash,
    /// The row was different each time it was looked at.
    Restless,
}

impl<B: Backend> SqlStore<B> {
    /// The claim on one connection. Usually it is one statement: the others are for a row that is busy or missing.
    pub(super) async fn attempt(
        &self,
        connection: &mut B::Connection,
        claim: &Claim,
        sent: &AtomicBool,
    ) -> sqlx::Result<Attempt> {
        if B::UPDATES_WAIT && self.seen_busy.contains(&claim.name) {
            let row = self.backend.row(connection, &claim.name).await?;
            if let Some(busy) = row.and_then(|row| busy(row, claim)) {
                return Ok(busy);
            }
            self.seen_busy.note(&claim.name, false);
        }
        let mut added = false;
        let mut free = None;
        for _ in 0..RESTLESS {
            sent.store(true, Ordering::Release);
            match self.backend.take(connection, claim).await {
                // The second time the row is ours already, and its expiry counts from now.
                Ok(Some(Taken { waited: true, .. })) => {
                    free = None;
                    continue;
                }
                Ok(Some(Taken { token, .. })) => {
                    return Ok(Attempt::Claimed(Claimed::Ours { token }));
                }
                Ok(None) => {}
                // An application's transaction keeps the row: nobody can have it.
                Err(error) if self.backend.kind(&error) == Kind::LockTimeout => {
                    let row = self.backend.row(connection, &claim.name).await?;
                    let record = row.and_then(|row| row.record_delayed(claim.unclean_delay));
                    let record = record.unwrap_or_else(|| {
                        LeaseRecord::new(claim.name.clone(), None, Fence(0), None)
                    });
                    return Ok(Attempt::Claimed(Claimed::Busy(record)));
                }
                Err(error) => return Err(error),
            }
            match self.backend.row(connection, &claim.name).await? {
                None if added => return Ok(Attempt::Clash),
                None => {
                    self.backend.add(connection, &claim.name).await?;
                    added = true;
                }
                Some(row) if row.keeps_out(&claim.holder.id, claim.unclean_delay) => {
                    if let Some(busy) = busy(row, claim) {
                        self.seen_busy.note(&claim.name, B::UPDATES_WAIT);
                        return Ok(busy);
                    }
                }
                Some(row) => free = row.record(),
            }
        }
        // Free each time it was looked at, and somebody else was faster each time.
        Ok(free.map_or(Attempt::Restless, |record| {
            Attempt::Claimed(Claimed::Busy(record))
        }))
    }
}

/// What a row answers that keeps the claim out; `None` if it does not.
fn busy(row: Row, claim: &Claim) -> Option<Attempt> {
    if !row.keeps_out(&claim.holder.id, claim.unclean_delay) {
        return None;
    }
    let noted = row.noted;
    let busy = Claimed::Busy(row.record_delayed(claim.unclean_delay)?);
    Some(match noted {
        true => Attempt::Claimed(busy),
        false => Attempt::Unnoted(busy),
    })
}
