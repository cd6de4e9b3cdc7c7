//! Connections of the store's own.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

/// After this time unused a connection is not trusted any more: what stands between may have forgotten it in silence.
const STALE: Duration = Duration::from_secs(60);

/// A few connections that are opened when they are needed and kept while they are good.
///
/// Whoever uses one takes it out, and puts it back only when its work went well: if the future that used it is dropped in the
/// middle, or fails, the connection is gone with it, and nobody reads an answer that was meant for another.
#[derive(Debug)]
pub(super) struct Connections<C> {
    idle: Mutex<Vec<(C, Instant)>>,
    places: Semaphore,
}

/// A place for a connection, and an idle one if there was any.
#[derive(Debug)]
pub(super) struct Place<'a, C> {
    pub(super) idle: Option<C>,
    group: &'a Connections<C>,
    permit: SemaphorePermit<'a>,
}

impl<C> Connections<C> {
    /// At most so many.
    pub(super) fn new(most: usize) -> Self {
        Self {
            idle: Mutex::new(Vec::new()),
            places: Semaphore::new(most),
        }
    }

    /// Waits for a place; `None` once it is closed.
    pub(super) async fn place(&self) -> Option<Place<'_, C>> {
        let permit = self.places.acquire().await.ok()?;
        Some(self.taken(permit))
    }

    /// A place with an idle connection, if whoever takes it now leaves so many places for others. Nobody is waited for.
    pub(super) fn spare(&self, places: usize) -> Option<Place<'_, C>> {
        let all = u32::try_from(places).ok()?.checked_add(1)?;
        // In one step with those that are left: of two who come at once the second finds none.
        let mut free = self.places.try_acquire_many(all).ok()?;
        let place = self.taken(free.split(1)?);
        place.idle.is_some().then_some(place)
    }

    fn taken<'a>(&'a self, permit: SemaphorePermit<'a>) -> Place<'a, C> {
        let mut idle = self.idle.lock();
        idle.retain(|(_, since)| since.elapsed() < STALE);
        Place {
            idle: idle.pop().map(|(connection, _)| connection),
            group: self,
            permit,
        }
    }

    /// Closes those that are not in use: one of them turned out to be broken, and the others are as old.
    pub(super) fn forget_idle(&self) {
        drop(std::mem::take(&mut *self.idle.lock()));
    }

    /// Ends it, and gives out what is left.
    pub(super) fn close(&self) -> Vec<C> {
        self.places.close();
        let idle = std::mem::take(&mut *self.idle.lock());
        idle.into_iter().map(|(connection, _)| connection).collect()
    }
}

impl<'a, C> Place<'a, C> {
    /// Whose place it is.
    pub(super) const fn group(&self) -> &'a Connections<C> {
        self.group
    }

    /// Keeps a connection whose work went well.
    pub(super) fn put_back(self, connection: C) {
        if !self.group.places.is_closed() {
            self.group.idle.lock().push((connection, Instant::now()));
        }
        drop(self.permit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_two_who_come_at_once_the_second_waits_behind_no_claim() {
        let group = Connections::new(3);
        let places = [group.place().await.unwrap(), group.place().await.unwrap()];
        assert!(group.spare(0).is_none(), "nothing is idle");
        for (place, connection) in places.into_iter().zip([1, 2]) {
            place.put_back(connection);
        }
        let first = group.spare(1).unwrap();
        assert_eq!(first.idle, Some(2));
        // Two places are free, and one connection idle.
        let second = group.spare(1).unwrap();
        assert!(group.spare(1).is_none());
        assert!(group.spare(0).is_none(), "nothing is idle");
        drop(first);
        second.put_back(3);
        assert!(group.spare(2).is_some());
        assert!(group.spare(3).is_none());
        // None of it is kept.
        let all = [
            group.place().await,
            group.place().await,
            group.place().await,
        ];
        assert!(all.iter().all(Option::is_some));
        assert!(group.spare(0).is_none());
    }
}
