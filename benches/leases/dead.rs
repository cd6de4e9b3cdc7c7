//! A holder is killed: when does the next one have the lease?

use std::time::{Duration, Instant};

use lockkeeper::{LeaseConfig, Leases};

use crate::Session;
use crate::child::{Task, Worker};
use crate::ground::{ALL, GRACE, fresh_name};
use crate::report::{Row, Target};
use crate::work::Failure;

const EXPIRATION: Duration = Duration::from_secs(4);
/// The default.
const POLL: Duration = Duration::from_secs(1);

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    if !session.options.wants("dead-holder") {
        return Ok(());
    }
    for kind in session.options.of(ALL) {
        let name = fresh_name();
        let mut task = Task::turns(&session.ground.url(kind)?, &name, "lease", POLL, POLL);
        task.keep = true;
        task.expiration_ms = u64::try_from(EXPIRATION.as_millis())?;
        let mut holder = Worker::start(&task)?;
        let leases = Leases::start_shared(session.ground.store(kind)?, LeaseConfig::default())?;
        let took = session.runtime.block_on(async {
            let waiting = tokio::spawn(leases.acquire(&*name));
            tokio::time::sleep(2 * POLL).await;
            let killed = Instant::now();
            holder.kill()?;
            let _guard = waiting.await??;
            Ok::<_, Failure>(killed.elapsed())
        })?;
        let mut row = Row::new(
            format!("dead-holder-{}", kind.name()),
            1,
            took.as_secs_f64() * 1e3,
            "ms",
        );
        // etcd counts in whole seconds and adds one; there is no such promise for it.
        if kind != crate::ground::Kind::Etcd {
            row.target = Target::AtMost((EXPIRATION + POLL).as_secs_f64() * 1e3);
        }
        session.report.show(&[row])?;
        session.runtime.block_on(leases.shutdown(GRACE));
    }
    Ok(())
}
