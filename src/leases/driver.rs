//! The thread that serves the leases of a store: it keeps their times, and the store's futures run on it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

use super::begun::LOOK;
use super::shared::Shared;
use super::{LeaseConfig, LeaseName, LeaseStore, boottime};
use crate::env::quietly;
use crate::inside;
use crate::supervision::Supervision;

/// What the driver left behind when it ended.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    /// Leases that may be held in the store still.
    pub held: Vec<LeaseName>,
}

/// A pause that spans a sleep of the machine is too long by it: after so long the time is looked at again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Nobody tells when the last lease has been given back: so often it is looked for.
const CLOSING_PAUSE: Duration = Duration::from_millis(2);
/// How long the store has to end its connections.
const CLOSING: Duration = Duration::from_secs(1);

/// Starts the thread.
pub(super) fn start(
    store: Arc<dyn LeaseStore>,
    config: LeaseConfig,
    supervision: Arc<Supervision>,
) -> std::io::Result<Arc<Shared>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let shared = Arc::new(Shared::new(store, config, handle, supervision));
    let for_thread = Arc::clone(&shared);
    let runtime = Arc::new(Mutex::new(Some(runtime)));
    let its = Arc::clone(&runtime);
    let thread = thread::Builder::new()
        .name("lockkeeper-leases".into())
        .spawn(move || {
            let runtime = its.lock().take();
            if let Some(runtime) = runtime {
                run(&runtime, &for_thread);
            }
        });
    match thread {
        Ok(thread) => {
            *shared.thread.lock() = Some(thread);
            Ok(shared)
        }
        Err(error) => {
            // Where the caller is asynchronous, it must not be waited for.
            if let Some(runtime) = runtime.lock().take() {
                runtime.shutdown_background();
            }
            Err(error)
        }
    }
}

fn run(runtime: &Runtime, shared: &Arc<Shared>) {
    // Only this thread says so.
    let _ = shared.driver.set(thread::current().id());
    let _inside = inside::callback(shared.as_owner(), "a handler of lease errors");
    let serve = AssertUnwindSafe(|| runtime.block_on(serve(shared)));
    if let Err(panic) = catch_unwind(serve) {
        shared.break_down("serving leases", panic);
    }
    quietly(|| shared.log_lost_rest());
    let mut held = Vec::new();
    quietly(|| held = shared.held_names());
    let close = async {
        // It is asked nothing more, whatever it answers.
        let _ = tokio::time::timeout(CLOSING, shared.store.close()).await;
    };
    // After a panic others begin anew with the store.
    if !shared.is_broken() {
        quietly(|| runtime.block_on(close));
    }
    quietly(|| shared.end_begun());
    quietly(|| drop(shared.ended.send_replace(Some(Ended { held }))));
}

async fn serve(shared: &Arc<Shared>) {
    loop {
        shared.supervision.bombs.pass("the leases' driver");
        let ticked = shared.step(|book, now, fx| book.tick(now, fx));
        if ticked.is_none() {
            return;
        }
        let now = boottime::now();
        let look = shared.take_over(now).then(|| now.after(LOOK));
        let outlook = shared.outlook(look);
        if let Some(by) = outlook.close_by
            && (outlook.is_idle || now >= by)
        {
            return;
        }
        let next = [outlook.next, outlook.close_by].into_iter().flatten().min();
        let notified = shared.wake.notified();
        match next {
            None => notified.await,
            Some(next) => {
                let longest = match outlook.close_by {
                    Some(_) => CLOSING_PAUSE,
                    None => LONGEST_PAUSE,
                };
                let pause = next.since(now).min(longest);
                // Either way it is looked at again.
                let _ = tokio::time::timeout(pause, notified).await;
            }
        }
    }
}
