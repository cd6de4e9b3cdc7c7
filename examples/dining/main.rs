//! Dining philosophers over a lock table alone: the forks are named objects, and no environment is open.
//!
//! ```text
//! cargo run --release --example dining
//! cargo run --release --example dining -- --order sorted
//! cargo run --release --example dining -- --order both-hands-at-once --policy oldest
//! cargo run --release --example dining -- --detect none --lock-timeout 50ms
//! cargo run --release --example dining -- --graphviz cycle.dot
//! ```
//!
//! At the end it says who ate how often, how many deadlocks were broken, and what the last one was. It exits with a
//! failure if a fork was ever in two hands, which is checked outside of the lock table, or if somebody starved.

mod dice;
mod options;
mod philosopher;
mod picture;
mod room;
mod summary;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use actix::System;
use lockkeeper::{LockError, LockTable};
use tokio::task::JoinSet;

use crate::options::Options;
use crate::philosopher::Philosopher;
use crate::room::Room;
use crate::summary::Summary;

fn main() -> ExitCode {
    let options = Options::from_command_line();
    // The actor needs an actix system; the philosophers are tasks on all threads of its runtime.
    let system = System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("the system has threads to give")
    });
    match system.block_on(run(options)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dining: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<ExitCode, Box<dyn Error>> {
    let (table, locks) = LockTable::start_alone(options.lock_config())?;
    let room = Arc::new(Room::new(options, table, locks));
    let begun = Instant::now();
    tokio::select! {
        dinner = dine(&room) => dinner?,
        () = picture::show(&room) => {}
    }
    let summary = Summary::of(&room, begun.elapsed());
    println!("{summary}");
    if let Some(file) = &room.options.graphviz {
        match summary.write_graph(file) {
            Ok(true) => println!("\nits graph is in {}", file.display()),
            Ok(false) => println!("\nno graph was written"),
            Err(error) => return Err(format!("cannot write {}: {error}", file.display()).into()),
        }
    }
    let complaints = summary.complaints();
    for complaint in &complaints {
        eprintln!("dining: {complaint}");
    }
    Ok(match complaints.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Seats everyone, and waits until all have left.
async fn dine(room: &Arc<Room>) -> Result<(), Box<dyn Error>> {
    let mut table: JoinSet<Result<(), LockError>> = JoinSet::new();
    for seat in 0..room.seats.len() {
        table.spawn(Philosopher::new(Arc::clone(room), seat).live());
    }
    while let Some(left) = table.join_next().await {
        left??;
    }
    Ok(())
}
