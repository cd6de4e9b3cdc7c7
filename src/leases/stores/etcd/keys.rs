//! Where a lease is in etcd, and what is written there.
//!
//! A lease named `n` is the key `{prefix}/{n}`. In `n` a slash is written `%2F` and a per cent sign `%25`, so that the last
//! slash of a key always ends the prefix: no name under one prefix is ever a name under another. Names compare byte for byte,
//! as keys do.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::leases::{Holder, LeaseName, StoreError};

/// The prefix of all keys of one set of leases, without the slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prefix(Arc<str>);

impl Prefix {
    /// `None` for one that is empty or contains NUL.
    pub(super) fn new(prefix: &str) -> Option<Self> {
        let prefix = prefix.trim_matches('/');
        (!prefix.is_empty() && !prefix.contains('\0')).then(|| Self(prefix.into()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// What all keys begin with.
    pub(super) fn begin(&self) -> Vec<u8> {
        format!("{}/", self.0).into_bytes()
    }

    pub(super) fn key(&self, name: &LeaseName) -> Vec<u8> {
        let mut key = self.begin();
        for byte in name.as_str().bytes() {
            match byte {
                b'/' => key.extend_from_slice(b"%2F"),
                b'%' => key.extend_from_slice(b"%25"),
                byte => key.push(byte),
            }
        }
        key
    }

    /// The name in a key; `None` if it is none of ours.
    pub(super) fn name(&self, key: &[u8]) -> Option<LeaseName> {
        let escaped = key
            .strip_prefix(self.0.as_bytes())?
            .strip_prefix(b"/")
            .and_then(|rest| std::str::from_utf8(rest).ok())?;
        if escaped.contains('/') {
            return None;
        }
        let mut pieces = escaped.split('%');
        let mut name = pieces.next()?.to_owned();
        for piece in pieces {
            let (sign, rest) = match (piece.strip_prefix("2F"), piece.strip_prefix("25")) {
                (Some(rest), _) => ('/', rest),
                (_, Some(rest)) => ('%', rest),
                _ => return None,
            };
            name.push(sign);
            name.push_str(rest);
        }
        LeaseName::new(name).ok()
    }
}

/// The value of a lease's key: who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) id: Arc<str>,
    pub(super) host: Arc<str>,
    pub(super) pid: u32,
    /// For how long nobody gets the lease after an unclean end, in milliseconds.
    #[serde(default)]
    pub(super) delay: u64,
    /// It was handed over by another holder: its token is the revision of the last change, not of the key's making.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) handed: bool,
    /// The token, where neither revision tells it, since the key was moved to another etcd lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<i64>,
}

impl Written {
    pub(super) fn new(holder: &Holder, unclean_delay: Duration) -> Self {
        Self {
            id: Arc::clone(&holder.id),
            host: Arc::clone(&holder.host),
            pid: holder.pid,
            delay: u64::try_from(unclean_delay.as_millis()).unwrap_or(u64::MAX),
            handed: false,
            token: None,
        }
    }

    pub(super) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    pub(super) fn value(&self) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self)
            .map_err(|error| StoreError::BadConfig(format!("unwritable holder: {error}")))
    }

    pub(super) fn unclean_delay(&self) -> Duration {
        Duration::from_millis(self.delay)
    }

    pub(super) fn holder(&self) -> Holder {
        Holder {
            id: Arc::clone(&self.id),
            host: Arc::clone(&self.host),
            pid: self.pid,
        }
    }
}

/// How much longer than asked for a lease lives in etcd: for so long after a keep-alive a claim or a refresh needs no other.
const SLACK: Duration = Duration::from_secs(1);

/// The time to live of an etcd lease that is to carry leases for so long: whole seconds, rounded up.
pub(super) fn time_to_live(keep: Duration) -> i64 {
    let keep = keep.saturating_add(SLACK);
    let seconds = keep
        .as_secs()
        .saturating_add(u64::from(keep.subsec_nanos() > 0));
    // etcd refuses more than 9,000,000,000 seconds.
    i64::try_from(seconds).map_or(LONGEST, |seconds| seconds.min(LONGEST))
}

const LONGEST: i64 = 9_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> LeaseName {
        LeaseName::new(text).unwrap()
    }

    #[test]
    fn a_key_leads_back_to_its_name_and_to_no_other_prefix() {
        let outer = Prefix::new("/a/").unwrap();
        let inner = Prefix::new("a/b").unwrap();
        for text in ["x", "b/x", "b%2Fx", "%", "100%25", "ä\u{1}", "a//", "/"] {
            let key = outer.key(&name(text));
            assert_eq!(outer.name(&key), Some(name(text)), "{text}");
            assert_eq!(inner.name(&key), None, "{text}");
            assert_eq!(outer.name(&inner.key(&name(text))), None, "{text}");
        }
        assert_ne!(outer.key(&name("b/x")), inner.key(&name("x")));
        assert_ne!(outer.key(&name("A")), outer.key(&name("a")));
    }

    #[test]
    fn keys_that_nobody_wrote_are_no_names() {
        let prefix = Prefix::new("p").unwrap();
        for key in [
            &b"p"[..],
            b"p/",
            b"q/a",
            b"p/a/b",
            b"p/a%",
            b"p/%2f",
            b"p/\xff",
        ] {
            assert_eq!(prefix.name(key), None, "{key:?}");
        }
        assert_eq!(Prefix::new("//"), None);
    }

    #[test]
    fn a_lease_lives_in_etcd_for_no_less_than_was_asked() {
        assert_eq!(time_to_live(Duration::from_secs(5)), 6);
        assert_eq!(time_to_live(Duration::from_millis(4_001)), 6);
        assert_eq!(time_to_live(Duration::MAX), LONGEST);
    }
}
