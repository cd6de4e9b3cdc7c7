//! Subscribers of one thread, beside tests on other threads that have none.

use std::sync::OnceLock;

/// To be called before such a subscriber begins to listen. While it is the only one of the process, `tracing` has the thread
/// that first comes to an event tell for all whether anybody listens to it: a thread of another test would silence it for
/// good. This keeps another one, which listens to everything and on no thread.
pub fn beside_others() {
    static EVERYTHING: OnceLock<tracing::Dispatch> = OnceLock::new();
    EVERYTHING.get_or_init(|| tracing::Dispatch::new(tracing_subscriber::registry()));
}
