//! Where an idle sender waits for its next delivery: one slot, one bell.

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::crew::Assignment;

/// What an idle sender is called for.
pub(crate) enum Call {
    /// To send this.
    Go(Assignment),
    /// To go home.
    Leave,
}

/// The place of one idle sender.
pub(crate) struct Seat {
    slot: Mutex<Option<Call>>,
    bell: Notify,
}

impl Seat {
    pub(crate) fn new() -> Self {
        Self {
            slot: Mutex::new(None),
            bell: Notify::new(),
        }
    }

    /// Calls the sender. The caller has taken it off the list of the idle, so there is one call.
    pub(crate) fn call(&self, what: Call) {
        *self.slot.lock() = Some(what);
        self.bell.notify_one();
    }

    /// Resolves with the call. Cancel safe.
    pub(crate) async fn called(&self) -> Call {
        loop {
            if let Some(what) = self.slot.lock().take() {
                return what;
            }
            self.bell.notified().await;
        }
    }
}
