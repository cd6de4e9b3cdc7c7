//! A pool under one lease: it runs in one process of many.

use futures_util::future::Either;
use tokio_util::sync::CancellationToken;

use super::figures::Seen;
use super::tending::{Context, either, tend};
use crate::env::quietly;
use crate::error::LeaseError;
use crate::leases::Lease;
use crate::pool::supervise::Who;

/// Gets the lease, holds it as long as the pool is not over, and gets it again when it is lost. Ends when the pool is over and the
/// lease given back, or when leases are shut down.
pub(super) async fn serve(context: &Context, lease: &Lease) {
    let asking = Seen {
        asking: true,
        ..Seen::default()
    };
    context.figures.saw(context.task, asking);
    while !context.pool.state().is_over() {
        let asked = async {
            // After a panic in the leases, workers from before may run still. Meanwhile others may have it.
            context.empty(Who::All).await;
            lease.acquire().await
        };
        let asked = context.caught("asking for the lease of a pool", asked);
        let guard = match either(context.over(), asked).await {
            Either::Left(()) => break,
            Either::Right(Ok(Ok(guard))) => guard,
            Either::Right(Ok(Err(LeaseError::ShuttingDown))) => break,
            Either::Right(asked) => {
                if let Ok(Err(error)) = &asked {
                    context.failed(error);
                }
                context.pause().await;
                continue;
            }
        };
        quietly(|| {
            tracing::info!(target: "lockkeeper", pool = &**context.pool.name(), lease = guard.name().as_str(), token = guard.token().0, "a pool has its lease");
        });
        let give = CancellationToken::new();
        let tell = async {
            context.over().await;
            give.cancel();
            std::future::pending::<()>().await;
        };
        either(tend(context, Who::All, guard, give.clone()), tell).await;
    }
    context.figures.sees_no_more(context.task);
}
