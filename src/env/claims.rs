//! What keeps others from an environment that is open: the same file twice in this process, other processes under `no_lock`.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::path::Path;

use parking_lot::Mutex;

use crate::error::OpenError;

/// Held as long as the environment is open.
pub(crate) struct Claims {
    file: OpenFile,
    _lock: ProcessLock,
}

impl Claims {
    /// Claims the folder, and the data file if it is there.
    pub(crate) fn take(folder: &Path, alone: bool) -> Result<Self, OpenError> {
        Ok(Self {
            file: OpenFile::claim(&folder.join("data.mdb"), folder)?,
            _lock: ProcessLock::take(folder, alone)?,
        })
    }

    /// Claims the data file that was made meanwhile; answers which one it is.
    pub(crate) fn settle(&mut self, folder: &Path) -> Result<Option<(u64, u64)>, OpenError> {
        if self.file.0.is_none() {
            self.file = OpenFile::claim(&folder.join("data.mdb"), folder)?;
        }
        Ok(self.file.0.as_ref().map(|&(id, _)| id))
    }
}

/// The data files that are open in this process: LMDB must not have one twice, not even through a hard link.
static OPEN_FILES: Mutex<Option<HashSet<(u64, u64)>>> = Mutex::new(None);

/// The claim to a data file. It keeps the file open: a deleted file's number would be given to a new one, which is not it.
struct OpenFile(Option<((u64, u64), File)>);

impl OpenFile {
    fn claim(data: &Path, folder: &Path) -> Result<Self, OpenError> {
        let Some((id, file)) = file_id(data).zip(File::open(data).ok()) else {
            return Ok(Self(None));
        };
        if OPEN_FILES.lock().get_or_insert_default().insert(id) {
            Ok(Self(Some((id, file))))
        } else {
            Err(OpenError::AlreadyOpen {
                path: folder.to_owned(),
            })
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let (Some((id, _)), Some(open)) = (&self.0, OPEN_FILES.lock().as_mut()) {
            open.remove(id);
        }
    }
}

/// A file, by device and inode.
#[cfg(unix)]
pub(crate) fn file_id(file: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(file).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// A file, by device and inode, where there are such.
#[cfg(not(unix))]
pub(crate) fn file_id(_file: &Path) -> Option<(u64, u64)> {
    None
}

/// Keeps other processes out under `no_lock`, and such processes out of an environment that is used with locks.
struct ProcessLock(#[allow(dead_code, reason = "held, not read")] Option<File>);

impl ProcessLock {
    fn take(folder: &Path, alone: bool) -> Result<Self, OpenError> {
        let refused = |source| OpenError::Folder {
            path: folder.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("lockkeeper.lock"))
            .map_err(refused)?;
        let outcome = if alone {
            file.try_lock()
        } else {
            file.try_lock_shared()
        };
        match outcome {
            Ok(()) => Ok(Self(Some(file))),
            Err(fs::TryLockError::WouldBlock) => Err(OpenError::OtherProcess {
                path: folder.to_owned(),
            }),
            // A file system without locks: only `no_lock` depends on it.
            Err(fs::TryLockError::Error(_)) if !alone => Ok(Self(None)),
            Err(fs::TryLockError::Error(source)) => Err(refused(source)),
        }
    }
}
