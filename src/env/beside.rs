//! Threads that do one thing beside all others and then end: a copy, the telling of listeners.
//!
//! Whoever closes the list has every one of them that was ever begun: one is begun under the lock of the list, and none after it
//! was closed.

use std::io;
use std::thread::JoinHandle;

use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Beside(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    is_closed: bool,
    threads: Vec<JoinHandle<()>>,
}

/// Why one was not begun.
#[derive(Debug)]
pub(crate) enum NotBegun {
    /// Nobody would join it any more.
    Closed,
    /// The system has none left.
    Thread(io::Error),
}

impl Beside {
    /// Begins another one.
    pub(crate) fn begin(
        &self,
        spawn: impl FnOnce() -> io::Result<JoinHandle<()>>,
    ) -> Result<(), NotBegun> {
        let mut list = self.0.lock();
        if list.is_closed {
            return Err(NotBegun::Closed);
        }
        list.threads.retain(|thread| !thread.is_finished());
        let thread = spawn().map_err(NotBegun::Thread)?;
        list.threads.push(thread);
        Ok(())
    }

    pub(crate) fn have_finished(&self) -> bool {
        self.0.lock().threads.iter().all(JoinHandle::is_finished)
    }

    /// Begins no more. Answers those that are to be joined.
    pub(crate) fn close(&self) -> Vec<JoinHandle<()>> {
        let mut list = self.0.lock();
        list.is_closed = true;
        std::mem::take(&mut list.threads)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stop_between_the_start_of_a_thread_and_its_entry_does_not_miss_it() {
        let beside = Arc::new(Beside::default());
        let (tell, told) = mpsc::channel();
        let stops = Arc::clone(&beside);
        beside
            .begin(|| {
                let (tell_here, closed) = mpsc::channel();
                let thread = thread::Builder::new().spawn(move || {
                    let to_join = stops.close();
                    let _ = tell_here.send(());
                    let _ = tell.send(to_join.len());
                });
                // It runs, and would close the list now, if it could.
                let _ = closed.recv_timeout(Duration::from_millis(50));
                thread
            })
            .unwrap();
        assert_eq!(told.recv().unwrap(), 1);
    }

    #[test]
    fn none_is_begun_after_the_list_was_closed() {
        let beside = Beside::default();
        beside
            .begin(|| thread::Builder::new().spawn(|| ()))
            .unwrap();
        for thread in beside.close() {
            thread.join().unwrap();
        }
        let refused = beside.begin(|| panic!("it is not even tried"));
        assert!(matches!(refused, Err(NotBegun::Closed)));
        assert!(beside.have_finished());
    }
}
