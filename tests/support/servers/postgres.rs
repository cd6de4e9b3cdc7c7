//! PostgreSQL for tests: on loopback, with a folder and a port of its own, which ends with its owner.

// Each test binary compiles its own copy, and uses only part of it.
#![allow(dead_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::certificates::Certificates;
use super::process::{Folder, PATIENCE, Process, free_port, run, until};

/// A server, running or not.
pub struct Postgres {
    folder: Folder,
    port: u16,
    flushes: bool,
    process: Option<Process>,
}

impl Postgres {
    /// A new one, empty but for the database `postgres` of the user `postgres`. It trusts the operating system, which no test
    /// ends, to write down what it was given.
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
        let arguments = [
            "-D",
            data.to_str().unwrap(),
            "-U",
            "postgres",
            "-A",
            "trust",
        ];
        let more = ["-N", "-E", "UTF8", "--locale=C"];
        run(&program("initdb"), &[&arguments[..], &more[..]].concat());
        let mut server = Self {
            folder,
            port: free_port(),
            flushes,
            process: None,
        };
        server.start_again();
        server
    }

    /// A replica that follows by streaming.
    pub fn standby(&self) -> Self {
        let folder = Folder::new();
        let data = folder.path().join("data");
        let arguments = format!(
            "-D {} -h 127.0.0.1 -p {} -U postgres -R -X stream -c fast",
            data.display(),
            self.port
        );
        let arguments: Vec<&str> = arguments.split(' ').collect();
        run(&program("pg_basebackup"), &arguments);
        let mut server = Self {
            folder,
            port: free_port(),
            flushes: self.flushes,
            process: None,
        };
        server.start_again();
        server
    }

    /// Lets it speak TLS from its next start on.
    pub fn with_tls(&mut self) -> Certificates {
        let data = self.folder.path().join("data");
        // The names that the server looks for.
        let made = Certificates::make(&data);
        let file = std::fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"));
        writeln!(file.unwrap(), "ssl = on").unwrap();
        made
    }

    /// Starts it after it was stopped or killed.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let data = self.folder.path().join("data");
        // What a killed server left behind keeps the next one from starting until its last child is gone.
        until("starting PostgreSQL", || {
            let options = [
                format!("port={}", self.port),
                "listen_addresses=127.0.0.1".to_owned(),
                format!("unix_socket_directories={}", self.folder.path().display()),
                "max_connections=200".to_owned(),
                format!("fsync={}", if self.flushes { "on" } else { "off" }),
                "shared_buffers=16MB".to_owned(),
            ];
            let mut arguments = vec!["-D".to_owned(), data.display().to_string()];
            arguments.extend(options.into_iter().flat_map(|o| ["-c".to_owned(), o]));
            let log = self.folder.path().join("log");
            let process = Process::start(&program("postgres"), &arguments, &log);
            let begun = Instant::now();
            while process.runs() {
                if self.is_ready() {
                    self.process = Some(process);
                    return Some(());
                }
                assert!(begun.elapsed() < PATIENCE, "PostgreSQL does not start");
                std::thread::sleep(Duration::from_millis(50));
            }
            None
        });
    }

    fn is_ready(&self) -> bool {
        let port = self.port.to_string();
        let arguments = ["-q", "-h", "127.0.0.1", "-p", &port];
        let done = Command::new(program("pg_isready")).args(arguments).status();
        done.unwrap().success()
    }

    /// Ends it at once: nothing is written any more, nobody is told.
    pub fn kill(&mut self) {
        self.process.take().unwrap().kill_with_children();
    }

    /// Ends it in good order.
    pub fn stop(&mut self) {
        self.process.take().unwrap().end(Signal::INT);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// As if it were at another port.
    pub fn url_at(&self, port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable")
    }
}

/// Debian keeps each version in a folder of its own.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is not installed");
    let mut found: Vec<PathBuf> = versions
        .map(|version| version.unwrap().path().join("bin").join(name))
        .filter(|path: &PathBuf| Path::exists(path))
        .collect();
    found.sort();
    found.pop().expect("PostgreSQL is not installed")
}
