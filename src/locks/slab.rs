//! Storage with small stable slots, so that entries can point at each other without reference counts.

use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

/// The place of an entry in its [`Slab`].
pub(super) trait Slot: Copy {
    fn from_index(index: u32) -> Self;
    fn index(self) -> usize;
}

macro_rules! slots {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        // Counted from 1, so that an optional slot is no larger.
        pub(super) struct $name(NonZeroU32);

        impl Slot for $name {
            fn from_index(index: u32) -> Self {
                Self(NonZeroU32::MIN.saturating_add(index))
            }

            fn index(self) -> usize {
                (self.0.get() - 1) as usize
            }
        }

        impl $name {
            /// The first and the last slot there can be, as the ends of a range.
            #[allow(dead_code, reason = "not every kind is searched by range")]
            pub(super) const MIN: Self = Self(NonZeroU32::MIN);
            #[allow(dead_code, reason = "not every kind is searched by range")]
            pub(super) const MAX: Self = Self(NonZeroU32::MAX);
        }
    )*};
}

slots!(
    /// A locker.
    LockerSlot,
    /// A held lock.
    LockSlot,
    /// An object.
    ObjectSlot,
    /// A waiting request.
    WaitSlot
);

/// Entries in slots that are used again, the last freed first.
///
/// Indexing with a slot that is not in use panics: the table hands no slot out, so that a stale one
/// can only be a defect of the table itself.
#[derive(Debug)]
pub(super) struct Slab<K, T> {
    entries: Vec<Option<T>>,
    free: Vec<K>,
    keys: PhantomData<K>,
}

impl<K: Slot, T> Slab<K, T> {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            keys: PhantomData,
        }
    }

    /// The slot that the next [`insert`](Self::insert) takes.
    pub(super) fn next_slot(&self) -> K {
        self.free
            .last()
            .copied()
            .unwrap_or(K::from_index(self.entries.len() as u32))
    }

    // Inlined, so that the entry is made where it is to stand.
    #[inline]
    pub(super) fn insert(&mut self, entry: T) -> K {
        let slot = self.next_slot();
        let free = self.free.pop();
        match free.and_then(|slot| self.entries.get_mut(slot.index())) {
            Some(place) => *place = Some(entry),
            None => self.entries.push(Some(entry)),
        }
        slot
    }

    pub(super) fn remove(&mut self, slot: K) -> Option<T> {
        let entry = self.entries.get_mut(slot.index())?.take()?;
        self.free.push(slot);
        Some(entry)
    }

    /// [`remove`](Self::remove), for who does not want the entry: it is not moved.
    pub(super) fn discard(&mut self, slot: K) {
        if let Some(place @ Some(_)) = self.entries.get_mut(slot.index()) {
            *place = None;
            self.free.push(slot);
        }
    }

    pub(super) fn get(&self, slot: K) -> Option<&T> {
        self.entries.get(slot.index())?.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        (0..)
            .map(K::from_index)
            .zip(&self.entries)
            .filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }
}

impl<K: Slot, T> Index<K> for Slab<K, T> {
    type Output = T;

    fn index(&self, slot: K) -> &T {
        self.get(slot)
            .expect("the table keeps no slot of an entry it removed")
    }
}

impl<K: Slot, T> IndexMut<K> for Slab<K, T> {
    fn index_mut(&mut self, slot: K) -> &mut T {
        self.entries
            .get_mut(slot.index())
            .and_then(Option::as_mut)
            .expect("the table keeps no slot of an entry it removed")
    }
}
