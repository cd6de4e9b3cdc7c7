//! Under which lease a pool runs, as the application says it.

use std::sync::Arc;

use crate::leases::Lease;

/// The lease, or the leases, of a pool: a name in the keeper's store, or a [`Lease`] with settings of its own.
///
/// ```
/// use std::time::Duration;
/// use lockkeeper::{Keeper, PoolLease};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let keeper = Keeper::open(folder.path())?;
/// let by_name = PoolLease::from("import");
/// let with_settings = PoolLease::from(keeper.lease("import").expiration(Duration::from_secs(30)));
/// # Ok::<(), lockkeeper::OpenError>(())
/// ```
#[derive(Debug, Clone)]
pub struct PoolLease(pub(super) Wish);

#[derive(Debug, Clone)]
pub(super) enum Wish {
    /// In the keeper's store, with the keeper's settings.
    Name(Arc<str>),
    /// As it is.
    Lease(Box<Lease>),
}

impl From<&str> for PoolLease {
    fn from(name: &str) -> Self {
        Self(Wish::Name(name.into()))
    }
}

impl From<String> for PoolLease {
    fn from(name: String) -> Self {
        Self(Wish::Name(name.into()))
    }
}

impl From<Arc<str>> for PoolLease {
    fn from(name: Arc<str>) -> Self {
        Self(Wish::Name(name))
    }
}

impl From<Lease> for PoolLease {
    fn from(lease: Lease) -> Self {
        Self(Wish::Lease(Box::new(lease)))
    }
}
