//! What a round comes to.

/// One contender's part of a round.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub per_second: f64,
}
