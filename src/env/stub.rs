use super::*;
pub(crate) struct FirstInBatch;
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Plain,
    Interactive { first: bool },
}
#[derive(Clone)]
pub(crate) struct Snapshot;
impl Snapshot {
    pub(crate) async fn ask<R: Send>(
        &self,
        _f: impl FnOnce(&ReadTxn<'_>) -> R + Send + 'static,
    ) -> Result<R, crate::error::TxnError> {
        Err(crate::error::TxnError::ShuttingDown)
    }
}
impl Core {
    pub(crate) async fn hold_snapshot(
        &self,
        _s: crate::error::Site,
        _n: crate::error::Name,
        _d: std::time::Instant,
        _sp: std::time::Duration,
    ) -> Result<Snapshot, crate::error::TxnError> {
        Err(crate::error::TxnError::ShuttingDown)
    }
}
impl shared::Shared {
    pub(crate) fn outside_writes(&self) -> u64 {
        0
    }
    pub(crate) fn last_ours(&self) -> usize {
        0
    }
    pub(crate) fn go_first(&self) -> FirstInBatch {
        FirstInBatch
    }
}
impl WriteTxn<'_> {
    pub(crate) fn outside(&self) -> Option<u64> {
        Some(0)
    }
}
