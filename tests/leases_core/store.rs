//! A store in memory, whose clock, delays, hangs and errors are in the hands of a test.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::{
    Claim, Claimed, Fence, Holder, LeaseName, LeaseRecord, LeaseStore, Refresh, Refreshed,
    Released, StoreError, StoreFuture, StoreId, Wakeups,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    Prepare,
    Claim,
    Refresh,
    Release,
    HandOver,
    Look,
    List,
    Force,
}

/// What happens to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An error, and nothing done.
    Fail,
    /// It is done, and the answer lost with an error.
    DoneThenFail,
    /// Nothing is done, and no answer comes.
    Hang,
    /// It is done, and no answer comes.
    DoneThenHang,
    /// It is refused for good.
    NoTable,
    /// Whoever asks is not let in.
    Denied,
    /// It panics.
    Panic,
    /// The answer comes when the test says so.
    Wait,
    /// It panics when the test says so.
    WaitThenPanic,
    /// A thread of the runtime's is blocked over it for long, as by the system's resolver of names.
    Block,
}

#[derive(Debug, Clone)]
struct Row {
    holder: Option<Holder>,
    token: u64,
    expires: Option<Instant>,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<LeaseName, Row>,
    locked: Vec<LeaseName>,
    faults: BTreeMap<Op, VecDeque<Fault>>,
    always: BTreeMap<Op, Fault>,
    asked: Vec<(Op, Vec<LeaseName>, Instant)>,
    ahead: Duration,
    /// So many numbers are left out between two tokens.
    gap: u64,
}

pub struct Inner {
    state: Mutex<State>,
    go_on: Notify,
    pub waiting: AtomicU64,
    /// The thread that looked last whether a question that waits may go on.
    pub looked_by: Mutex<Option<String>>,
    /// The thread that went on last with a question that waited.
    pub went_on_by: Mutex<Option<String>>,
    /// So many questions were dropped where a store's connection could leave nothing to the runtime.
    pub dropped_outside: AtomicU64,
    pub closed: AtomicBool,
    wakeups: Option<broadcast::Sender<Wake>>,
}

/// What those who listen are told, on the thread that listens.
type Wake = Arc<dyn Fn() -> Result<Option<LeaseName>, StoreError> + Send + Sync>;

/// A handle of the store; clones are the same one.
#[derive(Clone)]
pub struct Memory(pub Arc<Inner>);

impl Memory {
    pub fn new() -> Self {
        Self::with(None)
    }

    /// One that tells of releases.
    pub fn waking() -> Self {
        Self::with(Some(broadcast::Sender::new(4096)))
    }

    fn with(wakeups: Option<broadcast::Sender<Wake>>) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            go_on: Notify::new(),
            waiting: AtomicU64::new(0),
            looked_by: Mutex::default(),
            went_on_by: Mutex::default(),
            dropped_outside: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            wakeups,
        }))
    }

    /// The next questions of this kind go so.
    pub fn next(&self, op: Op, faults: &[Fault]) {
        let mut state = self.0.state.lock();
        state
            .faults
            .entry(op)
            .or_default()
            .extend(faults.iter().cloned());
    }

    /// All questions of this kind go so, until said otherwise.
    pub fn always(&self, op: Op, fault: Option<Fault>) {
        let mut state = self.0.state.lock();
        match fault {
            Some(fault) => drop(state.always.insert(op, fault)),
            None => drop(state.always.remove(&op)),
        }
    }

    /// A question that waits goes on.
    pub fn go_on(&self) {
        self.0.go_on.notify_one();
    }

    /// An application transaction keeps the row, or lets it go.
    pub fn lock_row(&self, name: &str, locked: bool) {
        let name = LeaseName::new(name).unwrap();
        let mut state = self.0.state.lock();
        state.locked.retain(|other| *other != name);
        if locked {
            state.locked.push(name);
        }
    }

    /// Its tokens grow, but not by one.
    pub fn with_gaps(self) -> Self {
        self.0.state.lock().gap = 41;
        self
    }

    /// How many listen for releases.
    pub fn listeners(&self) -> usize {
        let wakeups = self.0.wakeups.as_ref();
        wakeups.map_or(0, broadcast::Sender::receiver_count)
    }

    /// Its clock goes forward at once.
    pub fn step(&self, by: Duration) {
        self.0.state.lock().ahead += by;
    }

    pub fn asked(&self, op: Op) -> usize {
        self.0
            .state
            .lock()
            .asked
            .iter()
            .filter(|(other, ..)| *other == op)
            .count()
    }

    /// The names of each question of this kind, with when it came.
    pub fn questions(&self, op: Op) -> Vec<(Vec<LeaseName>, Instant)> {
        let state = self.0.state.lock();
        let of_kind = state.asked.iter().filter(|(other, ..)| *other == op);
        of_kind.map(|(_, names, at)| (names.clone(), *at)).collect()
    }

    pub fn forget_questions(&self) {
        self.0.state.lock().asked.clear();
    }

    /// Whether somebody holds it by the store's clock.
    pub fn is_held(&self, name: &str) -> bool {
        self.holder(name).is_some()
    }

    pub fn holder(&self, name: &str) -> Option<Holder> {
        let state = self.0.state.lock();
        let row = state.rows.get(&LeaseName::new(name).unwrap())?;
        let now = state.now();
        row.expires
            .filter(|expires| *expires > now)
            .and(row.holder.clone())
    }

    pub fn token(&self, name: &str) -> u64 {
        let state = self.0.state.lock();
        state
            .rows
            .get(&LeaseName::new(name).unwrap())
            .map_or(0, |row| row.token)
    }

    /// Another process takes it, whoever holds it.
    pub fn steal(&self, name: &str, by: &str, time: Duration) {
        let mut state = self.0.state.lock();
        let expires = state.now() + time;
        let row = state.row(&LeaseName::new(name).unwrap());
        row.token += 1;
        row.holder = Some(foreign(by));
        row.expires = Some(expires);
    }

    /// That process gives it back.
    pub fn give_back(&self, name: &str) {
        let name = LeaseName::new(name).unwrap();
        self.0.state.lock().row(&name).expires = None;
        self.tell(&name);
    }

    fn tell(&self, name: &LeaseName) {
        let name = name.clone();
        self.wake(move || Ok(Some(name.clone())));
    }

    /// Those who listen get this.
    pub fn wake(
        &self,
        with: impl Fn() -> Result<Option<LeaseName>, StoreError> + Send + Sync + 'static,
    ) {
        if let Some(wakeups) = &self.0.wakeups {
            let _ = wakeups.send(Arc::new(with));
        }
    }

    async fn wait(&self) {
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        let here = || std::thread::current().name().map(str::to_owned);
        let mut going_on = std::pin::pin!(self.0.go_on.notified());
        std::future::poll_fn(|cx| {
            *self.0.looked_by.lock() = here();
            going_on.as_mut().poll(cx)
        })
        .await;
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        *self.0.went_on_by.lock() = here();
    }

    async fn ask<T>(
        &self,
        op: Op,
        names: Vec<LeaseName>,
        act: impl FnOnce(&mut State) -> T,
    ) -> Result<T, StoreError> {
        let _connection = Connection(&self.0);
        let fault = {
            let mut state = self.0.state.lock();
            state.asked.push((op, names, Instant::now()));
            let next = state.faults.get_mut(&op).and_then(VecDeque::pop_front);
            next.or_else(|| state.always.get(&op).cloned())
        };
        match fault {
            None => {}
            Some(Fault::Fail) => return Err(broken()),
            Some(Fault::DoneThenFail) => {
                act(&mut self.0.state.lock());
                return Err(broken());
            }
            Some(Fault::Hang) => std::future::pending::<()>().await,
            Some(Fault::DoneThenHang) => {
                act(&mut self.0.state.lock());
                std::future::pending::<()>().await;
                unreachable!();
            }
            Some(Fault::NoTable) => {
                return Err(StoreError::TableMissing {
                    table: "dbmutex".into(),
                    ddl: "create table".into(),
                });
            }
            Some(Fault::Denied) => return Err(StoreError::Denied("wrong password".into())),
            Some(Fault::Panic) => panic!("the store panics"),
            Some(Fault::Wait) => {
                self.wait().await;
            }
            Some(Fault::WaitThenPanic) => {
                self.wait().await;
                panic!("the store panics");
            }
            Some(Fault::Block) => {
                let blocked = tokio::task::spawn_blocking(|| std::thread::sleep(PATIENCE));
                let _ = blocked.await;
            }
        }
        Ok(act(&mut self.0.state.lock()))
    }
}

/// What some drivers' connections are: when they are dropped, they leave work to the runtime.
struct Connection<'a>(&'a Inner);

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        if tokio::runtime::Handle::try_current().is_err() {
            self.0.dropped_outside.fetch_add(1, Ordering::SeqCst);
        }
    }
}

pub fn foreign(id: &str) -> Holder {
    Holder {
        id: id.into(),
        host: "elsewhere".into(),
        pid: 1,
    }
}

pub fn broken() -> StoreError {
    StoreError::Unreachable("the connection broke".into())
}

impl State {
    fn now(&self) -> Instant {
        Instant::now() + self.ahead
    }

    fn row(&mut self, name: &LeaseName) -> &mut Row {
        self.rows.entry(name.clone()).or_insert(Row {
            holder: None,
            token: 0,
            expires: None,
        })
    }

    fn record(&self, name: &LeaseName) -> Option<LeaseRecord> {
        let row = self.rows.get(name)?;
        let left = row
            .expires
            .map(|expires| expires.saturating_duration_since(self.now()));
        let left = left.filter(|left| !left.is_zero());
        Some(LeaseRecord::new(
            name.clone(),
            row.holder.clone(),
            Fence(row.token),
            left,
        ))
    }

    fn claim(&mut self, claim: &Claim) -> Claimed {
        let (now, gap) = (self.now(), self.gap);
        let record = self.record(&claim.name);
        let row = self.row(&claim.name);
        let is_ours = row
            .holder
            .as_ref()
            .is_some_and(|holder| holder.id == claim.holder.id);
        if let Some(expires) = row.expires
            && expires + claim.unclean_delay > now
        {
            return match is_ours {
                true => Claimed::Ours {
                    token: Fence(row.token),
                },
                false => Claimed::Busy(record.unwrap()),
            };
        }
        row.token += 1 + gap;
        row.holder = Some(claim.holder.clone());
        row.expires = Some(now + claim.expiration);
        Claimed::Ours {
            token: Fence(row.token),
        }
    }

    fn refresh(&mut self, refresh: &Refresh) -> Refreshed {
        if self.locked.contains(&refresh.name) {
            return Refreshed::Skipped;
        }
        let now = self.now();
        let record = self.record(&refresh.name);
        let row = self.row(&refresh.name);
        let is_ours = row
            .holder
            .as_ref()
            .is_some_and(|holder| holder.id == refresh.holder.id);
        match row.expires.is_some_and(|expires| expires > now) && is_ours {
            true => {
                assert_eq!(row.token, refresh.token.0);
                row.expires = Some(now + refresh.expiration);
                Refreshed::Held
            }
            false => Refreshed::Lost(record),
        }
    }

    fn release(&mut self, name: &LeaseName, holder: &Holder) -> Released {
        let row = self.row(name);
        let is_ours = row
            .holder
            .as_ref()
            .is_some_and(|other| other.id == holder.id);
        match row.expires.is_some() && is_ours {
            true => {
                row.expires = None;
                Released::WasOurs
            }
            false => Released::WasLost,
        }
    }
}

impl LeaseStore for Memory {
    fn id(&self) -> StoreFuture<'_, StoreId> {
        Box::pin(async { Ok(StoreId::new("memory")) })
    }

    fn prepare(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.ask(Op::Prepare, Vec::new(), |_| ()))
    }

    fn claim<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        let names = vec![claim.name.clone()];
        Box::pin(self.ask(Op::Claim, names, |state| state.claim(claim)))
    }

    fn refresh<'a>(&'a self, leases: &'a [Refresh]) -> StoreFuture<'a, Vec<Refreshed>> {
        let names: Vec<_> = leases.iter().map(|lease| lease.name.clone()).collect();
        assert!(
            names.is_sorted() && names.len() <= 500,
            "500 at most, ordered by name"
        );
        Box::pin(self.ask(Op::Refresh, names, |state| {
            leases.iter().map(|lease| state.refresh(lease)).collect()
        }))
    }

    fn release<'a>(&'a self, name: &'a LeaseName, holder: &'a Holder) -> StoreFuture<'a, Released> {
        Box::pin(async move {
            let act = |state: &mut State| state.release(name, holder);
            let released = self.ask(Op::Release, vec![name.clone()], act).await?;
            self.tell(name);
            Ok(released)
        })
    }

    fn hand_over<'a>(
        &'a self,
        from: &'a Holder,
        claim: &'a Claim,
    ) -> StoreFuture<'a, (Released, Claimed)> {
        let names = vec![claim.name.clone()];
        Box::pin(self.ask(Op::HandOver, names, |state| {
            (state.release(&claim.name, from), state.claim(claim))
        }))
    }

    fn look<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        Box::pin(self.ask(Op::Look, vec![name.clone()], |state| state.record(name)))
    }

    fn list(&self) -> StoreFuture<'_, Vec<LeaseRecord>> {
        Box::pin(self.ask(Op::List, Vec::new(), |state| {
            state
                .rows
                .keys()
                .filter_map(|name| state.record(name))
                .collect()
        }))
    }

    fn force_release<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        Box::pin(self.ask(Op::Force, vec![name.clone()], |state| {
            let record = state
                .record(name)
                .filter(|record| record.remaining.is_some());
            let row = state.row(name);
            if row.expires.take().is_some() {
                row.token += 1;
            }
            record
        }))
    }

    fn wakeups(&self) -> Option<StoreFuture<'_, Box<dyn Wakeups>>> {
        let told = self.0.wakeups.as_ref()?.subscribe();
        Some(Box::pin(async move {
            let told: Box<dyn Wakeups> = Box::new(Told(told));
            Ok(told)
        }))
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.0.closed.store(true, Ordering::SeqCst);
            Ok(())
        })
    }
}

struct Told(broadcast::Receiver<Wake>);

impl Wakeups for Told {
    fn next(&mut self) -> StoreFuture<'_, Option<LeaseName>> {
        Box::pin(async {
            match self.0.recv().await {
                Ok(wake) => wake(),
                Err(broadcast::error::RecvError::Lagged(_)) => Ok(None),
                Err(broadcast::error::RecvError::Closed) => Err(broken()),
            }
        })
    }
}

/// Waits until something is so.
pub async fn until(mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "it does not happen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Far longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it does not happen")
}

/// Polls a future once; it must not be ready.
pub fn begin<F: Future + Unpin>(future: &mut F) {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let polled = std::pin::Pin::new(future).poll(&mut cx);
    assert!(polled.is_pending(), "it was to wait");
}
