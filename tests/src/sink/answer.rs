//! What a receiver answers, and when.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// When it begins.
    pub pace: Pace,
    /// Its status.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: Bytes,
    /// Whether the body comes a byte at a time, for ever after its end.
    pub trickle: Trickle,
}

/// When an answer begins.
#[derive(Clone, Debug)]
pub enum Pace {
    /// As soon as the request was read.
    AtOnce,
    /// After a while.
    After(Duration),
    /// When the test opens the gate.
    Gated(Gate),
    /// The connection is cut instead.
    Cut,
}

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trickle {
    /// Whole.
    No,
    /// One byte each such period and never an end.
    Every(Duration),
}

/// Holds answers back until the test lets them go.
#[derive(Clone, Debug)]
pub struct Gate(watch::Sender<bool>);

impl Answer {
    /// A status, at once, without a body.
    pub fn status(status: u16) -> Self {
        Self {
            pace: Pace::AtOnce,
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            trickle: Trickle::No,
        }
    }

    /// 200.
    pub fn ok() -> Self {
        Self::status(200)
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Beginning when `pace` says.
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// With a body that comes a byte at a time and never ends.
    #[must_use]
    pub fn trickling(mut self, every: Duration) -> Self {
        self.trickle = Trickle::Every(every);
        self
    }
}

impl Gate {
    /// Shut.
    pub fn shut() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Lets every held and every later answer go.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Resolves when it is open.
    pub(super) async fn opened(&self) {
        // The sender is ours, so the channel cannot close.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}
