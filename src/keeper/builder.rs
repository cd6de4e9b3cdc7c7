//! [`KeeperBuilder`]: describes a keeper and opens it.

use std::path::PathBuf;
use std::sync::Arc;

use super::host::Host;
use super::{Inner, Keeper, Owner};
use crate::actors::lock_table::{LockConfig, Locks};
use crate::actors::supervisor::Runtime;
use crate::config::{Config, Settings, builder_setters, with_settings};
use crate::env::{Core, Listener, PanicEvent, random_seed};
use crate::error::OpenError;
use crate::leases::{LeaseConfig, LeaseSource, LeaseStore};
use crate::locks::{ConflictTable, Text};
use crate::txn::handler::{Handler, HandlerChain};

/// Describes a keeper. Every setting has a default; a `lockkeeper.toml`, a `DB_CONFIG` and a `je.properties` in the folder win over
/// what is set here.
///
/// ```
/// use std::time::Duration;
/// use lockkeeper::{Growth, Keeper};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let keeper = Keeper::builder()
///     .path(folder.path())
///     .map_size(1 << 20)
///     .max_map_size(1 << 30)
///     .growth(Growth::Doubling)
///     .deadline(Duration::from_secs(5))
///     .open()?;
/// # Ok::<(), lockkeeper::OpenError>(())
/// ```
#[derive(Default)]
#[must_use = "a keeper is opened with `open`"]
pub struct KeeperBuilder {
    path: PathBuf,
    settings: Settings,
    handlers: HandlerChain,
    listeners: Vec<Listener>,
    in_current_system: bool,
    own_conflicts: Vec<(Text, ConflictTable)>,
    lease_store: Option<Arc<dyn LeaseStore>>,
    #[cfg(test)]
    pub(super) bombs: Vec<(crate::error::Part, &'static str)>,
}

impl KeeperBuilder {
    /// The folder of the environment, which is made if it is missing, with all above it. Default: the current folder.
    pub fn path(mut self, folder: impl Into<PathBuf>) -> Self {
        self.path = folder.into();
        self
    }

    /// All settings at once, in place of those that were set before.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Adds a handler for the outcomes of all transactions. Default: none.
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.handlers = self.handlers.append(handler);
        self
    }

    /// Adds the handlers of a chain for the outcomes of all transactions.
    pub fn handlers(mut self, chain: &HandlerChain) -> Self {
        self.handlers = self.handlers.then(chain);
        self
    }

    /// Has `listener` called once at each fatal error of the environment, on a thread of its own. What the setting `on_fatal`
    /// says is carried out when the listeners have returned, at the latest after a second. Default: none.
    pub fn on_panic(mut self, listener: impl Fn(&PanicEvent) + Send + Sync + 'static) -> Self {
        self.listeners.push(Arc::new(listener));
        self
    }

    /// Puts the actors into the actix `System` of the thread that opens. Default: a `System` of their own, which outlives the
    /// application's. When the application's stops, the keeper ends in order.
    pub fn in_current_system(mut self) -> Self {
        self.in_current_system = true;
        self
    }

    /// Has the locks of one namespace go by a conflict table of the application's own (Berkeley DB's `set_lk_conflicts`, which
    /// is for all of an environment). Of two for one namespace the later counts. Default: [`ConflictTable::standard`] for all.
    ///
    /// The records of a database are in the namespace of its name. Interactive transactions are kept apart by these locks, so a
    /// table that lets two of them write a record at once takes away what their isolation promises.
    pub fn conflicts(mut self, namespace: impl Into<Text>, table: ConflictTable) -> Self {
        let namespace = namespace.into();
        self.own_conflicts.retain(|(other, _)| *other != namespace);
        self.own_conflicts.push((namespace, table));
        self
    }

    /// Where leases are kept: Postgres, MySQL, SQLite, etcd, or a store of the application's own. Default: an LMDB file beside the
    /// environment, for the processes of this machine, opened when the first lease is asked for.
    pub fn lease_store(mut self, store: impl LeaseStore) -> Self {
        self.lease_store = Some(Arc::new(store));
        self
    }

    fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    with_settings!(builder_setters);

    /// Opens the environment and starts the threads and actors. It blocks, for some milliseconds.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: a setting that is not possible, a folder that cannot be used, an environment that is open in this process
    /// already, a file that is not LMDB's.
    pub fn open(self) -> Result<Keeper, OpenError> {
        let config = self.settings.resolve(&self.path)?;
        let locks = LockConfig {
            own_conflicts: self.own_conflicts,
            ..lock_config(&config)
        };
        let folder = self.path.clone();
        let source = LeaseSource::new(self.lease_store, folder, lease_config(&config));
        let source = Arc::new(source);
        let core = Core::open(&self.path, config, self.listeners)?;
        let locks = Locks::start(locks);
        let runtime = Arc::new(Runtime::new(
            Arc::clone(&core),
            Some(locks.clone()),
            self.handlers,
        ));
        // It has none yet.
        let _ = runtime.leases.set(Arc::clone(&source));
        core.shared.gives_up_with(&source.supervision);
        #[cfg(test)]
        for (part, place) in self.bombs {
            runtime.bombs(part).set(place);
        }
        let started = if self.in_current_system {
            Host::current(&runtime, &locks, &source)
        } else {
            Host::own(&runtime, &locks, &source)
        };
        let (host, addresses) = match started {
            Ok(started) => started,
            Err(error) => {
                // The folder can be opened again at once.
                super::stop_now(&runtime);
                return Err(error);
            }
        };
        *runtime.stopping.host.lock() = Some(host);
        Ok(Keeper {
            owner: Some(Arc::new(Owner(Arc::clone(&runtime)))),
            inner: Arc::new(Inner {
                runtime,
                locks,
                addresses,
            }),
        })
    }
}

/// What the settings say about the lock table. Its conflict tables are no settings, and neither is the seed of the random policy:
/// victims that could be foretold from one start to the next would not be by chance.
fn lock_config(config: &Config) -> LockConfig {
    LockConfig {
        detect_on_block: config.detect_on_block(),
        detect_interval: config.detect_interval(),
        detect_policy: config.detect_policy(),
        lock_timeout: config.lock_timeout(),
        no_wait: config.no_wait(),
        txn_timeout: config.txn_timeout(),
        max_hold: config.max_hold(),
        abort_on_max_hold: config.abort_on_max_hold(),
        max_lockers: config.max_lockers(),
        max_locks: config.max_locks(),
        max_objects: config.max_objects(),
        limit_warning: config.limit_warning(),
        order_warnings: config.order_warnings(),
        seed: random_seed(),
        ..LockConfig::default()
    }
}

/// What the settings say about leases.
fn lease_config(config: &Config) -> LeaseConfig {
    LeaseConfig {
        refresh: config.lease_refresh(),
        expiration: config.lease_expiration(),
        poll: config.lease_poll(),
        max_clock_skew: config.lease_max_clock_skew(),
        max_local_waiters: config.lease_max_local_waiters(),
        ..LeaseConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::VictimPolicy;

    #[test]
    fn every_setting_of_the_lock_table_reaches_it() {
        let config = Settings::default()
            .detect_on_block(false)
            .detect_interval(Duration::from_millis(2))
            .detect_policy(VictimPolicy::MaxWrite)
            .lock_timeout(Duration::from_millis(3))
            .no_wait(true)
            .txn_timeout(Duration::from_millis(4))
            .max_hold(Duration::from_millis(5))
            .abort_on_max_hold(true)
            .max_lockers(6)
            .max_locks(7)
            .max_objects(8)
            .limit_warning(9)
            .order_warnings(true)
            .resolve_without_file()
            .expect("valid");
        let default = LockConfig::default();
        let made = lock_config(&config);
        let expected = LockConfig {
            detect_on_block: false,
            detect_interval: Duration::from_millis(2),
            detect_policy: VictimPolicy::MaxWrite,
            seed: made.seed,
            lock_timeout: Duration::from_millis(3),
            no_wait: true,
            txn_timeout: Duration::from_millis(4),
            max_hold: Duration::from_millis(5),
            abort_on_max_hold: true,
            max_lockers: 6,
            max_locks: 7,
            max_objects: 8,
            limit_warning: 9,
            order_warnings: true,
            conflicts: default.conflicts,
            own_conflicts: default.own_conflicts,
        };
        assert_eq!(made, expected);
    }

    #[test]
    fn every_setting_of_leases_reaches_them() {
        let config = Settings::default()
            .lease_refresh(Duration::from_secs(2))
            .lease_expiration(Duration::from_secs(30))
            .lease_poll(Duration::from_millis(3))
            .lease_max_clock_skew(Duration::from_millis(4))
            .lease_max_local_waiters(5)
            .resolve_without_file()
            .expect("valid");
        let leases = lease_config(&config);
        assert_eq!(leases.refresh, Duration::from_secs(2));
        assert_eq!(leases.expiration, Duration::from_secs(30));
        assert_eq!(leases.poll, Duration::from_millis(3));
        assert_eq!(leases.max_clock_skew, Duration::from_millis(4));
        assert_eq!(leases.max_local_waiters, 5);
        let (alone, keeper) = (LeaseConfig::default(), lease_config(&Config::default()));
        assert_eq!(format!("{alone:?}"), format!("{keeper:?}"));
    }

    #[test]
    fn a_lock_table_alone_and_one_of_a_keeper_have_the_same_defaults() {
        let keeper = LockConfig {
            seed: LockConfig::default().seed,
            ..lock_config(&Config::default())
        };
        assert_eq!(keeper, LockConfig::default());
    }

    #[test]
    fn the_random_policy_begins_elsewhere_in_each_keeper() {
        let [one, other] = [(); 2].map(|()| lock_config(&Config::default()).seed);
        assert_ne!(one, other);
    }
}
