//! The names that were busy when they were last claimed.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::leases::LeaseName;

/// How many are remembered. Beyond it all are forgotten, which costs each one claim that may wait for a lock.
const MOST: usize = 4_096;

/// Where an update waits for the locks of a row that it will not change, those who poll would stand in the way of the holder
/// who refreshes. So they look first, and claim when the row is free. A name that was free is claimed without a look.
#[derive(Debug, Default)]
pub(super) struct SeenBusy(Mutex<HashSet<LeaseName>>);

impl SeenBusy {
    pub(super) fn contains(&self, name: &LeaseName) -> bool {
        self.0.lock().contains(name)
    }

    pub(super) fn note(&self, name: &LeaseName, busy: bool) {
        let mut names = self.0.lock();
        if !busy {
            names.remove(name);
        } else if !names.contains(name) {
            if names.len() >= MOST {
                names.clear();
            }
            names.insert(name.clone());
        }
    }
}
