//! Other processes with leases in a folder, and what they do when they are told to.

use std::path::Path;
use std::time::Duration;

use lockkeeper::{Claimed, Fence, LeaseStore, LmdbLeases, Refreshed, Released, StoreError};
use rustix::process::Signal;

use crate::crowd;
use crate::leader::Leader;
use crate::opening;
use crate::process;
use crate::support::{block_on, extension, holder, name, wish};

/// Another process on a folder. It is killed when dropped.
pub struct Peer(process::Peer);

impl Peer {
    /// Starts a process and has it open the leases.
    pub fn start(folder: &Path) -> Self {
        let mut peer = Self::idle(folder);
        assert_eq!(peer.ask("open"), "open");
        peer
    }

    /// Starts a process that does nothing yet.
    pub fn idle(folder: &Path) -> Self {
        let folder = folder.to_str().unwrap();
        Self(process::Peer::start("peer::another_process", &[folder]))
    }

    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    pub fn ask(&mut self, order: &str) -> String {
        self.0.ask(order)
    }

    /// Has it claim a lease; the token, or `None` if somebody holds it.
    pub fn claim(&mut self, lease: &str, id: &str, expiration: Duration) -> Option<Fence> {
        let answer = self.ask(&format!("claim {lease} {id} {}", expiration.as_millis()));
        let token = answer.strip_prefix("ours ")?;
        Some(Fence(token.parse().unwrap()))
    }

    pub fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }

    /// `kill -9`.
    pub fn kill(self) {
        self.0.kill();
    }
}

/// What a [`Peer`] runs; in the test run itself it does nothing.
#[test]
fn another_process() {
    let Some(told) = process::told() else {
        return;
    };
    let folder = Path::new(&told[0]);
    let mut store = None;
    let mut leader = None;
    let mut writer = None;
    process::obey(|order| {
        let words: Vec<_> = order.split(' ').collect();
        match words[..] {
            ["lead"] => leader.insert(Leader::new(folder)).token(),
            ["keep", "the", "writer"] => {
                writer = Some(opening::keep_the_writer(folder));
                "kept".into()
            }
            ["let", "it", "go"] => {
                drop(writer.take());
                "gone".into()
            }
            ["stay", "away"] => leader.as_ref().unwrap().stay_away(),
            ["write", text] => leader.as_ref().unwrap().write(text),
            _ => obey(&mut store, folder, &words),
        }
    })
}

fn obey(store: &mut Option<LmdbLeases>, folder: &Path, words: &[&str]) -> String {
    if words == ["open"] {
        *store = Some(LmdbLeases::open(folder).unwrap());
        return "open".into();
    }
    let store = store.as_ref().unwrap();
    let millis = |nth: usize| Duration::from_millis(words[nth].parse().unwrap());
    let answer: Result<String, StoreError> = match words[0] {
        "claim" => {
            let claim = wish(words[1], words[2], millis(3));
            block_on(store.claim(&claim)).map(|claimed| match claimed {
                Claimed::Ours { token } => format!("ours {token}"),
                Claimed::Busy(record) => format!("busy {}", record.holder.unwrap().id),
            })
        }
        "refresh" => {
            let token = Fence(words[4].parse().unwrap());
            let lease = extension(words[1], words[2], token, millis(3));
            block_on(store.refresh(&[lease])).map(|outcomes| match &outcomes[..] {
                [Refreshed::Held] => "held".into(),
                [Refreshed::Lost(_)] => "lost".into(),
                other => format!("{other:?}"),
            })
        }
        "release" => {
            let released = block_on(store.release(&name(words[1]), &holder(words[2])));
            released.map(|released| match released {
                Released::WasOurs => "was ours".into(),
                Released::WasLost => "was lost".into(),
            })
        }
        "contend" => {
            crowd::contend(store, folder, millis(1));
            Ok("contending".into())
        }
        "failure" => Ok(crowd::failure().unwrap_or_else(|| "none".into())),
        order => panic!("{order}?"),
    };
    answer.unwrap()
}
