//! A member that is asked over TLS.

use std::path::Path;

use lockkeeper::{LeaseStore, StoreError};

use crate::certificates::Certificates;
use crate::common::{run, store, take, until};
use crate::process::{Folder, Process, free_port};

/// A member that speaks TLS alone, to clients that have a certificate of its authority.
fn start(folder: &Path, port: u16, certificates: &Certificates) -> Process {
    let (url, peers) = (
        format!("https://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{}", free_port()),
    );
    let path = |path: &Path| path.display().to_string();
    let options = [
        ("data-dir", path(&folder.join("data"))),
        ("listen-client-urls", url.clone()),
        ("advertise-client-urls", url),
        ("listen-peer-urls", peers.clone()),
        ("initial-advertise-peer-urls", peers.clone()),
        ("initial-cluster", format!("default={peers}")),
        ("cert-file", path(&certificates.certificate)),
        ("key-file", path(&certificates.key)),
        ("trusted-ca-file", path(&certificates.authority)),
        ("client-cert-auth", "true".to_owned()),
    ];
    let arguments = options.map(|(name, value)| format!("--{name}={value}"));
    Process::start(Path::new("etcd"), &arguments, &folder.join("log"))
}

#[test]
fn etcd_is_asked_over_tls_and_both_certificates_are_looked_at() {
    let (folder, others) = (Folder::new(), Folder::new());
    let known = Certificates::make(folder.path());
    let strange = Certificates::make(others.path());
    let port = free_port();
    let _server = start(folder.path(), port, &known);
    let url = |options: &str| format!("etcd://127.0.0.1:{port}/t{options}");
    let with = |authority: &Certificates, own: Option<&Certificates>| {
        let authority = format!("?ca={}", authority.authority.display());
        let own = own.map(|own| (own.certificate.display(), own.key.display()));
        url(&match own {
            Some((certificate, key)) => format!("{authority}&cert={certificate}&key={key}"),
            None => authority,
        })
    };
    run(async {
        let store_of_known = store(&with(&known, Some(&known)));
        until(|| store_of_known.prepare()).await;
        take(&store_of_known, "job", "me").await;

        for (why, url) in [
            ("it does not speak TLS", url("")),
            ("the server is not known to any authority", url("?tls=true")),
            (
                "the server is not known to this authority",
                with(&strange, Some(&known)),
            ),
            ("it does not say who it is", with(&known, None)),
            ("it is a stranger", with(&known, Some(&strange))),
        ] {
            let refused = store(&url).prepare().await;
            assert!(
                matches!(refused, Err(StoreError::Unreachable(_))),
                "{why}: {refused:?}"
            );
        }
    });
}
