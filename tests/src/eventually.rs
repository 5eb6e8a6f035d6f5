//! Waiting for what must become true, and saying how far it came when it does not.

use std::fmt::Display;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;

/// How long anything may take before a test gives up. Generous: two busy cores, a debug build.
pub const PATIENCE: Duration = Duration::from_mins(1);

const PAUSE: Duration = Duration::from_millis(10);

/// Asks again and again until `check` breaks with a value; panics with the last status after
/// [`PATIENCE`].
///
/// `check` answers `Break(value)` when it is true, or `Continue(status)`: how far it came.
pub async fn eventually<T, S: Display>(
    what: &str,
    mut check: impl AsyncFnMut() -> ControlFlow<T, S>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check().await {
            ControlFlow::Break(value) => return value,
            ControlFlow::Continue(status) => assert!(
                Instant::now() < deadline,
                "waited {PATIENCE:?} for {what}; last: {status}"
            ),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
