//! MariaDB for tests: on loopback, with a folder and a port of its own, which ends with its owner.

// Each test binary compiles its own copy, and uses only part of it.
#![allow(dead_code)]

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;

use rustix::process::Signal;

use super::certificates::Certificates;
use super::process::{Folder, PATIENCE, Process, free_port, run, until};

/// What a new server begins with.
const FIRST: &str = "\
delete from mysql.global_priv where user = '';
flush privileges;
create user 'app'@'%' identified by 'secret';
grant all on *.* to 'app'@'%' with grant option;
create database app character set utf8mb4;
";

/// A server, running or not.
pub struct Mariadb {
    folder: Folder,
    port: u16,
    flushes: bool,
    process: Option<Process>,
}

impl Mariadb {
    /// A new one, empty but for the database `app` of the user `app`. It flushes once in a second, which is enough as long as
    /// the machine runs.
    pub fn start() -> Self {
        Self::start_new(false)
    }

    /// A new one that flushes each commit, as servers do by default.
    pub fn start_flushing() -> Self {
        Self::start_new(true)
    }

    fn start_new(flushes: bool) -> Self {
        let folder = Folder::new();
        let data = folder.path().join("data");
        let datadir = format!("--datadir={}", data.display());
        let quick = "--innodb-log-file-size=8M";
        // A server that starts removes the temporary tables of all that share its folder for them.
        let tmpdir = format!("--tmpdir={}", folder.path().display());
        let arguments = ["--no-defaults", &datadir, &tmpdir, "--skip-test-db", quick];
        run(Path::new("mariadb-install-db"), &arguments);
        let mut server = Self {
            folder,
            port: free_port(),
            flushes,
            process: None,
        };
        let first = server.folder.path().join("first.sql");
        std::fs::write(&first, FIRST).unwrap();
        server.spawn(vec![format!("--init-file={}", first.display())]);
        server
    }

    /// Starts it after it was stopped or killed.
    pub fn start_again(&mut self) {
        self.spawn(Vec::new());
    }

    /// Starts what it was stopped with as another server, as a replica that takes over is one.
    pub fn start_elsewhere(&mut self) {
        self.port = free_port();
        self.spawn(Vec::new());
    }

    /// Starts it after it was stopped: nobody gets in without TLS.
    pub fn start_again_with_tls(&mut self) -> Certificates {
        let made = Certificates::make(self.folder.path());
        self.spawn(vec![
            format!("--ssl-key={}", made.key.display()),
            format!("--ssl-cert={}", made.certificate.display()),
            "--require-secure-transport=on".to_owned(),
        ]);
        made
    }

    fn spawn(&mut self, more: Vec<String>) {
        assert!(self.process.is_none(), "it runs");
        let folder = self.folder.path();
        let mut arguments = vec![
            "--no-defaults".to_owned(),
            format!("--datadir={}", folder.join("data").display()),
            format!("--tmpdir={}", folder.display()),
            format!("--socket={}", folder.join("socket").display()),
            format!("--pid-file={}", folder.join("pid").display()),
            format!("--port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            "--max-connections=300".to_owned(),
            "--innodb-buffer-pool-size=32M".to_owned(),
            "--innodb-log-file-size=8M".to_owned(),
            format!(
                "--innodb-flush-log-at-trx-commit={}",
                if self.flushes { 1 } else { 2 }
            ),
        ];
        arguments.extend(more);
        let log = folder.join("log");
        self.process = Some(Process::start(Path::new("mariadbd"), &arguments, &log));
        // It listens before it has begun with what it was given, but greets nobody.
        until("starting MariaDB", || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            stream.read_exact(&mut [0; 5]).ok()
        });
    }

    /// Ends it at once: nothing is written any more, nobody is told.
    pub fn kill(&mut self) {
        self.process.take().unwrap().end(Signal::KILL);
    }

    /// Ends it in good order.
    pub fn stop(&mut self) {
        self.process.take().unwrap().end(Signal::TERM);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("mysql://app:secret@127.0.0.1:{}/app", self.port)
    }
}
