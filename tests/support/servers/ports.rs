//! Ports for the servers of tests.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener;
use std::sync::Mutex;

/// Below those that systems give to whoever connects, or asks for any: else somebody could get one before its server has begun
/// to listen, or while it is down.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// A port that nobody listens on, and that was not given out before.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..1_000 {
        let random = RandomState::new().build_hasher().finish();
        let offset = random % u64::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(offset).unwrap();
        let is_new = GIVEN.lock().unwrap().insert(port);
        if is_new && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}
