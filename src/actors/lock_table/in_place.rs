//! Messages that need no wait: what each asks for, as a method of the table.
//!
//! The actor's handlers and a keeper without its actor both do this.

use std::sync::Arc;

use super::locks::Locks;
use crate::messages::lock_table::{
    ChangeFailed, CommitLocker, DeadlockHistory, Detect, Downgrade, EndLocker, LockConfigQuery,
    LockSnapshotQuery, LockStatsQuery, NewLocker, SetDetect, SetLimits, SetTimeouts,
};

/// What a message asks for, done on the calling thread.
pub(crate) trait InPlace: actix::Message {
    fn in_place(self, locks: &Locks) -> Self::Result;
}

/// `in_place` for each message.
macro_rules! in_place {
    ($($message:ty => |$this:pat_param, $locks:pat_param| $answer:expr);* $(;)?) => {
        $(impl InPlace for $message {
            fn in_place(self, $locks: &Locks) -> Self::Result {
                let $this = self;
                $answer
            }
        })*
    };
}

in_place! {
    Downgrade => |this, _| {
        let mut guard = this.guard;
        match guard.downgrade(this.to) {
            Ok(()) => Ok(guard),
            Err(error) => Err(ChangeFailed::new(guard, error)),
        }
    };
    NewLocker => |this, locks| match this.parent {
        Some(parent) => parent.child(this.spec).map(Arc::new),
        None => locks.locker(this.spec).map(Arc::new),
    };
    CommitLocker => |this, _| {
        let done = this.locker.pass_up();
        if done.is_err() {
            // As by the method, which gives the locker away.
            this.locker.end();
        }
        done
    };
    EndLocker => |this, _| this.locker.end();
    Detect => |this, locks| locks.detect_by(this.policy);
    SetDetect => |this, locks| locks.set_detect(this);
    SetTimeouts => |this, locks| locks.set_timeouts(this);
    SetLimits => |this, locks| locks.set_limits(this);
    LockStatsQuery => |this, locks| match this.clear {
        true => locks.clear_stats(),
        false => locks.stats(),
    };
    LockSnapshotQuery => |_, locks| locks.snapshot();
    DeadlockHistory => |_, locks| locks.history();
    LockConfigQuery => |_, locks| locks.config();
}
