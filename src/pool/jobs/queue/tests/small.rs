//! Every sequence of a few calls, for the smallest queues.

use super::super::{Closed, Rules, Watch};
use super::ms;
use super::random::{Pair, Step};
use crate::pool::jobs::on_full::OnFull;

const STEPS: [Step; 10] = [
    Step::Submit {
        deadline: None,
        watch: Watch::Answer,
    },
    Step::Submit {
        deadline: Some(2),
        watch: Watch::Place,
    },
    Step::Begin,
    Step::Panic(0),
    Step::NotBegun(0),
    Step::Finish(0, true),
    Step::Gone(0),
    Step::Pass(2),
    Step::Retry(0),
    Step::Drain,
];

/// 10^4 sequences for each of the rules.
#[test]
fn all_short_sequences_go_as_the_model_says() {
    const LENGTH: u32 = 4;
    for on_full in [
        OnFull::Wait(ms(3)),
        OnFull::Refuse,
        OnFull::DropOldest,
        OnFull::DropNewest,
    ] {
        let rules = Rules {
            capacity: 1,
            on_full,
            quarantine_after: Some(1),
            quarantine_limit: 1,
        };
        for number in 0..STEPS.len().pow(LENGTH) {
            let mut pair = Pair::new(rules);
            let mut rest = number;
            for _ in 0..LENGTH {
                pair.step(STEPS[rest % STEPS.len()]);
                rest /= STEPS.len();
            }
            pair.step(Step::Close(Closed::Stopped));
        }
    }
}
