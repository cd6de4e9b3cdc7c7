//! Sizes of the map that another process has set.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockkeeper::heed::types::Bytes;
use lockkeeper::{Backoff, DatabaseError, Delay, Keeper, RunTxn, SetMapSize, TxnError};

use super::peer::Peer;
use super::{
    Begun, Blobs, KIB, MIB, builder, folder, gate_is_open, hold_view, open, stats, store, until,
};

const STEP: u64 = 128 * KIB;

/// A process that makes the map larger, and fills it beyond what the map was before.
struct Grower {
    peer: Peer,
    size: u64,
}

impl Grower {
    fn start(folder: &Path) -> Self {
        let peer = Peer::heed(folder, MIB);
        Self { peer, size: MIB }
    }

    /// Holds LMDB's writer until [`Grower::commit`].
    fn begin(&mut self) -> u64 {
        // The first value takes the whole first map, each other one a whole step: the header takes 16 bytes.
        let len = if self.size == MIB { MIB } else { STEP } - 16;
        self.size += STEP;
        self.peer.ask(&format!("begin {} {len}", self.size));
        self.size
    }

    fn commit(&mut self) {
        self.peer.ask("commit");
    }

    fn grow(&mut self) -> u64 {
        let size = self.begin();
        self.commit();
        size
    }
}

/// How many bytes of the data file this process has mapped.
fn mapped(folder: &Path) -> u64 {
    let file = folder.canonicalize().unwrap().join("data.mdb");
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let lines = maps
        .lines()
        .filter(|line| line.ends_with(file.to_str().unwrap()));
    let length = |line: &str| {
        let (range, _) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        u64::from_str_radix(to, 16).unwrap() - u64::from_str_radix(from, 16).unwrap()
    };
    lines.map(length).sum()
}

/// A keeper whose delay before each adoption lets the other process begin its next growth; that is committed once the last
/// one was adopted, while the keeper waits for LMDB's writer. So each adoption is followed by another growth.
struct Chase {
    _folder: tempfile::TempDir,
    keeper: Keeper,
    blobs: Blobs,
    grower: Arc<Mutex<Grower>>,
    /// Sizes that will be adopted next, if the other process has begun another growth meanwhile.
    begun: Receiver<u64>,
    attempts: Arc<Mutex<Vec<u32>>>,
    path: std::path::PathBuf,
}

impl Chase {
    fn new(retries: u32, growths: u64) -> Self {
        let folder = folder();
        let grower = Arc::new(Mutex::new(Grower::start(folder.path())));
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let left = Arc::new(AtomicU64::new(growths));
        let (tell, begun) = mpsc::channel();
        let (other, log) = (Arc::clone(&grower), Arc::clone(&attempts));
        let delay = Delay::function(move |attempt| {
            log.lock().unwrap().push(attempt);
            let mut grower = other.lock().unwrap();
            let adopts = grower.size;
            if left.load(Ordering::Relaxed) > 0 {
                left.fetch_sub(1, Ordering::Relaxed);
                grower.begin();
                tell.send(adopts).unwrap();
            }
            Duration::ZERO
        });
        let (keeper, blobs) = open(
            builder(folder.path())
                .adopt_retries(retries)
                .adopt_backoff(delay),
        );
        Self {
            path: folder.path().to_owned(),
            _folder: folder,
            keeper,
            blobs,
            grower,
            begun,
            attempts,
        }
    }

    fn update(&self, runs: &Arc<AtomicU64>) -> Result<(), TxnError> {
        let count = Arc::clone(runs);
        let mut put = store(self.blobs, 1, 10);
        let update = Begun::try_new(self.keeper.update(move |txn| {
            count.fetch_add(1, Ordering::Relaxed);
            put(txn)
        }));
        // The writer may be faster than the thread that asks.
        let mut update = match update {
            Ok(begun) => begun,
            Err(answer) => return answer,
        };
        loop {
            if let Some(answer) = update.poll() {
                return answer;
            }
            if let Ok(adopts) = self.begun.recv_timeout(Duration::from_millis(1)) {
                until("the size is adopted", || mapped(&self.path) == adopts);
                self.grower.lock().unwrap().commit();
            }
        }
    }
}

#[test]
fn a_peer_that_grows_fifty_times_in_a_row_is_followed_if_that_is_allowed() {
    let chase = Chase::new(50, 49);
    chase.grower.lock().unwrap().grow();
    let runs = Arc::default();
    chase.update(&runs).unwrap();
    assert_eq!(
        *chase.attempts.lock().unwrap(),
        (0..50).collect::<Vec<_>>(),
        "the delay is a function of the attempts so far"
    );
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    let stats = stats(&chase.keeper);
    assert_eq!((stats.resizes_adopted, stats.map_resizes), (50, 0));
    assert_eq!(stats.map_size, MIB + 50 * STEP);
}

#[test]
fn a_peer_that_grows_on_and_on_is_given_up_with_attempts_and_both_sizes() {
    let chase = Chase::new(2, 50);
    chase.grower.lock().unwrap().grow();
    let runs = Arc::default();
    let error = chase.update(&runs).unwrap_err();
    let text = error.to_string();
    assert!(error.is_retryable(), "the peer may stop");
    let TxnError::MapChanging {
        attempts,
        ours,
        theirs,
    } = error
    else {
        panic!("{text}");
    };
    assert_eq!(
        (attempts, ours, theirs),
        (3, MIB + 2 * STEP, MIB + 3 * STEP)
    );
    assert!(text.contains(&ours.to_string()) && text.contains(&theirs.to_string()));
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    assert_eq!(*chase.attempts.lock().unwrap(), [0, 1]);
}

#[test]
fn the_count_starts_anew_after_a_success() {
    let chase = Chase::new(1, 0);
    let runs = Arc::default();
    for _ in 0..50 {
        chase.grower.lock().unwrap().grow();
        chase.update(&runs).unwrap();
    }
    assert_eq!(*chase.attempts.lock().unwrap(), [0; 50]);
    assert_eq!(stats(&chase.keeper).resizes_adopted, 50);
    assert_eq!(runs.load(Ordering::Relaxed), 50);
}

#[test]
fn where_nothing_is_adopted_every_transaction_says_so_and_an_explicit_change_helps() {
    let folder = folder();
    let mut grower = Grower::start(folder.path());
    let (keeper, blobs) = open(builder(folder.path()).adopt_retries(0));
    let theirs = grower.grow();
    let answers = [
        keeper.blocking_update(store(blobs, 1, 10)),
        keeper.blocking_view(|_| Ok(())),
        keeper.blocking_run(RunTxn::view(|_| Ok(()))),
        match keeper.blocking_database::<Bytes, Bytes>("another") {
            Err(DatabaseError::Txn(error)) => Err(error),
            other => panic!("{other:?}"),
        },
    ];
    for answer in answers {
        let error = answer.unwrap_err();
        assert!(error.is_retryable());
        let TxnError::MapChanging {
            attempts,
            ours,
            theirs: named,
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((attempts, ours, named), (1, MIB, theirs));
    }
    keeper.blocking_send(SetMapSize(theirs)).unwrap();
    keeper.blocking_update(store(blobs, 1, 10)).unwrap();
    keeper.blocking_view(|_| Ok(())).unwrap();
}

#[test]
fn whatever_meets_a_grown_map_first_adopts_its_size() {
    let folder = folder();
    let mut grower = Grower::start(folder.path());
    let (keeper, blobs) = open(builder(folder.path()));
    let mut adopted = 0;
    let mut check = |what: &str, meets: &dyn Fn()| {
        let size = grower.grow();
        meets();
        adopted += 1;
        let stats = stats(&keeper);
        assert_eq!(
            (stats.map_size, stats.resizes_adopted),
            (size, adopted),
            "{what}"
        );
    };
    check("view", &|| keeper.blocking_view(|_| Ok(())).unwrap());
    check("update", &|| {
        keeper.blocking_update(store(blobs, 1, 10)).unwrap()
    });
    check("long view", &|| {
        keeper.blocking_run(RunTxn::view(|_| Ok(()))).unwrap()
    });
    check("opening", &|| {
        keeper.blocking_database::<Bytes, Bytes>("another").unwrap();
    });
    check("statistics", &|| {
        assert_eq!(stats(&keeper).unreadable, None);
    });
    // One adoption for all that meet it at once.
    check("many", &|| {
        let updates = (0..20).map(|key| Begun::try_new(keeper.update(store(blobs, key, 10))));
        let updates: Vec<_> = updates.collect();
        for update in updates {
            update.map_or_else(|answer| answer, Begun::answer).unwrap();
        }
    });
}

#[test]
fn the_stock_delay_is_that_of_lmdbsync() {
    let config = lockkeeper::Config::default();
    assert_eq!(config.adopt_retries(), 2);
    let Delay::Backoff(backoff) = config.adopt_backoff() else {
        panic!("{:?}", config.adopt_backoff());
    };
    let millis = Duration::from_millis;
    assert_eq!(*backoff, Backoff::new(millis(1), millis(5), 2.0));
    for attempt in [0, 1, 2, 3, 63, 64, 1000, u32::MAX] {
        let most = millis(1_u64.checked_shl(attempt).unwrap_or(u64::MAX)).min(millis(5));
        for random in [0.0, 0.3, 0.999_999] {
            assert_eq!(backoff.delay(attempt, random), most.mul_f64(random));
        }
    }
}

#[test]
fn i14_a_view_that_waits_for_an_update_which_has_to_adopt_gets_an_error_that_names_both() {
    let folder = folder();
    let mut grower = Grower::start(folder.path());
    let patience = Duration::from_millis(300);
    let (keeper, blobs) = open(builder(folder.path()).resize_timeout(patience));
    let view = hold_view(&keeper, |_| Ok(()));
    grower.grow();
    let import = || RunTxn::update(store(blobs, 1, 10)).name("import");
    let error = keeper.blocking_run(import()).unwrap_err();
    let TxnError::MapBusy(busy) = error else {
        panic!("{error}");
    };
    assert!(busy.update.unwrap().contains("\"import\""));
    assert_eq!(busy.views.len(), 1);
    assert!(busy.views[0].site.file().ends_with("main.rs"));

    // Not again until that view has ended.
    let Err(TxnError::MapBusy(again)) = keeper.blocking_run(import()) else {
        panic!("the view is still there");
    };
    assert_eq!(again.waited, Duration::ZERO, "refused without a wait");
    view.release().unwrap();
    keeper.blocking_run(import()).unwrap();
    assert!(gate_is_open(&keeper));
}
