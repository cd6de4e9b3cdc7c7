//! Short views in place: their outcomes are shown to the handlers for all, too.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::attempts::Attempts;
use super::runtime::Runtime;
use crate::clock::block_on;
use crate::env::ReadTxn;
use crate::env::gate::Entry;
use crate::error::{Site, TxnError};
use crate::messages::supervisor::TxnOptions;

impl Runtime {
    /// Runs a view on the thread that polls.
    #[inline]
    pub(crate) async fn view_in_place<T, E, F>(&self, site: Site, body: F) -> Result<T, TxnError<E>>
    where
        F: FnMut(&ReadTxn<'_>) -> Result<T, TxnError<E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        if !self.handlers.is_empty() {
            return self.handled_view(site, body).await;
        }
        match self.env.view_now(site, Entry::New, body) {
            Ok(result) => result,
            Err((tried, body)) => {
                let span = self.env.shared.config.deadline();
                self.env
                    .view_slowly(tried, (site, None), None, span, body)
                    .await
            }
        }
    }

    /// [`Runtime::view_in_place`] on a thread that may block: no future is made unless it has to wait.
    #[inline]
    pub(crate) fn blocking_view_in_place<T, E, F>(
        &self,
        site: Site,
        body: F,
    ) -> Result<T, TxnError<E>>
    where
        F: FnMut(&ReadTxn<'_>) -> Result<T, TxnError<E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        if !self.handlers.is_empty() {
            return block_on(self.handled_view(site, body));
        }
        match self.env.view_now(site, Entry::New, body) {
            Ok(result) => result,
            Err((tried, body)) => {
                let span = self.env.shared.config.deadline();
                block_on(self.env.view_slowly(tried, (site, None), None, span, body))
            }
        }
    }

    async fn handled_view<T, E, F>(&self, site: Site, body: F) -> Result<T, TxnError<E>>
    where
        F: FnMut(&ReadTxn<'_>) -> Result<T, TxnError<E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let span = self.env.shared.config.deadline();
        let options = TxnOptions::new(site);
        let sent = Instant::now();
        let deadline = crate::clock::far(sent, span);
        let mut attempts = Attempts::new(sent, span);
        // Each attempt takes a body of its own.
        let body = Arc::new(Mutex::new(body));
        loop {
            attempts.number += 1;
            let once = Arc::clone(&body);
            let left = deadline.saturating_duration_since(Instant::now());
            let result = match self
                .env
                .view_now(site, Entry::New, move |txn| (once.lock())(txn))
            {
                Ok(result) => result,
                Err((tried, body)) => {
                    let view = self.env.view_slowly(tried, (site, None), None, left, body);
                    view.await
                }
            };
            let error = match self.handled(result, true, &mut attempts, &options) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            self.stand_back(error, &mut attempts, &options, deadline)
                .await?;
        }
    }
}
