//! Other processes with leases in a store, and what they do when they are told to.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockkeeper::{LeaseGuard, Leases, Released, store_from_url};

use crate::gate::Gate;
use crate::ground::{PATIENCE, Pace, block_on};
use crate::process::{self, Peer};
use crate::stop::now;
use crate::{exclusion, ground};

/// How long a process stays away from its store, to be stopped meanwhile.
const AWAY: Duration = Duration::from_millis(500);

/// Starts a process, which connects to nothing before its first order.
pub fn start(url: &str, folder: &Path) -> Peer {
    let folder = folder.to_str().unwrap();
    Peer::start("peer::another_process", &[url, folder])
}

/// What a [`Peer`] runs; in the test run itself it does nothing.
#[test]
fn another_process() {
    let Some(told) = process::told() else {
        return;
    };
    let [url, folder] = &told[..] else {
        panic!("{told:?}?")
    };
    let mut pace = Pace::SHORT;
    let mut gate = None;
    let mut leases = None;
    let mut guard = None;
    process::obey(|order| {
        if order == "be quick" {
            pace = Pace::QUICK;
            return "quick".into();
        }
        if order == "go through a gate" {
            let before = gate.insert(Gate::before(store_from_url(url).unwrap()));
            leases = Some(pace.leases_in(Arc::new(before.clone())));
            return "through a gate".into();
        }
        if order == "stay away" {
            return stay_away(gate.as_ref().unwrap(), guard.as_ref().unwrap()).to_string();
        }
        // Not before the first order: then all begin at once.
        let leases = leases.get_or_insert_with(|| pace.leases(url));
        obey(leases, &mut guard, Path::new(folder), order)
    })
}

/// Answers until when this process is not in its store, and holds its lease for sure.
fn stay_away(gate: &Gate, guard: &LeaseGuard) -> u64 {
    let began = Instant::now();
    loop {
        let end = now() + u64::try_from(AWAY.as_nanos()).unwrap();
        let away = gate.shut_until(end);
        let left = guard.remaining();
        if away && left > AWAY {
            return end;
        }
        assert!(began.elapsed() < PATIENCE && !left.is_zero(), "{left:?}");
    }
}

fn obey(leases: &Leases, guard: &mut Option<LeaseGuard>, folder: &Path, order: &str) -> String {
    match order {
        "contend" => {
            exclusion::contend(leases, folder);
            "contending".into()
        }
        "acquire" => {
            let acquired = block_on(leases.acquire_timeout("job", PATIENCE));
            guard.insert(acquired.unwrap()).token().to_string()
        }
        // For one that may have to wait for a processor, or a connection, before it can give it back.
        "acquire for long" => {
            let lease = leases.lease("job").expiration(Pace::LONG.expiration);
            let acquired = block_on(lease.acquire_timeout(PATIENCE));
            guard.insert(acquired.unwrap()).token().to_string()
        }
        "is held" => guard.as_ref().unwrap().is_held().to_string(),
        "lost" => {
            let guard = guard.as_ref().unwrap();
            let reason = block_on(ground::soon("the loss", guard.lost()));
            assert!(!guard.is_held() && guard.remaining().is_zero());
            let cancellation = guard.cancellation();
            block_on(ground::soon("the end", cancellation.cancelled()));
            reason.word().into()
        }
        "release" => match released(guard.take().unwrap()) {
            Released::WasOurs => "was ours".into(),
            Released::WasLost => "was lost".into(),
        },
        order => panic!("{order}?"),
    }
}

/// Gives a lease back, on this thread.
pub fn released(guard: LeaseGuard) -> Released {
    block_on(given_back(guard))
}

/// A busy machine may not answer in time: then it is tried again.
pub async fn given_back(mut guard: LeaseGuard) -> Released {
    let begun = Instant::now();
    loop {
        match guard.release().await {
            Ok(released) => return released,
            Err(failed) => {
                assert!(begun.elapsed() < PATIENCE, "{failed}");
                guard = failed.guard;
            }
        }
    }
}
