//! The bank example as a program: its load and summary, its options, and how it ends.

mod bank_support;

#[path = "../examples/bank/summary.rs"]
#[expect(dead_code, reason = "only the arithmetic is tested here")]
mod summary;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bank_support::{Bank, Clients, Connection, audit, bank, data, example, run};
use rustix::process::Signal;
use serde_json::Value;

const KEYS: [&str; 13] = [
    "transfers",
    "committed",
    "refused",
    "retries",
    "deadlocks",
    "batches",
    "map_resizes",
    "total_before",
    "total_after",
    "seconds",
    "per_second",
    "p50_ms",
    "p99_ms",
];

/// For loads of thousands of transfers, none of which is to wait for a slow disk.
const UNFLUSHED: [&str; 2] = ["--durability", "no-sync"];

/// Runs the bank once with `--json`, and gives the one line that it prints.
fn once(arguments: &[&str]) -> Value {
    let output = run(bank(&["--once", "--json"]).args(arguments));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let (line, rest) = stdout.split_once('\n').expect("there is a line");
    assert_eq!(rest, "", "one line, and nothing else");
    serde_json::from_str(line).expect("the line is JSON")
}

#[test]
fn once_prints_a_summary_that_adds_up() {
    // So many that the map of 1 MiB cannot hold them.
    let [durability, no_sync] = UNFLUSHED;
    let summary = once(&[
        durability,
        no_sync,
        "--transfers",
        "6000",
        "--accounts",
        "20",
        "--connections",
        "16",
    ]);
    let keys: BTreeSet<_> = summary
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(keys, BTreeSet::from(KEYS));

    let number = |key: &str| {
        summary[key]
            .as_f64()
            .unwrap_or_else(|| panic!("{key}: {summary}"))
    };
    assert_eq!(number("transfers"), 6000.0);
    assert_eq!(number("committed") + number("refused"), 6000.0);
    assert!(number("committed") > 0.0);
    assert_eq!(summary["total_before"], 20 * 100_000);
    assert_eq!(summary["total_after"], summary["total_before"]);
    assert!(number("map_resizes") >= 1.0, "{summary}");
    assert!(
        number("batches") >= 1.0 && number("batches") <= 6000.0 + number("retries"),
        "{summary}"
    );
    assert!(
        number("p50_ms") > 0.0 && number("p50_ms") <= number("p99_ms"),
        "{summary}"
    );
    let rate = 6000.0 / number("seconds");
    assert!(
        (number("per_second") - rate).abs() < rate * 0.01,
        "{summary}"
    );
}

/// Transfers take their locks as they come, so among few accounts deadlocks are certain; no client sees one.
#[test]
fn deadlocks_are_broken_and_retried_out_of_the_clients_sight() {
    let [durability, no_sync] = UNFLUSHED;
    let summary = once(&[
        durability,
        no_sync,
        "--transfers",
        "4000",
        "--accounts",
        "3",
        "--connections",
        "32",
    ]);
    let number = |key: &str| summary[key].as_u64().unwrap();
    assert!(number("deadlocks") > 0, "{summary}");
    assert!(number("retries") >= number("deadlocks"), "{summary}");
    assert_eq!(number("committed") + number("refused"), 4000, "{summary}");
    assert_eq!(summary["total_after"], summary["total_before"]);
}

#[test]
fn without_json_a_person_can_read_the_summary_and_the_folder_is_removed() {
    let temporary = tempfile::tempdir().unwrap();
    let [durability, no_sync] = UNFLUSHED;
    let mut command = bank(&[
        durability,
        no_sync,
        "--once",
        "--transfers",
        "1500",
        "--accounts",
        "5",
        "--connections",
        "3",
    ]);
    let output = run(command.env("TMPDIR", temporary.path()));
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("1,500 transfers between 5 accounts over 3 connections in "),
        "{text}"
    );
    for word in [
        "committed",
        "refused",
        "retries",
        "deadlocks",
        "mean",
        "1 MiB",
        "p50",
        "p99",
        "5,000.00",
    ] {
        assert!(text.contains(word), "{word} is missing:\n{text}");
    }
    // No progress bar where there is no terminal.
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.lines().count() == 2 && stderr.ends_with("stopped\n"),
        "{stderr}"
    );
    assert_eq!(
        std::fs::read_dir(temporary.path()).unwrap().count(),
        0,
        "the folder is left behind"
    );
}

#[test]
fn a_load_of_nothing_is_a_load() {
    let summary = once(&["--transfers", "0", "--accounts", "2", "--connections", "1"]);
    assert_eq!(summary["transfers"], 0);
    assert_eq!(summary["per_second"], 0.0);
    assert_eq!(summary["p50_ms"], Value::Null);
    assert_eq!(summary["total_after"], 200_000);
}

#[test]
fn a_second_run_continues_from_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let [data, path] = data(folder.path());
    let first = once(&[
        data,
        path,
        "--transfers",
        "300",
        "--accounts",
        "10",
        "--connections",
        "4",
    ]);
    let audited = audit(folder.path());
    assert_eq!(audited.accounts, 10);
    assert_eq!(audited.total, first["total_after"]);
    assert_eq!(audited.transfers, first["committed"]);

    // Two more accounts, which alone are opened.
    let second = once(&[
        data,
        path,
        "--transfers",
        "300",
        "--accounts",
        "12",
        "--connections",
        "4",
    ]);
    assert_eq!(second["total_before"], 12 * 100_000);
    assert_eq!(second["total_after"], second["total_before"]);
    let audited = audit(folder.path());
    assert_eq!(audited.accounts, 12);
    let committed = |summary: &Value| summary["committed"].as_u64().unwrap();
    assert_eq!(audited.transfers, committed(&first) + committed(&second));

    // And what it did can be asked for.
    let bank = Bank::serve(folder.path());
    let journal = bank.connect().get("/accounts/1/journal?limit=1000");
    assert!(!journal.body["entries"].as_array().unwrap().is_empty());
}

/// The web server goes first: nobody who is answered is told that the keeper is gone.
#[test]
fn ctrl_c_under_load_stops_in_order() {
    for signal in [Signal::INT, Signal::TERM] {
        let folder = tempfile::tempdir().unwrap();
        let bank = Bank::serve(folder.path());
        let mut connection = bank.connect();
        connection.open_accounts(1..=10, 100_000);
        let clients = Clients::start(&bank, 4, 10, &Arc::new(AtomicU64::new(1)));
        let mut answered: BTreeSet<u64> = clients.next(50).into_iter().collect();
        bank.send_signal(signal);
        let address = bank.address();
        // Fails if anything but a transfer or want of money was answered.
        answered.extend(clients.finish());
        let (status, stderr) = bank.wait();
        assert!(status.success(), "{status}: {stderr}");
        assert!(stderr.ends_with("stopped\n"), "{stderr}");
        assert!(Connection::open(address).is_err(), "it still listens");

        let audit = audit(folder.path());
        assert_eq!(audit.total, 10 * 100_000);
        let found: BTreeSet<u64> = audit.refs.into_iter().collect();
        assert!(answered.is_subset(&found));
    }
}

#[test]
fn after_the_load_it_serves_until_ctrl_c() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = bank(&[
        "--transfers",
        "100",
        "--accounts",
        "4",
        "--connections",
        "2",
    ]);
    let bank = Bank::spawn(command.env("TMPDIR", temporary.path()));
    bank.wait_for("serving http://");
    // The connection that is kept open does not keep the bank from ending.
    let mut connection = bank.connect();
    assert_eq!(connection.get("/total").body["total"], 400_000);
    let stderr = bank.interrupt();
    assert!(stderr.ends_with("stopped\n"), "{stderr}");
    assert_eq!(
        std::fs::read_dir(temporary.path()).unwrap().count(),
        0,
        "the folder is left behind"
    );
}

#[test]
fn a_load_that_is_cut_short_ends_in_order_and_says_so() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = bank(&["--once", "--transfers", "100000000"]);
    let bank = Bank::spawn(command.env("TMPDIR", temporary.path()));
    bank.send_signal(Signal::INT);
    let (status, stderr) = bank.wait();
    assert_eq!(status.code(), Some(130), "{stderr}");
    assert!(
        stderr.contains("interrupted") && stderr.ends_with("stopped\n"),
        "{stderr}"
    );
    assert_eq!(
        std::fs::read_dir(temporary.path()).unwrap().count(),
        0,
        "the folder is left behind"
    );
}

#[test]
fn a_port_in_use_is_a_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Command::new(example("bank"));
    let output = run(command
        .args(["--once", "--listen", &address])
        .env("TMPDIR", temporary.path()));
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.starts_with(&format!("bank: cannot listen on {address}: ")),
        "{stderr}"
    );
    assert!(
        stderr.contains("in use") && stderr.lines().count() == 1,
        "{stderr}"
    );
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_cannot_be_one_is_a_clear_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = run(bank(&["--no-load"]).args(data(file.path())));
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.starts_with("bank: cannot open ") && stderr.contains(data(file.path())[1]),
        "{stderr}"
    );
}

#[test]
fn a_load_that_cannot_be_checked_fails() {
    let folder = tempfile::tempdir().unwrap();
    let bank_process = Bank::serve(folder.path());
    bank_process.connect().open_accounts([1], u64::MAX);
    bank_process.interrupt();

    let output = run(bank(&["--once", "--accounts", "2"]).args(data(folder.path())));
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("the load failed: GET /total: 409"),
        "{stderr}"
    );
    assert!(stderr.ends_with("stopped\n"), "{stderr}");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let wrong: [&[&str]; 6] = [
        &["--accounts", "1"],
        &["--connections", "0"],
        &["--transfers", "-1"],
        &["--once", "--no-load"],
        &["--durability", "none"],
        &["--listen", "nowhere"],
    ];
    for arguments in wrong {
        let mut command = Command::new(example("bank"));
        let output = run(command.args(arguments));
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn each_durability_serves() {
    for durability in ["full", "no-meta-sync", "no-sync"] {
        let summary = once(&[
            "--durability",
            durability,
            "--transfers",
            "200",
            "--accounts",
            "5",
            "--connections",
            "8",
        ]);
        assert_eq!(summary["total_after"], 500_000, "{durability}");
    }
}

#[test]
fn percentiles_are_the_nearest_rank() {
    let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
    let ms = |percent| summary::percentile(&times, percent).unwrap().as_millis();
    assert_eq!((ms(50), ms(99), ms(100), ms(1)), (100, 198, 200, 2));
    let one = [Duration::from_millis(3)];
    assert_eq!(summary::percentile(&one, 50), Some(one[0]));
    assert_eq!(summary::percentile(&one, 99), Some(one[0]));
    assert_eq!(summary::percentile(&[], 50), None);
}
