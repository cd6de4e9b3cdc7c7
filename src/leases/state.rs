//! What is decided about leases: a core without a clock, a store, or a task. Time comes in as a parameter, decisions go out as
//! effects, and the driver carries them out.

mod asking;
mod book;
mod claiming;
mod effect;
mod life;
mod moment;
mod passes;
mod releasing;
mod timing;
mod turns;
mod waiters;

pub use book::{Book, Bounds};
pub use effect::{ClaimAnswer, Effect, LeaseKey, RefreshAnswer, RefreshItem, WaiterId};
pub use life::{ClaimWon, Life, LifeChange, Phase, SendId};
pub use moment::Moment;
pub use releasing::ReleaseAnswer;
pub use timing::{LeaseSettingsError, Timing};
pub use waiters::{Refusal, Wish};
