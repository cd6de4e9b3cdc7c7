//! The one table of settings. The parser, the setters, the getters, the docs and the tests all follow from it.

/// Hands the rows of the table to the macro `$then`. A row is
///
/// ```text
/// /// What it does.
/// name: Type [copy | borrow, Kind, Change] = default, "default as text", range;
/// ```
///
/// where `copy` or `borrow` says how the getter answers, and the text of the default is there for the docs of the
/// setters (a test compares it with the default).
macro_rules! with_settings {
    ($then:ident) => {
        $then! {
            /// The size of the memory map at the start, rounded up to whole pages. A file that holds more keeps its size.
            map_size: u64 [copy, Size, Change::Always] = DEFAULT_MAP, "1GiB", bounds(64 * KIB, LARGEST_MAP);
            /// The size that the map never outgrows, rounded up to whole pages. At least `map_size`.
            max_map_size: u64 [copy, Size, Change::Never] = DEFAULT_MAX_MAP, "1TiB", bounds(64 * KIB, LARGEST_MAP);
            /// How the map grows when it is full: not at all, to the double, by a step, or as a function says.
            growth: $crate::config::Growth [borrow, GrowthPolicy, Change::Never] = Growth::Doubling, "\"doubling\"", ();
            /// How full the map is, in percent, when it grows ahead of need.
            grow_ahead: u8 [copy, Count<u8>, Change::Never] = 75, "75", zero_or("off", 1, 100);
            /// Most named databases that can be open. Each costs every transaction a little.
            max_databases: u32 [copy, Count<u32>, Change::Never] = 32, "32", bounds(1, 10_000);
            /// Reader slots of the environment, if this process is the first to open it. A view that finds no slot runs on a reader thread.
            max_readers: u32 [copy, Count<u32>, Change::Never] = 4096, "4096", bounds(1, 100_000);
            /// What a commit that was answered survives. After power loss `no-sync` may leave a data file that cannot be read.
            durability: $crate::config::Durability [copy, Word<Durability>, Change::Never] = Durability::Full, "\"full\"", ();
            /// The time from one flush to the next. Only `no-sync` uses it.
            flush_interval: std::time::Duration [copy, Time, Change::Never] = secs(1), "1s", bounds(millis(1), HOUR);
            /// Most transactions in flight. `when_full` says what happens to more.
            queue: usize [copy, Count<usize>, Change::Never] = 4096, "4096", bounds(1, 1_000_000);
            /// What happens to a transaction when `queue` of them are in flight: it waits until its deadline, or is refused at once.
            when_full: $crate::config::WhenFull [copy, Word<WhenFull>, Change::Never] = WhenFull::Wait, "\"wait\"", ();
            /// Most bodies that one commit carries.
            batch: usize [copy, Count<usize>, Change::Never] = 1024, "1024", bounds(1, 65_536);
            /// The longest time spent on bodies before what they wrote is committed. The body that is running is not cut off.
            batch_time: std::time::Duration [copy, Time, Change::Never] = millis(10), "10ms", bounds(micros(1), secs(60));
            /// The longest wait for callers that were just answered and will be back, so that a batch is whole.
            gather: std::time::Duration [copy, Time, Change::Never] = micros(200), "200us", zero_or("off", micros(1), millis(100));
            /// The longest wait for transactions that are in the way when the map has to change.
            resize_timeout: std::time::Duration [copy, Time, Change::Never] = secs(5), "5s", bounds(millis(1), HOUR);
            /// The time a transaction has, from its send, unless it names its own.
            deadline: std::time::Duration [copy, Time, Change::Never] = secs(30), "30s", bounds(millis(1), MONTH);
            /// Most attempts of a transaction. Those that were lost to a deadlock do not count.
            retries: u32 [copy, Count<u32>, Change::Never] = 10, "10", bounds(1, 1_000_000);
            /// How long a transaction stands back before its next attempt: at random, up to a time that grows.
            retry_backoff: $crate::Backoff [copy, Randomised, Change::Never] = backoff(1, 100), "{base = \"1ms\", max = \"100ms\", factor = 2}", ();
            /// Whether a transaction is run again after a lock timeout or a transaction timeout.
            retry_timeouts: bool [copy, Switch, Change::Never] = true, "true", ();
            /// How long the answer to a transaction with a key is kept. Sent again within it, the stored answer comes back and the body does not run.
            idempotency_window: std::time::Duration [copy, Time, Change::Never] = DAY, "1day", bounds(millis(10), MONTH);
            /// Most keys and ranges that an interactive transaction can have read.
            max_read_set: usize [copy, Count<usize>, Change::Never] = 100_000, "100000", bounds(1, 100_000_000);
            /// Most bytes that an interactive transaction can be about to write, keys and a little for each entry included.
            max_write_set: u64 [copy, Size, Change::Never] = 64 * 1024 * KIB, "64MiB", bounds(KIB, 1024 * 1024 * KIB);
            /// How often in a row a map size set by another process is adopted before the transaction that met it is given up.
            adopt_retries: u32 [copy, Count<u32>, Change::Never] = 2, "2", zero_or("not at all", 1, 1000);
            /// How long to stand back before a map size set by another process is adopted.
            adopt_backoff: $crate::Delay [borrow, DelayPolicy, Change::Never] = Delay::Backoff(backoff(1, 5)), "{base = \"1ms\", max = \"5ms\", factor = 2}", ();
            /// Threads for long views.
            reader_threads: usize [copy, Count<usize>, Change::Never] = 2, "2", bounds(1, 64);
            /// Most views that wait for a reader thread.
            reader_queue: usize [copy, Count<usize>, Change::Never] = 1024, "1024", bounds(1, 1_000_000);
            /// Most snapshots held over awaits at one time, each on a thread of its own. More wait until their deadline.
            snapshots: usize [copy, Count<usize>, Change::Never] = 8, "8", bounds(1, 1024);
            /// How often slots of readers whose process has ended are cleared.
            stale_reader_interval: std::time::Duration [copy, Time, Change::Never] = secs(60), "1m", zero_or("off", millis(10), DAY);
            /// What happens after a fatal error of the environment: reopen and check it, wait for `Recover`, exit, or abort the process.
            on_fatal: $crate::config::OnFatal [copy, Word<OnFatal>, Change::Never] = OnFatal::Recover, "\"recover\"", ();
            /// Opens the environment without LMDB's own lock file; then an update excludes views. For one process only, and experimental.
            no_lock: bool [copy, Switch, Change::Never] = false, "false", ();
            /// Whether a deadlock is looked for whenever a request has to wait.
            detect_on_block: bool [copy, Switch, Change::Always] = true, "true", ();
            /// How often all deadlocks are looked for.
            detect_interval: std::time::Duration [copy, Time, Change::Always] = secs(1), "1s", zero_or("off", millis(1), HOUR);
            /// Who is aborted to break a deadlock, among those of the lowest priority on it; `default` is who closed it, unless it is the oldest on it, or else the youngest.
            detect_policy: $crate::VictimPolicy [copy, Word<VictimPolicy>, Change::Always] = VictimPolicy::Default, "\"default\"", ();
            /// The longest wait for one lock, of a request that does not say otherwise.
            lock_timeout: std::time::Duration [copy, Time, Change::Always] = secs(5), "5s", zero_or("none", micros(1), MONTH);
            /// Whether a request that does not say otherwise is refused at once instead of waiting.
            no_wait: bool [copy, Switch, Change::Always] = false, "false", ();
            /// The time a locker has for all its waits together, from its beginning, unless it names its own.
            txn_timeout: std::time::Duration [copy, Time, Change::Always] = Duration::ZERO, "0s", zero_or("none", micros(1), MONTH);
            /// How long a lock may be held before its holder and those who wait for it are told.
            max_hold: std::time::Duration [copy, Time, Change::Always] = Duration::ZERO, "0s", zero_or("off", millis(1), MONTH);
            /// Whether who holds a lock longer than `max_hold` is aborted.
            abort_on_max_hold: bool [copy, Switch, Change::Always] = false, "false", ();
            /// Most lockers at one time.
            max_lockers: usize [copy, Count<usize>, Change::Upward] = 100_000, "100000", bounds(1, 100_000_000);
            /// Most locks at one time, held and waited for.
            max_locks: usize [copy, Count<usize>, Change::Upward] = 100_000, "100000", bounds(1, 100_000_000);
            /// Most locked objects at one time.
            max_objects: usize [copy, Count<usize>, Change::Upward] = 100_000, "100000", bounds(1, 100_000_000);
            /// The share of `max_lockers`, `max_locks` and `max_objects`, in percent, at which a warning is given.
            limit_warning: u8 [copy, Count<u8>, Change::Never] = 80, "80", zero_or("off", 1, 100);
            /// Whether to warn when classes of objects are locked in an order that contradicts an earlier one.
            order_warnings: bool [copy, Switch, Change::Never] = false, "false", ();
            /// The time from one refresh of a lease to the next. At most a third of `lease_expiration`.
            lease_refresh: std::time::Duration [copy, Time, Change::Never] = secs(1), "1s", bounds(millis(1), HOUR);
            /// How long a store keeps a lease that is not refreshed.
            lease_expiration: std::time::Duration [copy, Time, Change::Never] = secs(300), "5m", bounds(millis(3), MONTH);
            /// How often a store is asked for a lease that somebody else holds.
            lease_poll: std::time::Duration [copy, Time, Change::Never] = secs(1), "1s", bounds(millis(1), HOUR);
            /// By how much a store's clock may gain on real time, steps and failover included. So much, and 2 % of the expiration, before it expires its holder does not believe in a lease any more.
            lease_max_clock_skew: std::time::Duration [copy, Time, Change::Never] = secs(1), "1s", zero_or("none", micros(1), HOUR);
            /// Most callers of this process that wait for one lease.
            lease_max_local_waiters: usize [copy, Count<usize>, Change::Never] = 10_000, "10000", bounds(1, 1_000_000);
            /// The time transactions in flight are given when the last `Keeper` is dropped.
            shutdown_deadline: std::time::Duration [copy, Time, Change::Never] = secs(10), "10s", zero_or("none at all", millis(1), DAY);
        }
    };
}

/// A setter for each row of the table, in an `impl` block of a type with
/// `fn settings_mut(&mut self) -> &mut Settings`.
macro_rules! builder_setters {
    (@one copy $(#[$meta:meta])+ $name:ident $ty:ty) => {
        $(#[$meta])+
        #[must_use = "a setter answers the settings with the change"]
        pub fn $name(mut self, $name: $ty) -> Self {
            self.settings_mut().$name = Some($name);
            self
        }
    };
    (@one borrow $(#[$meta:meta])+ $name:ident $ty:ty) => {
        $(#[$meta])+
        #[must_use = "a setter answers the settings with the change"]
        pub fn $name(mut self, $name: impl Into<$ty>) -> Self {
            self.settings_mut().$name = Some($name.into());
            self
        }
    };
    ($($(#[doc = $doc:literal])+ $name:ident : $ty:ty [$how:ident, $kind:ty, $change:expr] = $default:expr, $text:literal, $range:expr;)+) => {
        $($crate::config::builder_setters! {
            @one $how $(#[doc = $doc])+ #[doc = concat!("\n\nDefault: `", $text, "`.")] $name $ty
        })+
    };
}

pub(crate) use {builder_setters, with_settings};
