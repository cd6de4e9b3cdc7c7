//! What one transaction of a workload does: its steps and its fate, chosen at random.

use std::panic::resume_unwind;

use tokio::task::yield_now;

use crate::history::{Key, Op, Value};
use crate::random::Random;
use crate::recorder::Attempt;
use crate::store::Handle;

/// How many keys there are: few, so that transactions meet.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub lists: u32,
    pub registers: u32,
    /// Registers that are made before all others begin, and taken away one by one.
    pub tokens: u32,
}

/// Most keys of a scan, but for those of the tokens.
const WIDEST: u32 = 4;
/// The number of the first token, far from the other registers.
const TOKENS: u32 = 1_000;

#[derive(Debug, Clone, Copy)]
enum Step {
    Read {
        key: Key,
        for_update: bool,
    },
    /// Reads, and writes a new version.
    Write {
        key: Key,
        for_update: bool,
    },
    Scan {
        from: Key,
        to: u32,
        backwards: bool,
    },
    /// Looks which tokens there are and takes one away.
    Take {
        to: u32,
        backwards: bool,
    },
    /// Makes all tokens.
    Make {
        to: u32,
    },
    /// Lets others run.
    Pause {
        times: u32,
    },
}

/// How a transaction is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Commit,
    Refuse {
        before: usize,
    },
    Panic {
        before: usize,
    },
    /// Dropped when it has waited so often, after nobody has asked it for so many polls.
    Drop {
        polls: u32,
        linger: u32,
    },
}

/// What a body panics with that is to panic.
pub struct Injected;

#[derive(Debug)]
pub struct Script {
    steps: Vec<Step>,
    pub fate: Fate,
}

impl Sizes {
    /// So few keys that transactions meet all the time, and so many that some get through.
    pub fn hot(sessions: usize) -> Self {
        let keys = 4 + sessions as u32 / 8;
        Self {
            lists: keys,
            registers: keys,
            tokens: 24,
        }
    }
}

impl Script {
    pub fn random(random: &mut Random, sizes: Sizes) -> Self {
        let count = 1 + random.below(5) as usize;
        let mut steps = Vec::with_capacity(2 * count);
        for _ in 0..count {
            steps.push(Step::random(random, sizes));
            if random.percent(50) {
                let times = 1 + random.below(3);
                steps.push(Step::Pause { times });
            }
        }
        let before = random.below(steps.len() as u32 + 1) as usize;
        // Some transactions wait only once or twice.
        let most = 1 << random.below(5);
        let polls = 1 + random.below(most);
        let fate = match random.below(100) {
            0..6 => Fate::Refuse { before },
            6..10 => Fate::Panic { before },
            10..20 => Fate::Drop {
                polls,
                linger: random.below(4),
            },
            _ => Fate::Commit,
        };
        Self { steps, fate }
    }

    /// The one before all others.
    pub fn first(sizes: Sizes) -> Self {
        let to = TOKENS + sizes.tokens;
        Self {
            steps: vec![Step::Make { to }],
            fate: Fate::Commit,
        }
    }

    /// The one behind all others, which reads everything.
    pub fn last(sizes: Sizes) -> Self {
        let all = [
            (Key::List(0), sizes.lists),
            (Key::Register(0), sizes.registers),
            (Key::Register(TOKENS), TOKENS + sizes.tokens),
        ];
        let scan = |(from, to)| Step::Scan {
            from,
            to,
            backwards: false,
        };
        Self {
            steps: all.map(scan).to_vec(),
            fate: Fate::Commit,
        }
    }

    /// Goes through it in one attempt.
    pub async fn run<H: Handle>(&self, handle: &H, mut attempt: Attempt) -> Result<(), H::Error> {
        for place in 0..=self.steps.len() {
            match self.fate {
                Fate::Refuse { before } if before == place => return Err(H::refusal()),
                // Past the hook that would print it.
                Fate::Panic { before } if before == place => resume_unwind(Box::new(Injected)),
                _ => {}
            }
            if let Some(step) = self.steps.get(place) {
                step.run(handle, &mut attempt).await?;
            }
        }
        attempt.complete();
        Ok(())
    }
}

impl Step {
    fn random(random: &mut Random, sizes: Sizes) -> Self {
        let list = Key::List(random.below(sizes.lists));
        let register = Key::Register(random.below(sizes.registers));
        let (for_update, backwards) = (random.percent(50), random.percent(50));
        match random.below(100) {
            0..18 => Self::Read {
                key: list,
                for_update: false,
            },
            18..30 => Self::Read {
                key: register,
                for_update: false,
            },
            30..58 => Self::Write {
                key: list,
                for_update,
            },
            58..80 => Self::Write {
                key: register,
                for_update,
            },
            80..88 => Self::part(random, Key::List(0), sizes.lists, backwards),
            88..96 => Self::part(random, Key::Register(0), sizes.registers, backwards),
            _ => Self::Take {
                to: TOKENS + sizes.tokens,
                backwards,
            },
        }
    }

    /// A scan of a part of the keys of one kind.
    fn part(random: &mut Random, first: Key, to: u32, backwards: bool) -> Self {
        let from = random.below(to);
        Self::Scan {
            from: first.with(from),
            to: from + 1 + random.below((to - from).min(WIDEST)),
            backwards,
        }
    }

    async fn run<H: Handle>(self, handle: &H, attempt: &mut Attempt) -> Result<(), H::Error> {
        match self {
            Self::Read { key, for_update } => {
                let value = handle.read(key, for_update).await?;
                attempt.note(Op::Read { key, value });
            }
            Self::Write { key, for_update } => {
                let found = handle.read(key, for_update).await?;
                attempt.note(Op::Read {
                    key,
                    value: found.clone(),
                });
                write(handle, attempt, key, found).await?;
            }
            Self::Scan {
                from,
                to,
                backwards,
            } => {
                scan(handle, attempt, from, to, backwards).await?;
            }
            Self::Take { to, backwards } => {
                let from = Key::Register(TOKENS);
                let seen = scan(handle, attempt, from, to, backwards).await?;
                if let Some((key, _)) = seen.first() {
                    attempt.note(Op::Write {
                        key: *key,
                        value: None,
                    });
                    handle.write(*key, key.absent()).await?;
                }
            }
            Self::Make { to } => {
                let from = Key::Register(TOKENS);
                scan(handle, attempt, from, to, false).await?;
                for number in TOKENS..to {
                    let key = from.with(number);
                    write(handle, attempt, key, key.absent()).await?;
                }
            }
            Self::Pause { times } => {
                for _ in 0..times {
                    yield_now().await;
                }
            }
        }
        Ok(())
    }
}

/// Replaces what was found. It is noted before it is done, since it may be done though nobody hears of it.
async fn write<H: Handle>(
    handle: &H,
    attempt: &mut Attempt,
    key: Key,
    found: Value,
) -> Result<(), H::Error> {
    let fresh = attempt.fresh();
    let next = match found {
        Value::List(mut elements) => {
            let element = fresh;
            attempt.note(Op::Append { key, element });
            elements.push(element);
            Value::List(elements)
        }
        Value::Register(_) => {
            let value = Some(fresh);
            attempt.note(Op::Write { key, value });
            Value::Register(value)
        }
    };
    handle.write(key, next).await
}

async fn scan<H: Handle>(
    handle: &H,
    attempt: &mut Attempt,
    from: Key,
    to: u32,
    backwards: bool,
) -> Result<Vec<(Key, Value)>, H::Error> {
    let seen = handle.scan(from, to, backwards).await?;
    attempt.note(Op::Scan {
        from,
        to,
        seen: seen.clone(),
    });
    Ok(seen)
}
