//! I3: a body that fails, panics or outgrows its time affects no other body in its batch.

use std::io::Write;
use std::panic::Location;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use lockkeeper::{ErrorClass, Keeper, ReadTxn, RunTxn, Stage, TxnError};

use crate::support::{
    Numbers, Plug, SOON, Sent, assert_idle, folder, get, open, open_with, put, putting, stats,
    until,
};

/// How late an answer may come on a busy machine, and still be one that came at its deadline.
const SLACK: Duration = SOON;

fn panicking(numbers: Numbers) -> RunTxn<()> {
    RunTxn::update(move |txn| {
        numbers.put(txn, &66, &66)?;
        panic!("number {}", 66)
    })
}

#[track_caller]
fn assert_panicked(answer: Result<(), TxnError>, expected: &str, line: u32) {
    let error = answer.unwrap_err();
    match &error {
        TxnError::BodyPanicked { message, site } => {
            assert_eq!(message, expected);
            assert!(site.file().ends_with("bodies.rs"), "{site}");
            assert_eq!(site.line(), line);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(error.class(), ErrorClass::Panic);
    assert!(!error.is_retryable());
}

#[test]
fn i03_a_body_that_panics_alone_is_undone_and_the_next_one_works() {
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    for _ in 0..3 {
        let here = Location::caller().line();
        let answer = keeper.blocking_update(move |txn| -> Result<(), TxnError> {
            numbers.put(txn, &66, &66)?;
            panic!("no luck")
        });
        assert_panicked(answer, "no luck", here + 1);
        assert_eq!(get(&keeper, numbers, 66), None);
        put(&keeper, numbers, 1, 1).unwrap();
    }
    assert_eq!(stats(&keeper).environment.poisonings, 0);
    assert_idle(&keeper);
}

#[test]
fn i03_a_body_that_panics_in_a_batch_takes_nobody_with_it() {
    let folder = folder();
    let (keeper, numbers) = open_with(
        Keeper::builder()
            .path(folder.path())
            .batch_time(Duration::from_secs(60)),
    );
    let before = stats(&keeper).environment.commits;
    let plug = Plug::hold(&keeper);
    let mut neighbours = Vec::new();
    let mut bad = Vec::new();
    for key in 0..30 {
        if key % 10 == 5 {
            bad.push(Sent::new(keeper.run(panicking(numbers))));
        }
        neighbours.push(Sent::new(keeper.run(putting(numbers, key, key + 1))));
    }
    plug.release().unwrap();
    for sent in neighbours {
        sent.answer().unwrap();
    }
    for sent in bad {
        let error = sent.answer().unwrap_err();
        assert!(
            matches!(&error, TxnError::BodyPanicked { message, .. } if message == "number 66"),
            "{error:?}"
        );
    }
    for key in 0..30 {
        assert_eq!(get(&keeper, numbers, key), Some(key + 1));
    }
    assert_eq!(get(&keeper, numbers, 66), None);
    // The plug's, and one for all of them: it was a batch.
    let after = stats(&keeper).environment;
    assert!(
        after.commits <= before + 2,
        "{} commits",
        after.commits - before
    );
    assert_eq!(after.bodies_failed, 3);
    assert_idle(&keeper);
}

#[test]
fn i03_a_view_that_panics_harms_nobody() {
    let folder = folder();
    let (keeper, _) = open(folder.path());
    fn bad(_: &ReadTxn<'_>) -> Result<(), TxnError> {
        panic!("short-sighted")
    }
    // More often than there are reader threads, and on more threads than one.
    for _ in 0..8 {
        let line = line!() + 1;
        assert_panicked(keeper.blocking_view(bad), "short-sighted", line);
        let line = line!() + 1;
        let shipped = RunTxn::view(bad);
        assert_panicked(keeper.blocking_run(shipped), "short-sighted", line);
        let line = line!() + 1;
        let sent = RunTxn::view(bad);
        assert_panicked(keeper.blocking_send(sent), "short-sighted", line);
    }
    keeper.blocking_view(|_| Ok(())).unwrap();
    keeper.blocking_run(RunTxn::view(|_| Ok(()))).unwrap();
    // The gate is free: the map can change.
    keeper
        .blocking_send(lockkeeper::SetMapSize(2 << 30))
        .unwrap();
    assert_idle(&keeper);
}

/// What the library logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        crate::listening::beside_others();
        let log = self.clone();
        tracing::subscriber::set_default(
            tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || log.clone())
                .finish(),
        )
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn i03_a_body_that_outgrows_its_time_stalls_updates_until_their_deadlines_and_no_view() {
    const OWN: Duration = Duration::from_secs(1);
    const THEIRS: Duration = Duration::from_millis(150);
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    put(&keeper, numbers, 1, 10).unwrap();
    let log = Log::default();
    let _listening = log.listen();

    let (running, runs) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let line = line!() + 1;
    let sleeper = RunTxn::update(move |txn| {
        numbers.put(txn, &1, &11)?;
        let _ = running.send(());
        let _ = released.recv();
        Ok(())
    });
    let begun = Instant::now();
    let sleeper = Sent::new(keeper.run(sleeper.name("sleeper").deadline(OWN)));
    runs.recv_timeout(SOON).unwrap();
    let answer = sleeper.answer();
    let answered = begun.elapsed();
    assert!(answered >= OWN && answered < OWN + SLACK, "{answered:?}");
    let error = answer.unwrap_err();
    assert!(
        matches!(error, TxnError::DeadlineExceeded { deadline, stage: Stage::Ran } if deadline == OWN),
        "{error:?}"
    );

    // Those that come later are answered at their own deadlines, and learn who is in the way.
    let ran = Arc::new(AtomicU32::new(0));
    for _ in 0..3 {
        let sent = Instant::now();
        let count = Arc::clone(&ran);
        let later = RunTxn::update(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        let error = keeper.blocking_run(later.deadline(THEIRS)).unwrap_err();
        let took = sent.elapsed();
        assert!(took >= THEIRS && took < THEIRS + SLACK, "{took:?}");
        match &error {
            TxnError::WriterStalled {
                name,
                site: at,
                since,
            } => {
                assert_eq!(name.as_deref(), Some("sleeper"));
                assert_eq!(at.line(), line);
                assert!(at.file().ends_with("bodies.rs"));
                assert!(*since >= THEIRS && *since <= begun.elapsed(), "{since:?}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(error.class(), ErrorClass::WriterStalled);
        assert!(error.is_retryable());
        assert!(error.to_string().contains("\"sleeper\""), "{error}");
    }

    // Views go on, of every kind, and see nothing of it.
    assert_eq!(get(&keeper, numbers, 1), Some(10));
    let shipped = RunTxn::view(move |txn| Ok(numbers.get(txn, &1)?));
    assert_eq!(keeper.blocking_run(shipped).unwrap(), Some(10));
    let environment = stats(&keeper).environment;
    let (who, age) = environment.writer_busy.expect("the statistics name it");
    assert!(
        who.contains("sleeper") && who.contains("bodies.rs"),
        "{who}"
    );
    assert!(age >= 150, "{age} ms");
    assert_eq!(environment.writer_stalls, 1, "one stall, whoever notices");
    let text = log.text();
    assert_eq!(text.matches("keeps the writer").count(), 1, "{text}");
    assert!(
        text.contains("sleeper") && text.contains("bodies.rs"),
        "{text}"
    );

    // It returns: what it wrote is undone, those that gave up never run, and everything works.
    drop(release);
    put(&keeper, numbers, 2, 20).unwrap();
    assert_eq!(get(&keeper, numbers, 1), Some(10));
    assert_eq!(ran.load(Ordering::SeqCst), 0);
    assert!(stats(&keeper).environment.writer_busy.is_none());
    assert_idle(&keeper);
}

#[test]
fn i03_a_body_that_outgrows_its_time_takes_no_neighbour_with_it() {
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    let before = stats(&keeper).environment.commits;
    let plug = Plug::hold(&keeper);
    let first = Sent::new(keeper.run(putting(numbers, 1, 10)));
    let (release, released) = mpsc::channel::<()>();
    let sleeper = RunTxn::update(move |txn| {
        numbers.put(txn, &2, &20)?;
        let _ = released.recv();
        Ok(())
    })
    .deadline(Duration::from_secs(1));
    let sleeper = Sent::new(keeper.run(sleeper));
    let last = Sent::new(keeper.run(putting(numbers, 3, 30)));
    plug.release().unwrap();
    let error = sleeper.answer().unwrap_err();
    assert!(
        matches!(
            error,
            TxnError::DeadlineExceeded {
                stage: Stage::Ran,
                ..
            }
        ),
        "{error:?}"
    );
    drop(release);
    first.answer().unwrap();
    last.answer().unwrap();
    assert_eq!(get(&keeper, numbers, 1), Some(10));
    assert_eq!(get(&keeper, numbers, 2), None);
    assert_eq!(get(&keeper, numbers, 3), Some(30));
    assert!(stats(&keeper).environment.commits > before);
    assert_idle(&keeper);
}

/// A body that failed in time is answered; one that failed after its deadline is not, since its caller has gone.
#[test]
fn i03_a_body_that_panics_after_its_deadline_is_undone_as_well() {
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    let (release, released) = mpsc::channel::<()>();
    let late = RunTxn::<()>::update(move |txn| {
        numbers.put(txn, &1, &1)?;
        let _ = released.recv();
        panic!("late")
    });
    let answer = Sent::new(keeper.run(late.deadline(Duration::from_millis(50)))).answer();
    assert!(
        matches!(answer, Err(TxnError::DeadlineExceeded { .. })),
        "{answer:?}"
    );
    let next = Sent::new(keeper.run(putting(numbers, 2, 2)));
    drop(release);
    next.answer().unwrap();
    assert_eq!(get(&keeper, numbers, 1), None);
}

/// I3 and I13 together: with every place taken, the ones who wait for a place learn what the matter is too.
#[test]
fn i03_a_stalled_writer_is_named_to_those_who_wait_for_admission() {
    let folder = folder();
    let (keeper, _) = open_with(Keeper::builder().path(folder.path()).queue(1));
    let plug = Plug::hold_as(
        &keeper,
        |body| {
            RunTxn::update(body)
                .name("sleeper")
                .deadline(Duration::from_secs(1))
        },
        |_| Ok(()),
    );
    let (answer, release) = plug.answer();
    assert!(answer.is_err());
    let waiting = RunTxn::update(|_| Ok(())).deadline(Duration::from_millis(300));
    let error = keeper.blocking_run(waiting).unwrap_err();
    assert!(
        matches!(&error, TxnError::WriterStalled { name, .. } if name.as_deref() == Some("sleeper")),
        "{error:?}"
    );
    drop(release);
    until("the place is free", || {
        stats(&keeper).transactions.in_flight == 0
    });
    keeper.blocking_update(|_| Ok(())).unwrap();
    keeper.blocking_shutdown(SOON).unwrap();
}

/// What an application drops on a thread of ours, and panics meanwhile.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a panic in a drop");
    }
}

#[test]
fn i03_what_an_application_drops_cannot_end_the_threads_that_serve_everybody() {
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    // What a panic carries.
    let carried =
        keeper.blocking_update(|_| -> Result<(), TxnError> { std::panic::panic_any(Bomb) });
    assert!(
        matches!(carried, Err(TxnError::BodyPanicked { .. })),
        "{carried:?}"
    );
    put(&keeper, numbers, 1, 10).unwrap();
    // An answer that nobody takes any more, and a body that never ran, among neighbours.
    let plug = Plug::hold(&keeper);
    let before = Sent::new(keeper.run(putting(numbers, 2, 20)));
    let (running, runs) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let untaken = Sent::new(keeper.update(move |_| {
        let _ = running.send(());
        let _ = released.recv();
        Ok(Bomb)
    }));
    let carried = Bomb;
    let never = Sent::new(keeper.update(move |_| {
        let _ = &carried;
        Ok(())
    }));
    let after = Sent::new(keeper.run(putting(numbers, 3, 30)));
    drop(never);
    plug.release().unwrap();
    runs.recv_timeout(SOON).unwrap();
    drop(untaken);
    drop(release);
    before.answer().unwrap();
    after.answer().unwrap();
    // The same on a reader thread, more often than there are of them.
    for _ in 0..4 {
        let (running, runs) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let view = Sent::new(keeper.run(RunTxn::view(move |_| {
            let _ = running.send(());
            let _ = released.recv();
            Ok(Bomb)
        })));
        runs.recv_timeout(SOON).unwrap();
        drop(view);
        drop(release);
    }
    keeper.blocking_run(RunTxn::view(|_| Ok(()))).unwrap();
    put(&keeper, numbers, 4, 40).unwrap();
    assert_eq!(get(&keeper, numbers, 3), Some(30));
    assert_idle(&keeper);
}
