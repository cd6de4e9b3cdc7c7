//! The gate: lets transactions in and, while the map changes, keeps them out (I1).
//!
//! A view enters and leaves in a few nanoseconds, and writes only to a cache line of its own thread: each thread has a slot,
//! and whoever wants the environment for itself shuts the gate and then looks at every slot. The order of the two accesses
//! decides: a thread first marks its slot and then looks at the gate, the closer first shuts the gate and then looks at the
//! slots, all sequentially consistent, so that at least one of them sees the other.
//!
//! Only the writer thread closes the gate, so two closings never meet.
//!
//! A lodger, which is a snapshot held over awaits, stays inside while nobody runs in it; it is told to leave whenever the gate
//! is shut, so that it never keeps the map from changing.

use std::cell::RefCell;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::coarse_now;
use crate::env::snapshot::{Held, Lodgers, Lodging};
use crate::env::{EnvId, sites};
use crate::inside;

/// Why the gate keeps somebody out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shut {
    /// The map changes, or an update excludes views (`no_lock`): wait for [`Gate::opened`].
    Changing,
    /// A fatal error; open again after recovery.
    Poisoned,
    /// This thread is inside already, since it was begun there.
    Inside(&'static Location<'static>),
    /// For good; or, while what was admitted is finished, for everybody else.
    Closing,
}

/// Who wants to enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Somebody new.
    New,
    /// Somebody who was admitted before the keeper began to shut down.
    Admitted,
}

const OPEN: u32 = 0;
const CHANGING: u32 = 1;
const POISONED: u32 = 2;
const CLOSING: u32 = 4;
const DRAINING: u32 = 8;

/// A transaction that is inside the gate, as diagnostics name it.
#[derive(Debug, Clone)]
pub struct Occupant {
    /// The name it was given, if any.
    pub name: Option<Arc<str>>,
    /// Where it was begun.
    pub site: &'static Location<'static>,
    /// How long it has been inside; exact to a few milliseconds.
    pub age: Duration,
    /// Whether it is a snapshot that is held over awaits.
    pub held: bool,
    key: OccupantKey,
}

/// Which entry of which thread it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OccupantKey {
    slot: usize,
    entry: u64,
}

impl std::fmt::Display for Occupant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.held { "held snapshot" } else { "view" };
        match &self.name {
            Some(name) => write!(f, "{what} \"{name}\" from {}", self.site)?,
            None => write!(f, "{what} from {}", self.site)?,
        }
        write!(f, " (inside for {})", crate::error::brief(self.age))
    }
}

pub(crate) struct Gate {
    /// Read by every view, written only when the gate shuts or opens.
    shut: CachePadded<AtomicU32>,
    slots: Mutex<Vec<Arc<Slot>>>,
    reopened: Notify,
    waiting: AtomicUsize,
    closer: Mutex<Option<Thread>>,
    lodgers: Lodgers,
}

/// What one thread has inside the gate. The owner alone writes it.
struct Slot {
    state: CachePadded<SlotState>,
    name: Mutex<Option<Arc<str>>>,
    /// The thread has ended.
    gone: AtomicBool,
}

#[derive(Default)]
struct SlotState {
    inside: AtomicU32,
    since_ms: AtomicU64,
    site: AtomicU32,
    entries: AtomicU64,
}

impl Slot {
    fn site(&self) -> &'static Location<'static> {
        sites::at(self.state.site.load(Ordering::Relaxed) & !(NAMED | HELD))
    }

    fn name(&self) -> Option<Arc<str>> {
        let named = self.state.site.load(Ordering::Relaxed) & NAMED != 0;
        named.then(|| self.name.lock().clone()).flatten()
    }

    fn is_held(&self) -> bool {
        self.state.site.load(Ordering::Relaxed) & HELD != 0
    }

    fn key(&self) -> OccupantKey {
        OccupantKey {
            slot: std::ptr::from_ref(self).addr(),
            entry: self.state.entries.load(Ordering::Relaxed),
        }
    }
}

/// One of the calling thread's slots; it has one for each environment it has entered.
struct Seat {
    env: EnvId,
    slot: Arc<Slot>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.slot.gone.store(true, Ordering::Release);
    }
}

thread_local! {
    static SEATS: RefCell<Vec<Rc<Seat>>> = const { RefCell::new(Vec::new()) };
}

/// Inside the gate until it is dropped.
pub(crate) struct Entered<'g> {
    gate: &'g Gate,
    seat: Rc<Seat>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let state = &self.seat.slot.state;
        state.inside.store(0, Ordering::Release);
        // A closer that misses this hint looks again by itself within a fraction of a millisecond.
        if self.gate.shut.load(Ordering::Relaxed) != OPEN
            && let Some(closer) = &*self.gate.closer.lock()
        {
            closer.unpark();
        }
    }
}

/// Proof that the gate is shut and nobody is inside; opens it again when dropped.
pub(crate) struct Closed<'g> {
    gate: &'g Gate,
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.gate.clear(CHANGING);
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            shut: CachePadded::new(AtomicU32::new(OPEN)),
            slots: Mutex::new(Vec::new()),
            reopened: Notify::new(),
            waiting: AtomicUsize::new(0),
            closer: Mutex::new(None),
            lodgers: Lodgers::default(),
        }
    }

    /// Enters, or says why not.
    #[inline(always)]
    pub(crate) fn enter(
        &self,
        env: EnvId,
        site: &'static Location<'static>,
        name: Option<&Arc<str>>,
        entry: Entry,
    ) -> Result<Entered<'_>, Shut> {
        let seat = self.seat(env);
        let slot = &seat.slot;
        if slot.state.inside.load(Ordering::Relaxed) != 0 {
            return Err(Shut::Inside(slot.site()));
        }
        if let Some(name) = name {
            *slot.name.lock() = Some(Arc::clone(name));
        } else if slot.state.site.load(Ordering::Relaxed) & NAMED != 0 {
            *slot.name.lock() = None;
        }
        let state = &slot.state;
        let named = if name.is_some() { NAMED } else { 0 };
        state
            .since_ms
            .store(coarse_now().as_millis() as u64, Ordering::Relaxed);
        state.site.store(sites::id(site) | named, Ordering::Relaxed);
        let entries = state.entries.load(Ordering::Relaxed);
        state.entries.store(entries + 1, Ordering::Relaxed);
        state.inside.swap(1, Ordering::SeqCst);
        let shut = self.shut.load(Ordering::SeqCst);
        if shut == OPEN || (shut == DRAINING && served(env, entry) == Entry::Admitted) {
            return Ok(Entered { gate: self, seat });
        }
        state.entries.store(entries, Ordering::Relaxed);
        drop(Entered { gate: self, seat });
        Err(why(shut, served(env, entry)).unwrap_or(Shut::Changing))
    }

    /// Makes a lodger of the snapshot that this thread is inside with: it is told to leave when the gate is shut. `None` if it
    /// is shut already, and nobody would tell.
    pub(crate) fn lodge(&self, env: EnvId, held: Arc<Held>) -> Option<Lodging<'_>> {
        let seat = self.seat(env);
        seat.slot.state.site.fetch_or(HELD, Ordering::Relaxed);
        let lodging = self.lodgers.add(held);
        // Whoever shuts the gate looks at the lodgers afterwards: one of the two sees the other.
        (self.shut.load(Ordering::SeqCst) & !DRAINING == OPEN).then_some(lodging)
    }

    /// How many lodgers there are.
    pub(crate) fn lodgers(&self) -> usize {
        self.lodgers.len()
    }

    /// Why the gate is shut, if it is.
    pub(crate) fn shut(&self, entry: Entry) -> Option<Shut> {
        why(self.shut.load(Ordering::SeqCst), entry)
    }

    /// The view that this thread is inside of, if any.
    pub(crate) fn inside(&self, env: EnvId) -> Option<&'static Location<'static>> {
        SEATS.with_borrow(|seats| {
            let seat = seats.iter().find(|seat| seat.env == env)?;
            let slot = &seat.slot;
            (slot.state.inside.load(Ordering::Relaxed) != 0).then(|| slot.site())
        })
    }

    /// Ends when the gate is not shut for a change any more (it may be poisoned or closing then).
    pub(crate) async fn opened(&self) {
        struct Waits<'g>(&'g AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        loop {
            let mut notified = std::pin::pin!(self.reopened.notified());
            notified.as_mut().enable();
            if self.shut(Entry::Admitted) != Some(Shut::Changing) {
                return;
            }
            notified.await;
        }
    }

    /// Shuts the gate and waits until nobody is inside, at most until `until`. Lodgers are told to leave.
    ///
    /// On expiry the gate is open again and the answer names who was in the way.
    pub(crate) fn close(&self, until: Instant) -> Result<Closed<'_>, Vec<Occupant>> {
        *self.closer.lock() = Some(thread::current());
        self.set(CHANGING);
        fence(Ordering::SeqCst);
        self.lodgers.oust(Shut::Changing);
        let mut spins = 0_u32;
        loop {
            if self.is_empty() {
                return Ok(Closed { gate: self });
            }
            spins += 1;
            if spins < 20 {
                thread::yield_now();
                continue;
            }
            let now = Instant::now();
            if now >= until {
                let occupants = self.occupants();
                // Whoever left in between is not in the way.
                if self.is_empty() {
                    return Ok(Closed { gate: self });
                }
                self.clear(CHANGING);
                return Err(occupants);
            }
            thread::park_timeout((until - now).min(Duration::from_micros(500)));
        }
    }

    /// Shuts the gate if nobody is inside right now; a lodger is somebody, and may stay.
    pub(crate) fn try_close(&self) -> Option<Closed<'_>> {
        if self.lodgers.len() > 0 {
            return None;
        }
        self.set(CHANGING);
        fence(Ordering::SeqCst);
        if self.is_empty() {
            return Some(Closed { gate: self });
        }
        self.clear(CHANGING);
        None
    }

    /// Keeps everybody out until [`Gate::heal`]; who is inside stays, but for the lodgers.
    pub(crate) fn poison(&self) {
        self.set(POISONED);
        self.lodgers.oust(Shut::Poisoned);
        self.reopened.notify_waiters();
    }

    /// Ends [`Gate::poison`].
    pub(crate) fn heal(&self) {
        self.clear(POISONED);
    }

    /// Keeps everybody out who was not admitted before.
    pub(crate) fn drain(&self) {
        self.set(DRAINING);
        self.reopened.notify_waiters();
    }

    /// Keeps everybody out for good; who is inside stays, but for the lodgers.
    pub(crate) fn shut_for_good(&self) {
        self.set(CLOSING);
        self.lodgers.oust(Shut::Closing);
        self.reopened.notify_waiters();
    }

    /// Who is inside, the oldest first.
    pub(crate) fn occupants(&self) -> Vec<Occupant> {
        let now = coarse_now();
        let slots = self.slots.lock();
        let mut found: Vec<Occupant> = slots
            .iter()
            .filter(|slot| slot.state.inside.load(Ordering::Acquire) == 1)
            .map(|slot| {
                let since = Duration::from_millis(slot.state.since_ms.load(Ordering::Relaxed));
                Occupant {
                    name: slot.name(),
                    site: slot.site(),
                    age: now.saturating_sub(since),
                    held: slot.is_held(),
                    key: slot.key(),
                }
            })
            .collect();
        found.sort_by_key(|occupant| std::cmp::Reverse(occupant.age));
        found
    }

    /// Brings the age of an occupant up to date; `false` if it has left.
    pub(crate) fn refresh(&self, occupant: &mut Occupant) -> bool {
        match self
            .occupants()
            .into_iter()
            .find(|now| now.key == occupant.key)
        {
            Some(now) => {
                occupant.age = now.age;
                true
            }
            None => false,
        }
    }

    /// Whether anybody waits for the gate to open.
    pub(crate) fn anyone_waits(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// How often the gate was entered, ended threads included.
    pub(crate) fn entries(&self) -> u64 {
        let slots = self.slots.lock();
        slots
            .iter()
            .map(|slot| slot.state.entries.load(Ordering::Relaxed))
            .sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        let slots = self.slots.lock();
        slots
            .iter()
            .all(|slot| slot.state.inside.load(Ordering::SeqCst) == 0)
    }

    fn set(&self, bit: u32) {
        self.shut.fetch_or(bit, Ordering::SeqCst);
    }

    fn clear(&self, bit: u32) {
        self.shut.fetch_and(!bit, Ordering::SeqCst);
        self.reopened.notify_waiters();
    }

    #[inline(always)]
    fn seat(&self, env: EnvId) -> Rc<Seat> {
        SEATS.with_borrow_mut(|seats| match seats.iter().find(|seat| seat.env == env) {
            Some(seat) => Rc::clone(seat),
            None => self.take_seat(env, seats),
        })
    }

    #[cold]
    fn take_seat(&self, env: EnvId, seats: &mut Vec<Rc<Seat>>) -> Rc<Seat> {
        super::raw::watch_exit();
        // Seats of environments that are gone are only known by having no other owner.
        seats.retain(|seat| Arc::strong_count(&seat.slot) > 1);
        let slot = Arc::new(Slot {
            state: CachePadded::default(),
            name: Mutex::new(None),
            gone: AtomicBool::new(false),
        });
        self.register(Arc::clone(&slot));
        let seat = Rc::new(Seat { env, slot });
        seats.push(Rc::clone(&seat));
        seat
    }

    fn register(&self, slot: Arc<Slot>) {
        let mut slots = self.slots.lock();
        // One slot gathers the counts of the threads that ended, so that the list does not grow with every thread.
        let mut ended = 0;
        slots.retain(|slot| {
            let gone =
                slot.gone.load(Ordering::Acquire) && slot.state.inside.load(Ordering::SeqCst) == 0;
            if gone {
                ended += slot.state.entries.load(Ordering::Relaxed);
            }
            !gone
        });
        slot.state.entries.store(ended, Ordering::Relaxed);
        slots.push(slot);
    }
}

/// The workers of the keeper's own pools are served until they have ended.
#[cold]
pub(super) fn served(env: EnvId, entry: Entry) -> Entry {
    match inside::is_worker_of(env) {
        true => Entry::Admitted,
        false => entry,
    }
}

fn why(shut: u32, entry: Entry) -> Option<Shut> {
    if shut & CLOSING != 0 || (shut & DRAINING != 0 && entry == Entry::New) {
        Some(Shut::Closing)
    } else if shut & POISONED != 0 {
        Some(Shut::Poisoned)
    } else if shut & CHANGING != 0 {
        Some(Shut::Changing)
    } else {
        None
    }
}

/// Set in a slot's site while the slot has a name.
const NAMED: u32 = 1 << 31;
/// Set in a slot's site while a held snapshot is inside.
const HELD: u32 = 1 << 30;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const ENV: EnvId = EnvId::test(1_000_001);

    #[test]
    fn i01_the_gate_closes_only_when_nobody_is_inside() {
        let gate = Arc::new(Gate::new());
        let (inside, is_inside) = mpsc::channel();
        let (leave, may_leave) = mpsc::channel::<()>();
        let other = Arc::clone(&gate);
        let view = thread::spawn(move || {
            let name: Arc<str> = "report".into();
            let entered = other
                .enter(ENV, Location::caller(), Some(&name), Entry::New)
                .unwrap();
            inside.send(()).unwrap();
            may_leave.recv().unwrap();
            drop(entered);
        });
        is_inside.recv().unwrap();
        let in_the_way = gate
            .close(Instant::now() + Duration::from_millis(30))
            .err()
            .unwrap();
        assert_eq!(in_the_way.len(), 1);
        assert_eq!(in_the_way[0].name.as_deref(), Some("report"));
        assert!(in_the_way[0].site.file().ends_with("gate.rs"));
        assert!(
            gate.shut(Entry::New).is_none(),
            "the gate is open again on expiry"
        );
        assert!(gate.try_close().is_none());

        leave.send(()).unwrap();
        let closed = gate
            .close(Instant::now() + Duration::from_secs(10))
            .unwrap();
        view.join().unwrap();
        assert_eq!(
            gate.enter(ENV, Location::caller(), None, Entry::New).err(),
            Some(Shut::Changing)
        );
        drop(closed);
        assert!(
            gate.enter(ENV, Location::caller(), None, Entry::New)
                .is_ok()
        );
    }

    #[test]
    fn i01_no_thread_is_ever_inside_a_closed_gate() {
        let gate = Arc::new(Gate::new());
        let readers = Arc::new(AtomicU32::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (gate, readers, stop) =
                    (Arc::clone(&gate), Arc::clone(&readers), Arc::clone(&stop));
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        if let Ok(_entered) = gate.enter(ENV, Location::caller(), None, Entry::New)
                        {
                            readers.fetch_add(1, Ordering::SeqCst);
                            std::hint::spin_loop();
                            readers.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        for _ in 0..20_000 {
            let closed = gate
                .close(Instant::now() + Duration::from_secs(30))
                .unwrap();
            assert_eq!(readers.load(Ordering::SeqCst), 0);
            drop(closed);
        }
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn threads_that_ended_leave_no_slot_behind() {
        let gate = Arc::new(Gate::new());
        for _ in 0..100 {
            let gate = Arc::clone(&gate);
            thread::spawn(move || drop(gate.enter(ENV, Location::caller(), None, Entry::New)))
                .join()
                .unwrap();
        }
        assert!(gate.slots.lock().len() <= 2);
        assert_eq!(gate.entries(), 100);
    }
}
