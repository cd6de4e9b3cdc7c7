//! Notices when classes of objects are locked in an order that contradicts an earlier one, before that
//! ever becomes a deadlock.
//!
//! The class of an object is its namespace. Who asks for an object of a class while its family holds
//! others teaches an order: those classes come before this one. An order that closes a circle with what
//! was seen before is told, once for each pair of classes, with the lines of code of both.

use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use super::Text;
use super::slab::LockerSlot;

/// Two orders that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct OrderWarning {
    /// The order seen now.
    pub seen: OrderStep,
    /// What was seen before, and leads from the second class back to the first: one step for two
    /// classes that were taken the other way round, more for a longer circle.
    pub before: Vec<OrderStep>,
}

/// An object of one class was asked for while one of another was held.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct OrderStep {
    /// The namespace of what was held.
    pub held: Text,
    /// The line that had asked for it.
    #[serde(serialize_with = "super::report::site")]
    pub held_site: &'static Location<'static>,
    /// The namespace of what was asked for.
    pub asked: Text,
    /// The line that asked for it.
    #[serde(serialize_with = "super::report::site")]
    pub asked_site: &'static Location<'static>,
}

impl fmt::Display for OrderStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (locked at {}) before {} (asked for at {})",
            self.held, self.held_site, self.asked, self.asked_site
        )
    }
}

impl fmt::Display for OrderWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "locks are taken in contradicting orders: {}", self.seen)?;
        for step in &self.before {
            write!(f, "\n  but earlier: {step}")?;
        }
        Ok(())
    }
}

/// The most classes that are watched; an object of one more teaches nothing.
const MOST_CLASSES: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct OrderWatch {
    numbers: HashMap<Text, usize>,
    /// For each class the classes that were asked for while it was held, with the step that taught it.
    after: Vec<HashMap<usize, OrderStep>>,
    /// The classes that each family holds, with how many locks, and who asked for the first.
    held: HashMap<LockerSlot, Vec<Held>>,
}

#[derive(Debug)]
struct Held {
    class: usize,
    name: Text,
    locks: usize,
    site: &'static Location<'static>,
}

impl OrderWatch {
    fn class(&mut self, namespace: &Text) -> Option<usize> {
        if let Some(&class) = self.numbers.get(namespace) {
            return Some(class);
        }
        let class = self.after.len();
        (class < MOST_CLASSES).then(|| {
            self.numbers.insert(namespace.clone(), class);
            self.after.push(HashMap::new());
            class
        })
    }

    /// A family asks for an object of this class.
    pub(super) fn asked(
        &mut self,
        family: LockerSlot,
        namespace: &Text,
        site: &'static Location<'static>,
    ) -> Vec<Arc<OrderWarning>> {
        let (Some(class), Some(held)) = (self.class(namespace), self.held.get(&family)) else {
            return Vec::new();
        };
        if held.iter().any(|held| held.class == class) {
            return Vec::new();
        }
        let new: Vec<(usize, OrderStep)> = held
            .iter()
            .filter(|held| !self.after[held.class].contains_key(&class))
            .map(|held| {
                let step = OrderStep {
                    held: held.name.clone(),
                    held_site: held.site,
                    asked: namespace.clone(),
                    asked_site: site,
                };
                (held.class, step)
            })
            .collect();
        let mut warnings = Vec::new();
        for (held, step) in new {
            let before = self.path(class, held);
            self.after[held].insert(class, step.clone());
            warnings.extend(before.map(|before| Arc::new(OrderWarning { seen: step, before })));
        }
        warnings
    }

    /// A family got a lock of this class.
    pub(super) fn taken(
        &mut self,
        family: LockerSlot,
        namespace: &Text,
        site: &'static Location<'static>,
    ) {
        let Some(class) = self.class(namespace) else {
            return;
        };
        let held = self.held.entry(family).or_default();
        match held.iter_mut().find(|held| held.class == class) {
            Some(held) => held.locks += 1,
            None => held.push(Held {
                class,
                name: namespace.clone(),
                locks: 1,
                site,
            }),
        }
    }

    /// A family lost a lock of this class.
    pub(super) fn released(&mut self, family: LockerSlot, namespace: &Text) {
        let (Some(class), Some(held)) = (self.numbers.get(namespace), self.held.get_mut(&family))
        else {
            return;
        };
        if let Some(at) = held.iter().position(|held| held.class == *class) {
            held[at].locks -= 1;
            if held[at].locks == 0 {
                held.remove(at);
            }
        }
        if held.is_empty() {
            self.held.remove(&family);
        }
    }

    /// The steps that lead from one class to another, the fewest there are.
    fn path(&self, from: usize, to: usize) -> Option<Vec<OrderStep>> {
        let mut came_from: HashMap<usize, usize> = HashMap::new();
        let mut found = vec![from];
        let mut done = 0;
        while let Some(&here) = found.get(done) {
            done += 1;
            if here == to {
                let mut steps = Vec::new();
                let mut at = to;
                while let Some(&before) = came_from.get(&at) {
                    steps.extend(self.after[before].get(&at).cloned());
                    at = before;
                }
                steps.reverse();
                return Some(steps);
            }
            let mut next: Vec<usize> = self.after[here].keys().copied().collect();
            next.sort_unstable();
            for class in next {
                if class != from && !came_from.contains_key(&class) {
                    came_from.insert(class, here);
                    found.push(class);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::Slot;
    use super::*;

    fn family(number: u32) -> LockerSlot {
        LockerSlot::from_index(number)
    }

    #[track_caller]
    fn takes(
        watch: &mut OrderWatch,
        number: u32,
        class: &'static str,
    ) -> Option<Arc<OrderWarning>> {
        let (class, site) = (Text::from(class), Location::caller());
        let mut warnings = watch.asked(family(number), &class, site);
        watch.taken(family(number), &class, site);
        assert!(warnings.len() < 2);
        warnings.pop()
    }

    fn lets_go(watch: &mut OrderWatch, number: u32, classes: &[&'static str]) {
        for class in classes {
            watch.released(family(number), &Text::from(*class));
        }
    }

    #[test]
    fn the_opposite_order_is_told_once_with_both_lines() {
        let mut watch = OrderWatch::default();
        assert_eq!(takes(&mut watch, 1, "accounts"), None);
        assert_eq!(takes(&mut watch, 1, "orders"), None);
        lets_go(&mut watch, 1, &["orders", "accounts"]);
        for again in [false, true] {
            takes(&mut watch, 2, "orders");
            let line = line!() + 1;
            let warning = takes(&mut watch, 2, "accounts");
            lets_go(&mut watch, 2, &["orders", "accounts"]);
            let Some(warning) = warning else {
                assert!(again, "it is told at first");
                continue;
            };
            assert!(!again, "it is told once");
            assert_eq!(warning.seen.asked_site.line(), line);
            assert_eq!(warning.before.len(), 1);
            assert_eq!(warning.before[0].held.as_str(), "accounts");
            let text = warning.to_string();
            assert!(text.contains("but earlier: accounts"), "{text}");
        }
    }

    #[test]
    fn a_circle_of_three_is_told_with_all_its_steps() {
        let mut watch = OrderWatch::default();
        for (number, first, second) in [(1, "a", "b"), (2, "b", "c")] {
            assert_eq!(takes(&mut watch, number, first), None);
            assert_eq!(takes(&mut watch, number, second), None);
        }
        takes(&mut watch, 3, "c");
        let warning = takes(&mut watch, 3, "a").unwrap();
        let steps: Vec<_> = warning
            .before
            .iter()
            .map(|step| (step.held.as_str(), step.asked.as_str()))
            .collect();
        assert_eq!(steps, [("a", "b"), ("b", "c")]);
    }

    #[test]
    fn what_is_released_teaches_nothing_and_two_of_a_class_neither() {
        let mut watch = OrderWatch::default();
        takes(&mut watch, 1, "a");
        takes(&mut watch, 1, "a");
        lets_go(&mut watch, 1, &["a"]);
        takes(&mut watch, 1, "b");
        lets_go(&mut watch, 1, &["a", "b"]);
        assert!(watch.held.is_empty());
        takes(&mut watch, 2, "c");
        assert_eq!(takes(&mut watch, 2, "a"), None);
        lets_go(&mut watch, 2, &["a"]);
        assert_eq!(takes(&mut watch, 2, "b"), None);
        // a before b was seen; b before a is the contradiction.
        assert!(takes(&mut watch, 2, "a").is_some());
    }
}
