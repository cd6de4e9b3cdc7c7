//! Several processes, a store between them, and everything that can happen to what they say to each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lockkeeper::lease_core::{
    ClaimAnswer, LeaseKey, Moment, RefreshAnswer, Timing, WaiterId, Wish,
};
use lockkeeper::{
    Claimed, Fence, LeaseName, LeaseRecord, LeaseVerdict, Refreshed, Released, StoreError,
};

use crate::book_process::{Ask, CALL_TIMEOUT, Guard, Out, Process};
use crate::book_store::{HolderId, MS, NAMES, SKEW_MS, Store, at, name};

pub const PROCESSES: usize = 3;
/// The long one lasts as long as everything else together: what nobody gives back is found then.
pub const EXPIRATIONS: [u64; 3] = [2_000, 4_000, 60_000];
const REFRESH: Duration = Duration::from_millis(500);
/// Nothing is on its way for longer: the time in which it is waited for, and as long again.
const LONGEST_WAY: u64 = 1_900 * MS;
/// What is given up happens within this part of a call's time, in hundredths, or never: less than the whole by what clocks differ.
const LATEST: u64 = 98;

/// What happens next. A number says which of those that there are.
#[derive(Debug, Clone)]
pub enum Step {
    /// So many milliseconds pass. All processes do what is due, or nothing happens in them meanwhile.
    Pass(u64, bool),
    /// The store's clock stands so far ahead of its rate from now on, in milliseconds.
    Jump(u64),
    /// A process does what is due.
    Tick(usize),
    Ask {
        process: usize,
        name: usize,
        wish: Wanted,
        expiration: usize,
        slow: bool,
    },
    /// The future of an acquire is dropped.
    DropFuture(usize),
    Release(usize),
    DropGuard(usize),
    /// Somebody begins to run under a guard, or ends.
    Use(usize),
    Extend(usize, usize),
    Force(usize, usize),
    Close(usize),
    Crash(usize),
    Suspend(usize),
    Resume(usize),
    /// A transaction of the application locks a record, or ends.
    Lock(usize),
    /// A question that is on its way reaches the store.
    Arrive(usize),
    /// An answer that is on its way reaches its process.
    Answer(usize),
    /// So many questions, the oldest first, are answered at once.
    Deliver(usize),
    /// Lost; its process learns that at once, or by its clock.
    LoseQuestion(usize, Learns),
    LoseAnswer(usize, Learns),
    /// Its process learns that it is lost, and it is not.
    Break(usize, bool),
    /// Its process hears of releases again.
    Listen(usize),
}

#[derive(Debug, Clone, Copy)]
pub enum Wanted {
    Acquire,
    Try,
    /// In milliseconds.
    Timeout(u64),
}

#[derive(Debug, Clone, Copy)]
pub enum Learns {
    ByItsClock,
    AtOnce,
    /// And whoever is asked says stop.
    AndStops,
}

#[derive(Clone)]
struct Question {
    process: usize,
    ask: Ask,
    /// Whom it is about, and for how long; of a hand-over the next one.
    who: Vec<(HolderId, Fence, Duration)>,
    from: Option<HolderId>,
    name: Option<LeaseName>,
    /// By its process's clock.
    patience: Moment,
    /// When it can not happen any more.
    gone: u64,
    /// Nobody waits for its answer.
    is_forgotten: bool,
}

#[derive(Debug)]
enum Said {
    Claimed(Claimed, bool),
    HandedOver(Released, Claimed),
    Refreshed(Vec<Refreshed>),
    Released(Released, bool),
    Forced(Option<LeaseRecord>),
    Woken(Option<LeaseName>),
}

pub struct World {
    pub real: u64,
    pub store: Store,
    pub processes: Vec<Process>,
    questions: Vec<Question>,
    answers: Vec<(Question, Said)>,
    /// The tokens that were granted last.
    granted: [u64; NAMES],
    /// What may stay held in the store without a guard: of processes that were killed, of releases that were stopped.
    left: BTreeSet<HolderId>,
    seed: u64,
}

pub fn timing(expiration: u64) -> Timing {
    let skew = Duration::from_millis(SKEW_MS);
    Timing::new(REFRESH, Duration::from_millis(expiration), skew).unwrap()
}

fn error() -> Arc<StoreError> {
    Arc::new(StoreError::Unreachable("it is lost".into()))
}

impl World {
    pub fn new(store_rate: i64, rates: [i64; PROCESSES], seed: u64) -> Self {
        let processes = rates.iter().enumerate();
        let processes = processes.map(|(n, rate)| Process::new(n, *rate, seed + n as u64));
        Self {
            real: 1_000 * MS,
            store: Store::new(store_rate),
            processes: processes.collect(),
            questions: Vec::new(),
            answers: Vec::new(),
            granted: [0; NAMES],
            left: BTreeSet::new(),
            seed,
        }
    }

    fn now(&self, process: usize) -> Moment {
        self.processes[process].now(self.real)
    }

    pub fn step(&mut self, step: &Step) {
        match *step {
            Step::Pass(time, true) => self.advance(self.real + time * MS, false),
            Step::Pass(time, false) => self.real += time * MS,
            Step::Jump(to) => self.store.step_ms = to,
            Step::Tick(n) => self.tick(n % PROCESSES),
            Step::Ask {
                process,
                name: of,
                wish,
                expiration,
                slow,
            } => {
                let now = self.now(process);
                let until = match wish {
                    Wanted::Timeout(time) => Some(now.after(Duration::from_millis(time))),
                    _ => None,
                };
                let wish = Wish {
                    timing: timing(EXPIRATIONS[expiration]),
                    poll: Duration::from_millis(if slow { 1_000 } else { 100 }),
                    until,
                    once: matches!(wish, Wanted::Try),
                    fail_fast: false,
                };
                self.on(process, |process| process.ask(now, &name(of), wish));
            }
            Step::DropFuture(n) => {
                if let Some((n, caller)) = self.one_of(n, |process| {
                    process.callers.keys().copied().collect::<Vec<WaiterId>>()
                }) {
                    let now = self.now(n);
                    self.on(n, |process| process.abandon(now, caller));
                }
            }
            Step::Release(n) => {
                self.with_guard(n, |process, now, key| {
                    if !process.cells[&key].in_use {
                        process.release(now, key);
                    }
                });
            }
            Step::DropGuard(n) => self.with_guard(n, Process::drop_guard),
            Step::Use(n) => self.with_guard(n, |process, _, key| {
                let cell = process.cells.get_mut(&key).expect("it has a guard");
                cell.in_use = !cell.in_use && !cell.let_go && !cell.is_over();
            }),
            Step::Extend(n, to) => self.with_guard(n, |process, now, key| {
                process.extend(now, key, timing(EXPIRATIONS[to]));
            }),
            Step::Force(n, of) => self.ask(n, Ask::Force(name(of))),
            Step::Close(n) => {
                let now = self.now(n);
                self.on(n, |process| process.close(now));
            }
            Step::Crash(n) => self.crash(n),
            Step::Suspend(n) => self.processes[n].is_asleep = true,
            Step::Resume(n) => {
                self.processes[n].is_asleep = false;
                self.tick(n);
            }
            Step::Lock(n) => {
                let locked = &mut self.store.records[n].is_locked;
                *locked = !*locked;
            }
            Step::Arrive(n) if !self.questions.is_empty() => {
                let question = self.questions.remove(n % self.questions.len());
                self.arrive(question);
            }
            Step::Answer(n) if !self.answers.is_empty() => {
                let n = n % self.answers.len();
                if !self.processes[self.answers[n].0.process].is_asleep {
                    let (question, said) = self.answers.remove(n);
                    self.answered(&question, said);
                }
            }
            Step::Deliver(most) => {
                for _ in 0..most {
                    self.deliver();
                }
            }
            Step::LoseQuestion(n, learns) if !self.questions.is_empty() => {
                let n = n % self.questions.len();
                self.fails(n, learns, true);
            }
            Step::LoseAnswer(n, learns) if !self.answers.is_empty() => {
                let n = n % self.answers.len();
                let (question, _) = self.answers.remove(n);
                // It has happened: it can not happen again.
                self.questions.push(Question {
                    gone: 0,
                    ..question
                });
                self.fails(self.questions.len() - 1, learns, true);
            }
            Step::Break(n, stops) if !self.questions.is_empty() => {
                let n = n % self.questions.len();
                let learns = if stops {
                    Learns::AndStops
                } else {
                    Learns::AtOnce
                };
                self.fails(n, learns, false);
            }
            Step::Listen(n) => {
                let now = self.now(n);
                let one = &self.processes[n];
                if one.listens && !one.is_asleep {
                    self.on(n, |process| {
                        process.step(now, |book, fx| book.woken(now, None, fx));
                    });
                }
            }
            _ => {}
        }
        self.sweep();
        self.check();
    }

    /// Something happens in a process, unless it is suspended.
    fn on(&mut self, n: usize, run: impl FnOnce(&mut Process)) {
        if self.processes[n].is_asleep {
            return;
        }
        run(&mut self.processes[n]);
        self.carry_out(n);
    }

    fn tick(&mut self, n: usize) {
        let now = self.now(n);
        if self.processes[n].is_asleep {
            return;
        }
        self.give_up(n, now);
        self.on(n, |process| process.tick(now));
    }

    fn crash(&mut self, n: usize) {
        let gone = self.processes[n].cells.values().map(|cell| cell.holder);
        self.left.extend(gone);
        self.seed += 7;
        self.processes[n].crash(self.seed);
        let late = self.latest();
        let answers = self.answers.iter_mut().map(|(question, _)| question);
        for question in self.questions.iter_mut().chain(answers) {
            if question.process == n {
                question.is_forgotten = true;
                question.gone = question.gone.min(late);
            }
        }
    }

    fn latest(&self) -> u64 {
        self.real + u64::try_from(CALL_TIMEOUT.as_nanos()).unwrap() / 100 * LATEST
    }

    /// One of all that there are in the processes that are awake.
    fn one_of<T: Copy>(&self, n: usize, of: impl Fn(&Process) -> Vec<T>) -> Option<(usize, T)> {
        let awake = self.processes.iter().filter(|process| !process.is_asleep);
        let all: Vec<(usize, T)> = awake
            .flat_map(|process| of(process).into_iter().map(|one| (process.number, one)))
            .collect();
        all.get(n.checked_rem(all.len())?).copied()
    }

    fn with_guard(&mut self, n: usize, run: impl FnOnce(&mut Process, Moment, LeaseKey)) {
        if let Some((n, key)) = self.one_of(n, Process::guards) {
            let now = self.now(n);
            self.on(n, |process| run(process, now, key));
        }
    }

    /// What a process has decided goes out.
    fn carry_out(&mut self, n: usize) {
        for out in std::mem::take(&mut self.processes[n].out) {
            match out {
                Out::Ask(ask) => self.ask(n, ask),
                Out::DropRefresh(key) => {
                    let answers = self.answers.iter_mut().map(|(question, _)| question);
                    for question in self.questions.iter_mut().chain(answers) {
                        let alone = match &question.ask {
                            Ask::Refresh(items) => items.len() == 1 && items[0].key == key,
                            _ => false,
                        };
                        question.is_forgotten |= alone && question.process == n;
                    }
                }
                Out::Granted(name, holder, token) => {
                    let last = &mut self.granted[at(&name)];
                    let is_robbed = self.store.robbed.contains(&holder);
                    assert!(token.0 > *last || is_robbed, "{token} after {last}");
                    *last = token.0.max(*last);
                }
                Out::Released(name, holder, outcome) => {
                    let gave_back = self.store.gave_back.contains(&holder);
                    let is_robbed = self.store.robbed.contains(&holder);
                    match outcome {
                        // A claim that comes late may have it again by now; it is given back once more then.
                        Released::WasOurs => assert!(gave_back || is_robbed, "{holder:?}"),
                        Released::WasLost => {
                            let held_by = self.store.holder(self.real, &name);
                            assert_ne!(held_by, Some(holder), "{name} was lost, and is held");
                        }
                    }
                }
                Out::Left(holder) => {
                    self.left.insert(holder);
                }
            }
        }
    }

    fn ask(&mut self, n: usize, ask: Ask) {
        let process = &self.processes[n];
        if process.is_asleep {
            return;
        }
        let now = process.now(self.real);
        let cell = |key: &LeaseKey| &process.cells[key];
        let who = |key: &LeaseKey| {
            let cell = cell(key);
            let token = cell.token.unwrap_or(Fence(0));
            (cell.holder, token, cell.timing.expiration())
        };
        let (who, from, name) = match &ask {
            Ask::Claim { key, .. } => (vec![who(key)], None, Some(&cell(key).name)),
            Ask::HandOver { from, to, .. } => {
                let giving = Some(cell(from).holder);
                (vec![who(to)], giving, Some(&cell(to).name))
            }
            Ask::Refresh(items) => {
                let of = items.iter().map(|item| {
                    let (holder, token, _) = who(&item.key);
                    (holder, token, item.expiration)
                });
                (of.collect(), None, None)
            }
            Ask::Release(key) => (vec![who(key)], None, Some(&cell(key).name)),
            Ask::Force(name) => (Vec::new(), None, Some(name)),
            Ask::Wake(_) => (Vec::new(), None, None),
        };
        let name = name.cloned();
        // A refresh is waited for as long as the shortest of its leases allows.
        let patience = match &ask {
            Ask::Refresh(items) => {
                let patience = items.iter().map(|item| {
                    let usable = cell(&item.key).timing.usable();
                    (usable / 6).clamp(REFRESH, 3 * REFRESH)
                });
                patience.min().unwrap_or(CALL_TIMEOUT)
            }
            _ => CALL_TIMEOUT,
        };
        let patience = now.after(patience);
        self.questions.push(Question {
            process: n,
            ask,
            who,
            from,
            name,
            patience,
            gone: self.real + LONGEST_WAY,
            is_forgotten: false,
        });
    }

    /// Answers that did not come in time.
    fn give_up(&mut self, n: usize, now: Moment) {
        let is_late = |question: &Question| {
            question.process == n && !question.is_forgotten && question.patience <= now
        };
        while let Some(at) = self
            .answers
            .iter()
            .position(|(question, _)| is_late(question))
        {
            let (question, _) = self.answers.remove(at);
            self.failed(&question, LeaseVerdict::GoOn);
        }
        while let Some(at) = self.questions.iter().position(is_late) {
            self.fails(at, Learns::AtOnce, false);
        }
    }

    /// What its process may believe of a question. If it `is_lost`, it does not happen any more.
    fn fails(&mut self, at: usize, learns: Learns, is_lost: bool) {
        let late = self.latest();
        let question = &mut self.questions[at];
        if is_lost {
            question.gone = 0;
        }
        let is_asleep = self.processes[question.process].is_asleep;
        if matches!(learns, Learns::ByItsClock) || question.is_forgotten || is_asleep {
            return;
        }
        question.gone = question.gone.min(late);
        question.is_forgotten = true;
        let told = question.clone();
        let verdict = match learns {
            Learns::AndStops => LeaseVerdict::Stop,
            _ => LeaseVerdict::GoOn,
        };
        self.failed(&told, verdict);
    }

    /// A process learns that a question has failed.
    fn failed(&mut self, question: &Question, verdict: LeaseVerdict) {
        let n = question.process;
        let now = self.now(n);
        let error = error();
        let failed = |error: &Arc<StoreError>| ClaimAnswer::Failed {
            error: Arc::clone(error),
            verdict,
        };
        self.on(n, |process| {
            process.was_stopped |= verdict == LeaseVerdict::Stop;
            if let Some(name) = &question.name
                && matches!(question.ask, Ask::Claim { .. } | Ask::HandOver { .. })
            {
                process.asking.remove(name);
            }
            process.step(now, |book, fx| match &question.ask {
                Ask::Claim { key, send, .. } => book.claimed(now, *key, *send, failed(&error), fx),
                Ask::HandOver { from, to, send } => {
                    let released = Err((Arc::clone(&error), verdict));
                    book.handed_over(now, (*from, *to), *send, released, failed(&error), fx);
                }
                Ask::Refresh(items) => {
                    for item in items {
                        let error = Arc::clone(&error);
                        let answer = RefreshAnswer::Failed { error, verdict };
                        book.refreshed(now, item.key, item.send, answer, fx);
                    }
                }
                Ask::Release(key) => {
                    book.released(now, *key, Err((Arc::clone(&error), verdict)), fx);
                }
                Ask::Force(_) | Ask::Wake(_) => {}
            });
        });
    }

    /// A question reaches the store; one that is lost is left to its process's clock.
    fn arrive(&mut self, question: Question) {
        if question.gone <= self.real {
            return self.questions.push(question);
        }
        let real = self.real;
        let store = &mut self.store;
        let said = match (&question.ask, &question.name) {
            (Ask::Claim { left_with, .. }, Some(name)) => {
                let before = store.look(real, name).token;
                let passed = left_with.is_some_and(|token| before > token);
                let (holder, _, lasts) = question.who[0];
                Said::Claimed(store.claim(real, name, holder, lasts), passed)
            }
            (Ask::HandOver { .. }, Some(name)) => {
                let (holder, _, lasts) = question.who[0];
                let from = question.from.expect("it is given back by somebody");
                let (released, _) = store.release(name, from);
                Said::HandedOver(released, store.claim(real, name, holder, lasts))
            }
            (Ask::Release(_), Some(name)) => {
                let (released, wanted) = store.release(name, question.who[0].0);
                if released == Released::WasOurs {
                    self.wake(&name.clone());
                }
                Said::Released(released, wanted)
            }
            (Ask::Force(name), _) => Said::Forced(store.force(real, name)),
            (Ask::Refresh(items), _) => {
                let each = items.iter().zip(&question.who);
                let each = each.map(|(item, (holder, token, lasts))| {
                    store.refresh(real, &item.name, *holder, *token, *lasts)
                });
                Said::Refreshed(each.collect())
            }
            (Ask::Wake(name), _) => Said::Woken(name.clone()),
            _ => unreachable!("it has a name"),
        };
        if !question.is_forgotten {
            self.answers.push((question, said));
        }
    }

    /// A release is told to all who listen.
    fn wake(&mut self, name: &LeaseName) {
        let listening = self.processes.iter().filter(|process| process.listens);
        let listening: Vec<usize> = listening.map(|process| process.number).collect();
        for n in listening {
            self.ask(n, Ask::Wake(Some(name.clone())));
        }
    }

    /// An answer reaches its process, which is awake.
    fn answered(&mut self, question: &Question, said: Said) {
        let n = question.process;
        let now = self.now(n);
        if question.is_forgotten {
            return;
        }
        self.on(n, |process| match (&question.ask, said) {
            (Ask::Claim { key, send, .. }, Said::Claimed(claimed, passed)) => {
                let answer = claim_answer(process, *key, claimed, passed);
                process.step(now, |book, fx| book.claimed(now, *key, *send, answer, fx));
            }
            (Ask::HandOver { from, to, send }, Said::HandedOver(released, claimed)) => {
                let answer = claim_answer(process, *to, claimed, false);
                process.step(now, |book, fx| {
                    book.handed_over(now, (*from, *to), *send, Ok(released), answer, fx);
                });
            }
            (Ask::Refresh(items), Said::Refreshed(said)) => {
                process.step(now, |book, fx| {
                    for (item, said) in items.iter().zip(said) {
                        let answer = RefreshAnswer::Refreshed(said);
                        book.refreshed(now, item.key, item.send, answer, fx);
                    }
                });
            }
            (Ask::Release(key), Said::Released(released, wanted)) => {
                process.step(now, |book, fx| {
                    if wanted {
                        book.wanted_by_others(now, *key);
                    }
                    book.released(now, *key, Ok(released), fx);
                });
            }
            (Ask::Force(_), Said::Forced(Some(record))) => {
                process.step(now, |book, fx| book.forced(now, &record, fx));
            }
            (Ask::Wake(_), Said::Woken(name)) => {
                process.step(now, |book, fx| book.woken(now, name.as_ref(), fx));
            }
            _ => {}
        });
    }

    /// The oldest question, and its answer; or the oldest answer. Whether there was one.
    fn deliver(&mut self) -> bool {
        let is_awake = |question: &Question| !self.processes[question.process].is_asleep;
        let oldest = self
            .answers
            .iter()
            .position(|(question, _)| is_awake(question));
        if let Some(at) = oldest {
            let (question, said) = self.answers.remove(at);
            self.answered(&question, said);
            return true;
        }
        if self.questions.is_empty() {
            return false;
        }
        let question = self.questions.remove(0);
        let is_lost = question.gone <= self.real && !question.is_forgotten;
        match is_lost {
            // Its process learns that by its clock.
            true => {
                self.questions.push(question);
                let all_lost = |question: &Question| question.gone <= self.real;
                !self.questions.iter().all(all_lost)
            }
            false => {
                self.arrive(question);
                true
            }
        }
    }

    /// What cannot happen any more, and nobody waits for.
    fn sweep(&mut self) {
        let real = self.real;
        self.questions
            .retain(|question| !question.is_forgotten || question.gone > real);
    }

    /// Time passes, and every process that is awake does what is due at its time; `calm`: and every question is answered at once.
    pub fn advance(&mut self, until: u64, calm: bool) {
        for turn in 0.. {
            assert!(turn < 100_000, "it does not come to rest");
            if calm && self.deliver() {
                self.real += MS / 4;
                self.sweep();
                self.check();
                continue;
            }
            let awake = self.processes.iter().filter(|process| !process.is_asleep);
            let next = awake.filter_map(|process| {
                let waits = |question: &&Question| {
                    question.process == process.number && !question.is_forgotten
                };
                let answers = self.answers.iter().map(|(question, _)| question);
                let waiting = self.questions.iter().chain(answers).filter(waits);
                let patience = waiting.map(|question| question.patience);
                let next = patience.chain(process.book.next_deadline()).min()?;
                Some((self.when(process, next), process.number))
            });
            let next = next.min().filter(|(real, _)| *real <= until);
            let Some((real, n)) = next else { break };
            self.real = self.real.max(real);
            self.tick(n);
            self.check();
        }
        self.real = self.real.max(until);
    }

    /// When the clock of a process shows that.
    fn when(&self, process: &Process, Moment(at): Moment) -> u64 {
        let real = u128::from(at) * 1_000 / u128::try_from(1_000 + process.rate).unwrap();
        let mut real = u64::try_from(real).unwrap();
        while process.now(real) < Moment(at) {
            real += 1;
        }
        real
    }

    /// Nobody believes in what the store would give to somebody else.
    fn check(&self) {
        let mut believers = [0; NAMES];
        for process in &self.processes {
            let now = process.now(self.real);
            for cell in process.cells.values() {
                let believes = cell.believed.is_some_and(|until| now < until);
                if !believes || self.store.robbed.contains(&cell.holder) {
                    continue;
                }
                believers[at(&cell.name)] += 1;
                let holder = self.store.holder(self.real, &cell.name);
                assert_eq!(holder, Some(cell.holder), "who is it that holds it?");
                // If nothing more happens, it is so to the last instant of the belief, also if the store's clock steps ahead.
                let last = self.when(process, cell.believed.unwrap_or_default());
                let lasts = self.store.lasts_until(last, &cell.name);
                assert!(lasts, "{cell:?} is believed in for too long");
            }
        }
        assert!(believers.iter().all(|believers| *believers <= 1));
    }

    /// All faults end. Every caller is answered, nothing stays held but what guards hold, and then nothing is left.
    pub fn comes_to_rest(&mut self) {
        for record in &mut self.store.records {
            record.is_locked = false;
        }
        for n in 0..PROCESSES {
            self.processes[n].is_asleep = false;
            self.tick(n);
        }
        self.calm(5_000);
        self.nothing_is_held_without_a_guard();
        let healed = self.real;
        while self
            .processes
            .iter()
            .any(|process| !process.callers.is_empty())
        {
            self.drop_all_guards();
            self.calm(1_000);
            let took = (self.real - healed) / MS;
            assert!(took < 400_000, "somebody waits still");
        }
        self.drop_all_guards();
        self.calm(5_000);
        self.nothing_is_held_without_a_guard();
        // What was left to the store expires, and names are not remembered for ever.
        for _ in 0..5 {
            self.calm(30_000);
            (0..PROCESSES).for_each(|n| self.tick(n));
        }
        for process in &self.processes {
            let now = process.now(self.real);
            assert!(process.book.is_idle(now), "{:#?}", process.book);
            assert_eq!(process.book.held_names(now).count(), 0);
            assert_eq!(process.book.size(), [0; 5], "{:#?}", process.book);
            assert!(process.cells.is_empty() && process.asking.is_empty());
        }
    }

    fn calm(&mut self, millis: u64) {
        self.advance(self.real + millis * MS, true);
    }

    fn drop_all_guards(&mut self) {
        for n in 0..PROCESSES {
            for key in self.processes[n].guards() {
                let now = self.now(n);
                self.on(n, |process| {
                    process.cells.get_mut(&key).expect("it has a guard").in_use = false;
                    process.drop_guard(now, key);
                });
            }
        }
    }

    fn nothing_is_held_without_a_guard(&self) {
        // Those that were closed have given back what nobody runs under.
        let open = self.processes.iter().filter(|process| !process.is_closed);
        let cells = open.flat_map(|process| process.cells.values());
        let owned: BTreeSet<HolderId> = cells
            .filter(|cell| cell.guard == Guard::Owned)
            .map(|cell| cell.holder)
            .collect();
        for of in 0..NAMES {
            let holder = self.store.holder(self.real, &name(of));
            let is_right =
                |holder: HolderId| owned.contains(&holder) || self.left.contains(&holder);
            assert!(
                holder.is_none_or(is_right),
                "{holder:?} holds job{of}, and nobody has a guard of it"
            );
        }
    }
}

fn claim_answer(
    process: &mut Process,
    key: LeaseKey,
    claimed: Claimed,
    passed: bool,
) -> ClaimAnswer {
    let is_foreign = |record: &LeaseRecord| {
        let holder = record.holder.as_ref();
        !holder.is_some_and(|holder| process.is_own(holder))
    };
    let foreign = match &claimed {
        Claimed::Ours { .. } => passed,
        Claimed::Busy(record) => is_foreign(record),
    };
    if let Some(cell) = process.cells.get_mut(&key) {
        process.asking.remove(&cell.name);
        if let Claimed::Ours { token } = claimed {
            // The first answer is the token for good.
            cell.token.get_or_insert(token);
        }
    }
    ClaimAnswer::Claimed { claimed, foreign }
}
