//! A lease as it lies in the file, and what may become of it: pure, time is a parameter.
//!
//! A record that cannot be read is an error, never a lease that is free: it may have been written by a later version, for a
//! holder that is alive.

use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::leases::{Claim, Claimed, Fence, Holder, LeaseName, LeaseRecord, Refresh, Released};

/// A moment on the clock of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Which boot of the machine.
    pub boot: [u8; 16],
    /// Nanoseconds since then, suspend included.
    pub nanos: u64,
}

/// What is stored under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// Not given back.
    pub locked: bool,
    pub token: Fence,
    pub expires: Moment,
    pub holder: Holder,
}

/// What became of a claim, and what is to be written for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decided {
    Take(Stored),
    Busy(LeaseRecord),
    /// The token cannot grow any more.
    Spent,
}

impl Stored {
    /// How long it is held still; `None` if it is not.
    pub(super) fn remaining(&self, now: Moment) -> Option<Duration> {
        let same_boot = self.locked && self.expires.boot == now.boot;
        let left = self.expires.nanos.checked_sub(now.nanos);
        left.filter(|&left| same_boot && left > 0)
            .map(Duration::from_nanos)
    }

    /// How long it has been expired. Of a lease from before the last boot nobody knows when its time was over, but at the boot
    /// it was.
    fn expired_for(&self, now: Moment) -> Duration {
        let since = match self.expires.boot == now.boot {
            true => self.expires.nanos,
            false => 0,
        };
        Duration::from_nanos(now.nanos.saturating_sub(since))
    }

    pub(super) fn record(&self, name: &LeaseName, now: Moment) -> LeaseRecord {
        let holder = Some(self.holder.clone());
        LeaseRecord::new(name.clone(), holder, self.token, self.remaining(now))
    }

    fn is_held_by(&self, holder: &Holder) -> bool {
        self.locked && self.holder.id == holder.id
    }

    /// Decides a claim.
    pub(super) fn claim(found: Option<&Self>, claim: &Claim, now: Moment) -> Decided {
        let take = |token| {
            Decided::Take(Self {
                locked: true,
                token,
                expires: now.after(claim.expiration),
                holder: claim.holder.clone(),
            })
        };
        let Some(found) = found else {
            return take(Fence(1));
        };
        if found.is_held_by(&claim.holder) {
            // Its answer was lost. The time counts from now, as whoever asks again reckons it.
            return take(found.token);
        }
        let mut record = found.record(&claim.name, now);
        if record.remaining.is_some() {
            return Decided::Busy(record);
        }
        let expired_for = found.expired_for(now);
        if found.locked && expired_for < claim.unclean_delay {
            record.remaining = Some(claim.unclean_delay.saturating_sub(expired_for));
            return Decided::Busy(record);
        }
        found
            .token
            .0
            .checked_add(1)
            .map_or(Decided::Spent, |token| take(Fence(token)))
    }

    /// What it becomes by a refresh; `None` if it is not this holder's any more.
    pub(super) fn refresh(&self, refresh: &Refresh, now: Moment) -> Option<Self> {
        let ours = self.is_held_by(&refresh.holder) && self.token == refresh.token;
        (ours && self.remaining(now).is_some()).then(|| Self {
            expires: now.after(refresh.expiration),
            ..self.clone()
        })
    }

    /// What it becomes by a release; nothing new if it is not this holder's any more.
    pub(super) fn release(&self, holder: &Holder) -> (Released, Option<Self>) {
        match self.is_held_by(holder) {
            false => (Released::WasLost, None),
            true => (Released::WasOurs, Some(self.free())),
        }
    }

    /// What it becomes when it is taken away: the token moves on, so that whoever had it is behind.
    pub(super) fn force_release(&self) -> Option<Self> {
        let token = Fence(self.token.0.saturating_add(1));
        self.locked.then(|| Self {
            token,
            ..self.free()
        })
    }

    fn free(&self) -> Self {
        Self {
            locked: false,
            ..self.clone()
        }
    }
}

impl Moment {
    fn after(self, span: Duration) -> Self {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self {
            nanos: self.nanos.saturating_add(span),
            ..self
        }
    }
}

impl From<Stored> for Claimed {
    fn from(taken: Stored) -> Self {
        Self::Ours { token: taken.token }
    }
}

/// The form of the records; another one is written by a later version.
const VERSION: u8 = 1;

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRecord {
    #[error("its record has the form {0}, which only a later version can read")]
    Version(u8),
    #[error("its record is damaged")]
    Damaged,
}

/// `version · locked · boot (16) · expires (8) · token (8) · pid (4) · id · host · checksum (8)`; a text has its length (2)
/// before it. The checksum covers the key as well.
impl Stored {
    pub(super) fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut bytes = vec![VERSION, u8::from(self.locked)];
        bytes.extend(self.expires.boot);
        bytes.extend(self.expires.nanos.to_be_bytes());
        bytes.extend(self.token.0.to_be_bytes());
        bytes.extend(self.holder.pid.to_be_bytes());
        for text in [&self.holder.id, &self.holder.host] {
            // What decides is never cut: ids are made here, and are short. A host's name only informs.
            let text = text.as_bytes();
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            bytes.extend(length.to_be_bytes());
            bytes.extend(text.iter().take(usize::from(length)));
        }
        let sum = checksum(key, &bytes);
        bytes.extend(sum);
        bytes
    }

    pub(super) fn decode(key: &[u8], bytes: &[u8]) -> Result<Self, BadRecord> {
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&version) => return Err(BadRecord::Version(version)),
            None => return Err(BadRecord::Damaged),
        }
        let (content, sum) = bytes.split_last_chunk::<8>().ok_or(BadRecord::Damaged)?;
        if checksum(key, content) != *sum {
            return Err(BadRecord::Damaged);
        }
        Self::fields(content).ok_or(BadRecord::Damaged)
    }

    fn fields(content: &[u8]) -> Option<Self> {
        let (&[_, locked], rest) = content.split_first_chunk()?;
        let (&boot, rest) = rest.split_first_chunk()?;
        let (&expires, rest) = rest.split_first_chunk()?;
        let (&token, rest) = rest.split_first_chunk()?;
        let (&pid, rest) = rest.split_first_chunk()?;
        let (id, rest) = text(rest)?;
        let (host, rest) = text(rest)?;
        (locked <= 1 && rest.is_empty()).then(|| Self {
            locked: locked == 1,
            token: Fence(u64::from_be_bytes(token)),
            expires: Moment {
                boot,
                nanos: u64::from_be_bytes(expires),
            },
            holder: Holder {
                id,
                host,
                pid: u32::from_be_bytes(pid),
            },
        })
    }
}

fn text(bytes: &[u8]) -> Option<(Arc<str>, &[u8])> {
    let (&length, rest) = bytes.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(length)))?;
    Some((std::str::from_utf8(text).ok()?.into(), rest))
}

fn checksum(key: &[u8], content: &[u8]) -> [u8; 8] {
    let mut hasher = SipHasher13::new();
    hasher.write(&(key.len() as u64).to_be_bytes());
    hasher.write(key);
    hasher.write(content);
    hasher.finish().to_be_bytes()
}

#[cfg(test)]
mod tests;
