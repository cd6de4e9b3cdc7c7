//! Requests that wait, driven by hand: no runtime, so that nothing but the table is measured.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use lockkeeper::{LockError, Locker, LockerSpec, Locks, Mode, Object, Wait};

use crate::work::Failure;

type Asked = Pin<Box<dyn Future<Output = Result<(), LockError>>>>;

/// A locker and the request that it waits with.
pub struct Waiter {
    pub locker: Arc<Locker>,
    object: Object,
    mode: Mode,
    asked: Asked,
}

impl Waiter {
    /// Asks for the object, which somebody else must hold.
    ///
    /// # Errors
    /// If it is granted or refused.
    pub fn queue(locker: Arc<Locker>, object: &Object, mode: Mode) -> Result<Self, Failure> {
        let asked = {
            let (locker, object) = (Arc::clone(&locker), object.clone());
            async move { locker.lock(&object, mode, Wait::Forever).await }
        };
        let mut waiter = Self {
            locker,
            object: object.clone(),
            mode,
            asked: Box::pin(asked),
        };
        match waiter.poll() {
            Poll::Pending => Ok(waiter),
            Poll::Ready(Ok(())) => Err("a lock was granted that somebody else holds".into()),
            Poll::Ready(Err(error)) => Err(error.into()),
        }
    }

    /// Takes the lock that must have been granted by now.
    ///
    /// # Errors
    /// If the request still waits, or was refused.
    pub fn granted(mut self) -> Result<Holder, Failure> {
        match self.poll() {
            Poll::Ready(Ok(())) => Ok(Holder {
                locker: self.locker,
                object: self.object,
                mode: self.mode,
            }),
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Pending => Err("nobody holds the lock, and it is not granted".into()),
        }
    }

    fn poll(&mut self) -> Poll<Result<(), LockError>> {
        self.asked
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
    }
}

/// A locker and the lock that it holds.
pub struct Holder {
    pub locker: Arc<Locker>,
    object: Object,
    mode: Mode,
}

impl Holder {
    /// Takes the object, which must be free.
    ///
    /// # Errors
    /// If it is not.
    pub fn take(locker: Arc<Locker>, object: &Object, mode: Mode) -> Result<Self, Failure> {
        locker.blocking_lock(object, mode, Wait::No)?;
        Ok(Self {
            locker,
            object: object.clone(),
            mode,
        })
    }

    /// Gives it back; answers who held it, and how long that took.
    ///
    /// # Errors
    /// If it was not held.
    pub fn release(self) -> Result<(Arc<Locker>, Duration), Failure> {
        let begun = Instant::now();
        let held = self.locker.unlock(&self.object, self.mode);
        let took = begun.elapsed();
        match held {
            true => Ok((self.locker, took)),
            false => Err("what was locked is not held".into()),
        }
    }
}

pub fn locker(locks: &Locks) -> Result<Arc<Locker>, Failure> {
    Ok(Arc::new(locks.locker(LockerSpec::new())?))
}

/// Asks for the object, which somebody else must hold, and takes the request back at once. Answers
/// how long both took.
///
/// # Errors
/// If it is granted or refused.
pub fn ask_and_withdraw(locker: &Locker, object: &Object, mode: Mode) -> Result<Duration, Failure> {
    let begun = Instant::now();
    let polled = {
        let mut lock = std::pin::pin!(locker.lock(object, mode, Wait::Forever));
        lock.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
    let took = begun.elapsed();
    match polled {
        Poll::Pending => Ok(took),
        Poll::Ready(Ok(())) => Err("a lock was granted that somebody else holds".into()),
        Poll::Ready(Err(error)) => Err(error.into()),
    }
}
