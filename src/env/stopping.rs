//! Stopping an environment: what is queued is answered, the threads are joined, and what runs on is named.
//!
//! A body cannot be interrupted. So nothing here is left to the writer that a body which keeps it could hold up, and every
//! wait has an end.

use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::env::core::Core;
use crate::env::shared::Command;
use crate::error::{ShutdownError, TxnError};

impl Core {
    /// Whether the environment is closed and its writer has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.writer_ended.load(Ordering::Acquire)
    }

    /// Ends the writer and the readers and closes the environment. Blocks, at most until `deadline`.
    ///
    /// What is queued behind this is answered with [`TxnError::ShuttingDown`].
    pub(crate) fn stop(&self, deadline: Instant) -> Result<(), ShutdownError> {
        self.shared.gate.shut_for_good();
        self.shared.stop.store(true, Ordering::Release);
        self.shared.holders.close();
        // Not left to the writer: a body may keep it for as long as it likes.
        while let Ok(command) = self.backlog.try_recv() {
            self.shared.turn_away(command, || TxnError::ShuttingDown);
        }
        while let Some(task) = self.shared.first.let_go() {
            let update = Command::Update(task);
            self.shared.turn_away(update, || TxnError::ShuttingDown);
        }
        // Wakes a writer that waits for commands; one that is busy looks at `stop`.
        let _ = self.shared.commands.try_send(Command::Stop);
        while !self.shared.writer_ended.load(Ordering::Acquire) {
            if Instant::now() >= deadline {
                return Err(match self.shared.running_now() {
                    Some(running) => ShutdownError::BodyRunsOn {
                        name: running.name,
                        site: running.site,
                        since: running.since.elapsed(),
                    },
                    None => ShutdownError::TimedOut {
                        what: "a view that keeps the environment open",
                    },
                });
            }
            thread::sleep(Duration::from_micros(200));
        }
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            join(writer, deadline.max(Instant::now() + MOMENT), "the writer")?;
        }
        let mut readers = std::mem::take(&mut *self.threads.lock());
        for _ in &readers {
            let _ = self.shared.views.send_deadline(None, deadline);
        }
        while let Some(thread) = readers.pop() {
            join(thread, deadline.max(Instant::now() + MOMENT), "a reader")?;
        }
        for thread in self.shared.holders.dismiss() {
            let end = deadline.max(Instant::now() + MOMENT);
            join(thread, end, "a thread that held a snapshot")?;
        }
        Ok(())
    }
}

/// For a thread that has nothing to do but end.
const MOMENT: Duration = Duration::from_millis(500);

/// Joins a thread, unless it is the calling one.
fn join(
    thread: JoinHandle<()>,
    deadline: Instant,
    what: &'static str,
) -> Result<(), ShutdownError> {
    if thread.thread().id() == thread::current().id() {
        return Ok(());
    }
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return Err(ShutdownError::TimedOut { what });
        }
        thread::sleep(Duration::from_micros(200));
    }
    // One that panicked has nothing more to tell.
    let _ = thread.join();
    Ok(())
}
