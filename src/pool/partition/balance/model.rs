//! Several processes with a balancer each, and a store with a clock, in one deterministic run. Every call of the store takes a while
//! and happens somewhere in between; processes are killed, stopped and frozen, and the store is away for a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::sight::{Live, Sight};
use super::*;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const POLL: Duration = Duration::from_millis(100);
pub(super) const EXPIRATION: Duration = Duration::from_millis(1_000);
const REFRESH: Duration = Duration::from_millis(200);
const MARGIN: Duration = Duration::from_millis(50);
/// How long a call of the store takes at the most, each way, and a worker to end.
const SLOW: u64 = 15;
const ENDING: u64 = 250;

/// What a lease is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Member(u32),
    Partition(u32),
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Tick,
    Refresh,
    /// A call reaches the store; it was sent then.
    LookAtStore,
    ClaimAtStore(Key, Moment),
    ReleaseAtStore(Key, u64),
    /// Its answer is back.
    Looked(usize),
    Claimed(Key, Moment, Option<(Tried, u64)>),
    Released(Key),
    /// The worker of a partition that is given back has ended.
    Ended(u32),
    /// The lease is not believed in any more, unless it was refreshed.
    Deadline(Key),
}

struct Record {
    by: Arc<str>,
    id: u64,
    until: Moment,
}

struct Own {
    id: u64,
    deadline: Moment,
}

pub(super) struct Process {
    pub label: Arc<str>,
    pub balancer: Balancer,
    pub alive: bool,
    pub leaving: bool,
    frozen_until: Moment,
    held: BTreeMap<Key, Own>,
    ticking: Option<Moment>,
}

/// What becomes of processes and store from outside.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Start,
    Stop(usize),
    Kill(usize),
    Freeze(usize, u64),
    /// The store answers nobody for so many milliseconds.
    StoreAway(u64),
    /// An operator takes a member's lease away.
    ForceMember(u32),
    Resize(u32),
}

pub(super) struct World {
    pub now: Moment,
    partitions: u32,
    pub processes: Vec<Process>,
    store: BTreeMap<Key, Record>,
    away_until: Moment,
    queue: BTreeMap<(Moment, u64), (usize, Event)>,
    sights: Vec<Option<Sight>>,
    rng: RetryRng,
    counter: u64,
    /// How often something was tried for or given back.
    pub moves: usize,
    pub looks: usize,
    pub gives: usize,
}

impl World {
    pub(super) fn new(partitions: u32, seed: u64) -> Self {
        Self {
            now: Moment(0),
            partitions,
            processes: Vec::new(),
            store: BTreeMap::new(),
            away_until: Moment(0),
            queue: BTreeMap::new(),
            sights: Vec::new(),
            rng: RetryRng::new(seed),
            counter: 0,
            moves: 0,
            looks: 0,
            gives: 0,
        }
    }

    fn draw(&mut self, below: u64) -> Duration {
        MS * u32::try_from(self.rng.next_u64() % below.max(1)).unwrap()
    }

    fn push(&mut self, after: Duration, process: usize, event: Event) {
        self.counter += 1;
        let at = self.now.after(after);
        self.queue.insert((at, self.counter), (process, event));
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        let alive: Vec<usize> = self.alive().collect();
        let pick = |nth: usize| (!alive.is_empty()).then(|| alive[nth % alive.len()]);
        match fault {
            Fault::Start => self.start(),
            Fault::Stop(nth) => {
                if let Some(process) = pick(nth) {
                    self.processes[process].leaving = true;
                    self.step(process, |balancer, now, fx| balancer.stop(now, fx));
                }
            }
            Fault::Kill(nth) => {
                if let Some(process) = pick(nth) {
                    self.processes[process].alive = false;
                    self.processes[process].held.clear();
                }
            }
            Fault::Freeze(nth, time) => {
                if let Some(process) = pick(nth) {
                    self.processes[process].frozen_until =
                        self.now.after(Duration::from_millis(time));
                }
            }
            Fault::StoreAway(time) => self.away_until = self.now.after(Duration::from_millis(time)),
            Fault::ForceMember(slot) => drop(self.store.remove(&Key::Member(slot))),
            Fault::Resize(partitions) => {
                self.partitions = partitions;
                for process in alive {
                    self.step(process, |balancer, now, fx| {
                        balancer.resize(now, partitions, fx)
                    });
                }
            }
        }
    }

    fn start(&mut self) {
        let number = self.processes.len();
        let label: Arc<str> = format!("p{number}").into();
        let seed = self.rng.next_u64();
        let balancer = Balancer::new(Arc::clone(&label), self.partitions, POLL, seed);
        self.processes.push(Process {
            label,
            balancer,
            alive: true,
            leaving: false,
            frozen_until: Moment(0),
            held: BTreeMap::new(),
            ticking: None,
        });
        self.push(REFRESH, number, Event::Refresh);
        self.tick_when_due(number);
    }

    /// Those who live and have not been told to stop.
    pub(super) fn alive(&self) -> impl Iterator<Item = usize> {
        let all = self.processes.iter().enumerate();
        all.filter(|(_, process)| process.alive && !process.leaving)
            .map(|(number, _)| number)
    }

    /// Runs on for so long, and checks at each step that no partition is believed in twice.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        while let Some((&(at, id), _)) = self.queue.first_key_value()
            && at <= end
        {
            let (process, event) = self.queue.remove(&(at, id)).unwrap();
            self.now = self.now.max(at);
            self.happen(process, event);
            self.check();
        }
        self.now = end;
    }

    fn happen(&mut self, process: usize, event: Event) {
        let own = &self.processes[process];
        let in_store = matches!(
            event,
            Event::LookAtStore | Event::ClaimAtStore(..) | Event::ReleaseAtStore(..)
        );
        if in_store {
            // What is on its way arrives, whatever has become of who sent it.
            return self.at_store(process, event);
        }
        if !own.alive {
            return;
        }
        if self.now < own.frozen_until {
            let wait = own.frozen_until.since(self.now);
            return self.push(wait, process, event);
        }
        match event {
            Event::Tick => {
                self.processes[process].ticking = None;
                self.step(process, Balancer::tick);
            }
            Event::Refresh => self.refresh(process),
            Event::Looked(sight) => {
                let sight = self.sights[sight].take();
                self.step(process, |balancer, now, fx| balancer.looked(now, sight, fx));
            }
            Event::Claimed(key, sent, answer) => self.claimed(process, key, sent, answer),
            Event::Ended(partition) => {
                let key = Key::Partition(partition);
                // The worker has ended: now the lease goes.
                if let Some(own) = self.processes[process].held.remove(&key) {
                    let delay = self.draw(SLOW);
                    self.push(delay, process, Event::ReleaseAtStore(key, own.id));
                }
            }
            Event::Released(Key::Partition(partition)) => {
                self.step(process, |balancer, now, fx| {
                    balancer.gone(now, partition, fx)
                });
            }
            Event::Released(Key::Member(_)) => {
                self.step(process, |balancer, now, _| balancer.left(now));
            }
            Event::Deadline(key) => {
                let held = &self.processes[process].held;
                if held.get(&key).is_some_and(|own| own.deadline <= self.now) {
                    self.lose(process, key);
                }
            }
            Event::LookAtStore | Event::ClaimAtStore(..) | Event::ReleaseAtStore(..) => {}
        }
    }

    fn at_store(&mut self, process: usize, event: Event) {
        let back = self.draw(SLOW);
        let is_away = self.now < self.away_until;
        match event {
            Event::LookAtStore => {
                self.sights.push((!is_away).then(|| self.sight()));
                self.push(back, process, Event::Looked(self.sights.len() - 1));
            }
            Event::ClaimAtStore(key, sent) => {
                let answer = (!is_away).then(|| self.claim(process, key));
                self.push(back, process, Event::Claimed(key, sent, answer));
            }
            Event::ReleaseAtStore(key, id) => {
                if is_away {
                    // It is tried again until it has expired.
                    return self.push(MS * 50, process, event);
                }
                if self.store.get(&key).is_some_and(|record| record.id == id) {
                    self.store.remove(&key);
                }
                self.push(back, process, Event::Released(key));
            }
            _ => {}
        }
    }

    fn claim(&mut self, process: usize, key: Key) -> (Tried, u64) {
        if let Some(record) = self.store.get(&key)
            && self.now < record.until
        {
            return (Tried::Busy, 0);
        }
        self.counter += 1;
        let record = Record {
            by: Arc::clone(&self.processes[process].label),
            id: self.counter,
            until: self.now.after(EXPIRATION),
        };
        self.store.insert(key, record);
        (Tried::Got, self.counter)
    }

    fn sight(&self) -> Sight {
        let mut sight = Sight::default();
        let live = self
            .store
            .iter()
            .filter(|(_, record)| self.now < record.until);
        for (key, record) in live {
            let live = Live {
                by: Some(Arc::clone(&record.by)),
                remaining: record.until.since(self.now),
            };
            match *key {
                Key::Member(slot) => sight.members.insert(slot, live),
                Key::Partition(number) => sight.partitions.insert(number, live),
            };
        }
        sight
    }

    fn claimed(&mut self, process: usize, key: Key, sent: Moment, answer: Option<(Tried, u64)>) {
        let mut came = answer.map_or(Tried::Failed, |(came, _)| came);
        let deadline = sent.after(EXPIRATION - MARGIN);
        if let (Tried::Got, Some((_, id))) = (came, answer) {
            if deadline <= self.now {
                // An answer that comes too late is no lease.
                came = Tried::Failed;
            } else {
                self.processes[process]
                    .held
                    .insert(key, Own { id, deadline });
                self.push(deadline.since(self.now), process, Event::Deadline(key));
            }
        }
        self.step(process, |balancer, now, fx| match key {
            Key::Member(slot) => balancer.joined(now, slot, came, fx),
            Key::Partition(number) => balancer.tried(now, number, came, fx),
        });
    }

    /// All in one pass, whose answer comes at once: what matters is that it may not come at all.
    fn refresh(&mut self, process: usize) {
        self.push(REFRESH, process, Event::Refresh);
        if self.now < self.away_until {
            return;
        }
        let keys: Vec<Key> = self.processes[process].held.keys().copied().collect();
        for key in keys {
            let (now, own) = (
                self.now,
                self.processes[process].held.get_mut(&key).unwrap(),
            );
            let record = self.store.get_mut(&key);
            match record.filter(|record| record.id == own.id && now < record.until) {
                Some(record) => {
                    record.until = now.after(EXPIRATION);
                    own.deadline = now.after(EXPIRATION - MARGIN);
                    self.push(EXPIRATION - MARGIN, process, Event::Deadline(key));
                }
                None => self.lose(process, key),
            }
        }
    }

    fn lose(&mut self, process: usize, key: Key) {
        self.processes[process].held.remove(&key);
        self.step(process, |balancer, now, fx| match key {
            Key::Member(_) => balancer.left(now),
            Key::Partition(number) => balancer.gone(now, number, fx),
        });
    }

    fn step(&mut self, process: usize, step: impl FnOnce(&mut Balancer, Moment, &mut Vec<Effect>)) {
        let mut fx = Vec::new();
        step(&mut self.processes[process].balancer, self.now, &mut fx);
        for effect in fx {
            self.carry_out(process, effect);
        }
        self.tick_when_due(process);
    }

    fn carry_out(&mut self, process: usize, effect: Effect) {
        let there = self.draw(SLOW);
        let sent = self.now;
        match effect {
            Effect::Look => {
                self.looks += 1;
                self.push(there, process, Event::LookAtStore);
            }
            Effect::Join(slot) => {
                self.push(there, process, Event::ClaimAtStore(Key::Member(slot), sent));
            }
            Effect::Leave => {
                let held = &mut self.processes[process].held;
                let member = held
                    .keys()
                    .find(|key| matches!(key, Key::Member(_)))
                    .copied();
                let key = member.expect("only a member leaves");
                let own = held.remove(&key).unwrap();
                self.push(there, process, Event::ReleaseAtStore(key, own.id));
            }
            Effect::Try(partition) => {
                self.moves += 1;
                let key = Key::Partition(partition);
                assert!(partition < self.partitions, "{partition} does not exist");
                assert!(
                    !self.processes[process].held.contains_key(&key),
                    "it is ours"
                );
                self.push(there, process, Event::ClaimAtStore(key, sent));
            }
            Effect::Give(partition) => {
                self.moves += 1;
                self.gives += 1;
                let key = Key::Partition(partition);
                assert!(
                    self.processes[process].held.contains_key(&key),
                    "it is not ours"
                );
                let ending = self.draw(ENDING);
                self.push(ending, process, Event::Ended(partition));
            }
        }
    }

    fn tick_when_due(&mut self, process: usize) {
        let own = &self.processes[process];
        let Some(next) = own.balancer.next_deadline() else {
            return;
        };
        if own.ticking.is_none_or(|at| next < at) {
            self.processes[process].ticking = Some(next);
            self.push(next.since(self.now), process, Event::Tick);
        }
    }

    /// Who believes in a partition at this instant.
    pub(super) fn believers(&self, partition: u32) -> impl Iterator<Item = usize> {
        let key = Key::Partition(partition);
        let all = self.processes.iter().enumerate();
        all.filter(move |(_, process)| {
            let held = process.held.get(&key);
            process.alive
                && self.now >= process.frozen_until
                && held.is_some_and(|own| self.now < own.deadline)
        })
        .map(|(number, _)| number)
    }

    fn check(&self) {
        for partition in 0..self.partitions {
            let believers: Vec<usize> = self.believers(partition).collect();
            assert!(believers.len() <= 1, "{partition} is held by {believers:?}");
        }
    }

    /// How many partitions each process that is to stay holds.
    pub(super) fn loads(&self) -> Vec<u32> {
        let load = |process| {
            let held = (0..self.partitions).filter(|k| self.believers(*k).any(|by| by == process));
            u32::try_from(held.count()).unwrap()
        };
        self.alive().map(load).collect()
    }

    pub(super) fn partitions(&self) -> u32 {
        self.partitions
    }
}
