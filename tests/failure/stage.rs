//! Runs a test again in a process of its own, on a disk that fails when told to.
//!
//! `failio.c` is compiled once and preloaded into this very program, which is started with the exact name of the test. The
//! test then finds itself inside, with a [`Stage`]; its parent only looks at how it ended.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{NUMBERS, folder, until};

/// Which test a child is to be, and where its files are.
const ROLE: &str = "LOCKKEEPER_FAILURE_ROLE";
const FOLDER: &str = "LOCKKEEPER_FAILURE_FOLDER";
const CONTROL: &str = "FAILIO_CONTROL";

/// Where the calling test is.
pub enum Side {
    /// In the child, on the stage.
    Inside(Stage),
    /// In the parent, after the child has ended.
    Outside(Ended),
}

/// The child's own view: a folder for its environment, and a disk that obeys.
pub struct Stage {
    pub folder: PathBuf,
    control: PathBuf,
}

/// What the disk can be told to do; see `failio.c`.
#[derive(Clone, Copy)]
pub enum Disk {
    FailMeta,
    FailFlush,
    FailData,
    HoldFlush,
}

impl Disk {
    fn file(self) -> &'static str {
        match self {
            Self::FailMeta => "fail-meta",
            Self::FailFlush => "fail-flush",
            Self::FailData => "fail-data",
            Self::HoldFlush => "hold-flush",
        }
    }
}

impl Stage {
    pub fn tell(&self, what: Disk) {
        File::create(self.control.join(what.file())).unwrap();
    }

    pub fn heal(&self, what: Disk) {
        fs::remove_file(self.control.join(what.file())).unwrap();
    }

    /// Tells the disk from a thread that cannot have the stage.
    pub fn teller(&self, what: Disk) -> impl Fn() + Send + Sync + 'static {
        let file = self.control.join(what.file());
        move || drop(File::create(&file).unwrap())
    }

    pub fn is_held(&self) -> bool {
        self.control.join("held").exists()
    }

    pub fn until_held(&self) {
        until("a flush is held", || self.is_held());
    }
}

/// How the child ended. Its folder is still there.
pub struct Ended {
    pub status: ExitStatus,
    pub output: String,
    dir: TempDir,
}

impl Ended {
    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("env")
    }
}

/// Plays the test `name` (as `module::function`) on a stage; `None` in the parent, once the child has passed.
pub fn on_stage(name: &str) -> Option<Stage> {
    match side(name) {
        Side::Inside(stage) => Some(stage),
        Side::Outside(ended) => {
            assert!(
                ended.status.success() && ended.output.contains("1 passed"),
                "{name} on its stage: {}\n{}",
                ended.status,
                ended.output
            );
            None
        }
    }
}

/// As [`on_stage`], for a child that need not end well.
pub fn side(name: &str) -> Side {
    if let Some(folder) = role(name) {
        let control = std::env::var_os(CONTROL).unwrap();
        return Side::Inside(Stage {
            folder,
            control: control.into(),
        });
    }
    let dir = folder();
    let control = dir.path().join("control");
    fs::create_dir(&control).unwrap();
    let mut child = program(name, &dir.path().join("env"));
    child.env("LD_PRELOAD", library()).env(CONTROL, &control);
    let (status, output) = run(child, dir.path());
    Side::Outside(Ended {
        status,
        output,
        dir,
    })
}

/// The folder that the calling process was given, if it was started as `name`.
pub fn role(name: &str) -> Option<PathBuf> {
    if std::env::var_os(ROLE).as_deref() != Some(OsStr::new(name)) {
        return None;
    }
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// This program, to be started as the test `name`.
pub fn program(name: &str, folder: &Path) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    as_test(&mut child, name, folder);
    child
}

/// Has a command that ends with this program's path start it as the test `name`.
pub fn as_test(command: &mut Command, name: &str, folder: &Path) {
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ROLE, name)
        .env(FOLDER, folder)
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::null());
}

/// Runs a child to its end, which comes within a minute.
pub fn run(mut child: Command, dir: &Path) -> (ExitStatus, String) {
    let file = tempfile::Builder::new()
        .prefix("output")
        .tempfile_in(dir)
        .unwrap();
    let mut child = child
        .stdout(file.reopen().unwrap())
        .stderr(file.reopen().unwrap())
        .spawn()
        .unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            let output = fs::read_to_string(file.path()).unwrap_or_default();
            panic!("the child hangs:\n{output}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let output = fs::read(file.path()).unwrap();
    (status, String::from_utf8_lossy(&output).into_owned())
}

fn library() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = LIBRARY.get_or_init(|| {
        let dir = folder();
        let library = dir.path().join("libfailio.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/failure/failio.c");
        let status = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", source, "-o"])
            .arg(&library)
            .arg("-ldl")
            .status()
            .expect("cc has to build the library that lets writes fail");
        assert!(status.success(), "cc: {status}");
        (dir, library)
    });
    library
}

/// What another process finds with nothing but heed.
pub fn read_elsewhere(folder: &Path) -> BTreeMap<u64, u64> {
    let dir = crate::support::folder();
    let (status, output) = run(program(READER, folder), dir.path());
    assert!(status.success(), "{READER}: {status}\n{output}");
    output
        .lines()
        .filter_map(|line| {
            let (key, value) = line.strip_prefix("entry ")?.split_once(' ')?;
            Some((key.parse().unwrap(), value.parse().unwrap()))
        })
        .collect()
}

/// Has another process put one number with nothing but heed.
pub fn write_elsewhere(folder: &Path, key: u64, value: u64) {
    let dir = crate::support::folder();
    let mut child = program(WRITER, folder);
    child.env("KEY", key.to_string());
    child.env("VALUE", value.to_string());
    let (status, output) = run(child, dir.path());
    assert!(status.success(), "{WRITER}: {status}\n{output}");
}

const READER: &str = "stage::role_of_a_reader_with_plain_heed";
const WRITER: &str = "stage::role_of_a_writer_with_plain_heed";

mod plain {
    use super::*;
    use lockkeeper::heed::byteorder::BigEndian;
    use lockkeeper::heed::types::U64;
    use lockkeeper::heed::{CommitOrAbort, Database, Env, EnvOpenOptions};

    type Numbers = Database<'static, U64<BigEndian>, U64<BigEndian>>;

    #[expect(unsafe_code, reason = "heed opens environments no other way")]
    pub fn open(folder: &Path) -> (Env, Numbers) {
        let mut options = EnvOpenOptions::new();
        options.max_dbs(4);
        // SAFETY: the file is on a local disk and changed through LMDB alone.
        let env = unsafe { options.open(folder) }.unwrap();
        let txn = env.read_txn().unwrap();
        let numbers = env
            .open_databases_and_commit(txn, |opener, txn| {
                let numbers = opener.open_database(txn, Some(NUMBERS))?;
                Ok::<_, lockkeeper::heed::Error>(CommitOrAbort::<_, ()>::Commit(numbers))
            })
            .unwrap()
            .unwrap_commit()
            .expect("the database is there");
        (env, numbers)
    }
}

#[test]
fn role_of_a_reader_with_plain_heed() {
    let Some(folder) = role(READER) else { return };
    let (env, numbers) = plain::open(&folder);
    let txn = env.read_txn().unwrap();
    for entry in numbers.iter(&txn).unwrap() {
        let (key, value) = entry.unwrap();
        println!("\nentry {key} {value}");
    }
}

#[test]
fn role_of_a_writer_with_plain_heed() {
    let Some(folder) = role(WRITER) else { return };
    let number = |name| std::env::var(name).unwrap().parse().unwrap();
    let (env, numbers) = plain::open(&folder);
    let mut txn = env.write_txn().unwrap();
    numbers
        .put(&mut txn, &number("KEY"), &number("VALUE"))
        .unwrap();
    txn.commit().unwrap();
}
