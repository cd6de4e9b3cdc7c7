//! Several processes of one web service share an environment, and one of them leads: only it takes orders.
//!
//! ```text
//! cargo run --example leader_web -- --listen 127.0.0.1:8081
//! cargo run --example leader_web -- --listen 127.0.0.1:8082
//! ```
//!
//! | request        | answer                                                                        |
//! |----------------|-------------------------------------------------------------------------------|
//! | `POST /orders` | 200 and the order's number; 503 from a process that does not lead (any more)  |
//! | `GET /leader`  | who leads, as the store says                                                  |
//!
//! `POST /orders` is a transaction under the lease: a leader that was stopped (`kill -STOP`) past its expiration, and goes on
//! without knowing (`kill -CONT`), writes nothing.

mod leadership;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use actix_web::web::{Data, get, post};
use actix_web::{App, HttpResponse, HttpServer};
use clap::Parser;
use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Str, U64};
use lockkeeper::{Db, Keeper, Leases, LmdbLeases, RunTxn, TxnError};

use crate::leadership::Leadership;

/// A web service of which one process leads.
#[derive(Clone, Debug, Parser)]
#[command(name = "leader_web", version)]
struct Options {
    /// Address to serve on; port 0 takes any free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8081")]
    listen: String,

    /// Folder of the environment and of the leases, the same for all processes; without it, one in the folder for
    /// temporary files.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// How long a leader that was killed keeps the others waiting.
    #[arg(long, value_name = "TIME", default_value = "6s", value_parser = humantime::parse_duration)]
    expiration: Duration,
}

/// What the handlers share.
struct Shop {
    keeper: Keeper,
    counters: Db<Str, U64<BigEndian>>,
    leadership: Leadership,
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let folder = options
        .data
        .unwrap_or_else(|| std::env::temp_dir().join("lockkeeper-leader-web"));
    let keeper = Keeper::open(&folder)?;
    let counters = keeper.database("counters").await?;
    let leases = Leases::builder(LmdbLeases::open(&folder)?)
        .refresh(Duration::from_millis(500))
        .expiration(options.expiration)
        .poll(Duration::from_millis(250))
        .start()?;
    let shop = Data::new(Shop {
        keeper: keeper.clone(),
        counters,
        leadership: Leadership::of(leases.clone(), "leader"),
    });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::clone(&shop))
            .route("/orders", post().to(order))
            .route("/leader", get().to(leader))
    })
    .workers(2)
    .bind(&options.listen)?;
    for address in server.addrs() {
        println!("listening on http://{address}");
    }
    server.run().await?;
    leases.shutdown(Duration::from_secs(5)).await;
    keeper.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

/// The next number, taken under the lease.
async fn order(shop: Data<Shop>) -> Result<HttpResponse, TxnError> {
    let Some(guard) = shop.leadership.guard() else {
        return Ok(HttpResponse::ServiceUnavailable().body("this process does not lead"));
    };
    let counters = shop.counters;
    let take = RunTxn::update(move |txn| {
        let number = counters.get(txn, "orders")?.unwrap_or(0) + 1;
        counters.put(txn, "orders", &number)?;
        Ok(number)
    });
    // A lost lease, and one that somebody else has held since, are 503 by themselves.
    let number = shop.keeper.run(take.name("order").under(&guard)).await?;
    Ok(HttpResponse::Ok().json(number))
}

/// Who leads.
async fn leader(shop: Data<Shop>) -> HttpResponse {
    match shop.leadership.leader().await {
        Ok(Some(pid)) => HttpResponse::Ok().json(pid),
        Ok(None) => HttpResponse::NotFound().body("nobody leads"),
        Err(error) => HttpResponse::ServiceUnavailable().body(error.to_string()),
    }
}
