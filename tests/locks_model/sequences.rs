//! Several operations of one locker against the model making the same calls one by one.
//!
//! The model's rule: requests are made in order, and deadlocks are looked for when it stops. All or nothing: what is to be released is released after the last; if one is refused, or
//! nobody wants the answer any more, the references that were taken are given back, the latest first. Up to the first error: each call is made as it stands, and what was done
//! before an error stays done.

mod run;

use lockkeeper::Mode;
use lockkeeper::lock_core::{Moment, Progress, Reason};

use super::compare::{Difference, same};
use super::pair::Pair;
use super::scenes::{self, Dice, Theme};
use super::step::Step;
use super::universe::Obj;
use super::words::{Answer, Slot};
use run::{Act, Run, Stand, own};

const HISTORIES: u64 = 40;
const STEPS: usize = 600;

/// What is wrong with a core's sequences on purpose, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// All or nothing is not undone.
    KeepsWhatFailed,
    /// What is done up to the first error is undone.
    UndoesWhatWasDone,
    /// A release of several locks releases none.
    ForgetsARelease,
    /// A downgrade leaves the mode as it is.
    StaysStrong,
}

fn grants(pair: &Pair) -> usize {
    pair.answers.iter().filter(|(_, granted)| *granted).count()
}

/// How sequences ended.
#[derive(Debug, Default)]
struct Ends {
    done: usize,
    waited: usize,
    denied: usize,
    refused: usize,
    abandoned: usize,
    /// Undone with nothing in between, so that exactly what was before has to be back.
    restored: usize,
    /// Failed, with what was done before left as it was.
    kept: usize,
    /// Locks that were weakened on the way.
    weakened: usize,
    /// Releases of several locks.
    released: usize,
}

struct Story {
    pair: Pair,
    running: Vec<Run>,
    ends: Ends,
    bug: Bug,
}

impl Story {
    fn step(&mut self, step: &Step) -> Result<(), Difference> {
        self.touch();
        self.pair.run(step)?;
        self.go_on()
    }

    fn touch(&mut self) {
        self.running.iter_mut().for_each(|run| run.before = None);
    }

    fn begin(&mut self, dice: &mut Dice) -> Result<(), Difference> {
        let live: Vec<Slot> = self.pair.model.live().collect();
        if live.is_empty() {
            return Ok(());
        }
        let slot = dice.of(&live);
        let own = own(&self.pair.model, slot);
        let acts = (0..2 + dice.below(4)).map(|_| {
            let (object, mode) = (dice.below(6) as Obj, dice.of(&Mode::ALL));
            match (dice.below(20), own.is_empty()) {
                (0..3, false) => {
                    let (object, mode, _) = dice.of(&own);
                    Act::Unlock(object, mode)
                }
                (3..6, false) => {
                    let (object, from, _) = dice.of(&own);
                    Act::Upgrade(object, from, mode)
                }
                (6..9, false) => {
                    let (object, from, _) = dice.of(&own);
                    Act::Downgrade(object, from, mode)
                }
                (9, _) => Act::Unlock(object, mode),
                (10, _) => Act::UnlockObject(object),
                (11, _) => Act::ReleaseReads,
                (12, _) if dice.percent(50) => Act::ReleaseAll,
                _ => Act::Lock(object, mode, !dice.percent(25)),
            }
        });
        let acts: Vec<Act> = acts.collect();
        let all_or_nothing = dice.percent(60);
        let run = Run::new(&self.pair, slot, acts, all_or_nothing, self.bug);
        self.touch();
        self.run(run)?;
        self.go_on()
    }

    /// Both sides go on until the sequence has to wait, or to its end.
    fn run(&mut self, mut run: Run) -> Result<(), Difference> {
        let pair = &mut self.pair;
        let now = Moment(pair.now);
        let core = &mut pair.core;
        let progress = run.sequence.run(&mut core.table, || now, &mut core.effects);
        if let Progress::Waits(wait) = progress {
            let (waits_for, _) = run.sequence.wanted().expect("it waits for something");
            pair.objects.push(core.number_of(waits_for, &mut 0));
            run.wait = Some((wait, core.arrivals));
            core.waits.push((wait, core.arrivals));
            core.arrivals += 1;
        }
        let first = run.next;
        let mut stand = Stand::Done;
        pair.compare(&Step::Withdraw(0), Answer::Done, |model, _, now| {
            model.now = now;
            stand = run.on_model(model);
            Answer::Done
        })?;
        let tally = &mut pair.tally;
        let done = &run.acts[first..run.next];
        tally.grants += done.iter().filter(|act| act.is_request()).count() as u64;
        let weakened = done.iter().filter(|act| matches!(act, Act::Downgrade(..)));
        let weakened = weakened.count();
        tally.downgrades += weakened as u64;
        self.ends.weakened += weakened;
        let several = |act: &&Act| {
            matches!(
                act,
                Act::UnlockObject(_) | Act::ReleaseReads | Act::ReleaseAll
            )
        };
        self.ends.released += done.iter().filter(several).count();
        match stand {
            Stand::Waits => tally.waits += 1,
            Stand::Failed(Answer::NotAvailable) => tally.not_available += 1,
            Stand::Failed(Answer::Limit(..)) => tally.limits_met += 1,
            _ => {}
        }
        same!(
            "it waits",
            progress != Progress::Done,
            stand == Stand::Waits
        );
        match stand {
            Stand::Waits => {
                self.ends.waited += 1;
                self.running.push(run);
                return Ok(());
            }
            Stand::Done => self.ends.done += 1,
            Stand::Failed(_) => {
                self.ends.denied += 1;
                self.ends.kept += usize::from(!run.all_or_nothing && run.next > 0);
                self.is_restored(&run)?;
            }
        }
        self.touch();
        run.compare_outcomes(stand)
    }

    /// Exactly what was held before is held again, if there was no other call in between, and nobody else's grant.
    fn is_restored(&mut self, run: &Run) -> Result<(), Difference> {
        if let Some(before) = &run.before
            && run.all_or_nothing
            && run.grants == grants(&self.pair)
        {
            same!("what is restored", own(&self.pair.model, run.slot), *before);
            self.ends.restored += 1;
        }
        Ok(())
    }

    /// Sequences whose requests have had their answers go on, or are undone.
    fn go_on(&mut self) -> Result<(), Difference> {
        while let Some((at, granted)) = self.next_answered() {
            let mut run = self.running.remove(at);
            run.wait = None;
            match granted {
                Some(true) => {
                    run.sequence.granted();
                    run.granted();
                    run.grants += 1;
                    self.run(run)?;
                }
                Some(false) => {
                    self.ends.refused += 1;
                    self.undo(run, true)?;
                }
                None => {
                    self.ends.abandoned += 1;
                    self.undo(run, false)?;
                }
            }
        }
        Ok(())
    }

    /// A sequence whose request has had its answer, or has been withdrawn.
    fn next_answered(&self) -> Option<(usize, Option<bool>)> {
        self.running.iter().enumerate().find_map(|(at, run)| {
            let wait = run.wait?;
            let answer = self
                .pair
                .answers
                .iter()
                .rev()
                .find(|(arrival, _)| *arrival == wait.1);
            match answer {
                Some((_, granted)) => Some((at, Some(*granted))),
                None => (!self.pair.core.waits.contains(&wait)).then_some((at, None)),
            }
        })
    }

    fn undo(&mut self, mut run: Run, refused: bool) -> Result<(), Difference> {
        let core = &mut self.pair.core;
        match refused {
            true => {
                let (table, effects) = (&mut core.table, &mut core.effects);
                run.sequence.refused(Reason::Ended, table, effects);
            }
            false => run.sequence.abandon(&mut core.table, &mut core.effects),
        }
        self.pair
            .compare(&Step::Withdraw(0), Answer::Done, |model, _, _| {
                if run.all_or_nothing || !refused {
                    run.undo(model);
                }
                Answer::Done
            })?;
        self.is_restored(&run)?;
        self.touch();
        match refused {
            true => run.compare_outcomes(Stand::Failed(Answer::Ended)),
            false => Ok(()),
        }
    }

    /// Nobody wants the latest of those that wait any more.
    fn abandon(&mut self) -> Result<(), Difference> {
        let Some(wait) = self.running.last().and_then(|run| run.wait) else {
            return Ok(());
        };
        let waits = &self.pair.core.waits;
        let back = waits.iter().rev().position(|other| *other == wait);
        let back = back.expect("it waits") as u8;
        self.pair.run(&Step::Withdraw(back))?;
        self.go_on()
    }
}

fn history(theme: Theme, seed: u64, bug: Bug, ends: &mut Ends) -> Result<(), Difference> {
    let mut story = Story {
        pair: Pair::new(scenes::config(theme, seed)),
        running: Vec::new(),
        ends: std::mem::take(ends),
        bug,
    };
    let numbers: Vec<u64> = (0..STEPS as u64).map(|at| (seed << 32) + at).collect();
    let mut dice = Dice::new(seed);
    for step in scenes::history(theme, &numbers, STEPS) {
        if dice.percent(30) {
            story.begin(&mut dice)?;
            if dice.percent(30) {
                story.abandon()?;
            }
        }
        story.step(&step)?;
    }
    while !story.running.is_empty() {
        story.abandon()?;
    }
    *ends = std::mem::take(&mut story.ends);
    story.pair.finish()
}

#[test]
fn i05_i06_i12_sequences_that_are_refused_or_abandoned_are_undone_as_the_model_says() {
    for theme in [Theme::Hot, Theme::Families, Theme::Ranges] {
        let mut ends = Ends::default();
        for seed in 0..HISTORIES {
            if let Err(difference) = history(theme, seed, Bug::None, &mut ends) {
                panic!("{theme:?}, seed {seed}: {}", difference.0);
            }
        }
        println!("{theme:?}: {ends:?}");
        let Ends {
            done,
            waited,
            denied,
            refused,
            abandoned,
            restored,
            kept,
            weakened,
            released,
        } = ends;
        let each = [
            done, waited, denied, refused, abandoned, restored, kept, weakened, released,
        ];
        assert!(each.iter().all(|count| *count > 100), "{theme:?}: {each:?}");
    }
}

#[test]
fn every_fault_planted_in_sequences_is_found() {
    for bug in [
        Bug::KeepsWhatFailed,
        Bug::UndoesWhatWasDone,
        Bug::ForgetsARelease,
        Bug::StaysStrong,
    ] {
        let outcome = |seed| history(Theme::Hot, seed, bug, &mut Ends::default());
        let found = (0..10).filter(|seed| outcome(*seed).is_err()).count();
        assert_eq!(found, 10, "{bug:?}");
    }
}
