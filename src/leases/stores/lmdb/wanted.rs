//! Who finds a lease busy says so beside the file of leases, for the holder to see when it gives the lease back.
//!
//! In the file itself it would take LMDB's writer, which a process that was stopped may keep. Nothing depends on it but whose turn
//! is next: it is never flushed, and several leases may share a place.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siphasher::sip::SipHasher13;

/// How many places there are.
const PLACES: u64 = 4096;

pub(super) struct Wanted {
    path: PathBuf,
    file: Option<File>,
    /// What stood in the places of the leases that are held here when they were taken, and the ids of their holders.
    before: HashMap<Vec<u8>, (Arc<str>, [u8; 8])>,
}

impl Wanted {
    /// Beside the file of leases.
    pub(super) fn beside(path: &Path) -> Self {
        Self {
            path: path.with_extension("wanted"),
            file: None,
            before: HashMap::new(),
        }
    }

    /// Somebody wants a lease that is busy.
    pub(super) fn note(&mut self, key: &[u8], nanos: u64) {
        if let Some(file) = self.file() {
            // What cannot be noted now is noted the next time.
            let _ = write_at(file, &nanos.to_be_bytes(), place(key));
        }
    }

    /// Where a lease stands that is about to be taken.
    pub(super) fn look(&mut self, key: &[u8]) -> [u8; 8] {
        let mut found = [0; 8];
        if let Some(file) = self.file() {
            // Nobody has written so far.
            let _ = read_at(file, &mut found, place(key));
        }
        found
    }

    /// A lease was taken after this look.
    pub(super) fn taken(&mut self, key: &[u8], by: &Arc<str>, before: [u8; 8]) {
        self.before.insert(key.to_vec(), (Arc::clone(by), before));
    }

    /// A lease was handed on, unseen by others: what counts is when it was taken.
    pub(super) fn handed(&mut self, key: &[u8], from: &str, to: &Arc<str>) {
        if let Some((by, _)) = self.before.get_mut(key).filter(|(by, _)| **by == *from) {
            *by = Arc::clone(to);
        }
    }

    /// Whether somebody wanted a lease since it was taken. It is not its holder's any more.
    pub(super) fn since_taken(&mut self, key: &[u8], by: &str) -> bool {
        let before = self.lost(key, by);
        before.is_some_and(|before| self.look(key) != before)
    }

    /// A lease is not its holder's any more; the next one's is not forgotten with it.
    pub(super) fn lost(&mut self, key: &[u8], by: &str) -> Option<[u8; 8]> {
        let (holder, before) = self.before.get(key)?;
        let before = (**holder == *by).then_some(*before)?;
        self.before.remove(key);
        Some(before)
    }

    /// A lease is nobody's any more.
    pub(super) fn freed(&mut self, key: &[u8]) {
        self.before.remove(key);
    }

    fn file(&mut self) -> Option<&File> {
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            self.file = options.open(&self.path).ok();
        }
        self.file.as_ref()
    }
}

fn place(key: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(key);
    hasher.finish() % PLACES * 8
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8; 8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8; 8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(not(unix))]
fn write_at(_: &File, _: &[u8; 8], _: u64) -> std::io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn read_at(_: &File, _: &mut [u8; 8], _: u64) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_sees_whether_another_handle_wanted_its_lease_since_it_took_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("leases.mdb");
        let [mut holder, mut other] = [(); 2].map(|()| Wanted::beside(&path));
        let (me, next): (Arc<str>, Arc<str>) = ("me".into(), "next".into());
        other.note(b"a", 1);
        let before = holder.look(b"a");
        holder.taken(b"a", &me, before);
        let before = holder.look(b"b");
        holder.taken(b"b", &me, before);
        assert!(!holder.since_taken(b"a", &me));
        holder.taken(b"a", &me, before);
        other.note(b"a", 2);
        assert!(holder.since_taken(b"a", &me));
        assert!(!holder.since_taken(b"a", &me), "it is not held any more");
        assert!(!holder.since_taken(b"b", &me));
        // It counts from when it was taken, also for those to whom it was handed.
        let before = holder.look(b"a");
        holder.taken(b"a", &me, before);
        other.note(b"a", 3);
        holder.handed(b"a", &me, &next);
        assert!(!holder.since_taken(b"a", &me));
        assert!(holder.since_taken(b"a", &next));
    }

    #[test]
    fn what_was_lost_is_forgotten_and_not_what_the_next_one_has_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("leases.mdb");
        let [mut holder, mut other] = [(); 2].map(|()| Wanted::beside(&path));
        let (first, second): (Arc<str>, Arc<str>) = ("first".into(), "second".into());
        let before = holder.look(b"a");
        holder.taken(b"a", &first, before);
        holder.taken(b"a", &second, before);
        other.note(b"a", 1);
        // The late release of one that has lost it.
        assert!(!holder.since_taken(b"a", &first));
        assert!(holder.since_taken(b"a", &second));
        holder.taken(b"b", &first, before);
        holder.lost(b"b", &first);
        holder.taken(b"c", &first, before);
        holder.freed(b"c");
        assert!(holder.before.is_empty());
    }

    #[test]
    fn nothing_fails_where_nothing_can_be_noted() {
        let mut wanted = Wanted::beside(Path::new("/nowhere/at/all/leases.mdb"));
        wanted.note(b"a", 1);
        let before = wanted.look(b"a");
        let me = "me".into();
        wanted.taken(b"a", &me, before);
        assert!(!wanted.since_taken(b"a", &me));
    }
}
