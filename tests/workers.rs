//! The example `workers` as a process: whatever is done to it, every line of the file is applied exactly once.
//!
//! The example looks at each line itself, and its exit code says what it found; here is tried what may go wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(300);

fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let binary = profile.join("examples").join(name);
    let missing = format!("{}: `cargo build --example {name}`", binary.display());
    assert!(binary.is_file(), "{missing}");
    binary
}

/// An import that runs. It is killed when dropped.
struct Import {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: BufReader<std::process::ChildStderr>,
    said: String,
}

impl Import {
    fn start(data: &Path, options: &[&str]) -> Self {
        let mut child = Command::new(example("workers"))
            .arg("--json")
            .arg("--data")
            .arg(data)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the example runs");
        let mut stdout = child.stdout.take().unwrap();
        let stdout = thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).unwrap();
            text
        });
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self {
            child,
            stdout: Some(stdout),
            stderr,
            said: String::new(),
        }
    }

    /// Waits until it imports; answers how many lines had been imported before, if it ends well so far.
    fn imports(&mut self) -> u64 {
        let mut before = 0;
        loop {
            let mut line = String::new();
            let len = self.stderr.read_line(&mut line).unwrap();
            assert!(len > 0, "it does not import: {}", self.said);
            self.said.push_str(&line);
            if let Some((lines, _)) = line.split_once(" lines were imported before") {
                before = lines.parse().unwrap();
            }
            if line.starts_with("importing ") {
                return before;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end: its status, its summary if it gave one, and what it said.
    fn ends(mut self) -> (ExitStatus, Option<Value>, String) {
        let begun = Instant::now();
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(5));
        };
        let stdout = self.stdout.take().unwrap().join().unwrap();
        let said = std::mem::take(&mut self.said) + &rest;
        (status, serde_json::from_str(&stdout).ok(), said)
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        // Both fail when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn is_whole(ended: (ExitStatus, Option<Value>, String), lines: u64) -> Value {
    let (status, summary, said) = ended;
    assert!(status.success(), "{status}: {said} {summary:?}");
    let summary = summary.unwrap();
    for (field, expected) in [
        ("lines", lines),
        ("once", lines),
        ("never", 0),
        ("more_than_once", 0),
        ("unknown", 0),
        ("wrong_balances", 0),
        ("total", 0),
    ] {
        assert_eq!(summary[field], expected, "{field}: {summary}");
    }
    summary
}

#[test]
fn each_of_a_million_lines_is_applied_once_while_workers_panic_before_and_after_their_commits() {
    let folder = tempfile::tempdir().unwrap();
    let import = Import::start(folder.path(), &["--kill-every", "10", "--workers", "8"]);
    let summary = is_whole(import.ends(), 1_000_000);
    assert_eq!(summary["jobs"], 1000);
    // A hundred are expected, and fewer than 30 come once in 10^15 runs.
    let panics = summary["panics"].as_u64().unwrap();
    assert!(panics >= 30, "{summary}");
    assert_eq!(summary["restarts"], panics, "{summary}");
}

/// Killed at one moment after another until it was in the middle; what was applied is not applied again.
#[test]
fn an_import_that_is_killed_goes_on_where_it_was() {
    const LINES: u64 = 60_000;
    let options = [
        "--lines",
        "60000",
        "--lines-per-job",
        "200",
        "--kill-every",
        "10",
    ];
    for signal in [Signal::KILL, Signal::INT] {
        let mut after = Duration::from_millis(20);
        loop {
            let folder = tempfile::tempdir().unwrap();
            let mut import = Import::start(folder.path(), &options);
            import.imports();
            thread::sleep(after);
            import.signal(signal);
            let (status, _, said) = import.ends();
            if status.success() {
                // Too late: it was done.
                after /= 2;
                continue;
            }
            let expected = (signal == Signal::INT).then_some(130);
            assert_eq!(status.code(), expected, "{said}");
            let mut import = Import::start(folder.path(), &options);
            let before = import.imports();
            let summary = is_whole(import.ends(), LINES);
            assert_eq!(summary["before"], before);
            if before > 0 {
                assert!(before < LINES && before.is_multiple_of(200), "{before}");
                break;
            }
            // Too early: it had hardly begun.
            after *= 3;
        }
    }
}

#[test]
fn an_import_that_is_done_finds_that_each_line_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let options = [
        "--lines",
        "950",
        "--lines-per-job",
        "100",
        "--kill-every",
        "3",
    ];
    is_whole(Import::start(folder.path(), &options).ends(), 950);
    let again = is_whole(Import::start(folder.path(), &options).ends(), 950);
    assert_eq!(
        (&again["before"], &again["jobs"]),
        (&950.into(), &10.into())
    );
    // The keys stand for line numbers: other jobs would apply lines twice.
    let others = ["--lines", "950", "--lines-per-job", "99"];
    let (status, _, said) = Import::start(folder.path(), &others).ends();
    assert_eq!(status.code(), Some(1));
    assert!(
        said.contains("jobs of 100, and not 950 in jobs of 99"),
        "{said}"
    );
}

#[test]
fn a_line_that_is_no_transfer_is_named_and_another_file_is_not_mixed_in() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("a.csv"));
    let options = ["--lines-per-job", "2", "--file", file.to_str().unwrap()];
    std::fs::write(&file, "from,to,amount\n1,2,300\n2,1,100\n1,3,x\n").unwrap();
    let (status, _, said) = Import::start(&data, &options).ends();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(r#"line 3 is no transfer: "1,3,x""#), "{said}");
    // Mended, it goes on; a last line needs no end.
    std::fs::write(&file, "from,to,amount\n1,2,300\n2,1,100\n1,3,5").unwrap();
    is_whole(Import::start(&data, &options).ends(), 3);
    // Other lines under the same numbers are refused.
    std::fs::write(&file, "from,to,amount\n1,2,301\n2,1,100\n1,3,5\n").unwrap();
    let (status, _, said) = Import::start(&data, &options).ends();
    assert_eq!(status.code(), Some(1), "{said}");
}

/// The import as somebody sees it who asks for no JSON; nothing of the environment says whether it is a terminal.
fn import(data: &Path, options: &[&str]) -> Command {
    let mut import = Command::new(example("workers"));
    import.arg("--data").arg(data).args(options);
    import.env("TERM", "xterm").env_remove("CI");
    import
}

/// Runs it on a terminal; what stands there at the end, with all that was overwritten.
fn on_a_terminal(mut import: Command) -> String {
    let mut terminal = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap());
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let path = ptsname(&terminal, Vec::new()).unwrap();
    let end = File::options()
        .read(true)
        .write(true)
        .open(path.to_str().unwrap())
        .unwrap();
    let (out, err) = (end.try_clone().unwrap(), end);
    let child = import.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
    // Its ends of the terminal are closed with it.
    drop(import);
    let mut child = child.unwrap();
    let mut text = Vec::new();
    // An error says that nobody is at the other end any more.
    let _ = terminal.read_to_end(&mut text);
    assert!(child.wait().unwrap().success());
    String::from_utf8(text).unwrap()
}

/// The states of the progress bar in a text: lines, and lines a second.
fn progress(text: &str, lines: &str) -> Vec<(u64, f64)> {
    let number = |text: &str| text.replace(',', "");
    let mut seen = Vec::new();
    for (at, _) in text.match_indices(&format!("/{lines} lines ")) {
        let done = text[..at].rsplit(' ').next().unwrap();
        let rate = text[at..].split(' ').nth(2).unwrap();
        let rate = rate.strip_suffix("/s").unwrap_or_else(|| panic!("{rate}"));
        seen.push((number(done).parse().unwrap(), number(rate).parse().unwrap()));
    }
    seen
}

#[test]
fn on_a_terminal_a_bar_shows_how_far_it_is_and_how_fast_and_makes_room_for_the_summary() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--lines", "60000", "--lines-per-job", "200"];
    let text = on_a_terminal(import(folder.path(), &options));
    let seen = progress(&text, "60,000");
    assert!(seen.len() >= 2, "{text:?}");
    assert!(seen.is_sorted_by_key(|(done, _)| *done), "{seen:?}");
    let in_the_middle = |(done, rate): &(u64, f64)| (1..60_000).contains(done) && *rate > 0.0;
    assert!(seen.iter().any(in_the_middle), "{seen:?}");
    // The line is cleared, and what follows stands alone.
    let (_, summary) = text.rsplit_once("\u{1b}[2K").unwrap();
    assert!(summary.contains("60000 lines in 300 jobs"), "{summary:?}");
    assert!(summary.contains("every line was applied exactly once"));

    // Whoever wants JSON, or runs it unattended, wants no bar.
    let done = import(folder.path(), &options);
    let (mut json, mut unattended) = (import(folder.path(), &options), done);
    json.arg("--json");
    unattended.env("CI", "1");
    for quiet in [json, unattended] {
        let text = on_a_terminal(quiet);
        assert!(progress(&text, "60,000").is_empty(), "{text:?}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}

/// What the first line of a summary says: lines, jobs, seconds, lines a second.
fn rate(summary: &str) -> (u64, u64, f64, f64) {
    let words: Vec<_> = summary.lines().next().unwrap().split(' ').collect();
    let [
        lines,
        "lines",
        "in",
        jobs,
        "jobs",
        "in",
        seconds,
        "s,",
        rate,
        "a",
        "second",
    ] = words[..]
    else {
        panic!("{words:?}");
    };
    let whole = |word: &str| word.parse().unwrap();
    (
        whole(lines),
        whole(jobs),
        seconds.parse().unwrap(),
        rate.parse().unwrap(),
    )
}

#[test]
fn in_a_pipe_there_is_the_summary_with_the_true_rate_and_nothing_that_only_a_terminal_understands()
{
    let folder = tempfile::tempdir().unwrap();
    let options = ["--lines", "20000", "--kill-every", "5"];
    let piped = || import(folder.path(), &options).output().unwrap();
    let output = piped();
    let said = String::from_utf8(output.stderr).unwrap();
    let summary = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{summary}");
    let (lines, jobs, seconds, per_second) = rate(&summary);
    assert_eq!((lines, jobs), (20_000, 20));
    // It is rounded to a hundredth.
    let (least, most) = (20_000.0 / (seconds + 0.005), 20_000.0 / (seconds - 0.005));
    assert!(
        (least - 1.0..=most + 1.0).contains(&per_second),
        "{summary}"
    );
    assert!(
        summary.ends_with("every line was applied exactly once\n"),
        "{summary}"
    );
    let is_plain = |text: &str| !text.contains(['\r', '\u{1b}']);
    assert!(
        is_plain(&said) && is_plain(&summary),
        "{said:?} {summary:?}"
    );
    assert!(said.starts_with("importing 20000 lines of "), "{said}");
    assert!(!said.contains("panicked"), "{said}");

    // What an earlier run has imported counts for none.
    let again = String::from_utf8(piped().stdout).unwrap();
    let (lines, jobs, _, per_second) = rate(&again);
    assert_eq!((lines, jobs, per_second), (0, 20, 0.0), "{again}");
}
