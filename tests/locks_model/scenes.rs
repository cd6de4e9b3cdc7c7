//! How histories are made that get somewhere.
//!
//! A history is made from plain numbers, each of which becomes one step or a short scene: a ring of
//! lockers, a family with several waiting children, a range over points that others want.

use lockkeeper::{Mode, VictimPolicy};

use super::calls::{Patience, Spec};
use super::step::{ROOTS, Step};
use super::universe::{COUNT, OWN_MODES, Obj, PLAIN, POINTS};
use super::words::{Config, SLOTS, Slot, Timeouts};

/// What a history is mostly about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// A few hot points, upgrades in the queue.
    Hot,
    /// Families with several waiting children.
    Families,
    /// Ranges over hot points, two namespaces.
    Ranges,
    /// Everything, with timeouts, limits, and settings that change.
    Clocks,
}

/// A small generator of its own, so that a number means the same history for ever.
#[derive(Clone, Copy)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

pub fn config(theme: Theme, seed: u64) -> Config {
    let mut dice = Dice::new(seed ^ 0xc0ff_ee00);
    let tight = theme == Theme::Clocks && dice.percent(40);
    Config {
        on_block: dice.percent(60),
        policy: dice.of(&VictimPolicy::ALL),
        timeouts: timeouts(theme, &mut dice),
        limits: match tight {
            true => [
                4 + dice.below(12) as usize,
                6 + dice.below(14) as usize,
                3 + dice.below(6) as usize,
            ],
            false => [1000, 1000, 1000],
        },
        warning: if tight { dice.of(&[0, 50, 80, 100]) } else { 0 },
    }
}

fn timeouts(theme: Theme, dice: &mut Dice) -> Timeouts {
    if theme != Theme::Clocks {
        return Timeouts {
            lock: if dice.percent(50) { 40 } else { 0 },
            no_wait: false,
            txn: 0,
            max_hold: 0,
            abort_on_max_hold: false,
        };
    }
    Timeouts {
        lock: dice.of(&[0, 10, 25, 40]),
        no_wait: dice.percent(10),
        txn: dice.of(&[0, 0, 30, 60]),
        max_hold: dice.of(&[0, 0, 20, 45]),
        abort_on_max_hold: dice.percent(40),
    }
}

/// Turns numbers into the `length` steps of a history.
pub fn history(theme: Theme, numbers: &[u64], length: usize) -> Vec<Step> {
    let mut scenes = Scenes {
        theme,
        dice: Dice::new(0),
        steps: Vec::with_capacity(length + 16),
        taken: [false; SLOTS],
    };
    let mut numbers = numbers.iter();
    while scenes.steps.len() < length
        && let Some(number) = numbers.next()
    {
        scenes.dice = Dice::new(*number);
        scenes.scene();
    }
    scenes.steps.truncate(length);
    scenes.steps
}

fn root(dice: &mut Dice) -> Slot {
    dice.below(u64::from(ROOTS)) as Slot
}

fn object(theme: Theme, dice: &mut Dice) -> Obj {
    match theme {
        Theme::Hot => dice.of(&[0, 0, 1, 1, 2]),
        Theme::Families => dice.below(POINTS as u64) as Obj,
        Theme::Ranges => dice.below(COUNT as u64) as Obj,
        Theme::Clocks if dice.percent(75) => dice.below(POINTS as u64) as Obj,
        Theme::Clocks => dice.below(COUNT as u64) as Obj,
    }
}

fn mode(object: Obj, dice: &mut Dice) -> Mode {
    match usize::from(object) < PLAIN || dice.percent(3) {
        true => dice.of(&[
            Mode::Read,
            Mode::Read,
            Mode::Read,
            Mode::Write,
            Mode::Write,
            Mode::Update,
            Mode::Update,
            Mode::IntentRead,
            Mode::IntentWrite,
            Mode::ReadIntentWrite,
        ]),
        false => dice.of(&OWN_MODES),
    }
}

fn patience(theme: Theme, dice: &mut Dice) -> Option<Patience> {
    let roll = dice.below(100);
    match roll {
        0..6 => None,
        6..10 => Some(Patience::No),
        10..60 if theme != Theme::Clocks => Some(Patience::Forever),
        10..25 => Some(Patience::Forever),
        25..45 => Some(Patience::For(dice.below(50))),
        45..50 => Some(Patience::Until(dice.below(3000))),
        _ => Some(Patience::Default),
    }
}

fn spec(theme: Theme, dice: &mut Dice) -> Spec {
    let timed = theme == Theme::Clocks;
    Spec {
        priority: dice.of(&[100, 100, 100, 50, 200]),
        lock_timeout: (timed && dice.percent(30)).then(|| dice.of(&[0, 7, 15, 30])),
        txn_timeout: (timed && dice.percent(30)).then(|| dice.of(&[0, 12, 20, 50])),
    }
}

fn ask(slot: Slot, object: Obj, mode: Mode) -> Step {
    Step::Request {
        slot,
        object,
        mode,
        from: None,
        patience: Some(Patience::Forever),
    }
}

/// Writes a history.
struct Scenes {
    theme: Theme,
    dice: Dice,
    steps: Vec<Step>,
    /// Which slots have a locker, as far as can be told without running the history.
    taken: [bool; SLOTS],
}

impl Scenes {
    fn push(&mut self, step: Step) {
        match step {
            Step::Begin { slot, .. } => self.taken[usize::from(slot)] = true,
            Step::End(slot) | Step::Commit(slot) => self.taken[usize::from(slot)] = false,
            _ => (),
        }
        self.steps.push(step);
    }

    fn slot(&mut self) -> Slot {
        let children = match self.theme {
            Theme::Families => 60,
            Theme::Hot => 10,
            _ => 30,
        };
        let mut slot = 0;
        for _ in 0..4 {
            slot = match self.dice.percent(children) {
                true => {
                    (u64::from(ROOTS) + self.dice.below(SLOTS as u64 - u64::from(ROOTS))) as Slot
                }
                false => root(&mut self.dice),
            };
            if self.taken[usize::from(slot)] {
                break;
            }
        }
        slot
    }

    fn object(&mut self) -> Obj {
        object(self.theme, &mut self.dice)
    }

    fn mode(&mut self, object: Obj) -> Mode {
        mode(object, &mut self.dice)
    }

    fn begin(&mut self, slot: Slot) {
        let dice = &mut self.dice;
        let parent = (u64::from(slot) >= u64::from(ROOTS)).then(|| match dice.percent(70) {
            // Few parents, so that families are large; sometimes a child's child.
            true => dice.below(3) as Slot,
            false => dice.below(u64::from(slot)) as Slot,
        });
        let step = Step::Begin {
            slot,
            parent,
            age_of: dice.percent(25).then(|| root(dice)),
            spec: spec(self.theme, dice),
        };
        self.push(step);
    }

    fn scene(&mut self) {
        let roll = self.dice.below(1000);
        let pick = self.dice.below(200) as u8;
        match roll {
            0..70 => {
                let free = self.taken.iter().position(|taken| !taken);
                let slot = match self.dice.percent(50) {
                    true => free.unwrap_or(0) as Slot,
                    false => self.dice.below(SLOTS as u64) as Slot,
                };
                self.begin(slot);
            }
            70..420 => {
                let (slot, object) = (self.slot(), self.object());
                let step = Step::Request {
                    slot,
                    object,
                    mode: self.mode(object),
                    from: None,
                    patience: patience(self.theme, &mut self.dice),
                };
                self.push(step);
            }
            420..460 => self.upgrade(),
            460..500 => {
                let mode = self.mode(0);
                let patience = patience(self.theme, &mut self.dice);
                self.push(Step::UpgradeHeld(pick, mode, patience));
            }
            500..515 => self.ring(),
            515..540 => self.siblings(),
            540..555 => self.range_over_points(),
            555..590 => {
                let mode = self.mode(0);
                self.push(Step::DowngradeHeld(pick, mode));
            }
            590..600 => {
                let (slot, object) = (self.slot(), self.object());
                let (from, to) = (self.mode(object), self.mode(object));
                self.push(Step::Downgrade {
                    slot,
                    object,
                    from,
                    to,
                });
            }
            600..690 => self.push(Step::UnlockHeld(pick)),
            690..705 => {
                let (slot, object) = (self.slot(), self.object());
                let mode = self.mode(object);
                self.push(Step::Unlock { slot, object, mode });
            }
            705..740 => {
                let (slot, object) = (self.slot(), self.object());
                self.push(Step::UnlockObject { slot, object });
            }
            740..760 => {
                let slot = self.slot();
                self.push(Step::ReleaseReads(slot));
            }
            760..785 => {
                let slot = self.slot();
                self.push(Step::ReleaseAll(slot));
            }
            785..840 => {
                let end = self.dice.percent(40);
                self.push(Step::Bury(pick, end));
            }
            840..870 => {
                let slot = self.slot();
                self.push(Step::Commit(slot));
            }
            870..895 => {
                let slot = self.slot();
                self.push(Step::End(slot));
            }
            895..920 => self.push(Step::Withdraw(pick % 8)),
            _ => self.table(roll),
        }
    }

    /// What concerns the whole table.
    fn table(&mut self, roll: u64) {
        let (theme, dice) = (self.theme, &mut self.dice);
        let step = match roll {
            920..960 => Step::Advance(1 + dice.below(15), dice.below(5) as usize),
            960..984 => Step::Detect(dice.of(&VictimPolicy::ALL)),
            984..988 => Step::SetDetect(dice.percent(60), dice.of(&VictimPolicy::ALL)),
            988..994 if theme == Theme::Clocks => {
                Step::SetLimits([(); 3].map(|()| dice.below(20) as i8 - 1))
            }
            _ => Step::SetTimeouts(timeouts(theme, dice)),
        };
        self.push(step);
    }

    /// Takes a weak lock and asks for a stronger one in its place, as one reference or as one of two.
    fn upgrade(&mut self) {
        let (slot, object) = (self.slot(), self.object());
        let (from, to) = match usize::from(object) < PLAIN {
            true => self.dice.of(&[
                (Mode::Read, Mode::Write),
                (Mode::Read, Mode::Write),
                (Mode::Read, Mode::Update),
                (Mode::Update, Mode::Write),
                (Mode::IntentRead, Mode::Read),
                (Mode::Read, Mode::ReadIntentWrite),
                (Mode::Write, Mode::Read),
            ]),
            false => (Mode::Read, self.dice.of(&[Mode::IntentWrite, Mode::Write])),
        };
        for _ in 0..self.dice.below(3) {
            self.push(Step::Request {
                slot,
                object,
                mode: from,
                from: None,
                patience: Some(Patience::No),
            });
        }
        let patience = patience(self.theme, &mut self.dice);
        self.push(Step::Request {
            slot,
            object,
            mode: to,
            from: Some(from),
            patience,
        });
    }

    /// A ring of two to five: each holds one object and wants the next one's.
    fn ring(&mut self) {
        let size = 2 + self.dice.below(4) as usize;
        let first = self.dice.below(u64::from(ROOTS)) as usize;
        let slot = |at: usize| ((first + at) % usize::from(ROOTS)) as Slot;
        let fresh = self.dice.percent(50);
        for at in 0..size {
            if fresh {
                self.push(Step::End(slot(at)));
            }
            self.begin(slot(at));
        }
        let theme = self.theme;
        let object = |at: usize| match theme {
            Theme::Ranges => ((at % size) * 2) as Obj,
            _ => (at % size % POINTS) as Obj,
        };
        for at in 0..size {
            let mode = self.dice.of(&[Mode::Write, Mode::Read]);
            self.push(ask(slot(at), object(at), mode));
        }
        for at in 0..size {
            let mode = self
                .dice
                .of(&[Mode::Write, Mode::Write, Mode::ReadIntentWrite]);
            self.push(ask(slot(at), object(at + 1), mode));
        }
    }

    /// A parent that holds something, and two or three children that each want something else.
    fn siblings(&mut self) {
        let parent = self.dice.below(3) as Slot;
        self.begin(parent);
        let held = self.object();
        let mode = self.mode(held);
        self.push(ask(parent, held, mode));
        for _ in 0..2 + self.dice.below(2) {
            let slot =
                (u64::from(ROOTS) + self.dice.below(SLOTS as u64 - u64::from(ROOTS))) as Slot;
            let step = Step::Begin {
                slot,
                parent: Some(parent),
                age_of: None,
                spec: spec(self.theme, &mut self.dice),
            };
            self.push(step);
            let object = self.object();
            let mode = self.mode(object);
            self.push(ask(slot, object, mode));
        }
    }

    /// Some hold points, one wants a range over them, another wants a point in it.
    fn range_over_points(&mut self) {
        for _ in 0..2 {
            let slot = root(&mut self.dice);
            self.begin(slot);
            let point = self.dice.below(POINTS as u64) as Obj;
            let mode = self.mode(point);
            self.push(ask(slot, point, mode));
        }
        let range = (POINTS as u64 + self.dice.below((PLAIN - POINTS) as u64)) as Obj;
        let wanted = self.dice.of(&[Mode::Read, Mode::Write]);
        let slot = root(&mut self.dice);
        self.push(ask(slot, range, wanted));
        let point = self.dice.below(POINTS as u64) as Obj;
        let (slot, mode) = (root(&mut self.dice), self.mode(point));
        self.push(ask(slot, point, mode));
    }
}
