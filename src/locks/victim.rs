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
}

/// How the victim is chosen among those on a cycle that have the lowest priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum VictimPolicy {
    /// The one whose first attempt began last; of two with one age, the one that was made later.
    /// This is the default. With equal priorities every transaction ends at last, since each that is
    /// run again keeps its age.
    #[default]
    Youngest,
}

impl VictimPolicy {
    /// Chooses; `None` only if there is nobody to choose from.
    #[must_use]
    pub fn choose(self, candidates: &[Candidate]) -> Option<LockerId> {
        let lowest = candidates
            .iter()
            .map(|candidate| candidate.priority)
            .min()?;
        let among = candidates
            .iter()
            .filter(|candidate| candidate.priority == lowest);
        let chosen = match self {
            VictimPolicy::Youngest => {
                among.max_by_key(|candidate| (candidate.age, candidate.locker))
            }
        };
        chosen.map(|candidate| candidate.locker)
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::{LockerSlot, Slot};
    use super::*;

    fn candidate(number: u64, priority: u32, age: u64) -> Candidate {
        let slot = LockerSlot::from_index(0);
        Candidate {
            locker: LockerId { number, slot },
            priority,
            age: Age(age),
        }
    }

    #[test]
    fn the_youngest_among_those_of_the_lowest_priority() {
        let rows = [
            (vec![], None),
            (vec![(1, 100, 1), (2, 100, 2)], Some(2)),
            // Seniority is that of the first attempt, not of the locker.
            (vec![(1, 100, 9), (2, 100, 2)], Some(1)),
            // Priority comes before age.
            (vec![(1, 50, 1), (2, 100, 2)], Some(1)),
            // One age: the locker that was made later.
            (vec![(4, 100, 2), (3, 100, 2)], Some(4)),
        ];
        for (candidates, expected) in rows {
            let candidates: Vec<_> = candidates
                .into_iter()
                .map(|(n, p, a)| candidate(n, p, a))
                .collect();
            let chosen = VictimPolicy::Youngest.choose(&candidates);
            assert_eq!(chosen.map(LockerId::number), expected, "{candidates:?}");
        }
    }
}
