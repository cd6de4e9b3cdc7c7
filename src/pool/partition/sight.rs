//! What a look at the store shows of one partitioned pool: who lives, and who holds what.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::leases::LeaseRecord;

/// The names of the leases of one partitioned pool: `NAME/3` for a partition, `NAME/member-0` for a process that takes part.
///
/// A process takes the lowest number for a member that is free, and gives it back, so a store keeps as many names as there were
/// processes at once, however often they were restarted.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pool: Arc<str>,
}

impl Names {
    pub(crate) const fn new(pool: Arc<str>) -> Self {
        Self { pool }
    }

    pub(crate) fn partition(&self, number: u32) -> Arc<str> {
        format!("{}/{number}", self.pool).into()
    }

    pub(crate) fn member(&self, slot: u32) -> Arc<str> {
        format!("{}/{MEMBER}{slot}", self.pool).into()
    }

    /// What a lease is to this pool; `None` for a lease of somebody else.
    fn kind(&self, lease: &str) -> Option<Kind> {
        let rest = lease.strip_prefix(&*self.pool)?.strip_prefix('/')?;
        match rest.strip_prefix(MEMBER) {
            Some(slot) => number(slot).map(Kind::Member),
            None => number(rest).map(Kind::Partition),
        }
    }
}

const MEMBER: &str = "member-";

enum Kind {
    Member(u32),
    Partition(u32),
}

/// A number as it is written here, and in no other way: two names must not be one.
fn number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// A lease that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    /// The label of the process that holds it, if the store says so.
    pub by: Option<Arc<str>>,
    /// For how long still, if it is not refreshed.
    pub remaining: Duration,
}

/// What is held at one instant, of what belongs to the pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sight {
    /// The processes that take part, by slot.
    pub members: BTreeMap<u32, Live>,
    /// The partitions that are held.
    pub partitions: BTreeMap<u32, Live>,
}

impl Sight {
    /// Takes from a list of all leases in the store what belongs to the pool.
    pub(crate) fn of(names: &Names, records: &[LeaseRecord]) -> Self {
        let mut sight = Self::default();
        for record in records {
            let Some(remaining) = record.remaining else {
                continue;
            };
            let Some(kind) = names.kind(record.name.as_str()) else {
                continue;
            };
            let id = record.holder.as_ref().map(|holder| &*holder.id);
            let by = id.and_then(|id| Some(Arc::from(id.rsplit_once('/')?.0)));
            let live = Live { by, remaining };
            match kind {
                Kind::Member(slot) => sight.members.insert(slot, live),
                Kind::Partition(partition) => sight.partitions.insert(partition, live),
            };
        }
        sight
    }

    /// How many of `partitions` the process with this label in this slot should hold; `None` if it does not take part.
    ///
    /// Each of n live processes gets `partitions / n`, and those that hold most one more, until all are given out; of two that hold
    /// as many the one with the lower slot comes first. So the shares of all add up to all partitions, none differs by more
    /// than one from another, as few as possible have to move, and all who see the same come to the same.
    pub(crate) fn share(&self, me: &str, slot: u32, partitions: u32) -> Option<u32> {
        let own = self.members.get(&slot)?;
        if own.by.as_deref().is_some_and(|by| by != me) {
            return None;
        }
        let members = u32::try_from(self.members.len()).ok()?;
        let (each, over) = (partitions / members, partitions % members);
        // Only by what all can see: what this process knows of itself, the others do not.
        let rank = |slot: u32, live: &Live| {
            let held = self.held(live.by.as_deref(), partitions);
            (std::cmp::Reverse(held), slot)
        };
        let mine = rank(slot, own);
        let others = self.members.iter();
        let before = others.filter(|(slot, live)| rank(**slot, live) < mine);
        let is_over = u32::try_from(before.count()).is_ok_and(|before| before < over);
        Some(each + u32::from(is_over))
    }

    /// How many of the partitions a process holds.
    fn held(&self, label: Option<&str>, partitions: u32) -> usize {
        let Some(label) = label else { return 0 };
        self.partitions
            .range(..partitions)
            .filter(|(_, live)| live.by.as_deref() == Some(label))
            .count()
    }

    /// Whether the same processes took part in an earlier look.
    pub(crate) fn has_members_of(&self, other: Option<&Self>) -> bool {
        let who = |sight: &Self| -> Vec<(u32, Option<Arc<str>>)> {
            let entries = sight.members.iter();
            entries
                .map(|(slot, live)| (*slot, live.by.clone()))
                .collect()
        };
        other.is_some_and(|other| who(self) == who(other))
    }

    /// The lowest number for a member that nobody has.
    pub(crate) fn free_slot(&self) -> u32 {
        let taken = self.members.keys().copied();
        let dense = taken.zip(0_u32..).take_while(|(slot, at)| slot == at);
        u32::try_from(dense.count()).unwrap_or(u32::MAX)
    }

    /// When the first lease of somebody else expires, if it is not refreshed.
    pub(crate) fn soonest_end(&self, me: &str) -> Option<Duration> {
        self.members
            .values()
            .chain(self.partitions.values())
            .filter(|live| live.by.as_deref() != Some(me))
            .map(|live| live.remaining)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::{Fence, Holder, LeaseName};

    const LONG: Duration = Duration::from_secs(100);

    fn live(by: &str) -> Live {
        Live {
            by: Some(by.into()),
            remaining: LONG,
        }
    }

    fn record(name: &str, id: &str, remaining: Option<Duration>) -> LeaseRecord {
        let holder = Holder {
            id: id.into(),
            host: "here".into(),
            pid: 1,
        };
        let name = LeaseName::new(name).unwrap();
        LeaseRecord::new(name, Some(holder), Fence(1), remaining)
    }

    #[test]
    fn leases_of_others_in_the_same_store_are_none_of_the_pools() {
        let names = Names::new("import".into());
        let own = [
            record("import/0", "a/1", Some(LONG)),
            record("import/10", "b/1", Some(LONG)),
            record("import/3", "a/1", None),
            record("import/member-0", "a/1", Some(LONG)),
            record("import/member-7", "b/1", Some(LONG)),
        ];
        let others = [
            "import",
            "import/",
            "import/01",
            "import/+1",
            "import/-1",
            "import/99999999999",
            "import/member-",
            "import/member-00",
            "import/member/0",
            "import/member-0/1",
            "import/0/1",
            "imports/0",
            "export/0",
        ];
        let others = others.map(|name| record(name, "x/1", Some(LONG)));
        let sight = Sight::of(&names, &[own.to_vec(), others.to_vec()].concat());
        let of = |entries: [(u32, &str); 2]| entries.map(|(at, by)| (at, live(by))).into();
        assert_eq!(sight.partitions, of([(0, "a"), (10, "b")]));
        assert_eq!(sight.members, of([(0, "a"), (7, "b")]));
        assert_eq!(&*names.partition(10), "import/10");
        assert_eq!(&*names.member(7), "import/member-7");
    }

    #[test]
    fn a_holder_without_a_label_or_unknown_is_nobody_who_takes_part() {
        let names = Names::new("p".into());
        let mut unknown = record("p/1", "", Some(LONG));
        unknown.holder = None;
        let sight = Sight::of(&names, &[record("p/0", "f00", Some(LONG)), unknown]);
        assert!(sight.partitions.values().all(|live| live.by.is_none()));
    }

    #[test]
    fn the_lowest_free_slot_fills_gaps() {
        let slots = |taken: &[u32]| Sight {
            members: taken.iter().map(|slot| (*slot, live("x"))).collect(),
            ..Sight::default()
        };
        for (taken, free) in [
            (&[][..], 0),
            (&[0], 1),
            (&[1], 0),
            (&[0, 1, 3], 2),
            (&[0, 1, 2], 3),
        ] {
            assert_eq!(slots(taken).free_slot(), free, "{taken:?}");
        }
    }

    /// Every way to hand out up to `left` partitions to `members`.
    fn holdings(left: u32, members: usize) -> Vec<Vec<u32>> {
        if members == 0 {
            return vec![Vec::new()];
        }
        let with = |first: u32| {
            holdings(left - first, members - 1)
                .into_iter()
                .map(move |rest| [vec![first], rest].concat())
        };
        (0..=left).flat_map(with).collect()
    }

    #[test]
    fn shares_add_up_differ_by_one_and_move_as_little_as_possible() {
        let mut cases = 0;
        for members in 1..=4 {
            for partitions in 0..=7 {
                for held in holdings(partitions, members) {
                    cases += 1;
                    let mut sight = Sight::default();
                    let mut next = 0;
                    for (slot, held) in (0..).zip(&held) {
                        sight.members.insert(slot, live(&format!("m{slot}")));
                        for _ in 0..*held {
                            sight.partitions.insert(next, live(&format!("m{slot}")));
                            next += 1;
                        }
                    }
                    let share = |slot| sight.share(&format!("m{slot}"), slot, partitions).unwrap();
                    let shares: Vec<u32> = (0..).take(members).map(share).collect();
                    let context = format!("{partitions} of {held:?}: {shares:?}");

                    assert_eq!(shares.iter().sum::<u32>(), partitions, "{context}");
                    let least = partitions / u32::try_from(members).unwrap();
                    assert!(shares.iter().all(|share| share - least <= 1), "{context}");
                    let given = |shares: &[u32]| -> u32 {
                        let each = held.iter().zip(shares);
                        each.map(|(held, share)| held.saturating_sub(*share)).sum()
                    };
                    // No other way to give out the same shares moves fewer.
                    let fewest = holdings(partitions, members)
                        .into_iter()
                        .filter(|other| other.iter().sum::<u32>() == partitions)
                        .filter(|other| other.iter().all(|n| *n >= least && n - least <= 1))
                        .map(|other| given(&other))
                        .min();
                    assert_eq!(Some(given(&shares)), fewest, "{context}");
                }
            }
        }
        assert!(cases > 1_000, "{cases}");
        assert_eq!(Sight::default().share("nobody", 0, 8), None);
    }

    #[test]
    fn a_slot_that_somebody_else_has_gives_no_share() {
        let mut sight = Sight::default();
        sight.members.insert(0, live("other"));
        assert_eq!(sight.share("me", 0, 8), None);
        // A store that does not say who holds is believed.
        sight.members.insert(
            1,
            Live {
                by: None,
                ..live("")
            },
        );
        assert_eq!(sight.share("me", 1, 8), Some(4));
    }
}
