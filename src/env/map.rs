//! The size of the map: growing it, adopting what another process made of it, and giving it the size that was asked for.
//!
//! Only the writer thread changes the map, and only behind a closed gate (I1); whoever finds it full or changed comes here
//! and is told either to try again or why that would not help.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use heed::{Env, MdbError};

use crate::config::page_size;
use crate::env::gate::{Closed, Occupant};
use crate::env::growth::{self, Adopt, AdoptCounter};
use crate::env::poison::PanicEvent;
use crate::env::shared::{Counters, SizeRequest};
use crate::env::writer::{Writer, is_fatal};
use crate::env::{raw, recovery};
use crate::error::{EnvError, MapBusy, SizeLimit, StorageError, TxnError};

/// Whether the map could be changed.
pub(super) enum Change {
    Done,
    Refused(Refusal),
}

/// Why the map stays as it is.
#[derive(Clone)]
pub(crate) enum Refusal {
    Full {
        size: u64,
        max: u64,
    },
    Busy {
        views: Vec<Occupant>,
        waited: Duration,
    },
    Failed(StorageError),
    /// There was a fatal error before.
    Poisoned(Arc<PanicEvent>),
}

impl Refusal {
    /// The error of the update, or of the explicit change (`None`), that needed it.
    pub(crate) fn error(self, update: Option<String>) -> TxnError {
        match self {
            Self::Full { size, max } => TxnError::EnvironmentFull { size, max },
            Self::Busy { views, waited } => TxnError::MapBusy(MapBusy {
                update,
                views,
                waited,
            }),
            Self::Failed(error) => TxnError::Storage(error),
            Self::Poisoned(event) => TxnError::RecoveryNeeded(event),
        }
    }
}

impl Writer {
    pub(super) fn adoption(&self) -> AdoptCounter {
        AdoptCounter::new(
            self.shared.config.adopt_retries(),
            self.shared.config.adopt_backoff().clone(),
        )
    }

    /// Does what makes trying again worthwhile, or answers why it is not.
    pub(super) fn overcome(
        &mut self,
        error: heed::Error,
        doing: &'static str,
        adoption: &mut AdoptCounter,
    ) -> Result<(), TxnError> {
        match error {
            heed::Error::Mdb(MdbError::MapFull) => match self.grow() {
                Change::Done => Ok(()),
                Change::Refused(refusal) => Err(refusal.error(Some(doing.into()))),
            },
            heed::Error::Mdb(MdbError::MapResized) => self.adopt_again(adoption),
            error if is_fatal(&error) => {
                self.shared.poison(StorageError::new(doing, error));
                Err(self.shared.recovery_needed())
            }
            error => Err(TxnError::Storage(StorageError::new(doing, error))),
        }
    }

    /// Another process has grown the map: adopts its size, a bounded number of times in a row.
    fn adopt_again(&mut self, adoption: &mut AdoptCounter) -> Result<(), TxnError> {
        let ours = self.shared.map_size.load(Ordering::Acquire);
        let theirs = recovery::size_in_file(&self.shared).unwrap_or(ours);
        let pause = match adoption.changed(ours, theirs, self.rng.next_unit()) {
            Adopt::Retry { after } => after,
            Adopt::GiveUp(failed) => {
                return Err(TxnError::MapChanging {
                    attempts: failed.attempts,
                    ours,
                    theirs,
                });
            }
        };
        thread::sleep(pause);
        self.adopt()
    }

    pub(super) fn adopt(&mut self) -> Result<(), TxnError> {
        match self.change_unless_blocked(0) {
            Change::Done => {
                Counters::add(&self.shared.counters.resizes_adopted, 1);
                metrics::counter!("lockkeeper_map_adoptions_total").increment(1);
                Ok(())
            }
            Change::Refused(refusal) => Err(refusal.error(None)),
        }
    }

    /// Changes the map for a transaction that needs it, unless views that were in the way of one before are still open (I14).
    fn change_unless_blocked(&mut self, bytes: u64) -> Change {
        if let Some(views) = self.still_blocked() {
            return Change::Refused(Refusal::Busy {
                views,
                waited: Duration::ZERO,
            });
        }
        let begun = Instant::now();
        let until = crate::clock::far(begun, self.shared.config.resize_timeout());
        let change = self.change_map(bytes, begun, until);
        if let Change::Refused(Refusal::Busy { views, .. }) = &change {
            self.blocked_by.clone_from(views);
        }
        change
    }

    /// One larger map, by the policy.
    pub(super) fn grow(&mut self) -> Change {
        Counters::add(&self.shared.counters.map_fulls, 1);
        let size = self.shared.map_size.load(Ordering::Acquire);
        let max = self.shared.config.max_map_size();
        match self.next_size(size) {
            Some(next) => self.change_unless_blocked(next),
            None => Change::Refused(Refusal::Full { size, max }),
        }
    }

    fn next_size(&self, size: u64) -> Option<u64> {
        growth::next_size(
            self.shared.config.growth(),
            size,
            size.saturating_add(1),
            self.shared.config.max_map_size(),
            page_size(),
        )
    }

    /// The views that kept the map from growing and are still open.
    fn still_blocked(&mut self) -> Option<Vec<Occupant>> {
        self.blocked_by
            .retain_mut(|view| self.shared.gate.refresh(view));
        (!self.blocked_by.is_empty()).then(|| self.blocked_by.clone())
    }

    /// A larger map before it is needed, if nobody is in the way right now.
    pub(super) fn grow_ahead(&mut self) {
        let percent = self.shared.config.grow_ahead();
        let Ok(env) = self.env() else { return };
        let info = env.info();
        let used = (info.last_page_number as u64 + 1) * page_size();
        if !growth::should_grow_ahead(used, info.map_size as u64, percent) {
            return;
        }
        let Some(next) = self.next_size(info.map_size as u64) else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        if let Some(closed) = shared.gate.try_close() {
            self.change_closed(&env, next, &closed);
        }
    }

    /// Changes the size of the map; 0 adopts the one in the file. The wait for views is told from `begun` on, the instant from
    /// which `until` was reckoned: otherwise it could be told as shorter than the timeout that ended it.
    fn change_map(&mut self, bytes: u64, begun: Instant, until: Instant) -> Change {
        if let Some(event) = self.shared.poison.event() {
            return Change::Refused(Refusal::Poisoned(event));
        }
        let Some(env) = self.shared.env.load_full() else {
            let gone = heed::Error::Io(std::io::ErrorKind::NotConnected.into());
            let error = StorageError::new("changing the size of the map", gone);
            return Change::Refused(Refusal::Failed(error));
        };
        let shared = Arc::clone(&self.shared);
        match shared.gate.close(until) {
            Ok(closed) => self.change_closed(&env, bytes, &closed),
            Err(views) => {
                tracing::warn!(target: "lockkeeper", views = views.len(), oldest = %views.first().map(ToString::to_string).unwrap_or_default(),
                    "the map cannot change: views are open");
                Change::Refused(Refusal::Busy {
                    views,
                    waited: begun.elapsed(),
                })
            }
        }
    }

    fn change_closed(&mut self, env: &Env, bytes: u64, closed: &Closed<'_>) -> Change {
        let from = self.shared.map_size.load(Ordering::Acquire);
        let span =
            tracing::info_span!(target: "lockkeeper", "resize", from, to = tracing::field::Empty);
        let _entered = span.enter();
        let Ok(size) = usize::try_from(bytes) else {
            return Change::Refused(Refusal::Full {
                size: from,
                max: usize::MAX as u64,
            });
        };
        if let Err(error) = raw::resize(env, size, closed) {
            // LMDB has unmapped the file: nothing may touch it until it has been opened anew.
            let error = StorageError::new("changing the size of the map", error);
            self.shared.poison(error.clone());
            return Change::Refused(Refusal::Failed(error));
        }
        let to = env.info().map_size as u64;
        self.shared.map_size.store(to, Ordering::Release);
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        span.record("to", to);
        if bytes != 0 {
            Counters::add(&self.shared.counters.map_resizes, 1);
            metrics::counter!("lockkeeper_map_resizes_total").increment(1);
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("lockkeeper_map_bytes").set(to as f64);
        Change::Done
    }

    /// All requests that are there at once are one change: the largest that is possible wins.
    pub(super) fn resize(&mut self) {
        let mut requests = std::mem::take(&mut *self.shared.sizes.lock());
        requests.retain(|request| request.question.begin());
        let page = page_size();
        let used = match self.env() {
            Ok(env) => (env.info().last_page_number as u64 + 1) * page,
            Err(error) => {
                for request in requests {
                    request.question.answer(Err(error.duplicate().into()));
                }
                return;
            }
        };
        let max = self.shared.config.max_map_size();
        let whole_pages = |request: &SizeRequest| request.bytes.div_ceil(page).saturating_mul(page);
        // One that is not possible spoils nothing for the others.
        let mut possible = Vec::new();
        for request in requests {
            let asked = request.bytes;
            let limit = match whole_pages(&request) {
                bytes if bytes > max => Some(SizeLimit::Maximum(max)),
                bytes if bytes < used => Some(SizeLimit::InUse(used)),
                _ => None,
            };
            match limit {
                Some(limit) => {
                    let refused = EnvError::BadSize { asked, limit };
                    request.question.answer(Err(refused));
                }
                None => possible.push(request),
            }
        }
        let Some(bytes) = possible.iter().map(whole_pages).max() else {
            return;
        };
        let until = possible.iter().map(|request| request.until).max();
        let change = if bytes == self.shared.map_size.load(Ordering::Acquire) {
            Change::Done
        } else {
            let begun = Instant::now();
            self.change_map(bytes, begun, until.unwrap_or(begun))
        };
        let size = self.shared.map_size.load(Ordering::Acquire);
        for request in possible {
            request.question.answer(match &change {
                Change::Done => Ok(size),
                Change::Refused(refusal) => Err(refusal.clone().error(None).into()),
            });
        }
    }
}
