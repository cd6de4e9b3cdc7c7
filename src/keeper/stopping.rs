//! How a keeper is asked to stop: by a call, by a signal, or by dropping its last handle.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::{Keeper, stop};
use crate::clock::block_on;
use crate::error::ShutdownError;

mod termination;

pub use termination::{Signal, Termination, termination};

impl Keeper {
    /// Stops in order, and answers when everything has ended: the environment is closed, every thread is joined, and the folder
    /// can be opened again at once.
    ///
    /// From the first poll on nothing new is taken; every call answers "shutting down" in its terms. What runs may finish until
    /// the deadline, which is counted from there: workers of pools, which are told first and served until they have ended, then
    /// transactions. At the deadline the rest is aborted: whoever waits is answered, the closures of interactive transactions
    /// are dropped where they wait. Each lease is given back on its own, within `release_timeout` (5 s) and the deadline; that of a
    /// pool whose worker runs on is not given back, but expires. Last the writer ends, after the commit that it is at.
    ///
    /// What a worker has started by itself is the application's, and cannot be stopped. Tasks of `tokio::spawn` are dropped at their
    /// next await when the last pool has ended; one that blocks there, and a thread of `tokio::task::spawn_blocking`, is waited for
    /// until the deadline, half a second at least, and is in the error then. A worker that awaits them is waited for as any other.
    /// None of these may block until this has ended (`Handle::block_on`): with [`Duration::MAX`] each would wait for the other.
    ///
    /// The answer comes a second after the deadline at the latest. The stop itself goes on until all has ended, also if this
    /// future is dropped: what cannot be stopped, such as a body that runs on, is named in the error, and another call waits for
    /// it again. Several calls are one stop, and the earliest of their deadlines counts; one after the end answers what the
    /// first did. Dropping the last handle meanwhile hurries nothing: until its first poll the future is a handle itself. With a
    /// deadline of zero nothing is waited for but what cannot be stopped; with [`Duration::MAX`] it is waited for however long it
    /// takes.
    ///
    /// # Errors
    ///
    /// What runs on beyond the deadline: [`ShutdownError::BodyRunsOn`], [`ViewsRunOn`](ShutdownError::ViewsRunOn),
    /// [`WorkersRunOn`](ShutdownError::WorkersRunOn), [`TimedOut`](ShutdownError::TimedOut),
    /// [`Several`](ShutdownError::Several) of these. [`LeasesMaybeHeld`](ShutdownError::LeasesMaybeHeld) if a store did not
    /// take leases back in time, or a worker ran on under them. Inside of what it would wait for nothing is begun:
    /// [`InsideBody`](ShutdownError::InsideBody), [`InsideWorker`](ShutdownError::InsideWorker),
    /// [`InsideHandler`](ShutdownError::InsideHandler).
    pub fn shutdown(
        &self,
        deadline: Duration,
    ) -> impl Future<Output = Result<(), ShutdownError>> + Send + use<> {
        let (runtime, handle) = (Arc::clone(&self.inner.runtime), self.clone());
        async move { stop::stop(&runtime, deadline, Some(handle)).await }
    }

    /// [`Keeper::shutdown`] from a thread that may block.
    ///
    /// # Errors
    ///
    /// As [`Keeper::shutdown`]. [`InsideHandler`](ShutdownError::InsideHandler) also on a thread that a worker has its tasks on, which
    /// is waited for.
    pub fn blocking_shutdown(&self, deadline: Duration) -> Result<(), ShutdownError> {
        stop::may_block(&self.inner.runtime)?;
        block_on(self.shutdown(deadline))
    }

    /// Waits for `signal`, whatever future that is, and then stops as [`shutdown`](Self::shutdown) does. It answers as well when
    /// the keeper has been stopped in another way meanwhile.
    ///
    /// It keeps no handle: a keeper whose last handle is dropped stops though somebody waits for a signal. [`termination`] is a
    /// ready-made signal for SIGTERM and SIGINT.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use lockkeeper::{Keeper, termination};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keeper = Keeper::open("data")?;
    /// // … work …
    /// keeper.shutdown_on(termination()?, Duration::from_secs(10)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A web server has to stop first, and the keeper afterwards, so that every request that was taken is answered: put what stops
    /// the server into the signal.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use actix_web::{App, HttpServer};
    /// use lockkeeper::{Keeper, termination};
    ///
    /// #[actix_web::main]
    /// async fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let keeper = Keeper::open("data")?;
    ///     // actix-web would handle SIGINT and SIGTERM by itself.
    ///     let server = HttpServer::new(App::new).disable_signals().bind("127.0.0.1:8080")?.run();
    ///     let (handle, signal) = (server.handle(), termination()?);
    ///     let stops = keeper.shutdown_on(
    ///         async move {
    ///             signal.await;
    ///             handle.stop(true).await;
    ///         },
    ///         Duration::from_secs(10),
    ///     );
    ///     let stops = actix_web::rt::spawn(stops);
    ///     server.await?;
    ///     stops.await??;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Keeper::shutdown`].
    pub fn shutdown_on<S>(
        &self,
        signal: S,
        deadline: Duration,
    ) -> impl Future<Output = Result<(), ShutdownError>> + Send + use<S>
    where
        S: Future + Send,
    {
        let runtime = Arc::clone(&self.inner.runtime);
        async move {
            let stopped = {
                let (signal, stopped) = (pin!(signal), pin!(runtime.stopping.ended()));
                match select(stopped, signal).await {
                    Either::Left((outcome, _)) => Some(outcome),
                    Either::Right(_) => None,
                }
            };
            match stopped {
                Some(outcome) => outcome,
                None => stop::stop(&runtime, deadline, None).await,
            }
        }
    }
}
