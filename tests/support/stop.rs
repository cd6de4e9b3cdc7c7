//! Stops a process (`SIGSTOP`) at a moment at which others can do without it.
//!
//! A process keeps what it has when it is stopped: LMDB's writer, or the turn that the one before it has just given it; the lock of a
//! file or of a row. Then others wait until it goes on, which is not what the tests of leases are about. So a process that is to
//! be stopped stays away from its store for a while, or is stopped again until others get on without it.

// Each test binary compiles its own copy, and uses only part of it.
#![allow(dead_code)]

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of a clock that all processes of the machine share, and that runs on while one is stopped.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Stops the process of this id, a child of this one, before that time; answers whether it is stopped. If it was too late, it goes on.
pub fn stop_before(pid: u32, time: u64) -> bool {
    let pid = stop(pid);
    let in_time = now() < time;
    if !in_time {
        kill_process(pid, Signal::CONT).unwrap();
    }
    in_time
}

/// Stops the process of this id, a child of this one, and has `others` do what may need something that it has; answers whether it
/// is stopped. If they have not done it `in_time`, it goes on, and they are waited for.
pub fn stop_beside(pid: u32, in_time: Duration, others: impl FnOnce() + Send) -> bool {
    let pid = stop(pid);
    let deadline = Instant::now() + in_time;
    thread::scope(|scope| {
        let others = scope.spawn(others);
        while !others.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let in_time = others.is_finished();
        if !in_time {
            kill_process(pid, Signal::CONT).unwrap();
        }
        others.join().unwrap();
        in_time
    })
}

/// A signal takes its time, and longest where a thread waits for the disk: until each of its threads has stopped.
fn stop(pid: u32) -> Pid {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped(), "it has ended: {status:?}");
    pid
}
