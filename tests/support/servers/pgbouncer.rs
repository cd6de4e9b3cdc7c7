//! pgbouncer for tests: a pooler on loopback, with a folder and a port of its own, which ends with its owner.

// Each test binary compiles its own copy, and uses only part of it.
#![allow(dead_code)]

use std::net::TcpStream;
use std::path::Path;

use super::process::{Folder, Process, free_port, until};

/// For how long a client has a session of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Session,
    Transaction,
}

/// A pooler that runs.
pub struct Pgbouncer {
    process: Process,
    folder: Folder,
    port: u16,
}

impl Pgbouncer {
    /// A new one before the PostgreSQL at a port, with at most so many sessions. All else is as it comes.
    pub fn start(server: u16, mode: Mode, sessions: u32) -> Self {
        let folder = Folder::new();
        let port = free_port();
        let users = folder.path().join("users");
        let settings = folder.path().join("settings");
        let mode = match mode {
            Mode::Session => "session",
            Mode::Transaction => "transaction",
        };
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = {sessions}\n\
             max_client_conn = 300\n",
            users.display()
        );
        std::fs::write(&users, "\"postgres\" \"\"\n").unwrap();
        std::fs::write(&settings, text).unwrap();
        // Not every user has Debian's place for it in the path.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders = std::env::split_paths(&path);
        let program = match folders.any(|folder| folder.join("pgbouncer").exists()) {
            true => Path::new("pgbouncer"),
            false => Path::new("/usr/sbin/pgbouncer"),
        };
        let log = folder.path().join("log");
        let process = Process::start(program, &[settings.display().to_string()], &log);
        until("starting pgbouncer", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self {
            process,
            folder,
            port,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}
