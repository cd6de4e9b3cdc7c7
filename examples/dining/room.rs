//! What the philosophers share: the forks, the time, and what a waiter outside of the lock table sees.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::Addr;
use lockkeeper::{LockTable, Locks, Object};

use crate::options::Options;

/// The dining room.
pub struct Room {
    pub options: Options,
    pub locks: Locks,
    /// The lock table's other door, for messages.
    pub table: Addr<LockTable>,
    pub seats: Vec<Seat>,
    hands: Hands,
    closes: Option<Instant>,
}

/// What is known about one philosopher.
#[derive(Default)]
pub struct Seat {
    pub doing: Doing,
    pub meals: AtomicU64,
    /// How often this one gave way to break a deadlock.
    pub gave_way: AtomicU64,
    pub timeouts: AtomicU64,
    longest_wait: Mutex<Duration>,
}

impl Room {
    pub fn new(options: Options, table: Addr<LockTable>, locks: Locks) -> Self {
        let size = options.philosophers;
        let closes = match options.meals {
            Some(_) => None,
            None => Some(Instant::now() + Duration::from_secs_f64(options.seconds)),
        };
        Self {
            seats: (0..size).map(|_| Seat::default()).collect(),
            hands: Hands::empty(size),
            options,
            locks,
            table,
            closes,
        }
    }

    /// The numbers of the forks to the left and to the right of a seat.
    pub fn forks_of(&self, seat: usize) -> (usize, usize) {
        (seat, (seat + 1) % self.seats.len())
    }

    /// Whether this seat gets another meal.
    pub fn serves(&self, seat: usize) -> bool {
        match (self.options.meals, self.closes) {
            (Some(meals), _) => self.seats[seat].meals.load(Ordering::Relaxed) < meals,
            (None, Some(closes)) => Instant::now() < closes,
            (None, None) => false,
        }
    }

    pub fn hands(&self) -> &Hands {
        &self.hands
    }
}

impl Seat {
    pub fn has_waited(&self, wait: Duration) {
        let mut longest = self
            .longest_wait
            .lock()
            .unwrap_or_else(|error| error.into_inner());
        *longest = longest.max(wait);
    }

    pub fn longest_wait(&self) -> Duration {
        *self
            .longest_wait
            .lock()
            .unwrap_or_else(|error| error.into_inner())
    }
}

/// The lock table's name for a fork. The zeros in front put forks in the order of their numbers, and a report shows the
/// name as it is.
pub fn fork(number: usize) -> Object {
    Object::new("forks", format!("{number:04}"))
}

/// Who has each fork in hand, seen without a look at the lock table: it is the lock table that is checked.
pub struct Hands {
    /// 0 for nobody, else the seat's number and one.
    forks: Vec<AtomicUsize>,
    violations: AtomicU64,
}

impl Hands {
    fn empty(forks: usize) -> Self {
        Self {
            forks: (0..forks).map(|_| AtomicUsize::new(0)).collect(),
            violations: AtomicU64::new(0),
        }
    }

    /// The seat takes a fork in its hand, which nobody else may have.
    pub fn pick_up(&self, fork: usize, seat: usize) {
        self.pass(fork, 0, seat + 1);
    }

    pub fn put_down(&self, fork: usize, seat: usize) {
        self.pass(fork, seat + 1, 0);
    }

    fn pass(&self, fork: usize, from: usize, to: usize) {
        if self.forks[fork].swap(to, Ordering::SeqCst) != from {
            self.violations.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How often a fork was in two hands.
    pub fn violations(&self) -> u64 {
        self.violations.load(Ordering::SeqCst)
    }
}

/// What a philosopher is doing.
#[derive(Default)]
pub struct Doing(AtomicUsize);

impl Doing {
    pub const THINKING: Deed = Deed(0, "thinks");
    pub const HUNGRY: Deed = Deed(1, "waits");
    pub const EATING: Deed = Deed(2, "eats");
    pub const GONE: Deed = Deed(3, "has left");
    const ALL: [Deed; 4] = [Self::THINKING, Self::HUNGRY, Self::EATING, Self::GONE];

    pub fn set(&self, deed: Deed) {
        self.0.store(deed.0, Ordering::Relaxed);
    }

    pub fn text(&self) -> &'static str {
        Self::ALL[self.0.load(Ordering::Relaxed)].1
    }
}

#[derive(Clone, Copy)]
pub struct Deed(usize, &'static str);
