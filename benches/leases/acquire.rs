//! One caller takes a lease that is free and gives it back, again and again, beside two bare statements of the same effect, and
//! beside the least that takes and frees a row.

use std::time::Instant;

use lockkeeper::{LeaseConfig, Leases};

use crate::Session;
use crate::bare::{Bare, Effect};
use crate::ground::{ALL, GRACE, Kind, fresh_name};
use crate::load::Round;
use crate::report::{Row, Target};
use crate::rounds::Rounds;
use crate::work::Failure;

pub fn measure(session: &mut Session) -> Result<(), Failure> {
    if !session.options.wants("acquire") {
        return Ok(());
    }
    for kind in session.options.of(ALL) {
        let url = session.ground.url(kind)?;
        let leases = Leases::start_shared(session.ground.store(kind)?, LeaseConfig::default())?;
        let has_sql = matches!(kind, Kind::Postgres | Kind::Mariadb | Kind::Sqlite);
        let mut bare = match has_sql {
            true => {
                // The store makes its file first, with its own settings.
                drop(session.runtime.block_on(leases.acquire("first"))?);
                Some(session.runtime.block_on(Bare::connect(kind, &url))?)
            }
            false => None,
        };
        let name = fresh_name();
        let (turns, length) = session.options.turns();
        let contenders = if has_sql { 3 } else { 1 };
        let measured = Rounds::run(contenders, turns, |contender, _| {
            let per_second = session.runtime.block_on(async {
                match (contender, &mut bare) {
                    (1, Some(bare)) => bare.pairs(Effect::Same, length).await,
                    (2, Some(bare)) => bare.pairs(Effect::Least, length).await,
                    _ => {
                        let lease = leases.lease(&*name);
                        let begun = Instant::now();
                        let mut pairs = 0_u64;
                        while begun.elapsed() < length {
                            let guard = lease.acquire().await?;
                            guard.release().await?;
                            pairs += 1;
                        }
                        Ok(pairs as f64 / begun.elapsed().as_secs_f64())
                    }
                }
            })?;
            Ok(Round { per_second })
        })?;
        let ours = measured.value(0).unwrap_or_default();
        let row = |against| {
            let mut row = Row::new(format!("acquire-{}", kind.name()), 1, ours, "pairs/s");
            if let Some((what, contender)) = against {
                row.against = measured.value(contender).map(|bare| (what, bare));
                row.ratio = measured.ratio(0, contender);
            }
            row
        };
        let rows = match has_sql {
            true => {
                let mut same = row(Some(("the same effect", 1)));
                same.target = Target::RatioAtLeast(0.9);
                vec![same, row(Some(("the least", 2)))]
            }
            false => vec![row(None)],
        };
        session.report.show(&rows)?;
        session.runtime.block_on(leases.shutdown(GRACE));
    }
    Ok(())
}
