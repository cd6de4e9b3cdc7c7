//! One interface for both ways into the lock table, so that each scenario is told once.

use super::*;

/// One way in.
#[derive(Clone)]
pub enum Door {
    InPlace(Locks),
    Message(Locks, Addr<LockTable>),
}

pub type Doing<T> = Pin<Box<dyn Future<Output = T>>>;
pub type Taking = Doing<Taken>;
pub type Taken = Result<Option<LockGuard>, LockError>;
pub type Holding = Result<Held, LockError>;
pub type Task<T> = tokio::task::JoinHandle<T>;

/// One reference of a lock, released when it is dropped: by message it is the guard of the answer.
#[derive(Debug)]
pub struct Held {
    locker: Arc<Locker>,
    object: Object,
    mode: Mode,
    guard: Option<LockGuard>,
    released: bool,
}

impl Held {
    fn new(locker: Arc<Locker>, object: Object, mode: Mode, guard: Option<LockGuard>) -> Self {
        Self {
            locker,
            object,
            mode,
            guard,
            released: false,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A guard releases by itself.
        if self.guard.is_none() && !self.released {
            self.locker.unlock(&self.object, self.mode);
        }
    }
}

/// A lock that keeps its mode, and why.
pub type Kept = Box<(Held, LockError)>;

/// What became of several operations; in place there are no guards.
#[derive(Debug)]
pub struct Ran {
    pub outcomes: Vec<LockOutcome>,
    pub guards: Vec<LockGuard>,
}

/// The same for operations one of which failed.
#[derive(Debug)]
pub struct RanInto {
    pub failed: LocksFailed,
    pub guards: Vec<LockGuard>,
}

impl Door {
    pub fn both(config: LockConfig) -> [Door; 2] {
        let locks = Locks::start(config.clone());
        let (address, behind) = LockTable::start_alone(config).unwrap();
        [Door::InPlace(locks), Door::Message(behind, address)]
    }

    pub fn locks(&self) -> &Locks {
        match self {
            Door::InPlace(locks) | Door::Message(locks, _) => locks,
        }
    }

    pub fn locker(&self) -> Arc<Locker> {
        Arc::new(self.locks().locker(LockerSpec::new()).unwrap())
    }

    pub fn lockers(&self, count: usize) -> Vec<Arc<Locker>> {
        (0..count).map(|_| self.locker()).collect()
    }

    /// The lock stays with the locker, or with the guard if there is one.
    pub fn take(&self, locker: &Arc<Locker>, object: &Object, mode: Mode, wait: Wait) -> Taking {
        let (locker, object) = (Arc::clone(locker), object.clone());
        match self.clone() {
            Door::InPlace(_) => {
                Box::pin(async move { locker.lock(&object, mode, wait).await.map(|()| None) })
            }
            Door::Message(_, address) => Box::pin(async move {
                let acquire = Acquire::new(object, mode).wait(wait).locker(locker);
                address.send(acquire).await.unwrap().map(Some)
            }),
        }
    }

    /// Asks, and comes back when the request is queued.
    pub async fn queue(&self, locker: &Arc<Locker>, object: &Object, mode: Mode) -> Task<Taken> {
        self.until_queued(self.take(locker, object, mode, Wait::Forever))
            .await
    }

    /// Asks for a lock that is released when the answer is dropped.
    pub fn ask(
        &self,
        locker: &Arc<Locker>,
        object: &Object,
        mode: Mode,
        wait: Wait,
    ) -> Doing<Holding> {
        let taking = self.take(locker, object, mode, wait);
        let (locker, object) = (Arc::clone(locker), object.clone());
        Box::pin(async move {
            let guard = taking.await?;
            Ok(Held::new(locker, object, mode, guard))
        })
    }

    /// Takes what is free.
    pub async fn hold(&self, locker: &Arc<Locker>, object: &Object, mode: Mode) -> Held {
        self.ask(locker, object, mode, Wait::No).await.unwrap()
    }

    /// Why it cannot be had at once.
    pub async fn refused(&self, locker: &Arc<Locker>, object: &Object, mode: Mode) -> LockError {
        self.ask(locker, object, mode, Wait::No).await.unwrap_err()
    }

    /// Asks, waiting for ever, and comes back when the request is queued.
    pub async fn waits(&self, locker: &Arc<Locker>, object: &Object, mode: Mode) -> Task<Holding> {
        self.until_queued(self.ask(locker, object, mode, Wait::Forever))
            .await
    }

    /// Does this aside, and comes back when one more request has been queued.
    pub async fn until_queued<T: 'static>(&self, doing: Doing<T>) -> Task<T> {
        let before = self.locks().stats().waits;
        let task = tokio::task::spawn_local(doing);
        until(|| self.locks().stats().waits > before).await;
        task
    }

    pub async fn release(&self, locker: &Arc<Locker>, object: &Object, mode: Mode) -> bool {
        match self {
            Door::InPlace(_) => locker.unlock(object, mode),
            Door::Message(_, address) => {
                let release = Release::Lock {
                    locker: Arc::clone(locker),
                    object: object.clone(),
                    mode,
                };
                address.send(release).await.unwrap()
            }
        }
    }

    /// Changes the mode; a lock that keeps its mode comes back.
    pub fn upgrade(&self, mut held: Held, to: Mode, wait: Wait) -> Doing<Result<Held, Kept>> {
        match self.clone() {
            Door::InPlace(_) => Box::pin(async move {
                let (locker, object) = (Arc::clone(&held.locker), held.object.clone());
                match locker.upgrade(&object, held.mode, to, wait).await {
                    Ok(()) => {
                        held.mode = to;
                        Ok(held)
                    }
                    Err(error) => Err(Box::new((held, error))),
                }
            }),
            Door::Message(_, address) => Box::pin(async move {
                let guard = held.guard.take().unwrap();
                held.released = true;
                let upgrade = Upgrade::new(guard, to).wait(wait);
                let answer = address.send(upgrade).await.unwrap();
                Self::changed(held, answer)
            }),
        }
    }

    pub async fn downgrade(&self, mut held: Held, to: Mode) -> Result<Held, Kept> {
        match self {
            Door::InPlace(_) => match held.locker.downgrade(&held.object, held.mode, to) {
                Ok(()) => {
                    held.mode = to;
                    Ok(held)
                }
                Err(error) => Err(Box::new((held, error))),
            },
            Door::Message(_, address) => {
                let guard = held.guard.take().unwrap();
                let answer = address.send(Downgrade { guard, to }).await.unwrap();
                Self::changed(held, answer)
            }
        }
    }

    fn changed(mut held: Held, answer: Result<LockGuard, ChangeFailed>) -> Result<Held, Kept> {
        held.released = false;
        match answer {
            Ok(guard) => {
                held.mode = guard.mode();
                held.guard = Some(guard);
                Ok(held)
            }
            Err(ChangeFailed { guard, error, .. }) => {
                assert_eq!(
                    guard.mode(),
                    held.mode,
                    "a lock that failed to change its mode"
                );
                held.guard = Some(guard);
                Err(Box::new((held, error)))
            }
        }
    }

    pub fn new_locker(
        &self,
        spec: LockerSpec,
        parent: Option<&Arc<Locker>>,
    ) -> Doing<Result<Arc<Locker>, LockError>> {
        let parent = parent.map(Arc::clone);
        match self.clone() {
            Door::InPlace(locks) => Box::pin(async move {
                match parent {
                    Some(parent) => parent.child(spec).map(Arc::new),
                    None => locks.locker(spec).map(Arc::new),
                }
            }),
            Door::Message(_, address) => {
                Box::pin(async move { address.send(NewLocker { spec, parent }).await.unwrap() })
            }
        }
    }

    pub async fn named(&self, name: &'static str) -> Arc<Locker> {
        self.new_locker(LockerSpec::new().name(name), None)
            .await
            .unwrap()
    }

    pub async fn child(&self, parent: &Arc<Locker>) -> Arc<Locker> {
        self.new_locker(LockerSpec::new(), Some(parent))
            .await
            .unwrap()
    }

    pub async fn commit(&self, locker: Arc<Locker>) -> Result<(), LockError> {
        match self {
            Door::InPlace(_) => Arc::into_inner(locker).unwrap().commit(),
            Door::Message(_, address) => address.send(CommitLocker { locker }).await.unwrap(),
        }
    }

    pub async fn end(&self, locker: &Arc<Locker>) -> bool {
        match self {
            Door::InPlace(_) => locker.end(),
            Door::Message(_, address) => {
                let locker = Arc::clone(locker);
                address.send(EndLocker { locker }).await.unwrap()
            }
        }
    }

    pub fn run(&self, locker: &Arc<Locker>, ops: LockOps) -> Doing<Result<Ran, RanInto>> {
        let locker = Arc::clone(locker);
        match self.clone() {
            Door::InPlace(_) => Box::pin(async move {
                let guards = Vec::new();
                match locker.run(ops).await {
                    Ok(LocksDone { outcomes, .. }) => Ok(Ran { outcomes, guards }),
                    Err(failed) => Err(RanInto { failed, guards }),
                }
            }),
            Door::Message(_, address) => Box::pin(async move {
                match address.send(LockMany::new(locker, ops)).await.unwrap() {
                    Ok(LocksHeld {
                        outcomes, guards, ..
                    }) => {
                        let guards = guards.into_iter().collect();
                        Ok(Ran { outcomes, guards })
                    }
                    Err(LocksRefused { failed, guards, .. }) => Err(RanInto { failed, guards }),
                }
            }),
        }
    }

    pub async fn detect(&self, policy: VictimPolicy) -> DetectReport {
        match self {
            Door::InPlace(locks) => locks.detect_by(policy),
            Door::Message(_, address) => address.send(Detect { policy }).await.unwrap(),
        }
    }

    pub async fn set_detect(&self, change: SetDetect) {
        match self {
            Door::InPlace(locks) => locks.set_detect(change),
            Door::Message(_, address) => address.send(change).await.unwrap(),
        }
    }

    pub async fn set_timeouts(&self, change: SetTimeouts) {
        match self {
            Door::InPlace(locks) => locks.set_timeouts(change),
            Door::Message(_, address) => address.send(change).await.unwrap(),
        }
    }

    pub async fn set_limits(&self, change: SetLimits) -> Result<(), LimitInUse> {
        match self {
            Door::InPlace(locks) => locks.set_limits(change),
            Door::Message(_, address) => address.send(change).await.unwrap(),
        }
    }

    pub async fn config(&self) -> LockConfig {
        match self {
            Door::InPlace(locks) => locks.config(),
            Door::Message(_, address) => address.send(LockConfigQuery).await.unwrap(),
        }
    }

    pub async fn stats(&self) -> LockStats {
        self.stats_and(false).await
    }

    pub async fn stats_and(&self, clear: bool) -> LockStats {
        match (self, clear) {
            (Door::InPlace(locks), false) => locks.stats(),
            (Door::InPlace(locks), true) => locks.clear_stats(),
            (Door::Message(_, address), clear) => {
                address.send(LockStatsQuery { clear }).await.unwrap()
            }
        }
    }

    pub async fn snapshot(&self) -> LockSnapshot {
        match self {
            Door::InPlace(locks) => locks.snapshot(),
            Door::Message(_, address) => address.send(LockSnapshotQuery).await.unwrap(),
        }
    }

    pub async fn history(&self) -> Vec<PastDeadlock> {
        match self {
            Door::InPlace(locks) => locks.history(),
            Door::Message(_, address) => address.send(DeadlockHistory).await.unwrap(),
        }
    }

    /// What is held: object, locker, mode and count, without the times.
    pub async fn picture(&self) -> Vec<(String, LockerId, Mode, u64)> {
        let held = self.snapshot().await.held;
        held.iter()
            .map(|lock| (lock.object.to_string(), lock.locker, lock.mode, lock.count))
            .collect()
    }

    /// Nothing is held or waited for, and no locker is left. (By message the handle that came with a refused
    /// request can be dropped a moment after the answer.)
    pub async fn is_empty(&self) {
        until(|| self.locks().stats().lockers.now == 0).await;
        let stats = self.stats().await;
        let left = (stats.locks.now, stats.objects.now, stats.waiting);
        assert_eq!(left, (0, 0, 0), "locks, objects, waiting");
    }
}

/// The next event of this kind.
pub async fn event<T>(
    events: &mut tokio::sync::broadcast::Receiver<LockEvent>,
    wanted: impl Fn(LockEvent) -> Option<T>,
) -> T {
    let found = async {
        loop {
            if let Some(found) = wanted(events.recv().await.unwrap()) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap()
}
