//! The child of a fork has its parent's memory, and neither its thread nor its leases.

use std::env;
use std::pin::pin;
use std::process::Command;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use lockkeeper::LeaseError;

use crate::store::{Memory, Op};
use crate::{MS, leases};

const FORKS: &str = "LOCKKEEPER_TEST_FORKED_LEASES_CORE";

#[test]
fn i12_the_child_of_a_fork_asks_nothing_on_its_parents_connections_and_waits_for_nobody() {
    // In a process of its own: a fork copies the locks of whatever else runs in this one.
    if env::var_os(FORKS).is_none() {
        let test = "fork::i12_the_child_of_a_fork_asks_nothing_on_its_parents_connections_and_waits_for_nobody";
        let output = Command::new(env::current_exe().unwrap())
            .args([test, "--exact", "--test-threads=1"])
            .env(FORKS, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let store = Memory::new();
    let leases = leases(&store);
    let [kept, released] = ["a", "b"].map(|name| now(leases.acquire(name)).unwrap());
    let mut waiting = Some(Box::pin(leases.acquire("a")));
    crate::store::begin(waiting.as_mut().unwrap());
    let mut released = Some(released);
    let status = in_a_fork(|| {
        store.forget_questions();
        let released = released.take().unwrap();
        assert!(!released.is_held() && released.remaining().is_zero());
        let not_here = |error: &LeaseError| matches!(error, LeaseError::ShuttingDown);
        assert!(now(released.release()).is_err());
        drop(waiting.take());
        assert!(not_here(&now(leases.acquire("c")).unwrap_err()));
        assert!(not_here(&now(leases.holder("a")).unwrap_err()));
        assert!(not_here(&now(leases.list()).unwrap_err()));
        assert!(not_here(&now(leases.force_release("a")).unwrap_err()));
        assert!(now(kept.extend(Duration::from_secs(2))).is_err());
        now(leases.shutdown(MS));
        let ops = [Op::Claim, Op::Refresh, Op::Release, Op::HandOver, Op::Force];
        i32::from(ops.iter().any(|op| store.asked(*op) > 0))
    });
    assert_eq!(status, 0, "the child asked something");
    // The parent goes on.
    assert!(kept.is_held());
    drop(kept);
    assert!(now(waiting.take().unwrap()).unwrap().is_held());
    assert!(now(released.take().unwrap().release()).is_ok());
}

/// What a future answers without a runtime, soon.
fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let begun = Instant::now();
    loop {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "no answer");
        std::thread::sleep(MS);
    }
}

/// The exit code of `act`, run in the child of a fork.
#[expect(unsafe_code, reason = "a fork")]
fn in_a_fork(act: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs only what is tested, which must work in it, and leaves without unwinding or exit handlers.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            // What hangs is ended by this.
            libc::alarm(20);
            let act = std::panic::AssertUnwindSafe(act);
            libc::_exit(std::panic::catch_unwind(act).unwrap_or(2));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert!(libc::WIFEXITED(status), "the child died: {status:#x}");
        libc::WEXITSTATUS(status)
    }
}
