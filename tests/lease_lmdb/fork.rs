//! The child of a fork must not use what its parent has open.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lockkeeper::{LeaseStore, LmdbLeases, StoreError};

use crate::support::{block_on, name, taken, wish};

const FOLDER: &str = "LOCKKEEPER_TEST_FORKED_LEASES";

#[test]
fn the_child_of_a_fork_is_refused_and_the_parent_goes_on() {
    // In a process of its own: a fork copies the locks of whatever else runs in this one.
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else {
        let folder = tempfile::tempdir().unwrap();
        let test = "fork::the_child_of_a_fork_is_refused_and_the_parent_goes_on";
        let output = Command::new(env::current_exe().unwrap())
            .args([test, "--exact", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    };
    let long = Duration::from_secs(600);
    let mut store = Some(LmdbLeases::open(&folder).unwrap());
    let ours = |store: &Option<LmdbLeases>| store.clone().unwrap();
    taken(&ours(&store), &wish("job", "parent", long));
    let status = in_a_fork(|| {
        let forked = |refused: Result<(), StoreError>| match refused {
            Err(StoreError::BadConfig(why)) => why.contains("fork"),
            _ => false,
        };
        let inherited = store.take().unwrap();
        let checks = [
            forked(block_on(inherited.look(&name("job"))).map(drop)),
            forked(block_on(inherited.claim(&wish("other", "child", long))).map(drop)),
            forked(LmdbLeases::open(&folder).map(drop)),
            {
                // Nor when it has let go of everything: the parent's thread never ends here.
                drop(inherited);
                forked(LmdbLeases::open(&folder).map(drop))
            },
        ];
        i32::from(checks != [true; 4])
    });
    assert_eq!(status, 0, "the child could use it");
    taken(&ours(&store), &wish("other", "parent", long));
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
            libc::_exit(act());
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert!(libc::WIFEXITED(status), "the child died: {status:#x}");
        libc::WEXITSTATUS(status)
    }
}
