//! Certificates for the servers of tests, made anew for each.

// Each test binary compiles its own copy, and uses only part of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use super::process::run;

/// A server's certificate for 127.0.0.1, and the authority that vouches for it.
pub struct Certificates {
    pub key: PathBuf,
    pub certificate: PathBuf,
    pub authority: PathBuf,
}

impl Certificates {
    /// Makes them in a folder.
    pub fn make(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        let path = |name: &str| file(name).display().to_string();
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        let names = file("names");
        std::fs::write(&names, "subjectAltName=IP:127.0.0.1\n").unwrap();
        for arguments in [
            format!(
                "req -x509 {new} -days 2 -subj /CN=authority -keyout {} -out {}",
                path("authority.key"),
                path("authority.crt")
            ),
            format!(
                "req {new} -subj /CN=server -keyout {} -out {}",
                path("server.key"),
                path("server.csr")
            ),
            format!(
                "x509 -req -days 2 -in {} -CA {} -CAkey {} -CAcreateserial -extfile {} -out {}",
                path("server.csr"),
                path("authority.crt"),
                path("authority.key"),
                names.display(),
                path("server.crt")
            ),
        ] {
            let arguments: Vec<&str> = arguments.split(' ').collect();
            run(Path::new("openssl"), &arguments);
        }
        Self {
            key: file("server.key"),
            certificate: file("server.crt"),
            authority: file("authority.crt"),
        }
    }
}
