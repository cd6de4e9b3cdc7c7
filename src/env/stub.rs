use super::*;
pub(crate) struct FirstInBatch;
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Plain,
    Interactive { first: bool },
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
