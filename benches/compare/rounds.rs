//! Rounds in which the contenders take turns, and what is made of them.
//!
//! A machine drifts: the disk slows down, a neighbour wakes up. Contenders are therefore compared
//! within a round only, and a ratio is the median of the ratios of the rounds.

use crate::load::Round;
use crate::work::Failure;

/// The rounds of every contender: `[contender][round]`.
pub struct Rounds(Vec<Vec<Round>>);

impl Rounds {
    /// Runs `count` rounds; in each, every contender once, beginning with another one each time.
    /// One more round before them warms up and is thrown away.
    pub fn run(
        contenders: usize,
        count: u64,
        mut one: impl FnMut(usize, u64) -> Result<Round, Failure>,
    ) -> Result<Self, Failure> {
        let mut rounds = vec![Vec::new(); contenders];
        for round in 0..=count {
            for turn in 0..contenders {
                let contender = (turn + round as usize) % contenders;
                let measured = one(contender, round)?;
                if round > 0 {
                    rounds[contender].push(measured);
                }
            }
        }
        Ok(Self(rounds))
    }

    pub fn value(&self, contender: usize) -> Option<f64> {
        self.median_of(contender, |round| Some(round.per_second))
    }

    /// The median of a figure that a contender may not have.
    pub fn median_of(
        &self,
        contender: usize,
        figure: impl Fn(&Round) -> Option<f64>,
    ) -> Option<f64> {
        median(self.0[contender].iter().filter_map(figure).collect())
    }

    /// The median over the rounds of `contender`'s throughput by that of `base` in the same round.
    pub fn ratio(&self, contender: usize, base: usize) -> Option<f64> {
        let pairs = self.0[contender].iter().zip(&self.0[base]);
        median(
            pairs
                .filter(|(_, base)| base.per_second > 0.0)
                .map(|(ours, base)| ours.per_second / base.per_second)
                .collect(),
        )
    }
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (
        values.get(values.len().checked_sub(1)? / 2)?,
        values.get(values.len() / 2)?,
    );
    Some((low + high) / 2.0)
}
