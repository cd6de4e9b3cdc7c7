//! What a person would want to look up about an environment.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::env::core::Core;
use crate::env::gate::Entry;
use crate::env::inside::BodyKind;
use crate::env::transaction::Sealed;
use crate::env::view::{Tried, Tries, try_view};
use crate::error::{Site, TxnError, body_name};

/// The state of an environment and what was counted since it was opened. Sizes are in bytes.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct EnvStats {
    /// The folder.
    pub path: PathBuf,
    /// Why LMDB could not be asked (recovery, shutdown); then the figures that only LMDB knows are 0.
    pub unreadable: Option<String>,
    /// The size of the map.
    pub map_size: u64,
    /// The largest size that the map may have.
    pub max_map_size: u64,
    /// What the file uses of the map, free pages inside included.
    pub used_bytes: u64,
    /// The id of the last transaction that was committed, by any process.
    pub last_txn_id: u64,
    /// The size of a page.
    pub page_size: u64,
    /// LMDB's environment flags.
    pub flags: u32,
    /// The length of the longest key.
    pub max_key_size: usize,
    /// Reader slots that were ever used at the same time, by any process.
    pub readers: u32,
    /// Reader slots; whoever opened the lock file first decides.
    pub max_readers: u32,
    /// Named databases of the application's that are open.
    pub databases_open: u32,
    /// Named databases that may be open.
    pub max_databases: u32,
    /// Entries and pages of each open database; the main one has no name.
    pub databases: Vec<DatabaseStats>,
    /// Transactions of this process that read right now, the oldest first.
    pub views: Vec<String>,
    /// The age of the oldest view of this process, in milliseconds. It keeps pages from being used again.
    pub oldest_view_ms: Option<u64>,
    /// The body that the writer is running: its name, and for how long, in milliseconds.
    pub writer_busy: Option<(String, u64)>,
    /// Updates that are queued.
    pub queued: usize,
    /// Snapshots that are held over awaits; each is among `views`, too.
    pub snapshots_held: usize,
    /// Held snapshots that had to end because the gate was shut for a change of the map or of a database; counted when they do.
    pub snapshots_ousted: u64,
    /// Views that were begun in place or on a reader thread, and held snapshots; counted when they enter the gate.
    pub views_begun: u64,
    /// Views that were sent to a reader thread; counted when they are sent.
    pub views_shipped: u64,
    /// Batches that were taken from the queue; counted before their bodies run.
    pub batches: u64,
    /// Bodies in those batches.
    pub bodies: u64,
    /// LMDB commits that succeeded.
    pub commits: u64,
    /// Runs of bodies after their first one; counted when they begin.
    pub bodies_rerun: u64,
    /// Bodies that failed by themselves; counted when they are answered.
    pub bodies_failed: u64,
    /// Times that a transaction found the map full.
    pub map_fulls: u64,
    /// Changes of the map by this process.
    pub map_resizes: u64,
    /// Sizes of other processes that were adopted.
    pub resizes_adopted: u64,
    /// Bodies that kept the writer beyond their deadline; counted when somebody notices.
    pub writer_stalls: u64,
    /// Fatal errors.
    pub poisonings: u64,
    /// Recoveries that succeeded.
    pub recoveries: u64,
    /// Reader slots of dead processes that were cleared.
    pub stale_readers_cleared: u64,
}

impl EnvStats {
    /// The mean number of bodies in a batch.
    pub fn mean_batch(&self) -> f64 {
        if self.batches == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a mean")]
        {
            self.bodies as f64 / self.batches as f64
        }
    }
}

/// One database of the environment.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct DatabaseStats {
    /// Its name; LMDB's main database has none.
    pub name: Option<Arc<str>>,
    /// The number of entries.
    pub entries: usize,
    /// The depth of the tree.
    pub depth: u32,
    /// Pages of the tree that are not leaves.
    pub branch_pages: usize,
    /// Leaves.
    pub leaf_pages: usize,
    /// Pages of values that are larger than a leaf holds.
    pub overflow_pages: usize,
}

/// What LMDB says of the environment, without the address of the map, which belongs to nobody outside the gate.
#[derive(Default)]
struct EnvFacts {
    map_size: u64,
    pages: u64,
    last_txn_id: u64,
    readers: u32,
    max_readers: u32,
    flags: u32,
}

impl EnvFacts {
    fn of(env: &heed::Env) -> Self {
        let info = env.info();
        Self {
            map_size: info.map_size as u64,
            pages: info.last_page_number as u64 + 1,
            last_txn_id: info.last_txn_id as u64,
            readers: info.number_of_readers,
            max_readers: info.maximum_number_of_readers,
            flags: env.get_flags().unwrap_or(0),
        }
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Core {
    /// The statistics also when the environment cannot be looked at: then without what only LMDB knows.
    pub(crate) async fn stats_in_any_case(&self, site: Site) -> EnvStats {
        match self.stats(site).await {
            Ok(stats) => stats,
            Err(error) => {
                let facts = EnvFacts {
                    map_size: self.shared.map_size.load(Ordering::Acquire),
                    ..EnvFacts::default()
                };
                EnvStats {
                    unreadable: Some(error.to_string()),
                    ..self.assemble(&facts, Vec::new(), site)
                }
            }
        }
    }

    /// Collects the statistics; waits while the map changes.
    pub(crate) async fn stats(&self, site: Site) -> Result<EnvStats, TxnError> {
        let shared = &self.shared;
        if let Some(error) = self.refusal(Entry::New) {
            return Err(error);
        }
        let span = shared.config.deadline();
        let deadline = crate::clock::far(Instant::now(), span);
        let mut tries = Tries::new(shared);
        loop {
            let mut databases = Vec::new();
            let mut info = None;
            // Also the environment's own figures are read inside: a change of the map would pull it away (I1).
            let tried = try_view(shared, site, &None, Entry::New, |txn| {
                databases = shared.registry.stats(txn.ro());
                let env = shared.env.load();
                info = env.as_ref().map(|env| EnvFacts::of(env));
            });
            match tried {
                Tried::Ran => {}
                Tried::Changing => {
                    let opened = shared.clock.until(deadline, shared.gate.opened()).await;
                    if opened.is_none() {
                        return Err(shared.gate_held(span));
                    }
                    continue;
                }
                Tried::Resized(seen) => {
                    tries.adopt(seen, deadline, span).await?;
                    continue;
                }
                Tried::Refused(error) => return Err(error),
                Tried::NoSlot => {
                    return Err(TxnError::ReadersFull {
                        max: shared.config.max_readers(),
                    });
                }
            }
            let Some(facts) = info else {
                return Err(shared.recovery_needed());
            };
            return Ok(self.assemble(&facts, databases, site));
        }
    }

    fn assemble(
        &self,
        facts: &EnvFacts,
        databases: Vec<(Option<Arc<str>>, heed::DatabaseStat)>,
        site: Site,
    ) -> EnvStats {
        let shared = &self.shared;
        let counters = &shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let page_size = crate::config::page_size();
        let views: Vec<_> = shared
            .gate
            .occupants()
            .into_iter()
            .filter(|view| view.site != site)
            .collect();
        let views_begun = shared.gate.entries();
        metrics::counter!("lockkeeper_views_total").absolute(views_begun);
        EnvStats {
            path: shared.path.clone(),
            unreadable: None,
            map_size: facts.map_size,
            max_map_size: shared.config.max_map_size(),
            used_bytes: facts.pages * page_size,
            last_txn_id: facts.last_txn_id,
            page_size,
            flags: facts.flags,
            max_key_size: shared.max_key(),
            readers: facts.readers,
            max_readers: facts.max_readers,
            databases_open: shared.registry.open_count(),
            max_databases: shared.config.max_databases(),
            databases: databases
                .into_iter()
                .map(|(name, stat)| DatabaseStats {
                    name,
                    entries: stat.entries,
                    depth: stat.depth,
                    branch_pages: stat.branch_pages,
                    leaf_pages: stat.leaf_pages,
                    overflow_pages: stat.overflow_pages,
                })
                .collect(),
            oldest_view_ms: views.first().map(|view| milliseconds(view.age)),
            views: views.iter().map(ToString::to_string).collect(),
            writer_busy: shared.running_now().map(|running| {
                let name = body_name(running.name.as_deref(), running.site);
                (
                    format!("{} {name}", BodyKind::Update),
                    milliseconds(running.since.elapsed()),
                )
            }),
            queued: counters.queued.load(Ordering::Relaxed),
            snapshots_held: shared.gate.lodgers(),
            snapshots_ousted: shared.holders.ousted(),
            views_begun,
            views_shipped: read(&counters.views_shipped),
            batches: read(&counters.batches),
            bodies: read(&counters.bodies),
            commits: read(&counters.commits),
            bodies_rerun: read(&counters.bodies_rerun),
            bodies_failed: read(&counters.bodies_failed),
            map_fulls: read(&counters.map_fulls),
            map_resizes: read(&counters.map_resizes),
            resizes_adopted: read(&counters.resizes_adopted),
            writer_stalls: read(&counters.stalls),
            poisonings: read(&counters.poisonings),
            recoveries: read(&counters.recoveries),
            stale_readers_cleared: read(&counters.stale_readers),
        }
    }
}
