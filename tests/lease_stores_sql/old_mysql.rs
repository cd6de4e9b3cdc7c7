//! A server that does not know `SKIP LOCKED`: the words never arrive as such at the one behind the proxy.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::ground::{Ground, Kind};

/// What the server has to take for a syntax error, of the same length.
const KNOWN: &[u8] = b"skip locked";
const UNKNOWN: &[u8] = b"skip l0cked";

static SPOILT: AtomicUsize = AtomicUsize::new(0);

fn ground() -> Ground {
    let direct = Ground::shared(Kind::Mariadb).url;
    let (_, server) = direct.split_once('@').unwrap();
    let (server, _) = server.split_once('/').unwrap();
    let port = old(server.to_owned());
    let url = direct.replace(server, &format!("127.0.0.1:{port}"));
    Ground::through(Kind::Mariadb, url, direct)
}

/// Passes everything on, from clients packet by packet.
fn old(server: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let server = TcpStream::connect(&server).unwrap();
            for stream in [&client, &server] {
                stream.set_nodelay(true).unwrap();
            }
            let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || {
                let (mut from, mut to) = back;
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            thread::spawn(move || {
                let _ = pass(&client, &server);
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

fn pass(mut client: &TcpStream, mut server: &TcpStream) -> std::io::Result<()> {
    loop {
        let mut packet = vec![0; 4];
        client.read_exact(&mut packet)?;
        let length = u32::from_le_bytes([packet[0], packet[1], packet[2], 0]) as usize;
        packet.resize(4 + length, 0);
        client.read_exact(&mut packet[4..])?;
        let known = packet.windows(KNOWN.len()).position(|words| words == KNOWN);
        if let Some(at) = known {
            packet[at..at + KNOWN.len()].copy_from_slice(UNKNOWN);
            SPOILT.fetch_add(1, Ordering::Relaxed);
        }
        server.write_all(&packet)?;
    }
}

/// Runs tests that take a [`Ground`] on a server that is old.
macro_rules! on_an_old_server {
    ($($from:ident: $test:ident),+ $(,)?) => {
        $(#[test]
        fn $test() {
            let before = SPOILT.load(Ordering::Relaxed);
            crate::ground::run(crate::$from::$test(ground()));
            assert!(SPOILT.load(Ordering::Relaxed) > before, "nobody asked to skip");
        })+
    };
}

on_an_old_server! {
    basics: a_refresh_extends_what_is_held_and_names_what_is_lost,
    basics: what_has_expired_is_lost_even_if_nobody_took_it,
    basics: names_compare_byte_for_byte,
    basics: five_hundred_leases_are_refreshed_at_once,
    transactions: a_row_that_somebody_has_locked_is_skipped_and_no_other,
    transactions: nobody_gets_a_lease_that_a_transaction_has_checked_before_it_ends,
    guards: a_checked_lease_is_nobody_elses_until_the_commit_and_takes_no_other_with_it,
}
