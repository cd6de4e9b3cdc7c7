//! After a fatal error: the environment is closed, opened anew and checked, or left alone, as the settings say (I11).

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use heed::Env;

use crate::config::{Config, Durability, OnFatal, page_size};
use crate::env::claims::file_id;
use crate::env::outside::UNKNOWN;
use crate::env::raw::{self, OpenPlan};
use crate::env::reserved::RESERVED;
use crate::env::shared::{Counters, Shared};
use crate::env::writer::Writer;
use crate::error::{EnvError, StorageError, TxnError};

/// Carries out the policy `on_fatal`. What is queued has been answered, or is here.
pub(super) fn after_fatal(writer: &mut Writer) {
    writer.refuse_queued();
    let policy = writer.shared.config.on_fatal();
    if policy != OnFatal::Wait {
        // Who is told may want to do something first, such as to stop what wrote; but nobody waits for it for long. Where
        // nothing follows by itself there is nothing to wait for, and the listener may be the one that asks for it.
        writer.shared.poison.let_listeners_finish(LAST_WORDS);
    }
    match policy {
        OnFatal::Recover => {
            if !writer.is_stopping()
                && let Err(error) = recover(writer)
            {
                let again = !writer.recovery_refused;
                tracing::error!(target: "lockkeeper", %error, again, "recovery failed");
            }
        }
        OnFatal::Wait => {}
        OnFatal::Exit => std::process::exit(EXIT_STATUS),
        OnFatal::Abort => std::process::abort(),
    }
}

/// How long the listeners have before the policy is carried out.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// `EX_IOERR` of sysexits.
const EXIT_STATUS: i32 = 74;

/// Closes the environment, opens it anew, checks it, and opens the gate again.
pub(super) fn recover(writer: &mut Writer) -> Result<(), EnvError> {
    let shared = Arc::clone(&writer.shared);
    let Some(event) = shared.poison.event() else {
        return Ok(());
    };
    if shared.config.durability() == Durability::NoSync && event.source.doing() == "flush" {
        writer.recovery_refused = true;
        return Err(EnvError::RecoveryRefused(
            "a flush failed under no-sync: what was answered \"committed\" since the last one may be lost, and the file may be \
             damaged; restore a copy"
                .into(),
        ));
    }
    writer.recovering = true;
    let outcome = reopen(writer, &shared);
    writer.recovering = false;
    writer.recovery_refused = matches!(outcome, Err(EnvError::RecoveryRefused(_)));
    let asked = std::mem::take(&mut writer.recovery_asked);
    for reply in asked {
        let answer = match &outcome {
            Ok(()) => Ok(()),
            Err(EnvError::Txn(TxnError::Storage(error))) => {
                Err(EnvError::Txn(TxnError::Storage(error.clone())))
            }
            Err(_) => Err(shared.recovery_needed().into()),
        };
        reply.answer(answer);
    }
    outcome
}

fn reopen(writer: &mut Writer, shared: &Arc<Shared>) -> Result<(), EnvError> {
    shared.supervision.bombs.pass("a recovery");
    // Views that run on keep the map; everybody else is answered while they do.
    let closed = loop {
        match shared
            .gate
            .close(Instant::now() + Duration::from_millis(50))
        {
            Ok(closed) => break closed,
            Err(_) => writer.refuse_queued(),
        }
        if writer.is_stopping() {
            return Err(TxnError::ShuttingDown.into());
        }
    };
    drop_env(shared);
    let failed = |doing| move |error| EnvError::from(StorageError::new(doing, error));
    let map_size = shared.map_size.load(Ordering::Acquire);
    // A file that is gone must not be taken for an empty environment.
    let data = shared.path.join("data.mdb");
    if shared.file.is_some() && file_id(&data) != shared.file {
        return Err(EnvError::RecoveryRefused(format!(
            "{} is not there any more, or is another file",
            data.display()
        )));
    }
    let env =
        raw::open(&shared.path, &plan(&shared.config, map_size)).map_err(failed("opening anew"))?;
    check(&env).map_err(failed("checking"))?;
    let last = env.info().last_txn_id as u64;
    let known = shared.last_committed.load(Ordering::Acquire);
    if last < known {
        return Err(EnvError::RecoveryRefused(format!(
            "the file ends with transaction {last}, but {known} was committed"
        )));
    }
    shared
        .registry
        .reopen_all(&env)
        .map_err(failed("opening the databases anew"))?;
    shared
        .map_size
        .store(env.info().map_size as u64, Ordering::Release);
    shared.generation.fetch_add(1, Ordering::AcqRel);
    shared.env.store(Some(Arc::new(env)));
    writer.meta_sync = true;
    // Others may have written meanwhile, and what was committed last may never have been answered.
    writer.accounted = UNKNOWN;
    shared.outside.grow();
    Counters::add(&shared.counters.recoveries, 1);
    metrics::counter!("lockkeeper_recoveries_total").increment(1);
    tracing::warn!(target: "lockkeeper", path = %shared.path.display(), "the environment has recovered");
    shared.poison.clear(|| shared.gate.heal());
    drop(closed);
    Ok(())
}

/// Reads what every transaction reads first, begins and undoes a write, and flushes: what failed before has to work now.
fn check(env: &Env) -> heed::Result<()> {
    env.clear_stale_readers()?;
    let txn = env.read_txn()?;
    env.unnamed_database_stat();
    drop(txn);
    env.write_txn()?.abort();
    env.force_sync()
}

/// Closes the environment: nobody is inside the gate, and nobody but [`Shared`] has it.
pub(super) fn drop_env(shared: &Shared) {
    let Some(env) = shared.env.swap(None) else {
        return;
    };
    let closing = Env::clone(&env).prepare_for_closing();
    let _alone = raw::Closing::begin();
    drop(env);
    if !closing.wait_timeout(Duration::from_secs(10)) {
        tracing::error!(target: "lockkeeper", path = %shared.path.display(), "the environment is still in use and stays open");
    }
}

pub(super) fn plan(config: &Config, map_size: u64) -> OpenPlan {
    OpenPlan {
        map_size: usize::try_from(map_size).unwrap_or(usize::MAX),
        max_readers: config.max_readers(),
        max_databases: config.max_databases().saturating_add(RESERVED),
        no_sync: config.durability() == Durability::NoSync,
        no_lock: config.no_lock(),
    }
}

/// The size of the map that the newest meta page names, in bytes.
pub(super) fn size_in_file(shared: &Shared) -> Option<u64> {
    read_size(&shared.path.join("data.mdb"))
}

/// As [`size_in_file`]; `None` if the file is not there or not LMDB's.
pub(super) fn read_size(file: &Path) -> Option<u64> {
    const SIZE: usize = 32;
    let meta = newest_meta(file)?;
    Some(u64::from_ne_bytes(
        meta.get(SIZE..)?.first_chunk().copied()?,
    ))
}

/// The flags of LMDB's main database, which are in the newest meta page alone.
pub(super) fn main_flags(file: &Path) -> Option<u32> {
    const MAIN: usize = 88;
    super::registry::flags_in(newest_meta(file)?.get(MAIN..)?)
}

/// The newest of the two meta pages.
fn newest_meta(file: &Path) -> Option<Vec<u8>> {
    // A page header of 16 bytes; magic, version, address, map size; two trees of 48 bytes; last page, transaction id.
    const MAGIC: usize = 16;
    const TXN: usize = 144;
    let page = usize::try_from(page_size()).ok()?;
    let mut bytes = vec![0; page * 2];
    File::open(file).ok()?.read_exact(&mut bytes).ok()?;
    let word = |meta: &[u8], at: usize| {
        let bytes = meta.get(at..)?.first_chunk().copied()?;
        Some(u64::from_ne_bytes(bytes))
    };
    let newest = bytes
        .chunks_exact(page)
        .filter_map(|meta| {
            let magic = word(meta, MAGIC)? & 0xFFFF_FFFF;
            (magic == 0xBEEF_C0DE).then_some((word(meta, TXN)?, meta))
        })
        .max_by_key(|(txn, _)| *txn)?;
    Some(newest.1.to_vec())
}
