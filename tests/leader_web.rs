//! The example `leader_web`, in two processes on one folder: only the one that leads takes orders.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

#[path = "support/example.rs"]
mod example;

use example::{Example, PATIENCE};

const EXPIRATION: Duration = Duration::from_secs(4);

/// A web service that wants to lead.
struct Service {
    process: Example,
    address: String,
}

impl Service {
    fn start(folder: &Path) -> Self {
        let data = folder.to_str().unwrap();
        let listen = ["--listen", "127.0.0.1:0", "--expiration", "4s"];
        let process = Example::start("leader_web", &[&["--data", data], &listen[..]].concat());
        let address = process.waits_to_say("listening on http://");
        Self { process, address }
    }

    /// Sends a request.
    fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let rest = "HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        write!(stream, "{request} {rest}").unwrap();
        stream
    }

    /// Sends a request and reads the answer: its status and its body.
    fn ask(&self, request: &str) -> (u16, String) {
        answer(self.send(request))
    }
}

fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).expect("an answer has a status");
    (status.parse().unwrap(), body.to_owned())
}

#[track_caller]
fn is_refused((status, body): (u16, String), why: &str) {
    assert_eq!(status, 503, "{body}");
    assert!(body.contains(why), "{body}");
}

fn number(of: u32) -> (u16, String) {
    (200, of.to_string())
}

#[test]
fn only_the_leader_takes_orders_and_when_it_is_killed_the_other_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let first = Service::start(folder.path());
    first.process.waits_to_say("leading with token 1");
    let second = Service::start(folder.path());
    assert_eq!(first.ask("POST /orders"), number(1));
    assert_eq!(first.ask("POST /orders"), number(2));
    is_refused(second.ask("POST /orders"), "this process does not lead");
    for service in [&first, &second] {
        assert_eq!(service.ask("GET /leader"), number(first.process.pid()));
    }

    let killed = Instant::now();
    first.process.kill();
    second.process.waits_to_say("leading with token 2");
    let took = killed.elapsed();
    assert!(took < EXPIRATION + Duration::from_secs(2), "{took:?}");
    assert_eq!(second.ask("GET /leader"), number(second.process.pid()));
    assert_eq!(second.ask("POST /orders"), number(3));
}

#[test]
fn a_leader_that_was_stopped_past_its_expiration_takes_no_order_after_its_successor() {
    let folder = tempfile::tempdir().unwrap();
    let first = Service::start(folder.path());
    first.process.waits_to_say("leading with token 1");
    assert_eq!(first.ask("POST /orders"), number(1));
    let second = Service::start(folder.path());
    first.process.signal(Signal::STOP);
    second.process.waits_to_say("leading with token 2");
    assert_eq!(second.ask("POST /orders"), number(2));

    // It is there before anything else happens in the process.
    let late = first.send("POST /orders");
    first.process.signal(Signal::CONT);
    is_refused(answer(late), "is not held any more");
    first.process.waits_to_say("leading no more");
    // Its transaction is refused, not its handler's memory asked.
    is_refused(first.ask("POST /orders"), "is not held any more");
    assert_eq!(first.ask("GET /leader"), number(second.process.pid()));
    assert_eq!(second.ask("POST /orders"), number(3));
}
