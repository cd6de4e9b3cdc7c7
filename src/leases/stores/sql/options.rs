//! The options of the stores in SQL databases, and what they are to their users.

use std::time::Duration;

use crate::leases::{StoreError, TableName};

/// What can be chosen.
#[derive(Debug, Clone)]
pub(in crate::leases::stores) struct Options {
    pub(in crate::leases::stores) urls: Vec<String>,
    pub(in crate::leases::stores) table: TableName,
    pub(in crate::leases::stores) create_table: bool,
    pub(in crate::leases::stores) connect_timeout: Duration,
    pub(in crate::leases::stores) connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            table: TableName::default(),
            create_table: true,
            connect_timeout: Duration::from_secs(5),
            connections: 4,
        }
    }
}

impl Options {
    /// The URLs that were given, one for each server: a list of URLs is taken apart at the commas, and so is a list of hosts
    /// in one.
    pub(in crate::leases::stores) fn servers(&self) -> Vec<String> {
        let urls = self.urls.iter().flat_map(|urls| list(urls));
        urls.flat_map(|url| hosts(&url)).collect()
    }

    /// That they make sense.
    pub(in crate::leases::stores) fn check(&self) -> Result<(), StoreError> {
        let wrong = |what: &str| Err(StoreError::BadConfig(what.to_owned()));
        match self {
            options if options.connect_timeout.is_zero() => wrong("a connect timeout of zero"),
            options if options.connections == 0 => wrong("no connection for claims"),
            _ => Ok(()),
        }
    }
}

/// `a://x,b://y` is two URLs; other commas are part of one.
fn list(urls: &str) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for part in urls.split(',') {
        match list.last_mut() {
            Some(last) if !part.contains("://") => {
                last.push(',');
                last.push_str(part);
            }
            _ => list.push(part.to_owned()),
        }
    }
    list
}

/// `a://user@x:1,y:2/db` is one URL for each of the hosts.
fn hosts(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return vec![url.to_owned()];
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let one = |host: &str| format!("{scheme}://{user}{host}{path}");
    hosts.split(',').map(one).collect()
}

/// The type of a store, its builder, and `LeaseStore` for it.
macro_rules! store_of_leases {
    (
        $(#[$store_doc:meta])* $store:ident,
        $(#[$builder_doc:meta])* $builder:ident,
        backend: $backend:ty, pool: $pool:ty, connect: $connect:ty
    ) => {
        $(#[$store_doc])*
        #[derive(Clone)]
        pub struct $store(std::sync::Arc<$crate::leases::stores::sql::SqlStore<$backend>>);

        impl $store {
            /// A store with the default options. Nothing is connected before the first use.
            ///
            /// # Errors
            /// [`StoreError::BadConfig`](crate::StoreError::BadConfig) if the URL cannot be read.
            pub fn from_url(url: &str) -> Result<Self, $crate::leases::StoreError> {
                Self::builder().url(url).build()
            }

            /// A store with the default options where the application's pool connects to. The pool's options are used,
            /// never its connections.
            ///
            /// # Errors
            /// [`StoreError::BadConfig`](crate::StoreError::BadConfig) if what the pool connects to can keep no leases.
            pub fn from_pool(pool: &$pool) -> Result<Self, $crate::leases::StoreError> {
                Self::builder().pool(pool).build()
            }

            /// A store with other options.
            #[must_use]
            pub fn builder() -> $builder {
                $builder::default()
            }

            /// The table that it keeps them in, as [`CheckLease`](crate::CheckLease) needs it.
            #[must_use]
            pub fn table(&self) -> &$crate::leases::TableName {
                self.0.table()
            }

            /// The statement that makes the table if it is not there, for those who run it themselves (dbmutex's
            /// `WithCreateMissingTable(false)`).
            #[must_use]
            pub fn ddl(&self) -> &str {
                self.0.ddl()
            }
        }

        impl std::fmt::Debug for $store {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($store)).finish_non_exhaustive()
            }
        }

        $(#[$builder_doc])*
        #[derive(Clone, Default)]
        pub struct $builder {
            options: $crate::leases::stores::sql::Options,
            servers: Vec<$connect>,
        }

        impl $builder {
            /// Where the database is. Without it and without a pool there is no store.
            #[must_use]
            pub fn url(mut self, url: &str) -> Self {
                self.options.urls.push(url.to_owned());
                self
            }

            /// The application's pool: the store connects with its options, but never uses its connections.
            #[must_use]
            pub fn pool(mut self, pool: &$pool) -> Self {
                self.servers.push((*pool.connect_options()).clone());
                self
            }

            /// The table, by default `dbmutex`.
            #[must_use]
            pub fn table(mut self, table: $crate::leases::TableName) -> Self {
                self.options.table = table;
                self
            }

            /// Whether the table is made if it is not there (default), or
            /// [`StoreError::TableMissing`](crate::StoreError::TableMissing) tells how.
            #[must_use]
            pub const fn create_table(mut self, create: bool) -> Self {
                self.options.create_table = create;
                self
            }

            /// How long a connection may take to be made, by default 5 seconds. Zero is refused.
            #[must_use]
            pub const fn connect_timeout(mut self, timeout: std::time::Duration) -> Self {
                self.options.connect_timeout = timeout;
                self
            }

            /// How many connections at most claim and look at the same time, by default 4, and release when they have
            /// nothing else to do; two more refresh, two release while all others are at work, and Postgres has one for
            /// notifications. Zero is refused.
            #[must_use]
            pub const fn connections(mut self, most: usize) -> Self {
                self.options.connections = most;
                self
            }

            /// The store. Nothing is connected before its first use.
            ///
            /// # Errors
            /// [`StoreError::BadConfig`](crate::StoreError::BadConfig) if a URL cannot be read, names no database, or an
            /// option makes no sense.
            pub fn build(self) -> Result<$store, $crate::leases::StoreError> {
                self.options.check()?;
                let mut servers = self.servers;
                for url in self.options.servers() {
                    let server: $connect = url.parse().map_err(|error: sqlx::Error| {
                        $crate::leases::StoreError::BadConfig(error.to_string())
                    })?;
                    servers.push(server);
                }
                if servers.is_empty() {
                    let missing = "neither a URL nor a pool".to_owned();
                    return Err($crate::leases::StoreError::BadConfig(missing));
                }
                let backend = <$backend>::new(servers, &self.options)?;
                let store = $crate::leases::stores::sql::SqlStore::new(backend, &self.options);
                Ok($store(std::sync::Arc::new(store)))
            }
        }

        impl std::fmt::Debug for $builder {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($builder))
                    .field("table", &self.options.table)
                    .field("create_table", &self.options.create_table)
                    .finish_non_exhaustive()
            }
        }

        impl $crate::leases::LeaseStore for $store {
            fn id(&self) -> $crate::leases::StoreFuture<'_, $crate::leases::StoreId> {
                self.0.id()
            }

            fn prepare(&self) -> $crate::leases::StoreFuture<'_, ()> {
                self.0.prepare()
            }

            fn claim<'a>(
                &'a self,
                claim: &'a $crate::leases::Claim,
            ) -> $crate::leases::StoreFuture<'a, $crate::leases::Claimed> {
                self.0.claim_undoable(claim.clone())
            }

            fn hand_over<'a>(
                &'a self,
                from: &'a $crate::leases::Holder,
                claim: &'a $crate::leases::Claim,
            ) -> $crate::leases::StoreFuture<
                'a,
                ($crate::leases::Released, $crate::leases::Claimed),
            > {
                self.0.hand_over_undoable(from.clone(), claim.clone())
            }

            fn refresh<'a>(
                &'a self,
                leases: &'a [$crate::leases::Refresh],
            ) -> $crate::leases::StoreFuture<'a, Vec<$crate::leases::Refreshed>> {
                self.0.refresh(leases)
            }

            fn release<'a>(
                &'a self,
                name: &'a $crate::leases::LeaseName,
                holder: &'a $crate::leases::Holder,
            ) -> $crate::leases::StoreFuture<'a, $crate::leases::Released> {
                self.0.release(name, holder)
            }

            fn give_back<'a>(
                &'a self,
                name: &'a $crate::leases::LeaseName,
                holder: &'a $crate::leases::Holder,
            ) -> $crate::leases::StoreFuture<'a, ($crate::leases::Released, bool)> {
                self.0.give_back(name, holder)
            }

            fn look<'a>(
                &'a self,
                name: &'a $crate::leases::LeaseName,
            ) -> $crate::leases::StoreFuture<'a, Option<$crate::leases::LeaseRecord>> {
                self.0.look(name)
            }

            fn list(&self) -> $crate::leases::StoreFuture<'_, Vec<$crate::leases::LeaseRecord>> {
                self.0.list()
            }

            fn force_release<'a>(
                &'a self,
                name: &'a $crate::leases::LeaseName,
            ) -> $crate::leases::StoreFuture<'a, Option<$crate::leases::LeaseRecord>> {
                self.0.force_release(name)
            }

            fn wakeups(
                &self,
            ) -> Option<$crate::leases::StoreFuture<'_, Box<dyn $crate::leases::Wakeups>>> {
                self.0.wakeups()
            }

            fn table(&self) -> Option<&$crate::leases::TableName> {
                Some(self.0.table())
            }

            fn close(&self) -> $crate::leases::StoreFuture<'_, ()> {
                self.0.close()
            }
        }
    };
}
pub(in crate::leases::stores) use store_of_leases;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_servers_may_be_named_in_one_url_or_in_a_list() {
        let servers = |urls: &[&str]| {
            let urls = urls.iter().map(|url| (*url).to_owned()).collect();
            let options = Options {
                urls,
                ..Options::default()
            };
            options.servers()
        };
        assert_eq!(
            servers(&["postgres://u:p,q@a:1,b:2/db?x=1,2"]),
            [
                "postgres://u:p,q@a:1/db?x=1,2",
                "postgres://u:p,q@b:2/db?x=1,2"
            ]
        );
        assert_eq!(
            servers(&["mysql://a/d,mysql://b/d", "mysql://c/d"]),
            ["mysql://a/d", "mysql://b/d", "mysql://c/d"]
        );
        assert_eq!(servers(&["sqlite:a,b.db"]), ["sqlite:a,b.db"]);
        assert_eq!(servers(&["sqlite:///a,b.db"]), ["sqlite:///a,b.db"]);
    }
}
