//! Hot copies: a backup while writes go on, and the way to shrink a file.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use heed::CompactionOption;
use tokio::sync::oneshot;

use crate::env::beside::NotBegun;
use crate::env::core::Core;
use crate::env::gate::{Entry, Shut};
use crate::env::shared::Shared;
use crate::error::{EnvError, Site, StorageError, TxnError};

impl Core {
    /// Copies the environment into `folder`, which is made; answers the size of the copy in bytes.
    ///
    /// A thread of its own does it. The map is made larger first if it is nearly full, since it cannot grow meanwhile.
    pub(crate) async fn copy(
        &self,
        folder: PathBuf,
        compact: bool,
        site: Site,
    ) -> Result<u64, EnvError> {
        if let Some(error) = self.refusal(Entry::New) {
            return Err(error.into());
        }
        self.grow_ahead().await?;
        let (reply, answer) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let begun = self.copying.begin_after(|earlier| {
            thread::Builder::new()
                .name("lockkeeper-copy".into())
                .spawn(move || {
                    let _earlier = earlier;
                    let copied = shared
                        .supervision
                        .guard("a copy", || copy(&shared, &folder, compact, site));
                    let _ =
                        reply.send(copied.unwrap_or_else(|panicked| {
                            Err(TxnError::ActorPanicked(panicked).into())
                        }));
                })
        });
        match begun {
            Ok(()) => {}
            Err(NotBegun::Closed) => return Err(TxnError::ShuttingDown.into()),
            Err(NotBegun::Thread(error)) => {
                return Err(StorageError::new("starting a thread", heed::Error::Io(error)).into());
            }
        }
        answer
            .await
            .unwrap_or_else(|_| Err(TxnError::ShuttingDown.into()))
    }
}

fn copy(shared: &Shared, folder: &Path, compact: bool, site: Site) -> Result<u64, EnvError> {
    let until = crate::clock::far(Instant::now(), shared.config.deadline());
    let name: Arc<str> = format!("copy to {}", folder.display()).into();
    let entered = loop {
        match shared.gate.enter(shared.id, site, Some(&name), Entry::New) {
            Ok(entered) => break entered,
            Err(Shut::Changing) => {
                let opened = shared.clock.until(until, shared.gate.opened());
                if crate::clock::block_on(opened).is_none() {
                    return Err(shared.gate_held(shared.config.deadline()).into());
                }
            }
            Err(Shut::Poisoned) => return Err(shared.recovery_needed().into()),
            Err(Shut::Closing | Shut::Inside(_)) => return Err(TxnError::ShuttingDown.into()),
        }
    };
    let env = shared
        .env
        .load_full()
        .ok_or_else(|| shared.recovery_needed())?;
    let io = |doing| move |error| EnvError::from(StorageError::new(doing, heed::Error::Io(error)));
    let target = folder.join("data.mdb");
    if target.exists() {
        return Err(EnvError::Exists(target));
    }
    fs::create_dir_all(folder).map_err(io("making the folder of the copy"))?;
    // Under another name until it is whole, so that nobody takes half a copy for a backup.
    let partial = folder.join("data.mdb.partial");
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&partial)
        .map_err(io("making the copy"))?;
    let option = if compact {
        CompactionOption::Enabled
    } else {
        CompactionOption::Disabled
    };
    let copied = env
        .copy_to_file(&mut file, option)
        .map_err(|error| EnvError::from(StorageError::new("copying", error)))
        .and_then(|()| file.sync_all().map_err(io("flushing the copy")))
        .and_then(|()| file.metadata().map_err(io("reading the copy")));
    drop((env, entered));
    let size = match copied {
        Ok(meta) => meta.len(),
        Err(error) => {
            // What failed is told; a leftover that cannot be removed is named like one.
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
    };
    fs::rename(&partial, &target).map_err(io("naming the copy"))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io("flushing the folder of the copy"))?;
    Ok(size)
}
