//! What becomes of leases when a panic has left their core half changed: all are lost, everybody is told, and the driver ends.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use super::Shared;
use crate::env::quietly;
use crate::error::{LeaseError, Part};
use crate::leases::view::{Cell, Ending};
use crate::leases::{LostReason, StoreError, seen};

impl Shared {
    /// Why nothing can be asked any more, if that is so.
    pub(in crate::leases) fn gone(&self) -> LeaseError {
        match self.broken.get() {
            Some(panicked) => LeaseError::ActorPanicked(panicked.clone()),
            None => LeaseError::ShuttingDown,
        }
    }

    pub(in crate::leases) fn is_broken(&self) -> bool {
        self.broken.get().is_some()
    }

    /// After a panic nobody knows what the core believes: all leases are lost, those who wait are told so, and the driver ends.
    /// What is held in the store goes when it expires.
    pub(in crate::leases) fn break_down(&self, doing: &'static str, panic: Box<dyn Any + Send>) {
        let panicked = self.supervision.panicked(Part::Leases, doing, panic);
        let (waiters, cells) = self.look(|state| {
            // Set under the mutex: whoever has it now is the last to change anything.
            let _ = self.broken.set(panicked);
            for cell in state.cells.values() {
                if cell.disbelieve() {
                    seen::not_held();
                }
            }
            let cells: Vec<_> = state.cells.values().cloned().collect();
            (std::mem::take(&mut state.waiters), cells)
        });
        for slot in waiters.into_values() {
            quietly(|| drop(slot.reply.send(Err(self.gone()))));
        }
        for cell in cells {
            quietly(|| self.end_broken(&cell));
        }
        self.wake.notify_one();
    }

    pub(super) fn end_broken(&self, cell: &Cell) {
        if cell.disbelieve() {
            seen::not_held();
        }
        cell.tell_lost(LostReason::Shutdown);
        let error = StoreError::Failed(Box::new(self.gone()));
        let ending = Ending::Stopped(Arc::new(error));
        quietly(|| drop(cell.ending.send_replace(ending)));
    }

    /// Runs something on the driver's runtime that the core waits for.
    pub(super) fn serve(
        self: &Arc<Self>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        self.runtime.spawn(self.guarded(task))
    }

    /// A panic of the task ends the leases in order.
    pub(super) fn guarded(
        self: &Arc<Self>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let shared = Arc::clone(self);
        async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                shared.break_down("asking the store", panic);
            }
        }
    }
}
