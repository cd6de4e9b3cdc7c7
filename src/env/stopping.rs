//! Stopping an environment: what is queued is answered, the environment closed, and every thread joined.
//!
//! A body cannot be interrupted. So nothing that others wait for is left to a thread which a body may keep, and the end comes
//! when the last of them has returned, however long that takes.

use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::env::core::Core;
use crate::env::job::quietly;
use crate::env::shared::Command;
use crate::error::TxnError;

impl Core {
    /// Whether the environment is closed and its writer has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.writer_ended.load(Ordering::Acquire)
    }

    /// Ends the writer and the readers, closes the environment, and joins all threads but the timer. Blocks until that is done,
    /// and calls `late` every now and then. To be called once.
    ///
    /// What is queued is answered with [`TxnError::ShuttingDown`] at once.
    pub(crate) fn stop(&self, mut late: impl FnMut()) {
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
        // Nor to the readers. None of them has been told to end yet, so there is nothing but views.
        if let Some(views) = self.views_backlog.lock().take() {
            while let Ok(Some(mut task)) = views.try_recv() {
                task.ask.let_go();
                quietly(|| task.job.fail(TxnError::ShuttingDown));
            }
        }
        // Wakes a writer that waits for commands; one that is busy looks at `stop`.
        let _ = self.shared.commands.try_send(Command::Stop);
        while !self.shared.writer_ended.load(Ordering::Acquire) {
            late();
            thread::sleep(Duration::from_micros(200));
        }
        let mut threads: Vec<_> = self.writer.lock().take().into_iter().collect();
        let readers = std::mem::take(&mut *self.threads.lock());
        for _ in &readers {
            let _ = self.shared.views.send(None);
        }
        threads.extend(readers);
        threads.extend(self.shared.holders.dismiss());
        threads.extend(self.copying.close());
        threads.extend(self.shared.poison.take_listeners());
        for thread in threads {
            join(thread, &mut late);
        }
    }
}

/// Joins a thread, unless it is the calling one.
fn join(thread: JoinHandle<()>, late: &mut impl FnMut()) {
    if thread.thread().id() == thread::current().id() {
        return;
    }
    while !thread.is_finished() {
        late();
        thread::sleep(Duration::from_micros(200));
    }
    // One that panicked has nothing more to tell.
    let _ = thread.join();
}
