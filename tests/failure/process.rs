//! Forks, and processes that share a folder in ways that LMDB cannot bear.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use lockkeeper::{
    DatabaseError, EnvError, EnvStatsQuery, ErrorClass, Keeper, OpenError, RunTxn, SetMapSize,
    ShutdownError, Sync, TxnError,
};

use crate::stage;
use crate::support::{Plug, SOON, block_on, folder, get, open, put, putting};

const FORKS: &str = "process::the_child_of_a_fork_is_refused_and_the_parent_goes_on";

#[test]
fn the_child_of_a_fork_is_refused_and_the_parent_goes_on() {
    // In a process of its own: a fork copies the locks of whatever else runs in this one.
    let Some(folder) = stage::role(FORKS) else {
        let dir = folder();
        let child = stage::program(FORKS, &dir.path().join("env"));
        let (status, output) = stage::run(child, dir.path());
        assert!(status.success() && output.contains("1 passed"), "{output}");
        return;
    };
    let (keeper, numbers) = open(&folder);
    put(&keeper, numbers, 1, 10).unwrap();
    let mut held = Some(block_on(keeper.hold_snapshot("held", SOON)).unwrap());
    // Also with the writer in the middle of something.
    for busy in [false, true] {
        let plug = busy.then(|| Plug::hold(&keeper));
        let status = in_a_fork(|| {
            let forked = |answer: Result<(), TxnError>| match answer {
                Err(error @ TxnError::Forked) => error.class() == ErrorClass::Usage,
                _ => false,
            };
            let mut checks = vec![
                forked(put(&keeper, numbers, 2, 20)),
                forked(keeper.blocking_view(|_| Ok(()))),
                forked(keeper.blocking_run(RunTxn::view(|_| Ok(())))),
                forked(keeper.blocking_send(putting(numbers, 2, 20))),
                forked(keeper.blocking_send(RunTxn::view(|_| Ok(())))),
                forked(keeper.blocking_send(EnvStatsQuery).map(drop)),
                forked(block_on(keeper.hold_snapshot("held", SOON)).map(drop)),
            ];
            // Its thread is the parent's, which goes on with it.
            if let Some(snapshot) = held.take() {
                checks.push(forked(block_on(snapshot.ask(|_| ()))));
            }
            checks.push(match keeper.blocking_database::<(), ()>("another") {
                Err(DatabaseError::Txn(error)) => forked(Err(error)),
                _ => false,
            });
            for answer in [
                keeper.blocking_send(Sync),
                keeper.blocking_send(SetMapSize(2 << 30)).map(drop),
            ] {
                checks.push(match answer {
                    Err(EnvError::Txn(error)) => forked(Err(error)),
                    _ => false,
                });
            }
            checks.push(matches!(
                keeper.blocking_shutdown(SOON),
                Err(ShutdownError::Forked)
            ));
            // The number of the first that is wrong, from 1.
            checks
                .iter()
                .position(|right| !right)
                .map_or(0, |at| at as i32 + 1)
        });
        assert_eq!(status, 0, "the child's check of this number failed");
        if let Some(plug) = plug {
            plug.release().unwrap();
        }
        // The parent goes on.
        put(&keeper, numbers, 3, 30).unwrap();
        assert_eq!(get(&keeper, numbers, 1), Some(10));
        assert_eq!(get(&keeper, numbers, 2), None);
        assert_eq!(get(&keeper, numbers, 3), Some(30));
        let snapshot = held.as_ref().unwrap();
        let seen = snapshot.ask(move |txn| numbers.get(txn, &3).unwrap());
        assert_eq!(block_on(seen).unwrap(), None);
    }
    assert_eq!(stage::read_elsewhere(&folder).len(), 2);
    keeper.blocking_shutdown(SOON).unwrap();
}

/// Forks, has the child run `act`, and answers its exit status.
#[expect(unsafe_code, reason = "the standard library does not fork")]
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
        assert!(
            libc::WIFEXITED(status),
            "the child hung, or died: {status:#x}"
        );
        libc::WEXITSTATUS(status)
    }
}

const CONTAINED: &str = "process::two_processes_with_one_pid_in_two_namespaces_are_told_apart";

#[test]
fn two_processes_with_one_pid_in_two_namespaces_are_told_apart() {
    if let Some(folder) = stage::role(CONTAINED) {
        return contained(&folder);
    }
    if !namespaces() {
        eprintln!("not root, or no namespaces: not tested");
        return;
    }
    let dir = folder();
    let first = Contained::start(dir.path());
    assert_eq!(first.said, "opened as 1");
    let second = Contained::start(dir.path());
    assert_eq!(second.said, "same pid in another namespace");
    second.end();
    // The first goes on, and when it has ended the next one opens.
    first.end();
    let third = Contained::start(dir.path());
    assert_eq!(third.said, "opened as 1");
    third.end();
}

fn namespaces() -> bool {
    Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A process that is number 1 in a namespace of its own, as in a container.
struct Contained {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<std::process::ChildStdout>,
    said: String,
}

impl Contained {
    fn start(folder: &std::path::Path) -> Self {
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--mount-proc"])
            .arg(std::env::current_exe().unwrap());
        stage::as_test(&mut command, CONTAINED, folder);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut contained = Self {
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
            stdin,
            said: String::new(),
        };
        contained.said = contained.next();
        contained
    }

    /// The next thing that it says.
    fn next(&mut self) -> String {
        let mut line = String::new();
        while self.stdout.read_line(&mut line).unwrap() > 0 {
            if let Some(said) = line.trim().strip_prefix("says: ") {
                return said.to_owned();
            }
            line.clear();
        }
        "nothing".into()
    }

    fn end(mut self) {
        self.stdin.write_all(b"end\n").unwrap();
        drop(self.stdin);
        let mut rest = String::new();
        while self.stdout.read_line(&mut rest).unwrap() > 0 {}
        assert!(self.child.wait().unwrap().success(), "{rest}");
    }
}

fn contained(folder: &std::path::Path) {
    let opened = Keeper::builder().path(folder).open();
    match &opened {
        Ok(_) => println!("\nsays: opened as {}", std::process::id()),
        Err(error @ OpenError::SamePidInOtherNamespace { path }) => {
            assert_eq!(*path, folder.canonicalize().unwrap());
            // The remedy.
            assert!(
                error.to_string().contains("share a pid namespace"),
                "{error}"
            );
            println!("\nsays: same pid in another namespace");
        }
        Err(other) => println!("\nsays: {other:?}"),
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    if let Ok(keeper) = opened {
        let numbers = keeper.blocking_database(crate::support::NUMBERS).unwrap();
        put(&keeper, numbers, 1, 10).unwrap();
        assert_eq!(get(&keeper, numbers, 1), Some(10));
        keeper.blocking_shutdown(SOON).unwrap();
    }
}
