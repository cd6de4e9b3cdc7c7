//! Who is aborted to break a cycle.

use super::{Age, LockerId};

/// A family on a cycle, as the choice of a victim sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The root locker.
    pub locker: LockerId,
    /// Its priority.
    pub priority: u32,
    /// Its age.
    pub age: Age,
    /// How many locks the family holds; a lock that is held several times counts once.
    pub locks: usize,
    /// How many of them announce a change ([`Mode::is_write`](super::Mode::is_write)).
    pub write_locks: usize,
    /// Whether the family is past its time: its transaction's, that of one of its waits, or that of a
    /// lock it holds.
    pub expired: bool,
    /// Whether it is the one whose request closed the cycle just now.
    pub asked: bool,
}

/// How the victim is chosen among those on a cycle that have the lowest priority.
///
/// Ties are decided for the youngest, and of two with one age for the locker that was made later; with
/// [`Oldest`](Self::Oldest), where only one age can tie, for the locker that was made first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub enum VictimPolicy {
    /// In a request to look for deadlocks: the policy of the table. As the policy of the table: the one
    /// whose request closes the cycle, unless it is the oldest on it; then, and for a cycle that is found
    /// later, the youngest. This is the default.
    ///
    /// Who asks is awake and has done its work for nothing in any case: nobody else has to be woken to
    /// give way. The oldest of all is never the victim, so that with equal priorities every transaction
    /// ends at last, since each that is run again keeps its age.
    #[default]
    Default,
    /// One that is past its time, if there is one; otherwise the youngest.
    Expire,
    /// The one that holds the most locks.
    MaxLocks,
    /// The one that holds the most write locks.
    MaxWrite,
    /// The one that holds the fewest locks.
    MinLocks,
    /// The one that holds the fewest write locks.
    MinWrite,
    /// The one whose first attempt began first.
    Oldest,
    /// Any; each is as likely. The sequence follows from the table's seed.
    Random,
    /// The one whose first attempt began last. With equal priorities every transaction ends at last,
    /// since each that is run again keeps its age.
    Youngest,
}

impl VictimPolicy {
    /// Every policy.
    pub const ALL: [VictimPolicy; 9] = [
        VictimPolicy::Default,
        VictimPolicy::Expire,
        VictimPolicy::MaxLocks,
        VictimPolicy::MaxWrite,
        VictimPolicy::MinLocks,
        VictimPolicy::MinWrite,
        VictimPolicy::Oldest,
        VictimPolicy::Random,
        VictimPolicy::Youngest,
    ];

    /// The policy's name, as settings write it: `default`, `expire`, `max-locks`, `max-write`,
    /// `min-locks`, `min-write`, `oldest`, `random`, `youngest`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            VictimPolicy::Default => "default",
            VictimPolicy::Expire => "expire",
            VictimPolicy::MaxLocks => "max-locks",
            VictimPolicy::MaxWrite => "max-write",
            VictimPolicy::MinLocks => "min-locks",
            VictimPolicy::MinWrite => "min-write",
            VictimPolicy::Oldest => "oldest",
            VictimPolicy::Random => "random",
            VictimPolicy::Youngest => "youngest",
        }
    }

    /// Chooses; `None` only if there is nobody to choose from. `random` is a number in whose place any
    /// other is as likely; only [`VictimPolicy::Random`] looks at it.
    #[must_use]
    pub fn choose(self, candidates: &[Candidate], random: u64) -> Option<Candidate> {
        let lowest = candidates.iter().map(|one| one.priority).min()?;
        let among = || candidates.iter().filter(|one| one.priority == lowest);
        let seniority = |one: &&Candidate| (one.age, one.locker);
        let best_by =
            |key: fn(&Candidate) -> u64| among().max_by_key(|one| (key(one), seniority(one)));
        match self {
            VictimPolicy::Oldest => among().min_by_key(seniority),
            VictimPolicy::Random => {
                let mut sorted: Vec<&Candidate> = among().collect();
                sorted.sort_unstable_by_key(seniority);
                let at = random % (sorted.len() as u64);
                sorted.get(at as usize).copied()
            }
            VictimPolicy::Expire => best_by(|one| u64::from(one.expired)),
            VictimPolicy::MaxLocks => best_by(|one| one.locks as u64),
            VictimPolicy::MinLocks => best_by(|one| u64::MAX - one.locks as u64),
            VictimPolicy::MaxWrite => best_by(|one| one.write_locks as u64),
            VictimPolicy::MinWrite => best_by(|one| u64::MAX - one.write_locks as u64),
            VictimPolicy::Youngest => among().max_by_key(seniority),
            VictimPolicy::Default => {
                let oldest = candidates.iter().min_by_key(seniority);
                among()
                    .find(|one| one.asked && Some(*one) != oldest)
                    .or_else(|| among().max_by_key(seniority))
            }
        }
        .copied()
    }
}

impl std::fmt::Display for VictimPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::{LockerSlot, Slot};
    use super::*;

    fn candidate(number: u64, age: u64) -> Candidate {
        let slot = LockerSlot::from_index(0);
        Candidate {
            locker: LockerId { number, slot },
            priority: 100,
            age: Age(age),
            locks: 5,
            write_locks: 3,
            expired: false,
            asked: false,
        }
    }

    fn chosen(policy: VictimPolicy, candidates: &[Candidate], random: u64) -> Option<u64> {
        let chosen = policy.choose(candidates, random)?;
        Some(chosen.locker.number())
    }

    #[test]
    fn each_policy_picks_another_one() {
        let mut all: Vec<Candidate> = (1..=7).map(|n| candidate(n, n)).collect();
        all[1].locks = 9;
        all[2].locks = 1;
        all[3].write_locks = 9;
        all[4].write_locks = 1;
        all[5].expired = true;
        for (policy, expected) in [
            (VictimPolicy::Oldest, 1),
            (VictimPolicy::MaxLocks, 2),
            (VictimPolicy::MinLocks, 3),
            (VictimPolicy::MaxWrite, 4),
            (VictimPolicy::MinWrite, 5),
            (VictimPolicy::Expire, 6),
            (VictimPolicy::Youngest, 7),
        ] {
            assert_eq!(chosen(policy, &all, 0), Some(expected), "{policy}");
        }
    }

    #[test]
    fn by_default_it_is_who_asked_unless_that_is_the_oldest() {
        for (asked, expected) in [(None, 5), (Some(1), 5), (Some(2), 2), (Some(5), 5)] {
            let all: Vec<Candidate> = (1..=5)
                .map(|n| Candidate {
                    asked: Some(n) == asked,
                    ..candidate(n, n)
                })
                .collect();
            assert_eq!(chosen(VictimPolicy::Default, &all, 0), Some(expected));
        }
    }

    #[test]
    fn random_reaches_everyone() {
        let all: Vec<Candidate> = (1..=5).map(|n| candidate(n, n)).collect();
        let mut reached: Vec<_> = (0..5)
            .filter_map(|random| chosen(VictimPolicy::Random, &all, random))
            .collect();
        reached.sort_unstable();
        assert_eq!(reached, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn priority_comes_before_every_policy() {
        let low = Candidate {
            priority: 50,
            ..candidate(3, 3)
        };
        let asked = Candidate {
            asked: true,
            ..candidate(9, 9)
        };
        let all = [candidate(1, 1), low, asked];
        for policy in VictimPolicy::ALL {
            assert_eq!(chosen(policy, &all, 7), Some(3), "{policy}");
        }
    }

    #[test]
    fn ties_go_to_the_youngest() {
        // Seniority is that of the first attempt, not of the locker; of one age, the later locker.
        let all = [candidate(1, 9), candidate(2, 2), candidate(4, 9)];
        for policy in [
            VictimPolicy::Default,
            VictimPolicy::Expire,
            VictimPolicy::MaxLocks,
            VictimPolicy::MaxWrite,
            VictimPolicy::MinLocks,
            VictimPolicy::MinWrite,
            VictimPolicy::Youngest,
        ] {
            assert_eq!(chosen(policy, &all, 0), Some(4), "{policy}");
            assert_eq!(chosen(policy, &[], 0), None, "{policy}");
        }
        // The oldest are of one age too.
        let all = [candidate(7, 2), candidate(4, 2), candidate(1, 9)];
        assert_eq!(chosen(VictimPolicy::Oldest, &all, 0), Some(4));
    }
}
