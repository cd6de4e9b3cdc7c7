//! The settings of the lock table in `lockkeeper.toml`.

use std::time::Duration;

use lockkeeper::VictimPolicy;
use proptest::prelude::*;

use super::*;

#[test]
fn each_policy_is_written_by_its_name() {
    for policy in VictimPolicy::ALL {
        let text = format!("detect_policy = \"{}\"", policy.name());
        assert_eq!(config(&[(TOML, &text)]).unwrap().detect_policy(), policy);
    }
    assert_eq!(
        complaint(TOML, b"detect_policy = \"fairest\""),
        "setting detect_policy = \"fairest\" at lockkeeper.toml:1: expected one of \"default\", \"expire\", \"max-locks\", \
         \"max-write\", \"min-locks\", \"min-write\", \"oldest\", \"random\", \"youngest\""
    );
}

#[test]
fn every_field_of_the_lock_table_can_be_set() {
    let text = "detect_on_block = false\ndetect_interval = \"off\"\ndetect_policy = \"max-locks\"\nlock_timeout = \"1us\"\n\
                no_wait = true\ntxn_timeout = \"1h\"\nmax_hold = \"2s\"\nabort_on_max_hold = true\nmax_lockers = 1\n\
                max_locks = 2\nmax_objects = 3\nlimit_warning = 0\norder_warnings = true\n";
    let folder = folder(&[(TOML, text.as_bytes())]);
    let keeper = Keeper::open(folder.path()).unwrap();
    let lines: Vec<_> = set(keeper.config())
        .into_iter()
        .map(|(name, _, source)| (name, source))
        .collect();
    let expected: Vec<_> = text
        .lines()
        .enumerate()
        .map(|(at, text)| (text.split(' ').next().unwrap_or(""), line(TOML, at + 1)))
        .collect();
    assert_eq!(lines, expected);
    let locks = keeper.locks().config();
    assert!(!locks.detect_on_block && locks.no_wait && locks.abort_on_max_hold);
    assert!(locks.order_warnings);
    assert_eq!(locks.detect_policy, VictimPolicy::MaxLocks);
    assert_eq!(locks.detect_interval, Duration::ZERO);
    assert_eq!(locks.lock_timeout, Duration::from_micros(1));
    assert_eq!(locks.txn_timeout, Duration::from_secs(3600));
    assert_eq!(locks.max_hold, Duration::from_secs(2));
    assert_eq!(
        (locks.max_lockers, locks.max_locks, locks.max_objects),
        (1, 2, 3)
    );
    assert_eq!(locks.limit_warning, 0);
}

#[test]
fn the_page_says_what_may_change_while_the_keeper_runs() {
    let page = fs::read_to_string("docs/settings.md").unwrap();
    let may_change = |name: &str| {
        let row = page
            .lines()
            .find(|l| l.starts_with(&format!("| `{name}` |")));
        let cells: Vec<_> = row.unwrap().rsplit(" | ").collect();
        cells[1].to_owned()
    };
    for name in [
        "detect_on_block",
        "detect_interval",
        "detect_policy",
        "lock_timeout",
        "no_wait",
        "txn_timeout",
        "max_hold",
        "abort_on_max_hold",
    ] {
        assert_eq!(may_change(name), "yes", "{name}");
    }
    for name in ["max_lockers", "max_locks", "max_objects"] {
        assert_eq!(may_change(name), "yes, not below what is in use", "{name}");
    }
    for name in ["limit_warning", "order_warnings", "queue"] {
        assert_eq!(may_change(name), "no", "{name}");
    }
}

proptest! {
    #[test]
    fn any_configuration_is_printed_as_a_file_that_makes_it_again(
        nanos in 1_000..2_592_000_000_000_000_u64,
        size in 1 << 16..1_u64 << 40,
        locks in 1..100_000_000_usize,
        policy in 0..VictimPolicy::ALL.len(),
        step in 1..u64::MAX,
        no_wait in any::<bool>(),
    ) {
        let settings = Settings::default()
            .lock_timeout(Duration::from_nanos(nanos))
            .map_size(size)
            .max_locks(locks)
            .detect_policy(VictimPolicy::ALL[policy])
            .growth(lockkeeper::Growth::Step(step))
            .no_wait(no_wait);
        let config = settings.resolve_without_file().unwrap();
        let printed = config.to_string();
        let again = super::config(&[(TOML, &printed)]).unwrap();
        let values = |config: &Config| config.describe().map(|(n, v, _)| (n, v)).collect::<Vec<_>>();
        prop_assert_eq!(values(&again), values(&config));
    }
}
