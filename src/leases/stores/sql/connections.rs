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
        let mut idle = self.idle.lock();
        idle.retain(|(_, since)| since.elapsed() < STALE);
        let idle = idle.pop().map(|(connection, _)| connection);
        Some(Place { idle, permit })
    }

    /// Whether a connection is idle that whoever takes it now leaves so many places for others.
    pub(super) fn can_spare(&self, places: usize) -> bool {
        self.places.available_permits() > places && !self.idle.lock().is_empty()
    }

    /// Keeps a connection whose work went well.
    pub(super) fn put_back(&self, connection: C, place: Place<'_, C>) {
        if !self.places.is_closed() {
            self.idle.lock().push((connection, Instant::now()));
        }
        drop(place.permit);
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
