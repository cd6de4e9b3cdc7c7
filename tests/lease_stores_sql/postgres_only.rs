//! Notifications, and a pooler that keeps them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lockkeeper::{LeaseStore, StoreError};

use crate::ground::{Ground, Kind, MINUTE, PATIENCE, claim, holder, name, ours, run};
use crate::servers::postgres::Postgres;

#[test]
fn a_release_wakes_who_listens() {
    run(async {
        let ground = Ground::shared(Kind::Postgres);
        let (holding, waiting) = (ground.store().await, ground.store().await);
        let mut wakeups = waiting.wakeups().unwrap().await.unwrap();
        let mut other = Ground::shared(Kind::Postgres);
        other.table = format!("{}_other", ground.table);
        let other = other.store().await;
        for (turn, lease) in ["job", "it's \"that\" ä", "forced"].into_iter().enumerate() {
            let wish = claim(lease, "a", MINUTE);
            ours(holding.claim(&wish).await);
            ours(other.claim(&wish).await);
            // Another table is not listened to.
            other.release(&wish.name, &wish.holder).await.unwrap();
            let began = Instant::now();
            match turn {
                2 => drop(holding.force_release(&wish.name).await.unwrap()),
                _ => drop(holding.release(&wish.name, &wish.holder).await.unwrap()),
            }
            let woken = tokio::time::timeout(PATIENCE, wakeups.next()).await;
            assert_eq!(woken.unwrap().unwrap(), Some(name(lease)));
            println!("woken after {:?}", began.elapsed());
        }
        // What was not held is not told of.
        holding.release(&name("job"), &holder("b")).await.unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(100), wakeups.next()).await;
        assert!(quiet.is_err());
    });
}

#[test]
fn wakeups_end_with_their_connection_and_can_be_had_again() {
    let mut server = Postgres::start();
    let ground = Ground::at(Kind::Postgres, server.url());
    run(async {
        let store = ground.store().await;
        let mut wakeups = store.wakeups().unwrap().await.unwrap();
        server.kill();
        let ended = tokio::time::timeout(PATIENCE, wakeups.next()).await;
        let error = ended.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
        let refused = store.wakeups().unwrap().await;
        assert!(matches!(refused, Err(StoreError::Unreachable(_))));
        server.start_again();
        let mut wakeups = store.wakeups().unwrap().await.unwrap();
        let wish = claim("job", "a", MINUTE);
        ours(store.claim(&wish).await);
        store.release(&wish.name, &wish.holder).await.unwrap();
        let woken = tokio::time::timeout(PATIENCE, wakeups.next()).await;
        assert_eq!(woken.unwrap().unwrap(), Some(name("job")));
    });
}

#[test]
fn where_notifications_do_not_arrive_it_is_noticed_and_polled() {
    run(async {
        let store = store_behind(without_notifications).await;
        let deaf = store.wakeups().unwrap().await;
        assert!(matches!(deaf, Err(StoreError::Failed(_))));
        assert!(store.wakeups().is_none(), "it would be tried for ever");
        ours(store.claim(&claim("job", "a", MINUTE)).await);
    });
}

#[test]
fn a_server_that_stands_still_for_a_while_is_not_taken_for_one_without_notifications() {
    run(async {
        let store = store_behind(with_a_pause).await;
        let mut wakeups = store.wakeups().unwrap().await.unwrap();
        let wish = claim("job", "a", MINUTE);
        ours(store.claim(&wish).await);
        store.release(&wish.name, &wish.holder).await.unwrap();
        let woken = tokio::time::timeout(PATIENCE, wakeups.next()).await;
        assert_eq!(woken.unwrap().unwrap(), Some(name("job")));
    });
}

type Pass = fn(&TcpStream, &TcpStream) -> std::io::Result<()>;

/// A store that is ready; what its server says passes through `pass`.
async fn store_behind(pass: Pass) -> Arc<dyn LeaseStore> {
    let ground = Ground::shared(Kind::Postgres);
    ground.store().await;
    let mut parts = ground.url.split(['@', '/']);
    let to = parts.find(|part| part.starts_with("127.0.0.1:")).unwrap();
    let port = in_between(to.to_owned(), pass);
    let url = ground.url.replace(to, &format!("127.0.0.1:{port}"));
    let store = ground.bare_at(&url, false);
    store.prepare().await.unwrap();
    store
}

/// What the server says passes through `pass`.
fn in_between(to: String, pass: Pass) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            let server = Arc::new(TcpStream::connect(&to).unwrap());
            let client = Arc::new(client);
            let up = (Arc::clone(&client), Arc::clone(&server));
            thread::spawn(move || {
                let _ = std::io::copy(&mut &*up.0, &mut &*up.1);
                let _ = up.1.shutdown(Shutdown::Both);
            });
            thread::spawn(move || {
                let _ = pass(&server, &client);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

/// Like a pooler in transaction mode: everything passes but notifications.
fn without_notifications(server: &TcpStream, mut client: &TcpStream) -> std::io::Result<()> {
    loop {
        let message = message(server)?;
        if message[0] != b'A' {
            client.write_all(&message)?;
        }
    }
}

/// Whoever has begun to listen hears nothing for longer than a notification takes.
fn with_a_pause(server: &TcpStream, mut client: &TcpStream) -> std::io::Result<()> {
    let mut listens = false;
    loop {
        let message = message(server)?;
        client.write_all(&message)?;
        listens |= message.starts_with(b"C") && message.ends_with(b"LISTEN\0");
        if listens && message[0] == b'Z' {
            thread::sleep(Duration::from_secs(3));
            listens = false;
        }
    }
}

fn message(mut server: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 5];
    server.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let mut body = vec![0; length as usize - 4];
    server.read_exact(&mut body)?;
    Ok([&head[..], &body].concat())
}
