//! The example `dining`: it ends, breaks its deadlocks, says what they were, and would notice if it went wrong.

mod bank_support;

// The parts that judge, for what must not be brought about from outside.
#[allow(dead_code)]
#[path = "../examples/dining/options.rs"]
mod options;
#[allow(dead_code)]
#[path = "../examples/dining/room.rs"]
mod room;
#[allow(dead_code)]
#[path = "../examples/dining/summary.rs"]
mod summary;

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Parser;
use lockkeeper::LockTable;

use options::Options;
use room::Room;
use summary::Summary;

/// Two who never think nor linger, and take the forks in any order: they deadlock again and again.
const QUARRELSOME: [&str; 6] = ["-n", "2", "--think", "0s", "--eat", "0s"];

/// Runs a dinner that is to go well; its standard output.
#[track_caller]
fn dinner(arguments: &[&str]) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn run(arguments: &[&str]) -> std::process::Output {
    bank_support::run(Command::new(bank_support::example("dining")).args(arguments))
}

/// How often each ate, from the table at the end.
fn meals(output: &str) -> Vec<u64> {
    let rows = between(output, "philosopher    meals", "\n\n")
        .lines()
        .skip(1);
    rows.map(|row| number(row, 1)).collect()
}

/// How many deadlocks were broken, and how many waits timed out.
fn conflicts(output: &str) -> (u64, u64) {
    let line = between(output, " on average\n", "\n");
    (number(line, 0), number(line, 3))
}

fn between<'o>(output: &'o str, before: &str, after: &str) -> &'o str {
    let rest = output.split(before).nth(1);
    let found = rest.and_then(|rest| rest.split(after).next());
    found.unwrap_or_else(|| panic!("{before:?} is not in {output}"))
}

/// The word of this number, which is a number.
fn number(line: &str, word: usize) -> u64 {
    let found = line.split_whitespace().nth(word);
    let number = found.and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("word {word} of {line:?} is no number"))
}

#[test]
fn deadlocks_are_broken_and_the_last_one_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cycle.dot");
    let graphviz = ["--meals", "100", "--graphviz", file.to_str().unwrap()];
    let output = dinner(&[&QUARRELSOME[..], &graphviz].concat());

    assert_eq!(meals(&output), [100, 100]);
    assert!(conflicts(&output).0 > 0, "{output}");
    let report = output.split("the last deadlock:\n").nth(1).unwrap();
    for part in [
        "was chosen to break a cycle of 2",
        "waits to write forks[0000] at examples/dining/philosopher.rs:",
        "waits to write forks[0001] at examples/dining/philosopher.rs:",
        "was chosen as the youngest of the lowest priority among 2",
    ] {
        assert!(report.contains(part), "{part:?} is not in {report}");
    }
    let graph = std::fs::read_to_string(file).unwrap();
    assert!(graph.starts_with("digraph locks {"), "{graph}");
    assert_eq!(graph.matches(" -> ").count(), 2, "{graph}");
}

#[test]
fn forks_taken_in_their_order_never_deadlock() {
    let output = dinner(&["-n", "3", "--meals", "40", "--order", "sorted"]);
    assert_eq!(meals(&output), [40; 3]);
    assert_eq!(conflicts(&output), (0, 0));
    assert!(output.contains("there was no deadlock"), "{output}");
}

#[test]
fn both_forks_can_be_asked_for_in_one_message() {
    let output = dinner(&["--meals", "40", "--order", "both-hands-at-once"]);
    assert_eq!(meals(&output), [40; 5]);
}

#[test]
fn a_periodic_detector_ends_the_dinner_too() {
    let periodic = ["--detect", "periodic", "--interval", "5ms", "--meals", "20"];
    for policy in ["default", "expire", "min-locks", "oldest", "random"] {
        let policy = ["--policy", policy];
        let output = dinner(&[&QUARRELSOME[..], &periodic, &policy].concat());
        assert_eq!(meals(&output), [20, 20]);
        assert!(conflicts(&output).0 > 0, "{output}");
    }
}

#[test]
fn timeouts_alone_end_it_as_well() {
    let timeouts = [
        "--detect",
        "none",
        "--lock-timeout",
        "20ms",
        "--meals",
        "20",
    ];
    let output = dinner(&[&QUARRELSOME[..], &timeouts].concat());
    assert_eq!(meals(&output), [20, 20]);
    let (deadlocks, timeouts) = conflicts(&output);
    assert_eq!(deadlocks, 0);
    assert!(timeouts > 0, "{output}");
}

#[test]
fn a_dinner_that_could_hang_for_ever_does_not_begin() {
    let output = run(&["--detect", "none", "--lock-timeout", "0s"]);
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("would last for ever"), "{errors}");
}

#[test]
fn a_fork_in_two_hands_and_who_starved_are_noticed() {
    actix::System::new().block_on(async {
        let options = Options::parse_from(["dining", "-n", "3"]);
        let (table, locks) = LockTable::start_alone(options.lock_config()).unwrap();
        let room = Room::new(options, table, locks);
        for (seat, meals) in room.seats.iter().zip([100, 90, 6]) {
            seat.meals.store(meals, Ordering::Relaxed);
        }
        let complaints = || Summary::of(&room, Duration::from_secs(1)).complaints();
        assert_eq!(complaints(), ["1 of 3 starved"]);
        room.seats[2].meals.store(7, Ordering::Relaxed);
        room.hands().pick_up(1, 0);
        room.hands().put_down(1, 0);
        assert_eq!(complaints(), [""; 0]);
        room.hands().pick_up(1, 0);
        room.hands().pick_up(1, 1);
        assert_eq!(complaints(), ["a fork was in two hands, 1 times"]);
        let _forgotten = room.locks.locker(Default::default()).unwrap();
        let forgotten = "0 locks and 1 lockers were left behind";
        assert_eq!(complaints()[1], forgotten);
    });
}
