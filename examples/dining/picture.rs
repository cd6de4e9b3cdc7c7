//! The dinner as one watches it: a picture that moves on a terminal, otherwise a line a second.

use std::io::IsTerminal;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::room::Room;

/// How often the picture is drawn anew, and a line is written.
const FRAME: Duration = Duration::from_millis(80);
const LINE: Duration = Duration::from_secs(1);

/// More seats than this do not fit on a screen.
const MOST_SEATS: usize = 20;

/// Shows the room until it is dropped.
pub async fn show(room: &Room) {
    if std::io::stdout().is_terminal() {
        draw(room).await;
    } else {
        write_lines(room).await;
    }
}

async fn draw(room: &Room) {
    let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
    let style = ProgressStyle::with_template("{prefix:>15} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let line = |name: String| {
        let bar = screen.add(ProgressBar::new_spinner());
        bar.with_style(style.clone()).with_prefix(name)
    };
    let shown = room.seats.iter().take(MOST_SEATS).enumerate();
    let seats: Vec<_> = shown
        .map(|(number, seat)| (seat, Cleared(line(format!("philosopher {number}")))))
        .collect();
    let total = Cleared(line("together".into()));
    loop {
        for (seat, bar) in &seats {
            let meals = seat.meals.load(Ordering::Relaxed);
            bar.0
                .set_message(format!("{:<8} {meals:>8} meals", seat.doing.text()));
        }
        total.0.set_message(sum(room));
        tokio::time::sleep(FRAME).await;
    }
}

/// A line of the picture, which goes away with it: the summary takes its place.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

async fn write_lines(room: &Room) {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(LINE).await;
        println!("{:>5.1} s: {}", begun.elapsed().as_secs_f64(), sum(room));
    }
}

fn sum(room: &Room) -> String {
    let meals: u64 = room
        .seats
        .iter()
        .map(|seat| seat.meals.load(Ordering::Relaxed))
        .sum();
    let stats = room.locks.stats();
    format!(
        "{meals} meals, {} wait for a fork, {} deadlocks broken, {} waits timed out",
        stats.waiting, stats.deadlocks, stats.lock_timeouts
    )
}
