//! The work that every system does, so that only the systems differ.

use std::error::Error;

/// What ends a measurement. No system may fail, so nobody sorts these.
pub type Failure = Box<dyn Error + Send + Sync>;

pub const VALUE_LEN: usize = 100;
pub const DATABASE: &str = "bench";

/// Sparse on every file system we run on, so a large map costs nothing.
pub const LARGE_MAP: u64 = 2 << 30;

/// Inserts in one update of the `growth` bench.
pub const INSERTS: u64 = 10;

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Safety {
    Durable,
    NoSync,
}

/// One read-modify-write. With `fail` the body returns an error after it has written.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub key: u64,
    pub fail: bool,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    Refused,
}

impl Op {
    pub fn outcome(self) -> Outcome {
        if self.fail {
            Outcome::Refused
        } else {
            Outcome::Committed
        }
    }
}

pub const FRESH: [u8; VALUE_LEN] = [0; VALUE_LEN];

/// The "modify": counts in the first eight bytes, so that lost updates show in the total.
pub fn bump(value: &[u8]) -> Result<[u8; VALUE_LEN], Failure> {
    let mut next: [u8; VALUE_LEN] = value.try_into()?;
    let count = counter(value)? + 1;
    next[..8].copy_from_slice(&count.to_le_bytes());
    Ok(next)
}

pub fn counter(value: &[u8]) -> Result<u64, Failure> {
    let head = value
        .first_chunk()
        .ok_or("a value is shorter than 8 bytes")?;
    Ok(u64::from_le_bytes(*head))
}

/// A bijection on 64 bits: distinct inputs give distinct, scattered keys.
pub fn scatter(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// xorshift64*: a few instructions, so that drawing a key does not show beside a point view.
pub struct Rng(u64);

impl Rng {
    pub fn seeded(seed: u64) -> Self {
        // Zero is the one state that xorshift never leaves.
        Self(scatter(seed).max(1))
    }

    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`, by multiplication rather than by division.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }
}
