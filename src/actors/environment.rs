//! The environment actor: owns the LMDB handle; every change of the map goes through its writer thread.

use std::panic::Location;
use std::path::Path;
use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler, MessageResult, ResponseFuture};

use crate::actors::supervised::{Started, Watched};
use crate::actors::supervisor::{Handed, Runtime};
use crate::config::Settings;
use crate::env::{Core, EnvStats};
use crate::error::{DatabaseError, EnvError, OpenError, TxnError};
use crate::leases::Fence;
use crate::messages::environment::{
    ClearDatabase, ClearStaleReaders, CopyTo, DeleteDatabase, EnvStatsQuery, ForgetToken, Recover,
    SetMapSize, Sync,
};
use crate::messages::supervisor::RunTxn;
use crate::supervision::Supervision;
use crate::txn::handler::HandlerChain;

/// Owns an LMDB environment. A [`Keeper`](crate::Keeper) has one; it can also be started alone.
pub struct Environment {
    runtime: Arc<Runtime>,
    started: Option<Started>,
}

impl Environment {
    pub(crate) fn new(runtime: Arc<Runtime>, started: Option<Started>) -> Self {
        Self { runtime, started }
    }

    /// Opens the environment in `folder` and starts its actor alone, without a lock table, in the actix `System` of this
    /// thread. It also takes [`RunTxn`], as long as that declares no locks. The environment is closed when the actor stops.
    ///
    /// # Errors
    ///
    /// As [`KeeperBuilder::open`](crate::KeeperBuilder::open).
    pub fn open_alone(
        folder: impl AsRef<Path>,
        settings: &Settings,
    ) -> Result<Addr<Self>, OpenError> {
        if actix::System::try_current().is_none() {
            return Err(OpenError::NoSystem);
        }
        let folder = folder.as_ref();
        let config = settings.resolve(folder)?;
        let core = Core::open(folder, config, Vec::new())?;
        let runtime = Arc::new(Runtime::new(core, None, HandlerChain::default()));
        Ok(Self::new(runtime, None).start())
    }

    fn core(&self) -> Arc<Core> {
        Arc::clone(&self.runtime.env)
    }

    fn supervision(&self) -> &Arc<Supervision> {
        &self.runtime.env.shared.supervision
    }

    /// Answers with what the core does; a panic in it is answered too.
    fn answer<T: 'static, E: From<TxnError> + 'static>(
        &self,
        message: &'static str,
        answer: impl Future<Output = Result<T, E>> + 'static,
    ) -> ResponseFuture<Result<T, E>> {
        let panicked = |panicked| Err(TxnError::ActorPanicked(panicked).into());
        Box::pin(self.supervision().guarded(message, answer, panicked))
    }
}

impl Actor for Environment {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        let started = self.started.take();
        self.supervision().start(started, || ());
    }

    /// Started alone, or because the application's system stops under a keeper: the environment is closed in order. If the
    /// keeper has been shut down already, there is nothing left to do.
    fn stopped(&mut self, _: &mut Self::Context) {
        let runtime = &self.runtime;
        self.supervision().stop(|| {
            if !runtime.env.has_ended() {
                crate::keeper::stop_in_background(runtime);
            }
        });
    }
}

impl<T: Send + 'static, E: Send + 'static> Handler<RunTxn<T, E>> for Environment {
    type Result = Watched<Handed<T, E>>;

    fn handle(&mut self, txn: RunTxn<T, E>, context: &mut Self::Context) -> Self::Result {
        Handed::watched(self.supervision(), &self.runtime, context, txn)
    }
}

impl Handler<SetMapSize> for Environment {
    type Result = ResponseFuture<Result<u64, EnvError>>;

    fn handle(&mut self, SetMapSize(bytes): SetMapSize, _: &mut Self::Context) -> Self::Result {
        let core = self.core();
        self.answer("SetMapSize", async move { core.set_map_size(bytes).await })
    }
}

impl Handler<Sync> for Environment {
    type Result = ResponseFuture<Result<(), EnvError>>;

    fn handle(&mut self, _: Sync, _: &mut Self::Context) -> Self::Result {
        let core = self.core();
        self.answer("Sync", async move { core.sync().await })
    }
}

impl Handler<CopyTo> for Environment {
    type Result = ResponseFuture<Result<u64, EnvError>>;

    fn handle(&mut self, copy: CopyTo, _: &mut Self::Context) -> Self::Result {
        let core = self.core();
        let site = Location::caller();
        self.answer("CopyTo", async move {
            core.copy(copy.folder, copy.compact, site).await
        })
    }
}

impl Handler<EnvStatsQuery> for Environment {
    type Result = ResponseFuture<Result<EnvStats, TxnError>>;

    fn handle(&mut self, _: EnvStatsQuery, _: &mut Self::Context) -> Self::Result {
        let core = self.core();
        self.answer("EnvStatsQuery", async move {
            core.stats(Location::caller()).await
        })
    }
}

impl Handler<ClearStaleReaders> for Environment {
    type Result = Watched<MessageResult<ClearStaleReaders>>;

    fn handle(&mut self, _: ClearStaleReaders, context: &mut Self::Context) -> Self::Result {
        let clear = || MessageResult(self.runtime.env.shared.clear_stale_readers());
        let none = |_| Some(MessageResult(0));
        (self.supervision()).handle(context, "ClearStaleReaders", clear, none)
    }
}

impl Handler<Recover> for Environment {
    type Result = ResponseFuture<Result<(), EnvError>>;

    fn handle(&mut self, _: Recover, _: &mut Self::Context) -> Self::Result {
        let core = self.core();
        self.answer("Recover", async move { core.recover().await })
    }
}

impl Handler<ClearDatabase> for Environment {
    type Result = ResponseFuture<Result<u64, DatabaseError>>;

    fn handle(
        &mut self,
        ClearDatabase(name): ClearDatabase,
        _: &mut Self::Context,
    ) -> Self::Result {
        let core = self.core();
        self.answer("ClearDatabase", async move { core.clear(name).await })
    }
}

impl Handler<DeleteDatabase> for Environment {
    type Result = ResponseFuture<Result<(), DatabaseError>>;

    fn handle(
        &mut self,
        DeleteDatabase(name): DeleteDatabase,
        _: &mut Self::Context,
    ) -> Self::Result {
        let core = self.core();
        self.answer("DeleteDatabase", async move { core.delete(name).await })
    }
}

impl Handler<ForgetToken> for Environment {
    type Result = ResponseFuture<Result<Option<Fence>, EnvError>>;

    fn handle(&mut self, forget: ForgetToken, _: &mut Self::Context) -> Self::Result {
        let core = self.core();
        let site = Location::caller();
        self.answer("ForgetToken", async move {
            Ok(core.forget_token(forget.store, forget.name, site).await?)
        })
    }
}
