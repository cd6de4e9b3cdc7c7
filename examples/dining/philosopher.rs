//! The life of a philosopher.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lockkeeper::{Age, LockError, LockGuard, LockMany, LockOps, Locker, LockerSpec, Mode, Wait};

use crate::dice::Dice;
use crate::options::Order;
use crate::room::{Deed, Doing, Room, fork};

pub struct Philosopher {
    room: Arc<Room>,
    seat: usize,
    dice: Dice,
}

/// Both forks. They are put down when this is dropped, since then the locker ends.
struct Forks {
    _locker: Arc<Locker>,
    /// A message is answered with guards; in place the locker alone stands for its locks.
    _guards: Vec<LockGuard>,
}

impl Philosopher {
    pub fn new(room: Arc<Room>, seat: usize) -> Self {
        let dice = Dice::new(room.options.seed, seat);
        Self { room, seat, dice }
    }

    /// Thinks and eats for as long as there is something to eat.
    pub async fn live(mut self) -> Result<(), LockError> {
        while self.room.serves(self.seat) {
            self.is(Doing::THINKING);
            pause(self.dice.up_to(self.room.options.think)).await;
            self.is(Doing::HUNGRY);
            let forks = self.get_forks().await?;
            self.is(Doing::EATING);
            self.eat().await;
            drop(forks);
        }
        self.is(Doing::GONE);
        Ok(())
    }

    /// Tries until both forks are in hand. A meal is what elsewhere is a transaction, and each attempt is a locker.
    async fn get_forks(&mut self) -> Result<Forks, LockError> {
        let hungry_since = Instant::now();
        let mut age = None;
        loop {
            let locker = Arc::new(self.locker(age)?);
            // The next attempt is as old as this one, so whoever has lost often enough is the oldest, and wins.
            age = Some(locker.age());
            match self.take_forks(&locker).await {
                Ok(guards) => {
                    self.room.seats[self.seat].has_waited(hungry_since.elapsed());
                    return Ok(Forks {
                        _locker: locker,
                        _guards: guards,
                    });
                }
                Err(error) if error.is_retryable() => {
                    // What the victim holds is in the others' way until its locker ends.
                    drop(locker);
                    self.stand_back(&error).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn locker(&self, age: Option<Age>) -> Result<Locker, LockError> {
        let name = format!("philosopher {}", self.seat);
        self.room
            .locks
            .locker(LockerSpec::new().name(name).age(age))
    }

    async fn take_forks(&mut self, locker: &Arc<Locker>) -> Result<Vec<LockGuard>, LockError> {
        let (left, right) = self.room.forks_of(self.seat);
        match self.room.options.order {
            Order::Sorted => {
                self.one_by_one(locker, left.min(right), left.max(right))
                    .await
            }
            Order::Random if self.dice.coin() => self.one_by_one(locker, left, right).await,
            Order::Random => self.one_by_one(locker, right, left).await,
            Order::BothHandsAtOnce => self.both_at_once(locker, left, right).await,
        }
    }

    /// By the second door: a fork that is free is taken right here, without a message.
    async fn one_by_one(
        &self,
        locker: &Locker,
        first: usize,
        second: usize,
    ) -> Result<Vec<LockGuard>, LockError> {
        locker
            .lock(&fork(first), Mode::Write, Wait::Default)
            .await?;
        pause(self.room.options.reach).await;
        locker
            .lock(&fork(second), Mode::Write, Wait::Default)
            .await?;
        Ok(Vec::new())
    }

    /// By the front door: one message for both. It saves a hop, but is no protection against deadlock.
    async fn both_at_once(
        &self,
        locker: &Arc<Locker>,
        left: usize,
        right: usize,
    ) -> Result<Vec<LockGuard>, LockError> {
        let ops = LockOps::new()
            .lock(fork(left), Mode::Write)
            .lock(fork(right), Mode::Write);
        match self
            .room
            .table
            .send(LockMany::new(Arc::clone(locker), ops))
            .await
        {
            Ok(Ok(held)) => Ok(held.guards.into_iter().collect()),
            Ok(Err(refused)) => Err(refused.failed.error),
            // The actor is gone, so nobody answers any more.
            Err(_) => Err(LockError::ShuttingDown),
        }
    }

    /// Waits before the next attempt, so that it does not meet the same neighbours in the same way.
    async fn stand_back(&mut self, error: &LockError) {
        let seat = &self.room.seats[self.seat];
        if let LockError::Deadlock(_) = error {
            seat.gave_way.fetch_add(1, Ordering::Relaxed);
            self.room.locks.ended(error.older()).await;
        } else {
            // After a timeout nobody knows who was in the way for good: a while by chance is all there is.
            seat.timeouts.fetch_add(1, Ordering::Relaxed);
            let longest = self.room.locks.config().lock_timeout / 2;
            pause(self.dice.up_to(longest)).await;
        }
    }

    async fn eat(&mut self) {
        let (left, right) = self.room.forks_of(self.seat);
        let hands = self.room.hands();
        hands.pick_up(left, self.seat);
        hands.pick_up(right, self.seat);
        pause(self.dice.up_to(self.room.options.eat)).await;
        // Out of the hand before the lock goes: from then on it may be in another one.
        hands.put_down(left, self.seat);
        hands.put_down(right, self.seat);
        self.room.seats[self.seat]
            .meals
            .fetch_add(1, Ordering::Relaxed);
    }

    fn is(&self, deed: Deed) {
        self.room.seats[self.seat].doing.set(deed);
    }
}

/// A sleep; none at all still lets others have their turn.
async fn pause(time: Duration) {
    match time {
        Duration::ZERO => tokio::task::yield_now().await,
        time => tokio::time::sleep(time).await,
    }
}
