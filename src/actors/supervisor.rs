//! The supervisor actor: takes transactions as messages.

mod runtime;

use std::sync::Arc;

use actix::{Actor, Context, Handler, ResponseFuture};

use crate::error::TxnError;
use crate::messages::supervisor::{RunTxn, TxnStats, TxnStatsQuery};

pub(crate) use runtime::Runtime;

/// Takes [`RunTxn`] messages; its handler hands each to the core that callers in this process also use directly, and is
/// free for the next one.
pub struct Supervisor {
    runtime: Arc<Runtime>,
}

impl Supervisor {
    pub(crate) fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;
}

impl<T: Send + 'static, E: Send + 'static> Handler<RunTxn<T, E>> for Supervisor {
    type Result = ResponseFuture<Result<T, TxnError<E>>>;

    fn handle(&mut self, txn: RunTxn<T, E>, _: &mut Self::Context) -> Self::Result {
        Box::pin(Arc::clone(&self.runtime).run(txn))
    }
}

impl Handler<TxnStatsQuery> for Supervisor {
    type Result = actix::MessageResult<TxnStatsQuery>;

    fn handle(&mut self, _: TxnStatsQuery, _: &mut Self::Context) -> Self::Result {
        let stats: TxnStats = self.runtime.stats();
        actix::MessageResult(stats)
    }
}
