//! Runs transactions step by step, in an order that is given.
//!
//! Each is a task that stands at a gate before each step and goes on when it is told to. One that waits for a lock is left
//! waiting, and another goes on. Attempts that are lost are run again without gates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockkeeper::{Isolation, Keeper, TxnError};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::script::{Case, Outcome, Seen, Step, Undone};
use super::{PATIENCE, Shop, Stock};

/// Where a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    AtGate,
    /// In a step, which may be a wait for a lock.
    Inside,
    /// Nobody tells it to go on any more.
    Free,
    Done,
}

/// A transaction, as its task and the driver see it.
struct Stage {
    name: String,
    place: watch::Sender<Place>,
    leave: Semaphore,
    glimpses: Mutex<Vec<Seen>>,
}

impl Stage {
    async fn gate(&self) {
        self.place.send_replace(Place::AtGate);
        self.leave.acquire().await.unwrap().forget();
    }

    fn set_free(&self) {
        self.place.send_replace(Place::Free);
    }

    fn is(&self, place: Place) -> bool {
        *self.place.borrow() == place
    }

    async fn play(
        &self,
        keeper: &Keeper,
        stock: Stock,
        isolation: Isolation,
        script: &[Step],
    ) -> Option<Seen> {
        self.gate().await;
        let run = keeper.transaction(self.name.as_str(), |txn| async move {
            let is_gated = txn.attempt() == 1;
            if !is_gated {
                self.set_free();
            }
            let mut seen = Seen::default();
            let mut ended = Ok(());
            for step in script {
                if is_gated {
                    self.gate().await;
                }
                ended = seen.perform(*step, &txn, stock).await;
                if ended.is_err() {
                    break;
                }
            }
            self.glimpses.lock().push(seen.clone());
            match ended {
                Ok(()) if is_gated => self.gate().await,
                Ok(()) => {}
                Err(_) => self.set_free(),
            }
            ended.map(|()| seen)
        });
        let outcome = run.isolation(isolation).await;
        self.place.send_replace(Place::Done);
        match outcome {
            Ok(seen) => Some(seen),
            Err(TxnError::Abort(Undone)) => None,
            Err(error) => panic!("{}: {error}", self.name),
        }
    }

    /// Whether it waits for a lock right now.
    fn waits(&self, keeper: &Keeper) -> bool {
        let table = keeper.locks().snapshot();
        table.waiting.iter().any(|wait| {
            let mut lockers = table.lockers.iter();
            let waiter = lockers.find(|info| info.locker == wait.locker);
            let name = waiter.and_then(|info| info.name.as_ref());
            name.is_some_and(|name| name.to_string() == self.name)
        })
    }

    /// Lets it do its next step, until that is done or waits for a lock. Does nothing for one that waits already.
    async fn advance(&self, keeper: &Keeper) {
        let is_next = self.place.send_if_modified(|place| {
            let is_next = *place == Place::AtGate;
            if is_next {
                *place = Place::Inside;
            }
            is_next
        });
        if !is_next {
            return;
        }
        self.leave.add_permits(1);
        let end = Instant::now() + PATIENCE;
        let mut rounds = 0;
        while self.is(Place::Inside) && !self.waits(keeper) {
            assert!(Instant::now() < end, "{} goes nowhere", self.name);
            rounds += 1;
            if rounds < 20 {
                tokio::task::yield_now().await;
            } else {
                let mut place = self.place.subscribe();
                let moved = place.wait_for(|place| *place != Place::Inside);
                let _ = tokio::time::timeout(Duration::from_millis(1), moved).await;
            }
        }
    }
}

impl Shop {
    /// Empties everything, and stores what a case begins with. Not by a plain update: after an outside write everybody would
    /// compare what was read, and the locks would not be put to the test.
    async fn set(&self, before: &[(&str, u64)]) {
        let txn = self.begin(Isolation::Serializable).await;
        txn.clear_range(self.stock, &..).await.unwrap();
        for (key, value) in before {
            txn.put(self.stock, key, value).await.unwrap();
        }
        txn.commit().await.unwrap();
    }

    pub async fn all(&self) -> BTreeMap<String, u64> {
        let stock = self.stock;
        let all = self.keeper.view(move |txn| {
            let mut all = BTreeMap::new();
            for entry in stock.iter(txn)? {
                let (key, value) = entry?;
                all.insert(key.to_owned(), value);
            }
            Ok(all)
        });
        all.await.unwrap()
    }

    /// Runs the transactions of a case; those whose turn it is go on in this order, and all of them at the end.
    /// `levels` are those of the transactions; the last is that of all further ones.
    pub async fn play(
        &self,
        case: &'static Case,
        levels: &[Isolation],
        order: &[usize],
    ) -> Outcome {
        self.set(case.before).await;
        let stages: Vec<_> = (0..case.scripts.len())
            .map(|which| {
                Arc::new(Stage {
                    name: format!("{which}"),
                    place: watch::Sender::new(Place::Inside),
                    leave: Semaphore::new(0),
                    glimpses: Mutex::default(),
                })
            })
            .collect();
        let tasks: Vec<_> = stages
            .iter()
            .zip(case.scripts)
            .enumerate()
            .map(|(which, (stage, script))| {
                let isolation = levels[which.min(levels.len() - 1)];
                let (stage, keeper, stock) = (Arc::clone(stage), self.keeper.clone(), self.stock);
                tokio::spawn(async move { stage.play(&keeper, stock, isolation, script).await })
            })
            .collect();
        for stage in &stages {
            let mut place = stage.place.subscribe();
            place
                .wait_for(|place| *place == Place::AtGate)
                .await
                .unwrap();
        }
        for which in order {
            stages[*which].advance(&self.keeper).await;
        }
        let end = Instant::now() + PATIENCE;
        while !tasks.iter().all(|task| task.is_finished()) {
            assert!(Instant::now() < end, "they do not end");
            for stage in &stages {
                stage.advance(&self.keeper).await;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        let mut committed = Vec::new();
        for task in tasks {
            committed.push(task.await.unwrap());
        }
        let glimpses = stages.iter().map(|stage| stage.glimpses.lock().clone());
        Outcome {
            committed,
            glimpses: glimpses.collect(),
            after: self.all().await,
        }
    }
}
