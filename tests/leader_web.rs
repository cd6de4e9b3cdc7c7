//! The example `leader_web`, in two processes on one folder: only the one that leads takes orders.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lockkeeper::{Holder, LeaseName, LeaseStore, LmdbLeases};
use rustix::process::Signal;

#[path = "support/example.rs"]
mod example;
#[path = "support/stop.rs"]
mod stop;

use example::{Example, PATIENCE};
use stop::stop_beside;

const EXPIRATION: Duration = Duration::from_secs(4);

/// What a busy machine with a slow disk may take longer.
const SLACK: Duration = Duration::from_secs(10);

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

/// Stops a leader when its lease has just been refreshed, at a moment at which it does not keep LMDB's writer from others.
fn stop_while_it_leads(leader: &Service, folder: &Path) {
    let store = LmdbLeases::open(folder).unwrap();
    let lease = LeaseName::new("leader").unwrap();
    let none = LeaseName::new("none").unwrap();
    let nobody = Holder {
        id: "nobody".into(),
        host: "nowhere".into(),
        pid: 0,
    };
    let look = || block_on(store.look(&lease)).unwrap().unwrap();
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "it always writes");
        let left = look().remaining.expect("it leads");
        if left < EXPIRATION - Duration::from_secs(1) {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        // What writes nothing takes the writer, and leaves the disk alone.
        let write = || {
            block_on(store.release(&none, &nobody)).unwrap();
        };
        if stop_beside(leader.process.pid(), Duration::from_millis(300), write) {
            break;
        }
    }
    let record = look();
    let holder = record.holder.map(|holder| holder.pid);
    assert!(record.remaining.is_some(), "it was stopped too late");
    assert_eq!(holder, Some(leader.process.pid()));
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
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
    assert!(took < EXPIRATION + SLACK, "{took:?}");
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
    stop_while_it_leads(&first, folder.path());
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
