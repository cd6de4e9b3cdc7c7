//! Everything at once, dropped at random: what must always hold is looked at from outside, and at the end
//! nothing is left.

use super::*;

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn mode(&mut self) -> Mode {
        Mode::ALL[self.below(Mode::COUNT)]
    }

    fn object(&mut self) -> Object {
        let from = self.below(5);
        match self.below(6) {
            0 => {
                let to = from + 1 + self.below(3);
                Object::range("test", from.to_string()..to.to_string()).unwrap()
            }
            _ => object(&from.to_string()),
        }
    }

    fn wait(&mut self) -> Wait {
        match self.below(4) {
            0 => Wait::No,
            1 => Wait::For(Duration::from_millis(1)),
            _ => Wait::Default,
        }
    }

    fn ops(&mut self) -> LockOps {
        let mut ops = LockOps::new();
        for _ in 0..1 + self.below(4) {
            let (object, mode, wait) = (self.object(), self.mode(), self.wait());
            ops = match self.below(8) {
                0 => ops.upgrade(object, mode, self.mode(), wait),
                1 => ops.downgrade(object, mode, self.mode()),
                2 => ops.unlock(object, mode),
                3 => ops.unlock_object(object),
                4 => ops.release_reads(),
                _ => ops.lock_wait(object, mode, wait),
            };
        }
        match self.below(2) {
            0 => ops,
            _ => ops.stop_at_first_error(),
        }
    }
}

/// One round of one task: a family that does a few things, some of which are dropped half way. Who is told
/// that he is dead does what he has to, and releases everything.
async fn round(door: &Door, dice: &mut Dice) {
    let root = door.locker();
    let child = door.new_locker(LockerSpec::new(), Some(&root)).await;
    let child = child.unwrap();
    let mut held: Vec<Held> = Vec::new();
    let mut ran = Vec::new();
    for _ in 0..4 {
        let locker = if dice.below(2) == 0 { &child } else { &root };
        // One in three goes away before the answer, after so many polls.
        let polls = match dice.below(3) {
            0 => dice.below(12),
            _ => usize::MAX,
        };
        let answer = match (dice.below(4), held.pop()) {
            (0, Some(lock)) => {
                let changing = door.upgrade(lock, dice.mode(), dice.wait());
                let answer = at_most(polls, changing).await;
                answer.map(|answer| answer.map_err(|kept| kept.1))
            }
            (1, Some(lock)) => {
                let answer = door.downgrade(lock, dice.mode()).await;
                Some(answer.map_err(|kept| kept.1))
            }
            (2, lock) => {
                held.extend(lock);
                match at_most(polls, door.run(locker, dice.ops())).await {
                    Some(Err(RanInto { failed, guards })) => {
                        ran.extend(guards);
                        Some(Err(failed.error))
                    }
                    Some(Ok(done)) => {
                        ran.extend(done.guards);
                        None
                    }
                    None => None,
                }
            }
            (_, lock) => {
                held.extend(lock);
                let asking = door.ask(locker, &dice.object(), dice.mode(), dice.wait());
                at_most(polls, asking).await
            }
        };
        match answer {
            Some(Ok(lock)) => held.push(lock),
            Some(Err(error)) if error.is_retryable() || matches!(error, LockError::Dead(_)) => {
                return;
            }
            _ => {}
        }
        tokio::task::yield_now().await;
    }
    match dice.below(3) {
        0 if matches!(door, Door::Message(..)) => {
            let _ = door.commit(child).await;
        }
        1 => {
            door.end(&child).await;
        }
        _ => {}
    }
}

/// The answer, unless it has not come after so many polls.
async fn at_most<T>(polls: usize, mut doing: Doing<T>) -> Option<T> {
    if polls == usize::MAX {
        return Some(doing.await);
    }
    for _ in 0..=polls {
        let polled = poll_fn(|context| Poll::Ready(doing.as_mut().poll(context))).await;
        if let Poll::Ready(answer) = polled {
            return Some(answer);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Nothing is held that conflicts, by whoever is no relative, and nobody waits without a reason.
fn check(snapshot: &LockSnapshot) {
    let table = ConflictTable::standard();
    let info = |locker| {
        snapshot
            .lockers
            .iter()
            .find(|info| info.locker == locker)
            .unwrap()
    };
    for (at, one) in snapshot.held.iter().enumerate() {
        for other in &snapshot.held[at + 1..] {
            let is_allowed = info(one.locker).family == info(other.locker).family
                || !one.object.overlaps(&other.object)
                || !table.conflicts(one.mode, other.mode)
                || !table.conflicts(other.mode, one.mode);
            assert!(is_allowed, "{one:?} beside {other:?}");
        }
    }
    let edges = snapshot.waits_for(usize::MAX);
    for waiting in &snapshot.waiting {
        let dead = snapshot
            .held
            .iter()
            .any(|held| info(held.locker).dead && held.object.overlaps(&waiting.object));
        let has_edge = edges.iter().any(|edge| {
            (edge.waiter, &edge.object, edge.mode)
                == (waiting.locker, &waiting.object, waiting.mode)
        });
        assert!(has_edge || dead, "{waiting:?} waits for nobody");
    }
}

#[actix::test]
async fn i05_i12_everything_at_once_and_dropped_at_random_leaves_nothing_behind() {
    let config = LockConfig {
        lock_timeout: Duration::from_millis(50),
        ..LockConfig::default()
    };
    for door in Door::both(config) {
        let mut tasks = Vec::new();
        for seed in 1..=6 {
            let door = door.clone();
            tasks.push(tokio::task::spawn_local(async move {
                let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
                for _ in 0..400 {
                    round(&door, &mut dice).await;
                    if dice.below(4) == 0 {
                        check(&door.snapshot().await);
                    }
                }
            }));
        }
        for task in tasks {
            let ended = tokio::time::timeout(PATIENCE, task).await;
            if ended.is_err() {
                let snapshot = door.locks().snapshot();
                panic!("they wait for ever: {}", snapshot.to_json());
            }
            ended.unwrap().unwrap();
        }
        let stats = door.stats().await;
        assert!(stats.waits > 100 && stats.deadlocks > 10, "{stats:?}");
        door.is_empty().await;
    }
}
