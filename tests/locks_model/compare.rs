//! What has to agree after a call.

use super::core::Seen;
use super::pair::Pair;
use super::universe::UNIVERSE;
use super::words::{Event, Slot};

/// What differs.
#[derive(Debug)]
pub struct Difference(pub String);

macro_rules! same {
    ($what:expr, $core:expr, $model:expr) => {
        let (core, model) = (&$core, &$model);
        if core != model {
            return Err(Difference(format!(
                "{}: the core has {:?}, the model {:?}",
                $what, core, model
            )));
        }
    };
}
pub(crate) use same;

impl Pair {
    pub fn compare_events(&mut self, seen: &Seen) -> Result<(), Difference> {
        for warning in &seen.warnings {
            same!("a warning", Some(*warning), self.model.warnings.pop_front());
        }
        let expected = &self.model.events;
        let sorted = |events: &[Event]| {
            let mut events = events.to_vec();
            events.sort_unstable();
            events
        };
        if !(seen.events.is_empty() && expected.is_empty()) {
            same!("the effects", sorted(&seen.events), sorted(expected));
        }
        // Who is granted objects that overlap is granted them in the order of rank.
        let grants = |events: &[Event]| -> Vec<u64> {
            let arrival = |event: &Event| match event {
                Event::Granted(arrival) => Some(*arrival),
                _ => None,
            };
            events.iter().filter_map(arrival).collect()
        };
        let (core, model) = (grants(&seen.events), grants(expected));
        if core != model {
            let object = |arrival: u64| usize::from(self.objects[arrival as usize]);
            for (at, first) in model.iter().enumerate() {
                for second in &model[at + 1..] {
                    let place = |arrival| core.iter().position(|other| *other == arrival);
                    if UNIVERSE.overlap[object(*first)][object(*second)]
                        && place(*first) > place(*second)
                    {
                        same!("the order of grants", core, model);
                    }
                }
            }
        }
        Ok(())
    }

    pub fn compare_state(&self, seen: &Seen) -> Result<(), Difference> {
        let model = &self.model;
        let number = |slot: Slot| model.locker(slot).number;
        let mut held: Vec<_> = model
            .held
            .iter()
            .map(|held| (held.object, number(held.locker), held.mode, held.count))
            .collect();
        held.sort_unstable();
        same!("what is held", seen.held, held);
        let mut waiting: Vec<_> = model
            .waiting
            .iter()
            .map(|wait| {
                (
                    wait.object,
                    model.rank(wait),
                    number(wait.locker),
                    wait.mode,
                )
            })
            .collect();
        waiting.sort_unstable();
        let waiting: Vec<_> = waiting
            .into_iter()
            .map(|(object, _, locker, mode)| (object, locker, mode))
            .collect();
        same!("who waits, in order", seen.waiting, waiting);
        let mut lockers: Vec<(u64, bool)> = model
            .lockers
            .iter()
            .flatten()
            .map(|locker| (locker.number, locker.dead.is_some()))
            .collect();
        lockers.sort_unstable();
        same!("who exists, and is dead", seen.lockers, lockers);
        same!("what is in use", seen.used, model.usage());
        same!(
            "the next deadline",
            seen.next_deadline,
            model.next_deadline()
        );
        if model.has_conflicting_locks() {
            return Err(Difference("locks that conflict are held at once".into()));
        }
        if model.config.on_block && !model.knots().is_empty() {
            return Err(Difference("a cycle is left".into()));
        }
        Ok(())
    }

    /// The counters since the beginning, and the deadlocks that are remembered.
    pub fn compare_counters(&self) -> Result<(), Difference> {
        let stats = self.core.table.stats();
        same!("counters", self.tally.with_counters_of(&stats), self.tally);
        let victims: Vec<u64> = self
            .core
            .table
            .history()
            .iter()
            .filter_map(|record| Some(record.conflict.choice?.victim.number()))
            .collect();
        let last = self.core.victims.len().saturating_sub(64);
        same!("deadlocks remembered", victims, &self.core.victims[last..]);
        Ok(())
    }
}
