//! How a cluster is reached.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use super::keys::Prefix;
use crate::leases::StoreError;

const PORT: u16 = 2379;
const PREFIX: &str = "dbmutex";
const TIMEOUT: Duration = Duration::from_secs(1);
/// etcd ends connections that ask more often than every 5 s.
const PING: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Where an etcd cluster is, and who we are there.
#[derive(Clone)]
pub struct EtcdOptions {
    endpoints: Vec<String>,
    prefix: String,
    user: Option<(String, String)>,
    tls: Option<TlsOptions>,
    timeout: Duration,
}

impl EtcdOptions {
    /// The members' addresses for clients, `host:port` each (port 2379 if it is left out); name all of them, so that another
    /// is asked when one does not answer.
    #[must_use]
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: PREFIX.to_owned(),
            user: None,
            tls: None,
            timeout: TIMEOUT,
        }
    }

    /// Reads `etcd://[user:password@]host:port,host:port,…/prefix`, with `?tls=true`, `?ca=FILE` (certificates in PEM that
    /// sign the servers'), `&cert=FILE&key=FILE` (our own); each of the three turns TLS on. What is special in user, password and
    /// files is written `%XX`.
    ///
    /// # Errors
    /// [`StoreError::BadConfig`] for anything else, or if a file cannot be read.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        let bad = |why: &str| StoreError::BadConfig(format!("{why} in an etcd:// URL"));
        let rest = url
            .strip_prefix("etcd://")
            .ok_or_else(|| StoreError::BadConfig("not an etcd:// URL".to_owned()))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (servers, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        // Else a part of the password would be taken for something that may be shown.
        if prefix.contains('@') || query.contains('@') {
            return Err(bad("an `@` that is not written `%40` behind the servers"));
        }
        let (user, servers) = match servers.rsplit_once('@') {
            Some((user, servers)) => (Some(user), servers),
            None => (None, servers),
        };
        let mut options = Self::new(servers.split(',').filter(|server| !server.is_empty()));
        if !prefix.is_empty() {
            let prefix = decoded(prefix).ok_or_else(|| bad("bad prefix"))?;
            options = options.prefix(prefix);
        }
        if let Some(user) = user {
            let (user, password) = user.split_once(':').ok_or_else(|| bad("no password"))?;
            let user = decoded(user).ok_or_else(|| bad("bad user"))?;
            let password = decoded(password).ok_or_else(|| bad("bad password"))?;
            options = options.user(user, password);
        }
        let (mut cert, mut key) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value).ok_or_else(|| bad("bad value"))?;
            match (name, &*value) {
                ("tls", "true") => options.tls = Some(options.tls.unwrap_or_default()),
                ("tls", "false") => {}
                ("ca", file) => options = options.ca(&read(file)?),
                ("cert", file) => cert = Some(read(file)?),
                ("key", file) => key = Some(read(file)?),
                _ => return Err(bad(&format!("unknown option {name:?}"))),
            }
        }
        match (cert, key) {
            (Some(cert), Some(key)) => Ok(options.identity(&cert, &key)),
            (None, None) => Ok(options),
            _ => Err(bad("only one of `cert` and `key`")),
        }
    }

    /// What all keys begin with, before a slash; it does what a table's name does elsewhere: leases under different prefixes
    /// have nothing to do with each other. Default: `dbmutex`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The user and the password, if the cluster asks for them. The user needs to read and write the keys under the prefix.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// Asks by TLS, and trusts these certificates, in PEM.
    #[must_use]
    pub fn ca(mut self, pem: &[u8]) -> Self {
        let tls = self.tls.unwrap_or_default();
        self.tls = Some(tls.ca_certificate(Certificate::from_pem(pem)));
        self
    }

    /// Asks by TLS, and shows this certificate with its private key, both in PEM.
    #[must_use]
    pub fn identity(mut self, certificate: &[u8], key: &[u8]) -> Self {
        let tls = self.tls.unwrap_or_default();
        self.tls = Some(tls.identity(Identity::from_pem(certificate, key)));
        self
    }

    /// Asks by TLS with these options of the driver.
    #[must_use]
    pub fn tls(mut self, tls: TlsOptions) -> Self {
        self.tls = Some(tls);
        self
    }

    /// After so long without an answer the next member is asked. Default: 1 s.
    #[must_use]
    pub const fn request_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn checked_prefix(&self) -> Result<Prefix, StoreError> {
        Prefix::new(&self.prefix).ok_or_else(|| {
            StoreError::BadConfig("the prefix in etcd is empty or contains a NUL".to_owned())
        })
    }

    /// The endpoints as the driver wants them.
    pub(super) fn endpoints(&self) -> Result<Vec<String>, StoreError> {
        if self.endpoints.is_empty() {
            return Err(StoreError::BadConfig("no endpoint of etcd is given".into()));
        }
        if self.timeout.is_zero() {
            return Err(StoreError::BadConfig("the request timeout is zero".into()));
        }
        if self.endpoints.iter().any(|one| one.contains(['/', '@'])) {
            return Err(StoreError::BadConfig(
                "an endpoint of etcd is `host:port`, and nothing before or behind it".into(),
            ));
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let full = self.endpoints.iter().map(|endpoint| {
            let host_end = endpoint.rfind(']').unwrap_or(0);
            let has_port = endpoint
                .get(host_end..)
                .is_some_and(|end| end.contains(':'));
            match has_port {
                true => format!("{scheme}://{endpoint}"),
                false => format!("{scheme}://{endpoint}:{PORT}"),
            }
        });
        Ok(full.collect())
    }

    pub(super) fn driver(&self) -> ConnectOptions {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.timeout)
            .with_keep_alive(PING, PING_TIMEOUT)
            // etcd takes pings on an idle connection amiss.
            .with_keep_alive_while_idle(false)
            // A member that has lost its leader says so, and another is asked.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((user, password)) = &self.user {
            options = options.with_user(user, password);
        }
        if let Some(tls) = &self.tls {
            options = options.with_tls(tls.clone());
        }
        options
    }
}

/// Without password and keys.
impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdOptions")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("tls", &self.tls.is_some())
            .field("request_timeout", &self.timeout)
            .finish()
    }
}

fn read(file: &str) -> Result<Vec<u8>, StoreError> {
    std::fs::read(Path::new(file))
        .map_err(|error| StoreError::BadConfig(format!("{file} cannot be read: {error}")))
}

/// Undoes `%XX`.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_all_members_the_prefix_and_the_user() {
        let url = "etcd://me:p%40ss@a:1,b,[::1],[::1]:7/jobs/nightly";
        let options = EtcdOptions::from_url(url).unwrap();
        assert_eq!(
            options.endpoints().unwrap(),
            [
                "http://a:1",
                "http://b:2379",
                "http://[::1]:2379",
                "http://[::1]:7"
            ]
        );
        assert_eq!(options.prefix, "jobs/nightly");
        assert_eq!(options.user, Some(("me".into(), "p@ss".into())));
        let plain = EtcdOptions::from_url("etcd://a?tls=true").unwrap();
        assert_eq!(plain.endpoints().unwrap(), ["https://a:2379"]);
        assert_eq!(plain.prefix, "dbmutex");
    }

    #[test]
    fn what_is_wrong_in_a_url_is_said() {
        for bad in [
            "http://a",
            "etcd://me@a",
            "etcd://a?what=1",
            "etcd://a?tls=maybe",
            "etcd://a/%zz",
            "etcd://a?cert=x",
            "etcd://a?ca=/nowhere/at/all",
        ] {
            let error = EtcdOptions::from_url(bad).unwrap_err();
            assert!(matches!(error, StoreError::BadConfig(_)), "{bad}: {error}");
        }
        for bad in ["etcd://me:se/cret@a", "etcd://me:se?cret@a"] {
            let error = EtcdOptions::from_url(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("cret"), "{error}");
        }
        for bad in ["http://a:1", "me:secret@a"] {
            let error = EtcdOptions::new([bad]).endpoints().unwrap_err();
            assert!(matches!(error, StoreError::BadConfig(_)), "{error:?}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let nowhere = EtcdOptions::from_url("etcd:///prefix").unwrap();
        assert!(nowhere.endpoints().is_err());
        let nameless = EtcdOptions::from_url("etcd://a").unwrap().prefix("/");
        assert!(nameless.checked_prefix().is_err());
    }
}
