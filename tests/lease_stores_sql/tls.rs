//! Connections that are encrypted, to servers whose certificate is vouched for or not.

use std::error::Error;
use std::path::Path;

use lockkeeper::StoreError;

use crate::ground::{Ground, Kind, MINUTE, claim, holder, name, ours, run};
use crate::servers::mariadb::Mariadb;
use crate::servers::postgres::Postgres;

/// That the store behind a URL works.
async fn works(ground: &Ground, url: &str) {
    let store = ground.bare_at(url, true);
    store.prepare().await.unwrap();
    let wish = claim("job", "a", MINUTE);
    ours(store.claim(&wish).await);
    store.release(&name("job"), &holder("a")).await.unwrap();
    store.close().await.unwrap();
}

/// That the store behind a URL cannot be reached, for a reason with these words in it.
async fn is_refused(ground: &Ground, url: &str, words: &str) {
    let (error, said) = refusal(ground, url).await;
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    assert!(said.contains(words), "{said}");
}

/// Why the store behind a URL cannot be used.
async fn refusal(ground: &Ground, url: &str) -> (StoreError, String) {
    let error = ground.bare_at(url, true).prepare().await.unwrap_err();
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said.push_str(&format!(": {error}"));
        cause = error.source();
    }
    (error, said)
}

#[test]
fn postgres_is_asked_over_tls_and_its_certificate_looked_at_when_the_url_says_so() {
    let mut server = Postgres::start();
    let plain = server.url();
    let url = |mode: &str| plain.replace("sslmode=disable", &format!("sslmode={mode}"));
    let ground = Ground::at(Kind::Postgres, plain.clone());
    run(async {
        is_refused(&ground, &url("require"), "TLS").await;
    });
    server.stop();
    let made = server.with_tls();
    server.start_again();
    let with =
        |mode: &str, authority: &Path| format!("{}&sslrootcert={}", url(mode), authority.display());
    run(async {
        let store = ground.bare_at(&url("require"), true);
        store.prepare().await.unwrap();
        ours(store.claim(&claim("held", "a", MINUTE)).await);
        let mut raw = ground.connect().await;
        let encrypted = "select 1 from pg_stat_ssl s join pg_stat_activity a using (pid) where s.ssl and \
                         a.backend_type = 'client backend'";
        assert_eq!(raw.count(encrypted).await, 2);

        works(&ground, &with("verify-ca", &made.authority)).await;
        works(&ground, &with("verify-full", &made.authority)).await;
        // Nobody vouches for it.
        for mode in ["verify-ca", "verify-full"] {
            is_refused(&ground, &url(mode), "certificate").await;
        }
        // It is another's.
        let other = with("verify-full", &made.authority).replace("127.0.0.1", "localhost");
        is_refused(&ground, &other, "not valid for name").await;
        let any = with("verify-ca", &made.authority).replace("127.0.0.1", "localhost");
        works(&ground, &any).await;
    });
}

#[test]
fn mariadb_is_asked_over_tls_and_its_certificate_looked_at_when_the_url_says_so() {
    let mut server = Mariadb::start();
    let plain = server.url();
    let url = |mode: &str| format!("{plain}?ssl-mode={mode}");
    let ground = Ground::at(Kind::Mariadb, plain.clone());
    run(async {
        is_refused(&ground, &url("REQUIRED"), "TLS").await;
        works(&ground, &plain).await;
    });
    server.stop();
    let made = server.start_again_with_tls();
    let with =
        |mode: &str, authority: &Path| format!("{}&ssl-ca={}", url(mode), authority.display());
    run(async {
        let (_, said) = refusal(&ground, &url("DISABLED")).await;
        assert!(said.contains("Access denied"), "{said}");
        works(&ground, &url("REQUIRED")).await;
        // It is preferred if nothing is said.
        works(&ground, &plain).await;
        works(&ground, &with("VERIFY_CA", &made.authority)).await;
        works(&ground, &with("VERIFY_IDENTITY", &made.authority)).await;
        for mode in ["VERIFY_CA", "VERIFY_IDENTITY"] {
            is_refused(&ground, &url(mode), "certificate").await;
        }
        let other = with("VERIFY_IDENTITY", &made.authority).replace("127.0.0.1", "localhost");
        is_refused(&ground, &other, "not valid for name").await;
    });
}
