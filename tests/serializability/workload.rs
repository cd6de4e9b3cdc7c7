//! Random transactions on few keys, many at once, some of which refuse, panic or are dropped at an await.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;

use crate::history::{History, Outcome};
use crate::random::Random;
use crate::recorder::{Clock, Recorder};
use crate::script::{Fate, Injected, Script, Sizes};
use crate::store::{Failure, Store};

/// No workload takes so long; whatever does hangs.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy)]
pub struct Workload {
    pub seed: u64,
    /// How many transactions run at once.
    pub sessions: usize,
    /// How many transactions there are in all; an attempt that is run again does not count.
    pub txns: usize,
    pub sizes: Sizes,
}

/// What happened, besides the history. Each transaction is counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub committed: usize,
    /// Rolled back because its body wanted it.
    pub refused: usize,
    pub panicked: usize,
    /// Dropped at an await before it ended.
    pub dropped: usize,
    /// Rolled back because the store gave up.
    pub given_up: usize,
    /// Attempts that were run again.
    pub again: usize,
}

impl Workload {
    /// Runs it to its end, on the runtime it is polled on, and reads everything at last.
    ///
    /// # Panics
    /// If the store hangs, fails in a way it should not, or commits what it was told not to.
    pub async fn run<S: Store>(self, store: &S) -> (History, Counts) {
        let Self { seed, .. } = self;
        let all = tokio::time::timeout(PATIENCE, self.run_on(store)).await;
        all.unwrap_or_else(|_| panic!("it hangs, seed {seed}"))
    }

    async fn run_on<S: Store>(self, store: &S) -> (History, Counts) {
        let clock = Arc::new(Clock::default());
        let mut sessions = Vec::new();
        let mut all = Session::new(usize::MAX, &clock);
        all.certainly(store, Script::first(self.sizes)).await;
        for number in 0..self.sessions {
            let share = self.txns / self.sessions + usize::from(number < self.txns % self.sessions);
            let mut random = Random::new(self.seed ^ ((number as u64 + 1) << 32));
            let mut session = Session::new(number, &clock);
            let store = store.clone();
            sessions.push(tokio::spawn(async move {
                for _ in 0..share {
                    let script = Script::random(&mut random, self.sizes);
                    session.one(&store, Arc::new(script)).await;
                }
                session
            }));
        }
        for session in sessions {
            let session = session.await.unwrap_or_else(|failed| {
                panic!("a session failed, seed {}: {failed}", self.seed);
            });
            all.take(session);
        }
        all.certainly(store, Script::last(self.sizes)).await;
        all.history()
    }
}

/// One that runs a transaction after the other.
struct Session {
    number: usize,
    clock: Arc<Clock>,
    done: Vec<Done>,
    counts: Counts,
}

/// A transaction that nobody waits for any more.
struct Done {
    session: usize,
    recorder: Recorder,
    told: Option<Outcome>,
    end: u64,
}

impl Session {
    fn new(number: usize, clock: &Arc<Clock>) -> Self {
        Self {
            number,
            clock: Arc::clone(clock),
            done: Vec::new(),
            counts: Counts::default(),
        }
    }

    async fn one<S: Store>(&mut self, store: &S, script: Arc<Script>) -> Option<Outcome> {
        let recorder = Recorder::new(&self.clock);
        let running = {
            let (script, recorder) = (Arc::clone(&script), recorder.clone());
            store.transact(move |handle| {
                let (script, attempt) = (Arc::clone(&script), recorder.attempt());
                async move { script.run(&handle, attempt).await }
            })
        };
        let answer = AssertUnwindSafe(Dropped::new(running, script.fate)).catch_unwind();
        let told = self.judge(script.fate, answer.await, recorder.completed());
        self.done.push(Done {
            session: self.number,
            recorder,
            told,
            end: self.clock.now(),
        });
        told
    }

    /// Runs a script as often as it takes to have it committed.
    async fn certainly<S: Store>(&mut self, store: &S, script: Script) {
        let script = Arc::new(script);
        while self.one(store, Arc::clone(&script)).await != Some(Outcome::Committed) {}
    }

    /// What is known of a transaction: nothing if it was dropped.
    fn judge(&mut self, fate: Fate, answer: Answer, completed: bool) -> Option<Outcome> {
        let counts = &mut self.counts;
        match answer {
            Ok(Some(Ok(()))) => {
                let ends = matches!(fate, Fate::Commit | Fate::Drop { .. });
                assert!(completed && ends, "committed against its will: {fate:?}");
                counts.committed += 1;
                Some(Outcome::Committed)
            }
            Ok(Some(Err(Failure::RolledBack))) => {
                match fate {
                    Fate::Refuse { .. } => counts.refused += 1,
                    Fate::Panic { .. } => counts.panicked += 1,
                    Fate::Commit | Fate::Drop { .. } => counts.given_up += 1,
                }
                Some(Outcome::Aborted)
            }
            Ok(Some(Err(Failure::Maybe))) => Some(Outcome::Unknown),
            Ok(Some(Err(Failure::Unexpected(text)))) => panic!("{text}"),
            Ok(None) => {
                counts.dropped += 1;
                None
            }
            Err(panic) if panic.is::<Injected>() => {
                counts.panicked += 1;
                Some(Outcome::Aborted)
            }
            Err(panic) => resume_unwind(panic),
        }
    }

    fn take(&mut self, other: Self) {
        self.done.extend(other.done);
        let (sum, more) = (&mut self.counts, other.counts);
        sum.committed += more.committed;
        sum.refused += more.refused;
        sum.panicked += more.panicked;
        sum.dropped += more.dropped;
        sum.given_up += more.given_up;
    }

    fn history(mut self) -> (History, Counts) {
        let mut history = History::default();
        for done in self.done {
            let attempts = done.recorder.end(done.session, done.told, done.end);
            self.counts.again += attempts.len().saturating_sub(1);
            history.txns.extend(attempts);
        }
        (history, self.counts)
    }
}

/// What came of a transaction: nothing if it was dropped.
type Answer = Result<Option<Result<(), Failure>>, Box<dyn Any + Send>>;

/// Runs a transaction, and drops it at the await that its fate names.
struct Dropped<F> {
    running: Option<Pin<Box<F>>>,
    /// How often it may wait, and then for how many polls more nobody asks it.
    left: Option<(u32, u32)>,
}

impl<F> Dropped<F> {
    fn new(running: F, fate: Fate) -> Self {
        let left = match fate {
            Fate::Drop { polls, linger } => Some((polls, linger)),
            _ => None,
        };
        Self {
            running: Some(Box::pin(running)),
            left,
        }
    }
}

impl<F: Future> Future for Dropped<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some((0, linger)) = &mut self.left {
            if let Some(less) = linger.checked_sub(1) {
                // What it waits for may come meanwhile, and finds nobody who takes it.
                *linger = less;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.running = None;
        }
        let Some(running) = &mut self.running else {
            return Poll::Ready(None);
        };
        match running.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => {
                if let Some((polls, _)) = &mut self.left {
                    *polls -= 1;
                    if *polls == 0 {
                        cx.waker().wake_by_ref();
                    }
                }
                Poll::Pending
            }
        }
    }
}
