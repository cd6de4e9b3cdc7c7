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

/// Threads that have done what they were begun for, but perhaps drop thread-locals of the application's still.
#[must_use = "it is for the thread that is begun now"]
#[derive(Debug)]
pub(crate) struct Earlier(Vec<JoinHandle<()>>);

impl Drop for Earlier {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            // One that panicked has nothing more to tell.
            let _ = thread.join();
        }
    }
}

impl Beside {
    /// Begins another one. It keeps what it is given to its end, and joins those that have finished then: whoever begins it does
    /// not wait for them.
    pub(crate) fn begin_after(
        &self,
        spawn: impl FnOnce(Earlier) -> io::Result<JoinHandle<()>>,
    ) -> Result<(), NotBegun> {
        let mut list = self.0.lock();
        if list.is_closed {
            return Err(NotBegun::Closed);
        }
        let earlier = list.threads.extract_if(.., |thread| thread.is_finished());
        let earlier = Earlier(earlier.collect());
        let thread = spawn(earlier).map_err(NotBegun::Thread)?;
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
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicBool, Ordering};
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
            .begin_after(|_| {
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

    thread_local! {
        static LAST: RefCell<Option<AtEnd>> = const { RefCell::new(None) };
    }

    /// Keeps its thread from ending until it is told, and says when it has.
    struct AtEnd(mpsc::Receiver<()>, Arc<AtomicBool>);

    impl Drop for AtEnd {
        fn drop(&mut self) {
            let _ = self.0.recv();
            self.1.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn one_that_drops_its_thread_locals_still_when_another_begins_is_joined_all_the_same() {
        let (beside, ended) = (Beside::default(), Arc::new(AtomicBool::new(false)));
        let (go_on, may_go_on) = mpsc::channel();
        let at_end = AtEnd(may_go_on, Arc::clone(&ended));
        let first = move || LAST.set(Some(at_end));
        beside
            .begin_after(|_| thread::Builder::new().spawn(first))
            .unwrap();
        while !beside.have_finished() {
            thread::yield_now();
        }
        let second = |earlier| thread::Builder::new().spawn(move || drop::<Earlier>(earlier));
        beside.begin_after(second).unwrap();
        let joins = thread::spawn(move || {
            for thread in beside.close() {
                thread.join().unwrap();
            }
            ended.load(Ordering::SeqCst)
        });
        // Somebody who did not wait would be done by now.
        thread::sleep(Duration::from_millis(50));
        drop(go_on);
        assert!(joins.join().unwrap());
    }

    #[test]
    fn none_is_begun_after_the_list_was_closed() {
        let beside = Beside::default();
        beside
            .begin_after(|_| thread::Builder::new().spawn(|| ()))
            .unwrap();
        for thread in beside.close() {
            thread.join().unwrap();
        }
        let refused = beside.begin_after(|_| panic!("it is not even tried"));
        assert!(matches!(refused, Err(NotBegun::Closed)));
        assert!(beside.have_finished());
    }
}
