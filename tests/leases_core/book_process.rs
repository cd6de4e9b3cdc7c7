//! One process with its book: does what the book decides, as the actor of leases does it, and looks whether the book keeps to its
//! contract.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lockkeeper::lease_core::{
    Book, Bounds, Effect, LeaseKey, Moment, RefreshItem, Refusal, SendId, Timing, WaiterId, Wish,
};
use lockkeeper::{Fence, LeaseName, LostReason, Released};

use crate::book_store::{HolderId, at_rate};

/// How long an answer of the store is waited for.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// Most who may wait for a name.
const WAITERS: usize = 5;
/// Most leases in one question.
const CHUNK: usize = 500;

/// Somebody who waits.
#[derive(Debug)]
pub struct Caller {
    name: LeaseName,
    wish: Wish,
}

/// What there is of a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    NotYet,
    Owned,
    Dropped,
}

/// An acquisition, as everybody sees it who looks at it from outside.
#[derive(Debug)]
pub struct Cell {
    pub name: LeaseName,
    pub holder: HolderId,
    pub token: Option<Fence>,
    pub timing: Timing,
    pub believed: Option<Moment>,
    pub guard: Guard,
    /// Its owner gave it back, or dropped it.
    pub let_go: bool,
    /// A release was sent: no refresh may follow.
    is_released: bool,
    has_ended: bool,
    is_lost: bool,
    is_doubtful: bool,
    /// Somebody runs under it.
    pub in_use: bool,
}

impl Cell {
    pub fn is_over(&self) -> bool {
        self.is_lost || self.has_ended
    }
}

/// What goes out to the store.
#[derive(Debug, Clone)]
pub enum Ask {
    Claim {
        key: LeaseKey,
        send: SendId,
        left_with: Option<Fence>,
    },
    HandOver {
        from: LeaseKey,
        to: LeaseKey,
        send: SendId,
    },
    Refresh(Vec<RefreshItem>),
    Release(LeaseKey),
    Force(LeaseName),
    /// A wake-up on its way: of a name, or of all.
    Wake(Option<LeaseName>),
}

/// What the world has to know of what a process did.
#[derive(Debug)]
pub enum Out {
    Ask(Ask),
    /// The answer to a refresh of this lease alone is not waited for any more.
    DropRefresh(LeaseKey),
    Granted(LeaseName, HolderId, Fence),
    Released(LeaseName, HolderId, Released),
    /// Its release was given up, and its guard is gone: it is left to the store.
    Left(HolderId),
}

pub struct Process {
    pub number: usize,
    pub book: Book,
    pub rate: i64,
    /// It is suspended: nothing happens in it, and its clock runs on.
    pub is_asleep: bool,
    pub is_closed: bool,
    pub listens: bool,
    pub callers: BTreeMap<WaiterId, Caller>,
    pub cells: BTreeMap<LeaseKey, Cell>,
    /// Who asks the store, for each name.
    pub asking: BTreeMap<LeaseName, LeaseKey>,
    /// Somebody said stop when the store failed.
    pub was_stopped: bool,
    holders: u64,
    pub out: Vec<Out>,
}

impl Process {
    pub fn new(number: usize, rate: i64, seed: u64) -> Self {
        let bounds = Bounds {
            waiters: WAITERS,
            call_timeout: CALL_TIMEOUT,
            seed,
        };
        Self {
            number,
            book: Book::new(bounds),
            rate,
            is_asleep: false,
            is_closed: false,
            listens: false,
            callers: BTreeMap::new(),
            cells: BTreeMap::new(),
            asking: BTreeMap::new(),
            was_stopped: false,
            holders: 0,
            out: Vec::new(),
        }
    }

    /// It is killed, and starts anew.
    pub fn crash(&mut self, seed: u64) {
        let holders = self.holders;
        *self = Self::new(self.number, self.rate, seed);
        self.holders = holders;
    }

    pub fn now(&self, real: u64) -> Moment {
        Moment(at_rate(real, self.rate))
    }

    /// A step of the book, and what follows from it.
    pub fn step<R>(
        &mut self,
        now: Moment,
        step: impl FnOnce(&mut Book, &mut Vec<Effect>) -> R,
    ) -> R {
        let mut effects = Vec::new();
        let answer = step(&mut self.book, &mut effects);
        for effect in effects {
            self.apply(now, effect);
        }
        answer
    }

    pub fn ask(&mut self, now: Moment, name: &LeaseName, wish: Wish) {
        let waiting = self.callers.values().filter(|other| other.name == *name);
        // One that was withdrawn may be asked for still.
        let waiting = waiting.count();
        let is_full = waiting + usize::from(self.asking.contains_key(name)) >= WAITERS;
        let asked = self.book.ask(now, name, wish.clone());
        match asked {
            Ok(id) => {
                assert!(!self.is_closed && waiting < WAITERS, "more wait than may");
                let name = name.clone();
                let caller = Caller { name, wish };
                self.callers.insert(id, caller);
            }
            Err(Refusal::ShuttingDown) => assert!(self.is_closed),
            Err(Refusal::TooMany { limit }) => assert!(is_full && limit == WAITERS),
            Err(other) => panic!("{other:?}"),
        }
        self.step(now, |book, fx| book.advance(now, name, fx));
    }

    pub fn abandon(&mut self, now: Moment, caller: WaiterId) {
        self.callers.remove(&caller);
        self.step(now, |book, fx| book.abandon(now, caller, fx));
    }

    /// The owner of a guard gives the lease back, and keeps the guard until he is answered.
    pub fn release(&mut self, now: Moment, key: LeaseKey) {
        let cell = self.cells.get_mut(&key).expect("somebody has its guard");
        (cell.believed, cell.let_go) = (None, true);
        self.step(now, |book, fx| book.release(now, key, fx));
    }

    pub fn drop_guard(&mut self, now: Moment, key: LeaseKey) {
        let cell = self.cells.get_mut(&key).expect("somebody has its guard");
        (cell.believed, cell.let_go, cell.guard) = (None, true, Guard::Dropped);
        if cell.in_use {
            self.out.push(Out::Left(cell.holder));
            self.step(now, |book, fx| book.let_expire(now, key, fx));
        } else {
            self.step(now, |book, fx| book.disown(now, key, fx));
        }
    }

    pub fn extend(&mut self, now: Moment, key: LeaseKey, timing: Timing) {
        let extended = self.step(now, |book, fx| book.extend(now, key, timing, fx));
        if extended.is_some()
            && let Some(cell) = self.cells.get_mut(&key)
        {
            cell.timing = timing;
        }
    }

    pub fn close(&mut self, now: Moment) {
        self.is_closed = true;
        let used = |(key, cell): (&LeaseKey, &Cell)| cell.in_use.then_some(*key);
        let used: BTreeSet<LeaseKey> = self.cells.iter().filter_map(used).collect();
        for key in &used {
            let cell = self.cells.get_mut(key).expect("it was there just now");
            self.out.push(Out::Left(cell.holder));
        }
        self.step(now, |book, fx| {
            book.close(now, |key| used.contains(&key), fx);
        });
        assert!(self.callers.is_empty(), "somebody waits for what has ended");
        let mut believed = self.cells.values().filter_map(|cell| cell.believed);
        assert_eq!(believed.next(), None, "it is held after the end");
    }

    /// Time has passed, and whoever waits for it is told.
    pub fn tick(&mut self, now: Moment) {
        self.step(now, |book, fx| book.tick(now, fx));
        let late = |until: &Moment| *until <= now;
        for caller in self.callers.values() {
            assert!(
                !caller.wish.until.as_ref().is_some_and(late),
                "{caller:?} waits longer than it wants"
            );
        }
        for cell in self.cells.values() {
            assert!(
                !cell.believed.as_ref().is_some_and(late),
                "{cell:?} is over, and nobody was told"
            );
        }
        let next = self.book.next_deadline();
        assert!(
            !next.as_ref().is_some_and(late),
            "what was due is due still"
        );
    }

    /// Whether a holder is one of its own.
    pub fn is_own(&self, holder: &lockkeeper::Holder) -> bool {
        let is_it = |cell: &Cell| {
            (holder.id.as_ref(), holder.pid as usize)
                == (&*cell.holder.number.to_string(), cell.holder.process)
        };
        self.cells.values().any(is_it)
    }

    /// The guards that its callers have.
    pub fn guards(&self) -> Vec<LeaseKey> {
        let owned = |(key, cell): (&LeaseKey, &Cell)| (cell.guard == Guard::Owned).then_some(*key);
        self.cells.iter().filter_map(owned).collect()
    }

    fn apply(&mut self, now: Moment, effect: Effect) {
        match effect {
            Effect::Claim {
                key,
                waiter,
                name,
                send,
                left_with,
            } => {
                self.asks(key, waiter, &name);
                self.out.push(Out::Ask(Ask::Claim {
                    key,
                    send,
                    left_with,
                }));
            }
            Effect::HandOver {
                from,
                to,
                waiter,
                name,
                send,
            } => {
                self.gives_back(from);
                assert_eq!(self.cells[&from].name, name);
                self.asks(to, Some(waiter), &name);
                self.out.push(Out::Ask(Ask::HandOver { from, to, send }));
            }
            Effect::Refresh(items) => {
                assert!((1..=CHUNK).contains(&items.len()), "{}", items.len());
                let in_order = items.is_sorted_by(|one, other| one.name < other.name);
                assert!(in_order, "names in order, each once: {items:?}");
                for item in &items {
                    let cell = &self.cells[&item.key];
                    assert!(!cell.is_released, "refreshed after its release: {cell:?}");
                    assert!(!cell.is_lost && cell.token.is_some(), "{cell:?}");
                    assert_eq!(cell.name, item.name);
                }
                self.out.push(Out::Ask(Ask::Refresh(items)));
            }
            Effect::Release { key } => {
                self.gives_back(key);
                self.out.push(Out::Ask(Ask::Release(key)));
            }
            Effect::Granted { waiter, key } => self.granted(waiter, key),
            Effect::Waits { waiter, name } => assert_eq!(self.callers[&waiter].name, name),
            Effect::Refused {
                waiter,
                name,
                refusal,
            } => {
                let answered = self.callers.remove(&waiter);
                let caller = answered.expect("nobody is answered twice");
                assert_eq!(caller.name, name);
                self.is_right(now, &caller, &refusal);
            }
            Effect::Deadline { key, at, .. } => {
                let cell = self.cell(key);
                assert!(
                    !cell.let_go && !cell.is_released && !cell.is_lost,
                    "{cell:?}"
                );
                cell.believed = Some(at);
            }
            Effect::Doubtful { key } => {
                let cell = self.cell(key);
                assert!(!std::mem::replace(&mut cell.is_doubtful, true), "{cell:?}");
            }
            Effect::HeldAgain { key } => {
                let cell = self.cell(key);
                assert!(std::mem::replace(&mut cell.is_doubtful, false), "{cell:?}");
            }
            Effect::Lost { key, reason } => {
                let cell = self.cell(key);
                cell.believed = None;
                assert!(!std::mem::replace(&mut cell.is_lost, true), "told twice");
                assert!(!cell.let_go || reason == LostReason::Released, "{cell:?}");
            }
            Effect::DropRefresh { key } => self.out.push(Out::DropRefresh(key)),
            Effect::Released { key, outcome } => {
                let cell = self.cell(key);
                assert!(!std::mem::replace(&mut cell.has_ended, true), "told twice");
                assert_eq!(cell.believed, None);
                let (name, holder) = (cell.name.clone(), cell.holder);
                self.out.push(Out::Released(name, holder, outcome));
            }
            Effect::ReleaseStopped { key, .. } => {
                assert!(self.was_stopped, "nobody said stop");
                let holder = self.cell(key).holder;
                self.out.push(Out::Left(holder));
            }
            Effect::Forget { key } => {
                let cell = self.cells.remove(&key);
                // An asker that never asked has none.
                assert!(cell.is_none_or(|cell| cell.guard != Guard::Owned));
                assert!(self.asking.values().all(|asking| *asking != key));
            }
            Effect::Listen => self.listens = true,
        }
    }

    #[track_caller]
    fn cell(&mut self, key: LeaseKey) -> &mut Cell {
        self.cells.get_mut(&key).expect("it is known")
    }

    /// A claim goes out: for somebody who waits, and it is the only one of its name.
    fn asks(&mut self, key: LeaseKey, waiter: Option<WaiterId>, name: &LeaseName) {
        assert!(!self.is_closed, "asked for after the end");
        let caller = waiter.and_then(|waiter| self.callers.get(&waiter));
        let caller = caller.expect("asked for somebody who waits");
        assert_eq!(caller.name, *name);
        let other = self.asking.insert(name.clone(), key);
        assert_eq!(other, None, "two ask for {name}");
        let number = self.number;
        let cell = self.cells.entry(key).or_insert_with(|| {
            self.holders += 1;
            Cell {
                name: name.clone(),
                holder: HolderId {
                    process: number,
                    number: self.holders,
                },
                token: None,
                timing: caller.wish.timing,
                believed: None,
                guard: Guard::NotYet,
                let_go: false,
                is_released: false,
                has_ended: false,
                is_lost: false,
                is_doubtful: false,
                in_use: false,
            }
        });
        assert!(!cell.is_released && cell.guard == Guard::NotYet, "{cell:?}");
    }

    fn gives_back(&mut self, key: LeaseKey) {
        let cell = self.cell(key);
        assert_eq!(cell.believed, None, "given back while it is believed in");
        assert!(!cell.in_use || cell.let_go, "given back while it is used");
        cell.is_released = true;
    }

    fn granted(&mut self, waiter: WaiterId, key: LeaseKey) {
        let answered = self.callers.remove(&waiter);
        let caller = answered.expect("nobody is answered twice");
        let before = |(id, other): (&WaiterId, &Caller)| *id < waiter && other.name == caller.name;
        let passed = self.callers.iter().find(|(id, other)| before((id, other)));
        assert!(passed.is_none(), "{passed:?} was there before {waiter:?}");
        let cell = self.cell(key);
        assert_eq!((&cell.name, cell.guard), (&caller.name, Guard::NotYet));
        assert!(cell.believed.is_some(), "held, and nobody knows until when");
        cell.guard = Guard::Owned;
        let token = cell.token.expect("it was granted");
        let (name, holder) = (cell.name.clone(), cell.holder);
        self.out.push(Out::Granted(name, holder, token));
    }

    /// Whether a refusal is one that this caller can get.
    fn is_right(&self, now: Moment, caller: &Caller, refusal: &Refusal) {
        let is_over = caller.wish.until.is_some_and(|until| until <= now);
        let right = match refusal {
            Refusal::Busy { .. } => caller.wish.once,
            Refusal::TimedOut { .. } => is_over,
            Refusal::Unreachable { errors, .. } => {
                *errors > 0 && (is_over || caller.wish.once || self.was_stopped)
            }
            Refusal::ShuttingDown => self.is_closed,
            Refusal::Unusable(_) | Refusal::TooMany { .. } => false,
        };
        assert!(right, "{caller:?} was answered {refusal:?}");
    }
}
