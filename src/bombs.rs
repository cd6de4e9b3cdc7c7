//! Panics where a test of this crate wants them; outside of such tests there is nothing in here.

/// Places that can be made to panic.
#[derive(Debug, Default)]
pub(crate) struct Bombs(#[cfg(test)] parking_lot::Mutex<Vec<&'static str>>);

impl Bombs {
    /// Goes off if a test has set one for this place.
    #[inline]
    pub(crate) fn pass(&self, place: &'static str) {
        #[cfg(test)]
        {
            let mut bombs = self.0.lock();
            if let Some(at) = bombs.iter().position(|bomb| *bomb == place) {
                bombs.remove(at);
                drop(bombs);
                panic!("a bomb in {place}");
            }
        }
        #[cfg(not(test))]
        let _ = place;
    }

    /// Whether a test wants something else than a panic to happen here, now.
    #[inline]
    pub(crate) fn takes(&self, place: &'static str) -> bool {
        #[cfg(test)]
        {
            let mut bombs = self.0.lock();
            let at = bombs.iter().position(|bomb| *bomb == place);
            at.map(|at| bombs.remove(at)).is_some()
        }
        #[cfg(not(test))]
        {
            let _ = place;
            false
        }
    }

    /// The next to pass this place panics, or does what else is meant by it.
    #[cfg(test)]
    pub(crate) fn set(&self, place: &'static str) {
        self.0.lock().push(place);
    }

    /// Whether all have gone off.
    #[cfg(test)]
    pub(crate) fn are_spent(&self) -> bool {
        self.0.lock().is_empty()
    }
}
