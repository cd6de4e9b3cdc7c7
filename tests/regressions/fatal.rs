//! I11: what listeners may do, and a fatal error that a view is the first to meet.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use lockkeeper::{EnvError, Keeper, OnFatal, PanicEvent, Recover, RunTxn, TxnError};

use crate::stage::{self, Disk, on_stage};
use crate::support::{Numbers, SOON, folder, get, open_with, put, putting, stats, until};

/// The data file, damaged and whole again. LMDB sees it at once: the map is the file.
struct Damage {
    file: PathBuf,
    whole: Vec<u8>,
}

impl Damage {
    /// Every page but the two meta pages becomes one of no kind.
    fn to(folder: &Path) -> Self {
        let file = folder.join("data.mdb");
        let whole = std::fs::read(&file).unwrap();
        let damage = Self { file, whole };
        damage.write(&vec![0; damage.whole.len() - damage.start()]);
        damage
    }

    fn start(&self) -> usize {
        // LMDB's pages are the system's.
        2 * usize::try_from(page_size()).unwrap()
    }

    fn write(&self, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(&self.file).unwrap();
        file.write_all_at(bytes, self.start() as u64).unwrap();
    }

    fn heal(&self) {
        self.write(&self.whole[self.start()..]);
    }
}

#[expect(unsafe_code, reason = "the standard library does not tell")]
fn page_size() -> i64 {
    // SAFETY: asks for a constant.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }
}

/// A listener that does what mends the disk, sends `Recover` and waits for the answer; and what it was answered.
fn recovers(
    keeper: &Keeper,
    mend: impl Fn() + Send + Sync + 'static,
) -> (Arc<AtomicUsize>, mpsc::Receiver<Result<(), EnvError>>) {
    let (told, answered) = mpsc::channel();
    let calls = Arc::new(AtomicUsize::new(0));
    let (counted, again) = (Arc::clone(&calls), keeper.clone());
    keeper.on_panic(move |_: &PanicEvent| {
        counted.fetch_add(1, Ordering::SeqCst);
        mend();
        let _ = told.send(again.blocking_send(Recover));
    });
    (calls, answered)
}

#[test]
fn i11_a_listener_may_send_recover_and_wait_for_the_answer() {
    let Some(stage) = on_stage("fatal::i11_a_listener_may_send_recover_and_wait_for_the_answer")
    else {
        return;
    };
    let stage = Arc::new(stage);
    let (keeper, numbers) = open_with(
        Keeper::builder()
            .path(&stage.folder)
            .on_fatal(OnFatal::Wait),
    );
    put(&keeper, numbers, 1, 10).unwrap();
    let disk = Arc::clone(&stage);
    let (calls, answered) = recovers(&keeper, move || disk.heal(Disk::FailMeta));
    stage.tell(Disk::FailMeta);
    let answer = keeper.blocking_run(putting(numbers, 2, 20));
    assert!(
        matches!(answer, Err(TxnError::MaybeCommitted { .. })),
        "{answer:?}"
    );
    answered.recv_timeout(SOON).unwrap().unwrap();
    assert_eq!(get(&keeper, numbers, 1), Some(10));
    put(&keeper, numbers, 3, 30).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(stats(&keeper).environment.recoveries, 1);
    keeper.blocking_shutdown(SOON).unwrap();
}

fn reading(numbers: Numbers) -> RunTxn<Option<u64>> {
    RunTxn::view(move |txn| Ok(numbers.get(txn, &1)?))
}

#[test]
fn i11_the_same_when_a_view_has_met_the_error() {
    // In place and on a reader thread.
    for shipped in [false, true] {
        let folder = folder();
        let (keeper, numbers) = open_with(
            Keeper::builder()
                .path(folder.path())
                .on_fatal(OnFatal::Wait),
        );
        put(&keeper, numbers, 1, 10).unwrap();
        let damage = Arc::new(Damage::to(folder.path()));
        let mends = Arc::clone(&damage);
        let (calls, answered) = recovers(&keeper, move || mends.heal());
        let answer = if shipped {
            keeper.blocking_run(reading(numbers))
        } else {
            keeper.blocking_view(move |txn| Ok(numbers.get(txn, &1)?))
        };
        assert!(answer.is_err(), "{answer:?}");
        answered.recv_timeout(SOON).unwrap().unwrap();
        assert_eq!(get(&keeper, numbers, 1), Some(10));
        put(&keeper, numbers, 2, 20).unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        let now = stats(&keeper).environment;
        assert_eq!((now.poisonings, now.recoveries), (1, 1));
        keeper.blocking_shutdown(SOON).unwrap();
    }
}

#[test]
fn i11_a_body_that_swallows_a_fatal_error_hides_it_from_nobody() {
    let folder = folder();
    let (keeper, numbers) = open_with(
        Keeper::builder()
            .path(folder.path())
            .on_fatal(OnFatal::Wait),
    );
    put(&keeper, numbers, 1, 10).unwrap();
    let damage = Damage::to(folder.path());
    let swallowed = keeper.blocking_view(move |txn| Ok(numbers.get(txn, &1).is_err()));
    assert!(matches!(swallowed, Ok(true)), "{swallowed:?}");
    let next = keeper.blocking_view(|_| Ok(()));
    assert!(matches!(next, Err(TxnError::RecoveryNeeded(_))), "{next:?}");
    // A recovery that finds the damage says so, and changes nothing.
    let refused = keeper.blocking_send(Recover);
    assert!(
        matches!(refused, Err(EnvError::Txn(TxnError::Storage(_)))),
        "{refused:?}"
    );
    damage.heal();
    keeper.blocking_send(Recover).unwrap();
    assert_eq!(get(&keeper, numbers, 1), Some(10));
}

#[test]
fn i11_the_process_exits_for_an_error_that_a_view_has_met_too() {
    const NAME: &str = "fatal::i11_the_process_exits_for_an_error_that_a_view_has_met_too";
    let Some(folder) = stage::role(NAME) else {
        for shipped in [false, true] {
            let dir = folder();
            let mut child = stage::program(NAME, &dir.path().join("env"));
            child.env("SHIPPED", shipped.to_string());
            let (status, output) = stage::run(child, dir.path());
            // EX_IOERR.
            assert_eq!(status.code(), Some(74), "{output}");
            assert!(output.contains("told once"), "{output}");
        }
        return;
    };
    let (keeper, numbers) = open_with(
        Keeper::builder()
            .path(&folder)
            .on_fatal(OnFatal::Exit)
            .on_panic(|_| {
                let mut out = std::io::stdout().lock();
                let _ = writeln!(out, "\ntold once");
            }),
    );
    put(&keeper, numbers, 1, 10).unwrap();
    let _damage = Damage::to(&folder);
    let shipped = std::env::var("SHIPPED").unwrap() == "true";
    let _ = if shipped {
        keeper.blocking_run(reading(numbers))
    } else {
        keeper.blocking_view(move |txn| Ok(numbers.get(txn, &1)?))
    };
    // Nobody asks for anything any more.
    until("the end", || {
        std::thread::sleep(Duration::from_secs(1));
        false
    });
}
