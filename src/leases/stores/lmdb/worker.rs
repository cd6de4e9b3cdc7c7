//! The thread that has the file of leases. LMDB's writer mutex belongs to a thread and a commit waits for the disk, so
//! everything is done by one thread that does nothing else, for all handles of the process.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::boot::BootClock;
use super::file::File;
use crate::env::{file_id, forks, panic_message, quietly, watch_forks};
use crate::leases::StoreError;

/// Questions that wait for the thread; whoever asks more waits for room.
const QUEUE: usize = 1024;
/// How long an opening waits for the end of an earlier store of the same file in this process.
const PATIENCE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce(&mut File) + Send>;

/// A file of leases that this process has open. It is closed with the last handle.
pub(super) struct Worker {
    jobs: flume::Sender<Job>,
    thread: JoinHandle<()>,
    /// It was opened once.
    is_open: AtomicBool,
    /// Disconnected when the file is closed.
    ended: flume::Receiver<()>,
    /// How often the process had been forked when the thread was started.
    forks: u32,
    path: PathBuf,
}

/// The files that are open in this process, by device and inode: LMDB must not have one twice.
static OPEN: Mutex<Option<HashMap<(u64, u64), Entry>>> = Mutex::new(None);

struct Entry {
    worker: Weak<Worker>,
    /// Disconnected when the file is closed: never in the child of a fork, where the thread is not.
    ended: flume::Receiver<()>,
    /// How often the process had been forked when the thread was started.
    forks: u32,
    /// A deleted file's number would be given to a new one, which is not it.
    _file: std::fs::File,
}

impl Worker {
    /// The worker of a file, which is started if it is not there. Blocks while the file is opened; whoever opens another one does
    /// not wait for that.
    pub(super) fn of(path: &Path) -> Result<Arc<Self>, StoreError> {
        watch_forks();
        let worker = Self::known_or_started(path)?;
        if !worker.is_open.load(Ordering::Acquire) {
            worker.ask_blocking(File::prepare)?;
            worker.is_open.store(true, Ordering::Release);
        }
        Ok(worker)
    }

    fn known_or_started(path: &Path) -> Result<Arc<Self>, StoreError> {
        let by = Instant::now() + PATIENCE;
        // Its number has to be known before it is opened. If it cannot be made, LMDB says why.
        let file = made(path).ok();
        let id = file_id(path);
        loop {
            let ended = {
                let mut open = OPEN.lock();
                let open = open.get_or_insert_default();
                open.retain(|_, entry| !entry.ended.is_disconnected());
                let entry = id.and_then(|id| open.get(&id));
                if entry.is_some_and(|entry| entry.forks != forks()) {
                    return Err(forked(path));
                }
                match entry.map(|entry| (entry.worker.upgrade(), &entry.ended)) {
                    Some((Some(worker), _)) => return Ok(worker),
                    Some((None, ended)) => ended.clone(),
                    None => {
                        let (worker, ended) = Self::start(path)?;
                        if let Some((id, file)) = id.zip(file) {
                            let entry = Entry {
                                worker: Arc::downgrade(&worker),
                                ended,
                                forks: forks(),
                                _file: file,
                            };
                            open.insert(id, entry);
                        }
                        return Ok(worker);
                    }
                }
            };
            // The last handle has just gone, and the thread is about to end.
            if let Err(flume::RecvTimeoutError::Timeout) = ended.recv_deadline(by) {
                return Err(StoreError::Unreachable(
                    format!("{} is still being closed by this process", path.display()).into(),
                ));
            }
        }
    }

    fn start(path: &Path) -> Result<(Arc<Self>, flume::Receiver<()>), StoreError> {
        let clock = BootClock::read().map_err(|error| {
            StoreError::BadConfig(format!("the id of the boot cannot be read: {error}"))
        })?;
        let (jobs, queue) = flume::bounded::<Job>(QUEUE);
        let (alive, ended) = flume::bounded::<()>(1);
        let mut file = File::new(path.to_owned(), clock);
        let run = move || {
            while let Ok(job) = queue.recv() {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(&mut file))) {
                    let message = panic_message(&*panic);
                    std::mem::forget(panic);
                    tracing::error!(target: "lockkeeper", message, "the thread of the file of leases panicked");
                    // Its transaction is undone. The next job opens the file anew.
                    quietly(|| file.close());
                }
            }
            drop(file);
            drop(alive);
            // Else whoever opens the next does it.
            if let Some(mut open) = OPEN.try_lock()
                && let Some(open) = &mut *open
            {
                open.retain(|_, entry| !entry.ended.is_disconnected());
            }
        };
        let thread = thread::Builder::new().name("lockkeeper-leases".into());
        let started = thread.spawn(run);
        let thread = started.map_err(|error| StoreError::Unreachable(Box::new(error)))?;
        let worker = Arc::new(Self {
            jobs,
            thread,
            is_open: AtomicBool::new(false),
            ended: ended.clone(),
            forks: forks(),
            path: path.to_owned(),
        });
        Ok((worker, ended))
    }

    /// Has the thread do something, and answers when it is done. Dropped before the thread has come to it, it is not done.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut File) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.is_forked() {
            return Err(forked(&self.path));
        }
        let (job, answer) = with_answer(job);
        let gone = |_| self.gone();
        self.jobs.send_async(job).await.map_err(|_| self.gone())?;
        answer.await.map_err(gone)?
    }

    fn ask_blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut File) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (send, answer) = flume::bounded(1);
        let job: Job = Box::new(move |file| {
            let _ = send.send(job(file));
        });
        self.jobs.send(job).map_err(|_| self.gone())?;
        answer.recv().map_err(|_| self.gone())?
    }

    fn is_forked(&self) -> bool {
        self.forks != forks()
    }

    fn gone(&self) -> StoreError {
        let path = self.path.display();
        match self.jobs.is_disconnected() {
            true => StoreError::Unreachable(format!("the thread of {path} has ended").into()),
            false => StoreError::Failed(format!("the thread of {path} panicked over it").into()),
        }
    }
}

fn forked(path: &Path) -> StoreError {
    StoreError::BadConfig(format!(
        "the process was forked after {} was opened; open it after the fork",
        path.display()
    ))
}

/// The file, which is empty if it was not there, for its owner alone, as LMDB makes it.
fn made(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn with_answer<T: Send + 'static>(
    job: impl FnOnce(&mut File) -> Result<T, StoreError> + Send + 'static,
) -> (Job, oneshot::Receiver<Result<T, StoreError>>) {
    let (reply, answer) = oneshot::channel();
    let job = move |file: &mut File| {
        if !reply.is_closed() {
            let _ = reply.send(job(file));
        }
    };
    (Box::new(job), answer)
}

/// A store's hold on its worker, which can be let go before the store is.
pub(super) struct Hold(Mutex<Option<Arc<Worker>>>);

impl Hold {
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        Ok(Self(Mutex::new(Some(Worker::of(path)?))))
    }

    #[cfg(test)]
    pub(super) fn weak(&self) -> Weak<Worker> {
        let worker = self.0.lock();
        worker.as_ref().map_or_else(Weak::new, Arc::downgrade)
    }

    /// See [`Worker::ask`].
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut File) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let worker = self.0.lock().clone();
        let closed = || StoreError::Failed("the lease store was closed".into());
        worker.ok_or_else(closed)?.ask(job).await
    }

    /// Lets it go; if it was the last, the file is closed and the thread has ended when this is answered.
    pub(super) async fn let_go(&self) {
        let worker = self.0.lock().take();
        let Some(last) = worker.and_then(Arc::into_inner) else {
            return;
        };
        if last.is_forked() {
            // The thread is the parent's.
            std::mem::forget(last);
            return;
        }
        let Worker {
            jobs,
            thread,
            ended,
            ..
        } = last;
        drop(jobs);
        // Nothing is ever sent.
        let _ = ended.recv_async().await;
        let _ = thread.join();
    }
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.0.lock().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::block_on;

    #[test]
    fn a_panic_over_one_question_is_answered_and_the_next_is_served() {
        let folder = tempfile::tempdir().expect("a folder");
        let worker = Worker::of(&folder.path().join("leases.mdb")).expect("a worker");
        for _ in 0..3 {
            let panics = worker.ask::<()>(|_| panic!("a bomb"));
            let error = block_on(panics).expect_err("it panicked");
            assert!(matches!(error, StoreError::Failed(_)), "{error}");
            block_on(worker.ask(File::prepare)).expect("it goes on");
        }
    }
}
