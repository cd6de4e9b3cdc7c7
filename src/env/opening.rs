//! Opening an environment: everything that has to be right before the first transaction.
//!
//! Each refusal names its cause while nothing depends on the environment yet. The order counts: the claims on the folder
//! come before LMDB opens it, and the threads last.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use heed::MdbError;
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::config::Config;
use crate::env::beside::Beside;
use crate::env::claims::Claims;
use crate::env::core::Core;
use crate::env::gate::{Entry, Shut};
use crate::env::poison::{Listener, Poison};
use crate::env::shared::{CONTROL_ROOM, Command, Shared};
use crate::env::view::reader;
use crate::env::writer::Writer;
use crate::env::{EnvId, raw, recovery};
use crate::error::OpenError;

impl Core {
    /// Opens the environment in `folder` and starts its threads. Blocks for as long as that takes.
    pub(crate) fn open(
        folder: &Path,
        config: Config,
        listeners: Vec<Listener>,
    ) -> Result<Arc<Self>, OpenError> {
        raw::watch_forks();
        let folder = prepare_folder(folder)?;
        let mut claims = Claims::take(&folder, config.no_lock())?;
        // A file that has grown is opened as large as it is, not made to grow again.
        let map_size = recovery::read_size(&folder.join("data.mdb"))
            .unwrap_or(0)
            .min(config.max_map_size())
            .max(config.map_size());
        let env = raw::open(&folder, &recovery::plan(&config, map_size))
            .map_err(|source| open_error(&folder, source))?;
        first_look(&env, &folder)?;
        let file = claims.settle(&folder)?;
        let poison = Poison::default();
        for listener in listeners {
            poison.listen(listener);
        }
        let clock = Clock::start().map_err(OpenError::Thread)?;
        // Transactions and commands are bounded by their permits; one more is for the news of a fatal error, one for that of an
        // attempt that went first, one for the end.
        let (commands, for_writer) = flume::bounded(config.queue() + CONTROL_ROOM + 3);
        let (views, for_readers) = flume::bounded(config.reader_queue());
        let readers = config.reader_threads();
        let stale_interval = config.stale_reader_interval();
        let shared = Arc::new(Shared::new(
            EnvId::next(),
            folder,
            config,
            env,
            poison,
            clock,
            commands,
            views,
            file,
        ));
        let core = Arc::new(Self {
            shared: Arc::clone(&shared),
            threads: Mutex::default(),
            writer: Mutex::default(),
            backlog: for_writer.clone(),
            views_backlog: Mutex::new(Some(for_readers.clone())),
            copying: Beside::default(),
        });
        let writer = Writer::new(Arc::clone(&shared), for_writer, claims);
        let writer = spawn("lockkeeper-writer", move || writer.run())?;
        *core.writer.lock() = Some(writer);
        for _ in 0..readers {
            let (shared, tasks) = (Arc::clone(&shared), for_readers.clone());
            match spawn("lockkeeper-reader", move || reader(&shared, &tasks)) {
                Ok(thread) => core.threads.lock().push(thread),
                Err(error) => {
                    // What has started ends by itself.
                    core.shared.stop.store(true, Ordering::Release);
                    let _ = core.shared.commands.try_send(Command::Stop);
                    return Err(error);
                }
            }
        }
        if !stale_interval.is_zero() {
            let weak = Arc::downgrade(&shared);
            shared.clock.every(stale_interval, move || {
                let Some(shared) = weak.upgrade() else {
                    return false;
                };
                shared.clear_stale_readers();
                shared.gate.shut(Entry::Admitted) != Some(Shut::Closing)
            });
        }
        core.watch_answers();
        Ok(core)
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map_err(OpenError::Thread)
}

/// The folder by its real path. It is made if it is missing; a network file system is warned of.
pub(crate) fn prepare_folder(folder: &Path) -> Result<PathBuf, OpenError> {
    let refused = |source| OpenError::Folder {
        path: folder.to_owned(),
        source,
    };
    match fs::metadata(folder) {
        Ok(meta) if !meta.is_dir() => {
            return Err(OpenError::NotAFolder {
                path: folder.to_owned(),
            });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).map_err(refused)?;
        }
        Err(error) => return Err(refused(error)),
    }
    warn_of_network(folder);
    folder.canonicalize().map_err(refused)
}

/// The network file system that has this magic number of `statfs`, if it is one.
#[cfg(target_os = "linux")]
fn network_name(magic: u64) -> Option<&'static str> {
    // The number is 32 bits wide, and may come with its sign extended.
    match magic & 0xFFFF_FFFF {
        0x6969 => Some("NFS"),
        0xFF53_4D42 => Some("CIFS"),
        0xFE53_4D42 => Some("SMB2"),
        0x517B => Some("SMB"),
        _ => None,
    }
}

/// LMDB's locks and its shared map do not work across machines.
fn warn_of_network(folder: &Path) {
    #[cfg(target_os = "linux")]
    {
        if let Ok(stat) = rustix::fs::statfs(folder)
            && let Some(name) = network_name(stat.f_type as u64)
        {
            tracing::warn!(target: "lockkeeper", path = %folder.display(), file_system = name,
                "an LMDB environment on a network file system is not safe");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = folder;
}

fn open_error(folder: &Path, source: heed::Error) -> OpenError {
    let path = folder.to_owned();
    match source {
        heed::Error::EnvAlreadyOpened => OpenError::AlreadyOpen { path },
        heed::Error::Mdb(MdbError::Invalid | MdbError::VersionMismatch | MdbError::Corrupted) => {
            OpenError::NotLmdb {
                path: path.join("data.mdb"),
                source,
            }
        }
        heed::Error::Io(source) => OpenError::Folder { path, source },
        source => OpenError::Lmdb { path, source },
    }
}

/// Clears what dead processes left, and takes one snapshot: that is where a process with our pid shows.
fn first_look(env: &heed::Env, folder: &Path) -> Result<(), OpenError> {
    let failed = |source| open_error(folder, source);
    env.clear_stale_readers().map_err(failed)?;
    match env.read_txn() {
        Ok(txn) => {
            drop(txn);
            Ok(())
        }
        Err(heed::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(OpenError::SamePidInOtherNamespace {
                path: folder.to_owned(),
            })
        }
        // Both are dealt with when they come again.
        Err(heed::Error::Mdb(MdbError::ReadersFull | MdbError::MapResized)) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_number() {
        assert_eq!(network_name(0x6969), Some("NFS"));
        assert_eq!(network_name(0xFFFF_FFFF_FF53_4D42), Some("CIFS"));
        let ext4 = 0xEF53;
        assert_eq!(network_name(ext4), None);
    }
}
