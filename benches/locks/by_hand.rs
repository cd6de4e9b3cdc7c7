//! The peer: a lock table as a good engineer writes it in an afternoon.
//!
//! One mutex around a hash map, a queue for each object, and a look for a cycle when a request would
//! wait. Whoever would close one is told so at once, releases what it holds and tries again. Modes are
//! read and write; an owner takes a lock once. There are no timeouts, families, limits or reports.

use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockkeeper::Object;
use parking_lot::Mutex;
use tokio::sync::oneshot;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Read,
    Write,
}

/// The request would have closed a cycle.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("deadlock")]
pub struct Deadlock;

/// The table; cheap to clone.
#[derive(Clone, Default)]
pub struct Table {
    state: Arc<Mutex<State>>,
    owners: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    objects: HashMap<Object, Entry>,
    waiting: HashMap<u64, Wait>,
    searches: u64,
}

/// What an owner waits for, and the last search that came by.
struct Wait {
    object: Object,
    seen: u64,
}

#[derive(Default)]
struct Entry {
    writer: Option<u64>,
    readers: Vec<u64>,
    queue: VecDeque<Queued>,
}

struct Queued {
    owner: u64,
    mode: Mode,
    granted: oneshot::Sender<()>,
}

/// Who holds locks. What it holds is released when it is dropped.
pub struct Owner {
    table: Table,
    id: u64,
    held: Vec<(Object, Mode)>,
}

impl Table {
    pub fn owner(&self) -> Owner {
        Owner {
            table: self.clone(),
            id: self.owners.fetch_add(1, Ordering::Relaxed),
            held: Vec::new(),
        }
    }
}

impl Owner {
    /// # Errors
    /// [`Deadlock`] if the request would close a cycle.
    pub async fn lock(&mut self, object: &Object, mode: Mode) -> Result<(), Deadlock> {
        // Nobody waits for an owner that holds nothing.
        let search = !self.held.is_empty();
        let asked = self.table.state.lock().ask(self.id, object, mode, search)?;
        if let Some(granted) = asked {
            let mut waiting = Waiting {
                owner: self,
                object,
                mode,
                over: false,
            };
            // The sender stays in the queue until it is used.
            let answer = granted.await;
            debug_assert!(answer.is_ok());
            waiting.over = true;
        }
        self.held.push((object.clone(), mode));
        Ok(())
    }

    pub fn unlock(&mut self, object: &Object, mode: Mode) -> bool {
        let held = |(other, other_mode): &(Object, Mode)| *other_mode == mode && other == object;
        let Some(at) = self.held.iter().rposition(held) else {
            return false;
        };
        self.held.swap_remove(at);
        let mut granted = Vec::new();
        let mut state = self.table.state.lock();
        state.release(self.id, object, mode, &mut granted);
        drop(state);
        wake(granted);
        true
    }

    pub fn release_all(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let mut granted = Vec::new();
        let mut state = self.table.state.lock();
        for (object, mode) in self.held.drain(..) {
            state.release(self.id, &object, mode, &mut granted);
        }
        drop(state);
        wake(granted);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.release_all();
    }
}

/// Takes the request back if its future is dropped.
struct Waiting<'a> {
    owner: &'a Owner,
    object: &'a Object,
    mode: Mode,
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut granted = Vec::new();
        let mut state = self.owner.table.state.lock();
        state.withdraw(self.owner.id, self.object, self.mode, &mut granted);
        drop(state);
        wake(granted);
    }
}

/// Outside of the mutex: a waker is foreign code.
fn wake(granted: Vec<oneshot::Sender<()>>) {
    for sender in granted {
        // Whoever is gone takes its request back itself.
        let _ = sender.send(());
    }
}

impl State {
    fn ask(
        &mut self,
        owner: u64,
        object: &Object,
        mode: Mode,
        search: bool,
    ) -> Result<Option<oneshot::Receiver<()>>, Deadlock> {
        let entry = self.objects.entry(object.clone()).or_default();
        let upgrade = entry.readers.contains(&owner);
        if entry.admits(owner, mode) && (entry.queue.is_empty() || upgrade) {
            entry.admit(owner, mode);
            return Ok(None);
        }
        if search && self.closes_cycle(owner, object, mode) {
            return Err(Deadlock);
        }
        let (granted, answer) = oneshot::channel();
        let queued = Queued {
            owner,
            mode,
            granted,
        };
        let entry = self.objects.entry(object.clone()).or_default();
        // Behind others it would wait for those who wait for it.
        match upgrade {
            true => entry.queue.push_front(queued),
            false => entry.queue.push_back(queued),
        }
        let wait = Wait {
            object: object.clone(),
            seen: 0,
        };
        self.waiting.insert(owner, wait);
        Ok(Some(answer))
    }

    fn release(
        &mut self,
        owner: u64,
        object: &Object,
        mode: Mode,
        granted: &mut Vec<oneshot::Sender<()>>,
    ) {
        let Place::Occupied(mut place) = self.objects.entry(object.clone()) else {
            return;
        };
        let entry = place.get_mut();
        match mode {
            Mode::Write => entry.writer = None,
            Mode::Read => {
                if let Some(at) = entry.readers.iter().position(|reader| *reader == owner) {
                    entry.readers.swap_remove(at);
                }
            }
        }
        entry.promote(&mut self.waiting, granted);
        if entry.is_unused() {
            place.remove();
        }
    }

    fn withdraw(
        &mut self,
        owner: u64,
        object: &Object,
        mode: Mode,
        granted: &mut Vec<oneshot::Sender<()>>,
    ) {
        if self.waiting.remove(&owner).is_none() {
            // Granted in the meantime, and nobody has seen it.
            self.release(owner, object, mode, granted);
            return;
        }
        if let Some(entry) = self.objects.get_mut(object) {
            entry.queue.retain(|queued| queued.owner != owner);
            entry.promote(&mut self.waiting, granted);
        }
    }

    /// Whether anybody whom this request would wait for waits for `owner`, be it through others.
    fn closes_cycle(&mut self, owner: u64, object: &Object, mode: Mode) -> bool {
        self.searches += 1;
        let mut ahead = Vec::new();
        if let Some(entry) = self.objects.get(object) {
            entry.in_the_way(owner, mode, &mut ahead);
        }
        while let Some(next) = ahead.pop() {
            if next == owner {
                return true;
            }
            let Some(wait) = self.waiting.get_mut(&next) else {
                continue;
            };
            if std::mem::replace(&mut wait.seen, self.searches) == self.searches {
                continue;
            }
            if let Some(entry) = self.objects.get(&wait.object)
                && let Some(queued) = entry.queue.iter().find(|queued| queued.owner == next)
            {
                entry.in_the_way(next, queued.mode, &mut ahead);
            }
        }
        false
    }
}

impl Entry {
    fn admits(&self, owner: u64, mode: Mode) -> bool {
        let others_read = || self.readers.iter().any(|reader| *reader != owner);
        self.writer.is_none_or(|writer| writer == owner) && (mode == Mode::Read || !others_read())
    }

    fn admit(&mut self, owner: u64, mode: Mode) {
        match mode {
            Mode::Write => self.writer = Some(owner),
            Mode::Read => self.readers.push(owner),
        }
    }

    /// Lets in whoever can go on now, in the order of the queue.
    fn promote(
        &mut self,
        waiting: &mut HashMap<u64, Wait>,
        granted: &mut Vec<oneshot::Sender<()>>,
    ) {
        while let Some(first) = self.queue.front()
            && self.admits(first.owner, first.mode)
            && let Some(first) = self.queue.pop_front()
        {
            self.admit(first.owner, first.mode);
            waiting.remove(&first.owner);
            granted.push(first.granted);
        }
    }

    /// Those who hold what `owner` wants, or wait for it earlier.
    fn in_the_way(&self, owner: u64, mode: Mode, ahead: &mut Vec<u64>) {
        ahead.extend(self.writer.filter(|writer| *writer != owner));
        if mode == Mode::Write {
            ahead.extend(self.readers.iter().filter(|reader| **reader != owner));
        }
        let earlier = self.queue.iter().take_while(|queued| queued.owner != owner);
        ahead.extend(
            earlier
                .filter(|queued| mode == Mode::Write || queued.mode == Mode::Write)
                .map(|queued| queued.owner),
        );
    }

    fn is_unused(&self) -> bool {
        self.writer.is_none() && self.readers.is_empty() && self.queue.is_empty()
    }
}
