//! Eight processes want the same lease all the time: who gets how much?

use std::time::Duration;

use crate::Session;
use crate::child::{Task, together};
use crate::ground::{ALL, fresh_name};
use crate::report::{Row, Target};
use crate::work::Failure;

const CONTENDERS: usize = 8;
const HOLD: Duration = Duration::from_millis(1);

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    if !session.options.wants("contend") {
        return Ok(());
    }
    for kind in session.options.of(ALL) {
        let url = session.ground.url(kind)?;
        let task = Task::turns(
            &url,
            &fresh_name(),
            "lease",
            session.options.contend(),
            HOLD,
        );
        let served = together(&task, CONTENDERS)?;
        let served: Vec<_> = served.iter().map(Vec::len).collect();
        let mean = served.iter().sum::<usize>() as f64 / CONTENDERS as f64;
        let least = served.iter().min().copied().unwrap_or_default() as f64;
        let most = served.iter().max().copied().unwrap_or_default() as f64;
        let bench = format!("contend-{}", kind.name());
        let mut row = Row::new(bench, CONTENDERS, least, "turns");
        row.against = Some(("mean", mean));
        row.ratio = Some(if mean > 0.0 { least / mean } else { 0.0 });
        row.target = Target::RatioAtLeast(0.5);
        row.more = vec![("most", most)];
        session.report.show(&[row])?;
    }
    Ok(())
}
