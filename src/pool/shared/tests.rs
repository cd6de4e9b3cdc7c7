//! A pool whose turns the test takes.

use std::time::Duration;

use super::*;
use crate::Keeper;
use crate::pool::PoolBuilder;

#[test]
fn a_pool_is_not_forgotten_between_the_end_of_its_last_run_and_the_word_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    let parts = Parts {
        name: "late".into(),
        keeper: keeper.weak(),
        env: keeper.env_id(),
        spec: PoolBuilder::new(keeper.clone(), "late".into()).spec,
        body: Body::blocking(|_| Ok(())),
        feed: None,
        gates: None,
    };
    let pool = Arc::new(Shared::new(parts, Weak::new(), None));
    let effects = pool.core.lock().take_effects();
    let started = effects.into_iter().find_map(|effect| match effect {
        Effect::Start { run, .. } => Some(run),
        _ => None,
    });
    let run = started.expect("a worker is started");
    let control = Arc::new(Control::new(pool.born));
    let held = Run {
        control: Arc::clone(&control),
        task: None,
        thread: None,
    };
    pool.runs.lock().insert(run, held);
    // It is abandoned at once, and nobody waits for it any more.
    pool.change(|core, now| core.stop(now, now));
    while !pool.is_settled() {
        pool.turn();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!pool.is_quiet() && !pool.is_gone());

    control.ended.store(true, Ordering::Release);
    pool.turn();
    assert!(pool.runs.lock().is_empty());
    // Without another turn nobody would tell the keeper's stop, which waits for it.
    assert!(!pool.is_gone());
    pool.change(|core, now| core.ended(run, End::Normal, now));
    pool.turn();
    assert!(pool.is_quiet() && pool.is_gone());
}
