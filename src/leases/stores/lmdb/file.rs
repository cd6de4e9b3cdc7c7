//! The file of leases, as the one thread that works on it has it.
//!
//! A question that needs no write is answered from a snapshot: whoever finds a lease busy does not ask for LMDB's writer,
//! which another process may keep. What is decided in a write transaction is decided there from the beginning, at the time
//! it is then. A fatal error closes the file, and the next question opens it again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, MdbError, RoTxn};

use super::boot::BootClock;
use super::record::{Decided, Moment, Stored};
use super::wanted::Wanted;
use crate::env::{Closing, open_leases};
use crate::leases::{
    Claim, Claimed, Holder, LeaseName, LeaseRecord, Refresh, Refreshed, Released, StoreError,
};

/// The largest map: half a million leases. The file has the size of what is in it.
const MAP_SIZE: usize = 1
    << if cfg!(target_pointer_width = "64") {
        30
    } else {
        26
    };
/// So much of the map, as a divisor, is left to the leases that are in it, and never less than a refresh needs.
const LEFT_TO_OLD: usize = 16;
/// A refresh has at most 500 leases, each of which may be on a page of its own. All are written to new ones, and those that they
/// leave are free only two commits later: so three generations of them, and one more for branches and the list of what is free.
const REFRESH_PAGES: usize = 4 * 500;
/// One slot for each process.
const MAX_READERS: u32 = 4096;
/// Nobody else has the environment: it is closed at once.
const CLOSING: Duration = Duration::from_secs(10);
/// Marks the file as one of leases. No name of a lease or of a table begins with NUL.
const FORMAT_KEY: &[u8] = b"\0format";
const FORMAT: &[u8] = b"lockkeeper leases 1";

type Records = Database<'static, Bytes, Bytes>;

pub(super) struct File {
    path: PathBuf,
    map_size: usize,
    clock: BootClock,
    open: Option<Open>,
    wanted: Wanted,
}

struct Open {
    env: Env,
    records: Records,
}

impl Drop for File {
    fn drop(&mut self) {
        self.close();
    }
}

impl File {
    pub(super) fn new(path: PathBuf, clock: BootClock) -> Self {
        Self {
            wanted: Wanted::beside(&path),
            path,
            map_size: MAP_SIZE,
            clock,
            open: None,
        }
    }

    /// Opens it if it is not open.
    pub(super) fn prepare(&mut self) -> Result<(), StoreError> {
        self.opened().map(drop)
    }

    pub(super) fn claim(&mut self, key: &Key, claim: &Claim) -> Result<Claimed, StoreError> {
        let busy = self.read(|view| Ok(view.claim(view.get(key)?, claim)?.err()))?;
        if let Some(record) = busy {
            self.wanted.note(&key.bytes, self.clock.now().nanos);
            return Ok(Claimed::Busy(record));
        }
        let before = self.wanted.look(&key.bytes);
        let claimed = self.write(|view| {
            Ok(match view.claim(view.get(key)?, claim)? {
                Err(record) => (Vec::new(), Claimed::Busy(record)),
                Ok(stored) => (vec![(key.clone(), stored.clone())], stored.into()),
            })
        })?;
        match claimed {
            Claimed::Ours { .. } => self.wanted.taken(&key.bytes, &claim.holder.id, before),
            Claimed::Busy(_) => self.wanted.note(&key.bytes, self.clock.now().nanos),
        }
        Ok(claimed)
    }

    pub(super) fn refresh(
        &mut self,
        leases: &[(Key, Refresh)],
    ) -> Result<Vec<Refreshed>, StoreError> {
        let outcomes = self.write(|view| {
            let mut puts = Vec::with_capacity(leases.len());
            let mut outcomes = Vec::with_capacity(leases.len());
            for (key, refresh) in leases {
                let found = view.get(key)?;
                let extended = found
                    .as_ref()
                    .and_then(|found| found.refresh(refresh, view.now));
                outcomes.push(match extended {
                    None => Refreshed::Lost(found.map(|found| found.record(&key.name, view.now))),
                    Some(stored) => {
                        puts.push((key.clone(), stored));
                        Refreshed::Held
                    }
                });
            }
            Ok((puts, outcomes))
        })?;
        for ((key, refresh), outcome) in leases.iter().zip(&outcomes) {
            if matches!(outcome, Refreshed::Lost(_)) {
                self.wanted.lost(&key.bytes, &refresh.holder.id);
            }
        }
        Ok(outcomes)
    }

    /// Whether others wanted it, too.
    pub(super) fn release(
        &mut self,
        key: &Key,
        holder: &Holder,
    ) -> Result<(Released, bool), StoreError> {
        let released = self.write(|view| {
            let found = view.get(key)?;
            let (released, freed) = match &found {
                None => (Released::WasLost, None),
                Some(found) => found.release(holder),
            };
            let puts = freed.map(|freed| (key.clone(), freed));
            Ok((puts.into_iter().collect(), released))
        })?;
        Ok((released, self.wanted.since_taken(&key.bytes, &holder.id)))
    }

    /// A release and a claim in one step, between which nobody else comes.
    pub(super) fn hand_over(
        &mut self,
        key: &Key,
        from: &Holder,
        claim: &Claim,
    ) -> Result<(Released, Claimed), StoreError> {
        let (released, claimed) = self.write(|view| {
            let found = view.get(key)?;
            let (released, freed) = match &found {
                None => (Released::WasLost, None),
                Some(found) => found.release(from),
            };
            Ok(match view.claim(freed.or(found), claim)? {
                Err(record) => (Vec::new(), (released, Claimed::Busy(record))),
                Ok(stored) => (
                    vec![(key.clone(), stored.clone())],
                    (released, stored.into()),
                ),
            })
        })?;
        match claimed {
            Claimed::Ours { .. } => (self.wanted).handed(&key.bytes, &from.id, &claim.holder.id),
            Claimed::Busy(_) => drop(self.wanted.lost(&key.bytes, &from.id)),
        }
        Ok((released, claimed))
    }

    pub(super) fn look(&mut self, key: &Key) -> Result<Option<LeaseRecord>, StoreError> {
        self.read(|view| {
            let found = view.get(key)?;
            Ok(found.map(|found| found.record(&key.name, view.now)))
        })
    }

    pub(super) fn list(&mut self, table: &[u8]) -> Result<Vec<LeaseRecord>, StoreError> {
        self.read(|view| {
            let entries = view.records.prefix_iter(view.txn, table);
            let mut all = Vec::new();
            for entry in entries.map_err(|error| failed(view.path, error))? {
                let (bytes, stored) = entry.map_err(|error| failed(view.path, error))?;
                let name = bytes.get(table.len()..).unwrap_or_default();
                let name = std::str::from_utf8(name).ok();
                let name = name.and_then(|name| LeaseName::new(name).ok());
                let Some(name) = name else {
                    return Err(wrong(view.path, "it has a key that is no name of a lease"));
                };
                let stored = view.decode(&name, bytes, stored)?;
                all.push(stored.record(&name, view.now));
            }
            Ok(all)
        })
    }

    pub(super) fn force_release(&mut self, key: &Key) -> Result<Option<LeaseRecord>, StoreError> {
        let was = self.write(|view| {
            let found = view.get(key)?;
            let was = found
                .as_ref()
                .map(|found| found.record(&key.name, view.now));
            let freed = found.and_then(|found| found.force_release());
            let puts = freed.map(|freed| (key.clone(), freed));
            let was = was.filter(|was| was.remaining.is_some());
            Ok((puts.into_iter().collect(), was))
        })?;
        self.wanted.freed(&key.bytes);
        Ok(was)
    }

    fn read<T>(
        &mut self,
        ask: impl FnOnce(&View<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (path, map_size, clock) = (self.path.clone(), self.map_size, self.clock);
        let open = self.opened()?;
        let txn = open.env.read_txn();
        let answer = txn.map_err(|error| failed(&path, error)).and_then(|txn| {
            ask(&View {
                path: &path,
                map_size,
                records: open.records,
                txn: &txn,
                now: clock.now(),
            })
        });
        self.settle(answer)
    }

    /// Has `decide` say what is to be written and what is to be answered then; with nothing to write, nothing is flushed.
    fn write<T>(
        &mut self,
        decide: impl FnOnce(&View<'_>) -> Result<(Vec<(Key, Stored)>, T), StoreError>,
    ) -> Result<T, StoreError> {
        let (path, map_size, clock) = (self.path.clone(), self.map_size, self.clock);
        let open = self.opened()?;
        let failed = |error| failed(&path, error);
        let answer = open.env.write_txn().map_err(failed).and_then(|mut txn| {
            // The time is that at which this process has the writer, not when it began to wait for it.
            let (puts, answer) = decide(&View {
                path: &path,
                map_size,
                records: open.records,
                txn: &txn,
                now: clock.now(),
            })?;
            if puts.is_empty() {
                txn.abort();
                return Ok(answer);
            }
            for (key, stored) in puts {
                let bytes = stored.encode(&key.bytes);
                open.records
                    .put(&mut txn, &key.bytes, &bytes)
                    .map_err(failed)?;
            }
            txn.commit().map_err(failed)?;
            Ok(answer)
        });
        self.settle(answer)
    }

    fn opened(&mut self) -> Result<&Open, StoreError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => Open::at(&self.path, self.map_size)?,
        };
        Ok(self.open.insert(open))
    }

    /// After a failure of LMDB the file is closed, and opened again by the next question.
    fn settle<T>(&mut self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Unreachable(error)) = &answer {
            tracing::warn!(target: "lockkeeper", %error, path = %self.path.display(), "the file of leases is opened again");
            self.close();
        }
        answer
    }

    /// LMDB's slots are unmapped while no thread is about to free its own.
    pub(super) fn close(&mut self) {
        let Some(Open { env, .. }) = self.open.take() else {
            return;
        };
        let closing = env.clone().prepare_for_closing();
        let _alone = Closing::begin();
        drop(env);
        closing.wait_timeout(CLOSING);
    }
}

/// What is decided on: the records, as of now.
struct View<'v> {
    path: &'v Path,
    map_size: usize,
    records: Records,
    txn: &'v RoTxn<'v, heed::AnyTls>,
    now: Moment,
}

impl View<'_> {
    fn get(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        let found = self.records.get(self.txn, &key.bytes);
        let found = found.map_err(|error| failed(self.path, error))?;
        found
            .map(|bytes| self.decode(&key.name, &key.bytes, bytes))
            .transpose()
    }

    /// What a claim makes of what was found, or who keeps it out.
    fn claim(
        &self,
        found: Option<Stored>,
        claim: &Claim,
    ) -> Result<Result<Stored, LeaseRecord>, StoreError> {
        if found.is_none() {
            self.room()?;
        }
        match Stored::claim(found.as_ref(), claim, self.now) {
            Decided::Take(stored) => Ok(Ok(stored)),
            Decided::Busy(record) => Ok(Err(record)),
            Decided::Spent => Err(spent(&claim.name)),
        }
    }

    /// Whether there is room for another name.
    fn room(&self) -> Result<(), StoreError> {
        let used = self.records.stat(self.txn);
        let used = used.map_err(|error| failed(self.path, error))?;
        let refresh = usize::try_from(used.page_size).map_or(0, |size| size * REFRESH_PAGES);
        let left = refresh.max(self.map_size / LEFT_TO_OLD);
        if used.non_free_page_size() < self.map_size.saturating_sub(left) {
            return Ok(());
        }
        Err(StoreError::Full {
            table: self.path.display().to_string(),
            bytes: self.map_size,
        })
    }

    fn decode(&self, name: &LeaseName, key: &[u8], bytes: &[u8]) -> Result<Stored, StoreError> {
        Stored::decode(key, bytes).map_err(|error| {
            wrong(
                self.path,
                &format!("the lease \"{name}\" cannot be read: {error}"),
            )
        })
    }
}

/// A lease, and where its record is.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub name: LeaseName,
    pub bytes: Vec<u8>,
}

impl Open {
    fn at(path: &Path, map_size: usize) -> Result<Self, StoreError> {
        let failed = |error| failed(path, error);
        let env = open_leases(path, map_size, MAX_READERS).map_err(failed)?;
        env.clear_stale_readers().map_err(failed)?;
        let txn = env.read_txn().map_err(failed)?;
        let opened = env.open_databases_and_commit(txn, |opener, txn| {
            let records = opener.open_database::<Bytes, Bytes>(txn, None)?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(records))
        });
        let records = opened.map_err(failed)?.commit().flatten();
        let Some(records) = records else {
            return Err(wrong(path, "it has no main database"));
        };
        let open = Self { env, records };
        open.check_format(path)?;
        Ok(open)
    }

    /// Marks an empty file as one of leases, and refuses any other.
    fn check_format(&self, path: &Path) -> Result<(), StoreError> {
        let failed = |error| failed(path, error);
        let is_marked = |txn: &RoTxn<'_, heed::AnyTls>| -> Result<bool, StoreError> {
            match self.records.get(txn, FORMAT_KEY).map_err(failed)? {
                Some(FORMAT) => Ok(true),
                Some(_) => Err(wrong(path, "it was written by a later version")),
                None if self.records.is_empty(txn).map_err(failed)? => Ok(false),
                None => Err(wrong(path, "it is an LMDB environment of something else")),
            }
        };
        if is_marked(&*self.env.read_txn().map_err(failed)?)? {
            return Ok(());
        }
        let mut txn = self.env.write_txn().map_err(failed)?;
        if !is_marked(&txn)? {
            self.records
                .put(&mut txn, FORMAT_KEY, FORMAT)
                .map_err(failed)?;
        }
        txn.commit().map_err(failed)
    }
}

fn spent(name: &LeaseName) -> StoreError {
    StoreError::BadConfig(format!(
        "the fencing token of \"{name}\" cannot grow any more"
    ))
}

fn wrong(path: &Path, why: &str) -> StoreError {
    StoreError::WrongTable {
        table: path.display().to_string(),
        why: why.to_owned(),
    }
}

/// What LMDB's errors mean. `Unreachable` is what closes the file.
fn failed(path: &Path, error: heed::Error) -> StoreError {
    match error {
        // New names are refused before it comes to this, and what changes leaves as much behind as it takes.
        heed::Error::Mdb(MdbError::MapFull) => StoreError::Failed(
            format!(
                "{} is full for now: a process that was stopped while it read keeps the pages that are free",
                path.display()
            )
            .into(),
        ),
        heed::Error::Mdb(MdbError::Invalid | MdbError::VersionMismatch) => {
            wrong(path, "it is not an LMDB environment of this version")
        }
        heed::Error::Mdb(MdbError::Corrupted | MdbError::PageNotFound) => {
            wrong(path, "it is damaged")
        }
        heed::Error::EnvAlreadyOpened => StoreError::BadConfig(format!(
            "{} is open in this process already, or was when the process was forked",
            path.display()
        )),
        heed::Error::Io(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            StoreError::BadConfig(format!(
                "a process with the same pid in another pid namespace has {} open; let the containers share a pid namespace",
                path.display()
            ))
        }
        heed::Error::Io(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ) =>
        {
            StoreError::Failed(Box::new(error))
        }
        heed::Error::Io(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            StoreError::Denied(Box::new(error))
        }
        error => StoreError::Unreachable(Box::new(error)),
    }
}

#[cfg(test)]
mod tests;
