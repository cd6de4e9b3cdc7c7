//! Chance that can be repeated.

use std::time::Duration;

/// The numbers of SplitMix64.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64, seat: usize) -> Self {
        let mut dice = Self(seed);
        // So that neighbours do not throw the same.
        dice.0 ^= (seat as u64).wrapping_mul(0xd134_2543_de82_ef95);
        dice.throw();
        dice
    }

    pub fn coin(&mut self) -> bool {
        self.throw() & 1 == 0
    }

    pub fn up_to(&mut self, longest: Duration) -> Duration {
        // The upper 53 bits are what fits into an f64 between 0 and 1.
        longest.mul_f64((self.throw() >> 11) as f64 / (1_u64 << 53) as f64)
    }

    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
