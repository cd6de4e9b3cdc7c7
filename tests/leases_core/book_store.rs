//! A store of leases as its documentation says it is, with a clock of its own: what the core is tested against.

use std::collections::BTreeSet;
use std::time::Duration;

use lockkeeper::{Claimed, Fence, Holder, LeaseName, LeaseRecord, Refreshed, Released};

pub const MS: u64 = 1_000_000;
/// By so much the store's clock may step, in milliseconds.
pub const SKEW_MS: u64 = 200;
/// How many names there are.
pub const NAMES: usize = 2;

/// An acquisition of a process, as the store knows it: never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HolderId {
    pub process: usize,
    pub number: u64,
}

impl HolderId {
    fn shown(self) -> Holder {
        Holder {
            id: self.number.to_string().into(),
            host: "here".into(),
            pid: u32::try_from(self.process).unwrap(),
        }
    }
}

/// The record of a name.
#[derive(Debug, Default)]
pub struct Record {
    pub holder: Option<HolderId>,
    is_given: bool,
    token: u64,
    expires: u64,
    /// An application's transaction has it locked.
    pub is_locked: bool,
    /// Another process asked in vain.
    wanted: bool,
}

#[derive(Debug)]
pub struct Store {
    pub records: Vec<Record>,
    /// Of its clock, in thousandths above real time, and how far it has stepped ahead.
    pub rate: i64,
    pub step_ms: u64,
    /// Who gave a lease back that was his.
    pub gave_back: BTreeSet<HolderId>,
    /// From whom a lease was taken by force: only its token protects what such a one does.
    pub robbed: BTreeSet<HolderId>,
}

/// What a clock of this rate shows.
pub fn at_rate(real: u64, thousandths: i64) -> u64 {
    let gained = i128::from(real) * i128::from(thousandths) / 1_000;
    u64::try_from(i128::from(real) + gained).unwrap()
}

pub fn name(at: usize) -> LeaseName {
    LeaseName::new(format!("job{at}")).unwrap()
}

pub fn at(name: &LeaseName) -> usize {
    name.as_str()[3..].parse().unwrap()
}

impl Store {
    pub fn new(rate: i64) -> Self {
        Self {
            records: (0..NAMES).map(|_| Record::default()).collect(),
            rate,
            step_ms: 0,
            gave_back: BTreeSet::new(),
            robbed: BTreeSet::new(),
        }
    }

    fn now(&self, real: u64) -> u64 {
        at_rate(real, self.rate) + self.step_ms * MS
    }

    /// Who holds it by the store's clock.
    pub fn holder(&self, real: u64, name: &LeaseName) -> Option<HolderId> {
        let record = &self.records[at(name)];
        let is_held = record.is_given && self.now(real) < record.expires;
        record.holder.filter(|_| is_held)
    }

    /// Whether it is held up to that instant as it stands, however the clock steps until then.
    pub fn lasts_until(&self, real: u64, name: &LeaseName) -> bool {
        at_rate(real, self.rate) + SKEW_MS * MS <= self.records[at(name)].expires
    }

    pub fn look(&self, real: u64, name: &LeaseName) -> LeaseRecord {
        let record = &self.records[at(name)];
        let left = record.expires.saturating_sub(self.now(real));
        let remaining = self.holder(real, name).map(|_| Duration::from_nanos(left));
        let holder = record.holder.map(HolderId::shown);
        LeaseRecord::new(name.clone(), holder, Fence(record.token), remaining)
    }

    /// It may or may not extend what is the holder's already: it does not.
    pub fn claim(&mut self, real: u64, name: &LeaseName, by: HolderId, lasts: Duration) -> Claimed {
        let now = self.now(real);
        let shown = self.look(real, name);
        let held_by = self.holder(real, name);
        let record = &mut self.records[at(name)];
        match held_by {
            Some(holder) if holder == by => {}
            Some(holder) => {
                record.wanted |= holder.process != by.process;
                return Claimed::Busy(shown);
            }
            None => {
                record.token += 1;
                record.holder = Some(by);
                record.is_given = true;
                record.wanted = false;
                record.expires = now + u64::try_from(lasts.as_nanos()).unwrap();
            }
        }
        let token = Fence(record.token);
        Claimed::Ours { token }
    }

    pub fn refresh(
        &mut self,
        real: u64,
        name: &LeaseName,
        by: HolderId,
        token: Fence,
        lasts: Duration,
    ) -> Refreshed {
        if self.records[at(name)].is_locked {
            return Refreshed::Skipped;
        }
        let is_theirs = self.holder(real, name) == Some(by);
        if !is_theirs || self.records[at(name)].token != token.0 {
            return Refreshed::Lost(Some(self.look(real, name)));
        }
        self.records[at(name)].expires = self.now(real) + u64::try_from(lasts.as_nanos()).unwrap();
        Refreshed::Held
    }

    /// Also when its time is over and nobody took it. Whether another process asked for it in vain.
    pub fn release(&mut self, name: &LeaseName, by: HolderId) -> (Released, bool) {
        let record = &mut self.records[at(name)];
        if !record.is_given || record.holder != Some(by) {
            return (Released::WasLost, false);
        }
        record.is_given = false;
        self.gave_back.insert(by);
        (Released::WasOurs, record.wanted)
    }

    pub fn force(&mut self, real: u64, name: &LeaseName) -> Option<LeaseRecord> {
        let before = self.look(real, name);
        let holder = self.holder(real, name)?;
        let record = &mut self.records[at(name)];
        record.is_given = false;
        record.token += 1;
        self.robbed.insert(holder);
        Some(before)
    }
}
