//! A web server on a thread of its own, as `#[actix_web::main]` would have it.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use actix_web::dev::ServerHandle;
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpServer};

use crate::rt::PATIENCE;

pub struct Server {
    pub address: SocketAddr,
    handle: ServerHandle,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub fn start(
        workers: usize,
        routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
    ) -> Self {
        Self::start_with(workers, true, routes)
    }

    /// A client that only closes its half of the connection may still want the answer: `half_closed` is actix-web's default.
    pub fn start_with(
        workers: usize,
        half_closed: bool,
        routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
    ) -> Self {
        let (started, has_started) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let server = HttpServer::new(move || App::new().configure(routes.clone()))
                    .workers(workers)
                    .h1_allow_half_closed(half_closed)
                    .disable_signals()
                    .shutdown_timeout(5)
                    .bind(("127.0.0.1", 0))?;
                let address = server.addrs()[0];
                let server = server.run();
                started.send((address, server.handle())).unwrap();
                server.await
            })
        });
        let (address, handle) = has_started.recv_timeout(PATIENCE).unwrap();
        Self {
            address,
            handle,
            thread,
        }
    }

    /// Stops it, and the system that it ran in.
    pub fn stop(self) {
        let handle = self.handle;
        crate::rt::block_on(handle.stop(true));
        self.thread.join().unwrap().unwrap();
    }
}
