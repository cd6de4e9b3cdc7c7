//! Who is inside the gate on the understanding that it leaves when it is told to.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Held;
use crate::env::gate::Shut;

/// The held snapshots, as the gate knows them.
#[derive(Default)]
pub(crate) struct Lodgers(Mutex<Vec<Arc<Held>>>);

impl Lodgers {
    pub(crate) fn add(&self, held: Arc<Held>) -> Lodging<'_> {
        self.0.lock().push(Arc::clone(&held));
        Lodging {
            lodgers: self,
            held,
        }
    }

    /// Tells everybody to leave; waits for nobody.
    pub(crate) fn oust(&self, why: Shut) {
        for held in self.0.lock().iter() {
            held.leave(why);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// A place among the lodgers until it is dropped.
pub(crate) struct Lodging<'g> {
    lodgers: &'g Lodgers,
    held: Arc<Held>,
}

impl Drop for Lodging<'_> {
    fn drop(&mut self) {
        let mut lodgers = self.lodgers.0.lock();
        lodgers.retain(|other| !Arc::ptr_eq(other, &self.held));
    }
}
