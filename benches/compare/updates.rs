//! The update benches: which systems, how many callers, and what is compared with what.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::Session;
use crate::load::{Driven, Load, Subject};
use crate::ours;
use crate::peers::by_hand::{self, ByHand};
use crate::peers::group::{Entry, Group};
use crate::peers::redb::Redb;
use crate::peers::sqlite::Sqlite;
use crate::report::Row;
use crate::rounds::Rounds;
use crate::work::{Failure, Safety};

const ALL: &[&str] = &[
    "lockkeeper",
    "lockkeeper-message",
    "heed",
    "group",
    "group-late",
    "redb",
    "sqlite",
];

/// The systems opened so far. They stay open over all rounds and benches.
#[derive(Default)]
pub struct Fleet(Vec<(Safety, Box<dyn Subject>)>);

impl Fleet {
    fn find(&self, safety: Safety, name: &str) -> Option<&dyn Subject> {
        self.0
            .iter()
            .find(|(s, subject)| *s == safety && subject.name() == name)
            .map(|(_, subject)| subject.as_ref())
    }
}

/// One system in a comparison; `errors_percent` tells two uses of one system apart.
struct Contender<'a> {
    subject: &'a dyn Subject,
    errors_percent: u64,
}

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    let flushed = ["lockkeeper", "heed", "group", "group-late"];
    if session.options.under_slow_flush {
        let bench = session.options.flush_bench();
        return throughput(session, &bench, Safety::Durable, &[8, 64], &flushed);
    }
    throughput(
        session,
        "update-durable",
        Safety::Durable,
        &[1, 8, 64, 256],
        ALL,
    )?;
    throughput(
        session,
        "update-nosync",
        Safety::NoSync,
        &[1, 8, 64, 256],
        ALL,
    )?;
    errors(session, "update-errors-1", 1)?;
    errors(session, "update-errors-30", 30)?;
    message_vs_method(session)
}

fn throughput(
    session: &mut Session,
    bench: &str,
    safety: Safety,
    clients: &[usize],
    systems: &[&str],
) -> Result<(), Failure> {
    if !session.options.wants(bench) {
        return Ok(());
    }
    launch(session, safety, systems)?;
    for callers in session.options.clients(clients) {
        let contenders: Vec<_> = contenders(session, safety, systems, &[0]);
        let rounds = take_turns(session, &contenders, callers)?;
        let rows = rows(bench, callers, &contenders, &rounds);
        session.report.show(&rows)?;
    }
    Ok(())
}

/// Each system against itself without errors, in the same rounds. The value counts every answered
/// body, failed ones too.
fn errors(session: &mut Session, bench: &str, percent: u64) -> Result<(), Failure> {
    if !session.options.wants(bench) {
        return Ok(());
    }
    // Not `group`, which cannot undo one body; the others only if asked for by name.
    let systems: &[&str] = if session.options.systems.is_empty() {
        &["lockkeeper", "heed"]
    } else {
        &["lockkeeper", "lockkeeper-message", "heed", "redb", "sqlite"]
    };
    launch(session, Safety::Durable, systems)?;
    for callers in session.options.clients(&[64]) {
        let contenders = contenders(session, Safety::Durable, systems, &[0, percent]);
        let rounds = take_turns(session, &contenders, callers)?;
        let mut rows = rows(bench, callers, &contenders, &rounds);
        // Contenders come in pairs, the one without errors first.
        for at in (0..contenders.len()).step_by(2) {
            let own = rounds.ratio(at + 1, at);
            rows[at + 1]
                .more
                .extend(own.map(|r| ("ratio_to_no_errors", r)));
        }
        let mut failing = (0..rows.len()).map(|at| at % 2 == 1);
        rows.retain(|_| failing.next().unwrap_or(false));
        session.report.show(&rows)?;
    }
    Ok(())
}

fn message_vs_method(session: &mut Session) -> Result<(), Failure> {
    let bench = "message-vs-method";
    let systems = ["lockkeeper", "lockkeeper-message"];
    if !session.options.wants(bench) {
        return Ok(());
    }
    launch(session, Safety::Durable, &systems)?;
    for callers in session.options.clients(&[64]) {
        let contenders = contenders(session, Safety::Durable, &systems, &[0]);
        let rounds = take_turns(session, &contenders, callers)?;
        let mut rows = rows(bench, callers, &contenders, &rounds);
        if let [_, message] = rows.as_mut_slice() {
            let ratio = rounds.ratio(1, 0);
            message.more.extend(ratio.map(|r| ("ratio_to_method", r)));
        }
        session.report.show(&rows)?;
    }
    Ok(())
}

/// Opens what is not open yet.
fn launch(session: &mut Session, safety: Safety, systems: &[&str]) -> Result<(), Failure> {
    let keys = session.options.keys;
    for &name in systems {
        if !session.options.includes(name) || session.fleet.find(safety, name).is_some() {
            continue;
        }
        let dir = session.dir.join(format!("{safety:?}-{name}"));
        let count = Arc::new(AtomicU64::new(0));
        let subjects: Vec<Box<dyn Subject>> = match name {
            "heed" => {
                by_hand::fill(&dir, keys)?;
                vec![Box::new(Driven::new(
                    "heed",
                    ByHand::open(&dir, safety)?,
                    count,
                ))]
            }
            "group" => {
                by_hand::fill(&dir, keys)?;
                let group = Group::open(&dir, safety, Entry::First)?;
                vec![Box::new(Driven::new("group", group, count))]
            }
            "group-late" => {
                by_hand::fill(&dir, keys)?;
                let group = Group::open(&dir, safety, Entry::Late)?;
                vec![Box::new(Driven::new("group-late", group, count))]
            }
            "redb" => vec![Box::new(Driven::new(
                "redb",
                Redb::create(&dir, keys, safety)?,
                count,
            ))],
            "sqlite" => vec![Box::new(Driven::new(
                "sqlite",
                Sqlite::create(&dir, keys, safety)?,
                count,
            ))],
            // Both ways into it are opened at once.
            _ if ours::PRESENT => {
                by_hand::fill(&dir, keys)?;
                ours::subjects(&dir, safety)?
            }
            _ => Vec::new(),
        };
        session
            .fleet
            .0
            .extend(subjects.into_iter().map(|subject| (safety, subject)));
    }
    Ok(())
}

fn contenders<'a>(
    session: &'a Session,
    safety: Safety,
    systems: &[&str],
    errors: &[u64],
) -> Vec<Contender<'a>> {
    systems
        .iter()
        .filter(|name| session.options.includes(name))
        .filter_map(|name| session.fleet.find(safety, name))
        .flat_map(|subject| {
            errors.iter().map(move |&errors_percent| Contender {
                subject,
                errors_percent,
            })
        })
        .collect()
}

fn take_turns(
    session: &Session,
    contenders: &[Contender<'_>],
    callers: usize,
) -> Result<Rounds, Failure> {
    let options = &session.options;
    let measure = options.round(Duration::from_millis(500));
    let rounds = Rounds::run(contenders.len(), options.rounds, |at, round| {
        let contender = &contenders[at];
        contender.subject.run(
            &session.runtime,
            Load {
                callers,
                keys: options.keys,
                errors_percent: contender.errors_percent,
                warm_up: measure / 5,
                measure,
                seed: round,
            },
        )
    })?;
    for contender in contenders {
        contender.subject.verify()?;
    }
    Ok(rounds)
}

fn rows(bench: &str, callers: usize, contenders: &[Contender<'_>], rounds: &Rounds) -> Vec<Row> {
    // Against a system doing the same, errors and all.
    let base = |name: &str, like: &Contender<'_>| {
        contenders
            .iter()
            .position(|c| c.subject.name() == name && c.errors_percent == like.errors_percent)
    };
    contenders
        .iter()
        .enumerate()
        .map(|(at, contender)| {
            let name = contender.subject.name();
            let value = rounds.value(at).unwrap_or(0.0);
            let mut row = Row::new(bench, name, callers, value, "updates/s");
            row.ratio_to_heed = base("heed", contender).and_then(|b| rounds.ratio(at, b));
            row.mean_batch = rounds.median_of(at, |round| round.mean_batch);
            row.p50_us = rounds.median_of(at, |round| round.p50_us);
            row.p99_us = rounds.median_of(at, |round| round.p99_us);
            if name != "group" {
                let to_group = base("group", contender).and_then(|b| rounds.ratio(at, b));
                row.more.extend(to_group.map(|r| ("ratio_to_group", r)));
            }
            row
        })
        .collect()
}
