//! Who this process is, and the ids of its acquisitions.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use super::{Holder, LeaseSettingsError, boottime};

/// The longest id of a holder, in bytes: what the columns of all stores hold.
const LONGEST_ID: usize = 255;
/// What makes an id unique: 32 hexadecimal digits.
const UNIQUE: usize = 32;

/// A label that may stand before the ids of holders.
#[derive(Debug, Clone, Default)]
pub(super) struct Label(Option<Arc<str>>);

impl Label {
    pub(super) fn new(label: &str) -> Result<Self, LeaseSettingsError> {
        let most = LONGEST_ID - UNIQUE - 1;
        match label.is_empty() {
            true => Ok(Self(None)),
            false if label.len() > most || label.contains('\0') => {
                Err(LeaseSettingsError::BadLabel {
                    length: label.len(),
                    most,
                })
            }
            false => Ok(Self(Some(label.into()))),
        }
    }
}

/// The holder of a new acquisition: never the same twice, in this process or in another.
pub(super) fn holder(label: &Label) -> Holder {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static HOST: LazyLock<Arc<str>> = LazyLock::new(host);
    let pid = std::process::id();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // The keys of each of these come from the system's random numbers.
    let half = || {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(pid);
        hasher.write_u64(count);
        hasher.write_u64(boottime::now().0);
        hasher.finish()
    };
    let unique = format!("{:016x}{:016x}", half(), half());
    let id = match &label.0 {
        Some(label) => format!("{label}/{unique}"),
        None => unique,
    };
    Holder {
        id: id.into(),
        host: Arc::clone(&HOST),
        pid,
    }
}

#[cfg(unix)]
fn host() -> Arc<str> {
    static NAME: LazyLock<Arc<str>> = LazyLock::new(|| {
        let name = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        // As long as the column, and without what a text cannot hold.
        name.chars().take(63).collect::<String>().into()
    });
    Arc::clone(&NAME)
}

#[cfg(not(unix))]
fn host() -> Arc<str> {
    std::env::var("COMPUTERNAME")
        .unwrap_or_else(|_| "unknown".to_owned())
        .into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_acquisition_has_an_id_of_its_own_behind_its_label() {
        let label = Label::new("billing").unwrap();
        let ids: HashSet<_> = (0..1000).map(|_| holder(&label).id).collect();
        assert_eq!(ids.len(), 1000);
        assert!(
            ids.iter()
                .all(|id| id.starts_with("billing/") && id.len() == 40)
        );
        assert_eq!(holder(&Label::default()).id.len(), 32);
    }

    #[test]
    fn a_label_that_does_not_fit_is_refused() {
        let longest = "l".repeat(222);
        assert_eq!(holder(&Label::new(&longest).unwrap()).id.len(), 255);
        assert!(Label::new(&"l".repeat(223)).is_err());
        assert!(Label::new("a\0b").is_err());
    }
}
