//! What a killed bank leaves behind, as another process with plain heed reads it.

mod bank_support;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bank_support::{Bank, Clients, audit};

const ROUNDS: usize = 20;
const ACCOUNTS: u64 = 10;
const BALANCE: u64 = 100_000;
const CLIENTS: u64 = 8;

/// Each round reopens what the one before left, and adds to it.
#[test]
fn i02_each_transfer_that_was_answered_survives_kill_9_twenty_times_over() {
    let folder = tempfile::tempdir().unwrap();
    let references = Arc::new(AtomicU64::new(1));
    let random = RandomState::new();
    let mut answered = BTreeSet::new();

    for round in 0..ROUNDS {
        let bank = Bank::serve(folder.path());
        let mut connection = bank.connect();
        if round == 0 {
            connection.open_accounts(1..=ACCOUNTS, BALANCE);
        }
        let total = connection.get("/total");
        assert_eq!(total.status, 200, "round {round}: {total:?}");
        assert_eq!(total.body["total"], ACCOUNTS * BALANCE, "round {round}");

        let clients = Clients::start(&bank, CLIENTS, ACCOUNTS, &references);
        // At a random moment of the load: after some number of answers, with the other clients' requests anywhere.
        let moment = 1 + random.hash_one(round) % 300;
        answered.extend(clients.next(usize::try_from(moment).unwrap()));
        bank.kill();
        answered.extend(clients.finish());

        let audit = audit(folder.path());
        assert_eq!(audit.accounts, ACCOUNTS, "round {round}");
        assert_eq!(audit.total, ACCOUNTS * BALANCE, "round {round}");
        let found: BTreeSet<u64> = audit.refs.iter().copied().collect();
        let lost: Vec<_> = answered.difference(&found).collect();
        assert!(
            lost.is_empty(),
            "round {round}: answered, and lost: {lost:?}"
        );
        assert_eq!(
            found.len(),
            audit.refs.len(),
            "round {round}: a transfer was made twice"
        );
        assert_eq!(audit.transfers, audit.refs.len() as u64, "round {round}");
        // Those that were neither answered nor undone are in flight at a kill: one for each client at most.
        let unanswered = found.len() - answered.len();
        let in_flight = usize::try_from(CLIENTS).unwrap() * (round + 1);
        assert!(
            unanswered <= in_flight,
            "round {round}: {unanswered} transfers that nobody was told of"
        );
        let sent = references.load(Ordering::Relaxed);
        assert!(
            found.iter().all(|reference| *reference < sent),
            "round {round}"
        );
    }
}
