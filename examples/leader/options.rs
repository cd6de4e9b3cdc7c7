//! The command line.

use std::time::Duration;

use clap::Parser;

/// One of several processes leads.
///
/// Run it in two terminals: one leads; kill it, and the other takes over within the expiration.
#[derive(Clone, Debug, Parser)]
#[command(name = "leader", version)]
pub struct Options {
    /// Where the lease is: lmdb:FOLDER, postgres://…, mysql://…, sqlite:FILE or etcd://…; without it, an LMDB file in
    /// the folder for temporary files.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,

    /// The lease that they want.
    #[arg(long, value_name = "NAME", default_value = "leader")]
    pub name: String,

    /// How long a leader that was killed keeps the others waiting.
    #[arg(long, value_name = "TIME", default_value = "6s", value_parser = humantime::parse_duration)]
    pub expiration: Duration,

    /// How often a leader says that it lives; at most a third of the expiration.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub refresh: Duration,

    /// How often those who wait look; PostgreSQL and etcd wake them as well.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = humantime::parse_duration)]
    pub poll: Duration,
}

impl Options {
    /// The store, the default one included.
    pub fn url(&self) -> String {
        self.store.clone().unwrap_or_else(|| {
            let folder = std::env::temp_dir().join("lockkeeper-leader");
            format!("lmdb:{}", folder.display())
        })
    }
}
