//! Panics that are caught, with what they say and where they come from.
//!
//! Where a panic comes from only a panic hook is told, and there is one for the process. The hook that is set here notes the place
//! for threads that are inside of [`catch`] or [`Catching`], and then calls the hook that was there before, always: the
//! application sees what it saw without us. A hook that the application sets later replaces ours; then places are not known.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::{Context, Poll, Wake, Waker};
use std::{panic, thread};

/// What is known of a panic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Panic {
    /// What it said.
    pub message: Arc<str>,
    /// File, line and column.
    pub location: Option<Arc<str>>,
}

thread_local! {
    /// How many catchers the thread is inside of.
    static CATCHERS: Cell<u32> = const { Cell::new(0) };
    static PLACE: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// Has places noted from now on. It is cheap after the first time.
pub(crate) fn note_places() {
    static ONCE: Once = Once::new();
    // The hook cannot be changed by a thread that panics; somebody else will.
    if thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            note(panic);
            before(panic);
        }));
    });
}

fn note(panic: &panic::PanicHookInfo<'_>) {
    // Thread-locals may be gone, and a panic in here would end the process.
    if CATCHERS.try_with(Cell::get).unwrap_or(0) == 0 {
        return;
    }
    let place = panic.location().map(|place| place.to_string().into());
    let _ = PLACE.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            *last = place;
        }
    });
}

/// Runs something; a panic is caught.
pub(crate) fn catch<T>(what: impl FnOnce() -> T) -> Result<T, Panic> {
    struct Within;
    impl Drop for Within {
        fn drop(&mut self) {
            let _ = CATCHERS.try_with(|catchers| catchers.set(catchers.get().saturating_sub(1)));
        }
    }
    CATCHERS.with(|catchers| {
        if catchers.get() == 0 {
            // What was noted before is not about this.
            let _ = PLACE.try_with(|last| last.try_borrow_mut().map(|mut last| last.take()));
        }
        catchers.set(catchers.get() + 1);
    });
    let within = Within;
    let outcome = catch_unwind(AssertUnwindSafe(what));
    drop(within);
    outcome.map_err(|panic| {
        let location = PLACE
            .try_with(|last| last.try_borrow_mut().ok().and_then(|mut last| last.take()))
            .ok()
            .flatten();
        let message = message(&*panic);
        crate::env::quietly(|| drop(panic));
        Panic { message, location }
    })
}

/// Longer ones are cut: they are kept, and a panic may say anything.
const LONGEST: usize = 2048;

fn message(panic: &(dyn Any + Send)) -> Arc<str> {
    cut(crate::env::panic_message(panic)).into()
}

/// A text that is not too long to be kept.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let mut end = LONGEST;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A future whose panics are caught. After one it must not be polled again.
pub(crate) struct Catching<F> {
    future: Pin<Box<F>>,
}

impl<F: Future> Catching<F> {
    pub(crate) fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
        }
    }
}

impl<F: Future> Future for Catching<F> {
    type Output = Result<F::Output, Panic>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.future.as_mut();
        match catch(|| future.poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

/// A future whose waker is told without its panics: whoever is woken next is woken all the same.
///
/// For futures that wait where others do, and whose wakers are the application's.
pub(crate) struct Quiet<F> {
    future: Pin<Box<F>>,
    /// The last waker, and the one that is told in its place.
    waker: Option<(Waker, Waker)>,
}

impl<F: Future> Quiet<F> {
    pub(crate) fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            waker: None,
        }
    }
}

impl<F: Future> Future for Quiet<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (_, told) = match this.waker.take() {
            Some(last) if last.0.will_wake(cx.waker()) => this.waker.insert(last),
            _ => {
                let told = Waker::from(Arc::new(Quietly(cx.waker().clone())));
                this.waker.insert((cx.waker().clone(), told))
            }
        };
        this.future.as_mut().poll(&mut Context::from_waker(told))
    }
}

struct Quietly(Waker);

impl Wake for Quietly {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        crate::env::quietly(|| self.0.wake_by_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_with_its_message_and_its_place() {
        note_places();
        let line = line!() + 1;
        let caught = catch(|| panic!("no {}", "pears")).unwrap_err();
        assert_eq!(&*caught.message, "no pears");
        let place = caught.location.unwrap();
        assert!(place.contains("panics.rs"), "{place}");
        assert!(place.contains(&format!(":{line}:")), "{place}");
    }

    #[test]
    fn an_inner_panic_that_was_caught_is_not_taken_for_the_outer_one() {
        note_places();
        let line = line!() + 3;
        let caught: Result<(), _> = catch(|| {
            let _ = catch(|| panic!("inner")).unwrap_err();
            panic!("outer");
        });
        let caught = caught.unwrap_err();
        assert_eq!(&*caught.message, "outer");
        assert!(caught.location.unwrap().contains(&format!(":{line}:")));
    }

    #[test]
    fn a_panic_that_is_passed_on_by_another_has_no_stale_place() {
        note_places();
        drop(catch(|| panic!("first")));
        let passed_on: Result<(), _> = catch(|| panic::resume_unwind(Box::new("second")));
        let caught = passed_on.unwrap_err();
        assert_eq!((&*caught.message, caught.location), ("second", None));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let text = cut("é".repeat(2000));
        assert!(text.len() <= LONGEST + '…'.len_utf8());
        assert!(text.ends_with('…'));
    }
}
