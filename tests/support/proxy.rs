//! A TCP proxy that misbehaves on demand: it stops forwarding without a word, forwards late, or breaks connections.

// Each test binary compiles its own copy, and uses only part of it.
#![allow(dead_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// A proxy to one server; it ends when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    hole: bool,
    mute: bool,
    delay: Duration,
    over: bool,
    connections: Vec<TcpStream>,
}

impl Proxy {
    /// Forwards to `target`, an address.
    pub fn to(target: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            target: target.into(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.state.lock().unwrap().over {
                    break;
                }
                let Ok(client) = client else { continue };
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.serve(client));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on nothing is forwarded, either way, and nobody is told. Connections can be made still.
    pub fn black_hole(&self) {
        self.change(|state| state.hole = true);
    }

    /// From now on the server hears everything, and its answers do not arrive.
    pub fn mute(&self) {
        self.change(|state| state.mute = true);
    }

    /// Everything is forwarded, also what has piled up.
    pub fn heal(&self) {
        self.change(|state| {
            state.hole = false;
            state.mute = false;
            state.delay = Duration::ZERO;
        });
    }

    /// Everything is forwarded so much later.
    pub fn delay(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    /// Ends all connections; new ones are forwarded.
    pub fn break_connections(&self) {
        self.change(|state| {
            for connection in state.connections.drain(..) {
                let _ = connection.shutdown(Shutdown::Both);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock().unwrap());
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|state| state.over = true);
        self.break_connections();
        // The listener sees it at the next connection.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(self: Arc<Self>, client: TcpStream) {
        self.pass(false);
        let Ok(server) = TcpStream::connect(&self.target) else {
            return;
        };
        let pair = |stream: &TcpStream| stream.try_clone().expect("a stream is cloned");
        {
            let mut state = self.state.lock().unwrap();
            state.connections.extend([pair(&client), pair(&server)]);
        }
        let up = (pair(&client), pair(&server));
        let back = Arc::clone(&self);
        thread::spawn(move || back.pump(server, client, true));
        self.pump(up.0, up.1, false);
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, back: bool) {
        let _ = to.set_nodelay(true);
        let mut buffer = vec![0; 1 << 16];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    self.pass(back);
                    if to.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    /// Waits as long as nothing is forwarded.
    fn pass(&self, back: bool) {
        let state = self.state.lock().unwrap();
        let delay = state.delay;
        drop(state);
        thread::sleep(delay);
        let state = self.state.lock().unwrap();
        let _state = self
            .changed
            .wait_while(state, |state| {
                (state.hole || back && state.mute) && !state.over
            })
            .unwrap();
    }
}
