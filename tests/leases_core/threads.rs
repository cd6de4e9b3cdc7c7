//! A system that has no thread left.

use std::env;
use std::process::Command;

use lockkeeper::LeaseError;

use crate::builder;
use crate::store::Memory;

const LIMITED: &str = "LOCKKEEPER_LIMITED";

#[test]
#[expect(unsafe_code, reason = "a limit of the process")]
fn leases_that_get_no_thread_say_so_also_where_nothing_may_block() {
    // The limit is one of the whole process: this one has no other test.
    if env::var_os(LIMITED).is_none() {
        let test = "threads::leases_that_get_no_thread_say_so_also_where_nothing_may_block";
        let output = Command::new(env::current_exe().unwrap())
            .args([test, "--exact", "--test-threads=1"])
            .env(LIMITED, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        // Room for what is small, and not for the stack of a thread.
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = pages.split_whitespace().next().unwrap().parse().unwrap();
        let most = pages * 4096 + (1 << 20);
        let limit = libc::rlimit {
            rlim_cur: most,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: it reads the limit, and nothing else.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
        assert_eq!(set, 0);
        let refused = builder(&Memory::new()).start();
        assert!(matches!(refused, Err(LeaseError::Thread(_))), "{refused:?}");
    });
}
