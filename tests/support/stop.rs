//! Stops a process (`SIGSTOP`) at a moment at which others can do without it.
//!
//! A process keeps what it has when it is stopped: LMDB's writer, or the turn that the one before it has just given it; the lock of a
//! file or of a row. Then others wait until it goes on, which is not what the tests of leases are about: it is stopped again, until
//! others are seen to get on without it.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Stops the process of this id, a child of this one, and has `others` try what they need; answers whether it is stopped. If they
/// say no, or have not said yes `in_time`, it goes on, and they are waited for.
pub fn stop_beside(pid: u32, in_time: Duration, others: impl FnOnce() -> bool + Send) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    // A signal takes its time, and longest where a thread waits for the disk: until each thread has stopped.
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped(), "it has ended: {status:?}");
    let deadline = Instant::now() + in_time;
    thread::scope(|scope| {
        let others = scope.spawn(others);
        while !others.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        if others.is_finished() && others.join().unwrap() {
            return true;
        }
        kill_process(pid, Signal::CONT).unwrap();
        false
    })
}
