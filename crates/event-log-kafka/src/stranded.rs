//! Clients that lost sight of all brokers while the brokers are there.
//!
//! A broker that its controller fenced answers that there are topics and no brokers. The client
//! believes it, forgets every broker it knew and never asks for one again (librdkafka issue 5301):
//! only another client helps. Brokers that are away look the same to the client, and then it must
//! stay, because what it has under way may be written yet. So a client made for the question is
//! asked as well: what that one sees and this one does not is not away.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::{Client, ClientContext};

use crate::asking;
use crate::client::Common;
use crate::config::KafkaConfig;
use crate::error::OpenError;

/// How long a client may find brokers again by itself, and how often it is asked whether it has.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// Long enough for a broker that is there.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(1);

/// What a client that said that all brokers are down sees of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It has found one.
    Found,
    /// Nobody sees any.
    Away,
    /// Others see them.
    Stranded,
}

/// How brokers are looked for.
#[derive(Clone)]
pub(crate) struct Lookout {
    properties: ClientConfig,
    common: Common,
}

impl Lookout {
    pub(crate) fn new(config: &KafkaConfig, common: &Common) -> Result<Self, OpenError> {
        Ok(Self {
            properties: config.client()?,
            common: common.clone(),
        })
    }

    /// Blocks for up to three times [`ANSWER_MAX`].
    pub(crate) fn sight<C: ClientContext>(&self, client: &Client<C>) -> Sight {
        if sees_brokers(client) {
            return Sight::Found;
        }
        if !asking::sees_brokers(&self.properties, &self.common, ANSWER_MAX) {
            return Sight::Away;
        }
        // They may have come back between the two questions.
        if sees_brokers(client) {
            Sight::Found
        } else {
            Sight::Stranded
        }
    }
}

/// Whether a broker answers that there are brokers. Blocks for up to [`ANSWER_MAX`].
pub(crate) fn sees_brokers<C: ClientContext>(client: &Client<C>) -> bool {
    // Of one topic that need not exist: all topics would be a large answer.
    let answer = client.fetch_metadata(Some("fanfare"), ANSWER_MAX);
    answer.is_ok_and(|metadata| !metadata.brokers().is_empty())
}

/// A watch over a client that somebody polls and must not wait.
pub(crate) struct Watch {
    /// When to ask next; nothing is suspected without.
    next: Option<Instant>,
    asked: Option<JoinHandle<Sight>>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            next: None,
            asked: None,
        }
    }

    /// The client said that all brokers are down.
    pub(crate) fn suspect(&mut self) {
        self.next.get_or_insert_with(|| Instant::now() + ASK_EVERY);
    }

    /// Whether the client is known to be stranded. What `look` makes runs on a thread of its own.
    pub(crate) fn is_stranded<L>(&mut self, look: impl FnOnce() -> L) -> bool
    where
        L: FnOnce() -> Sight + Send + 'static,
    {
        if let Some(asked) = self.asked.take_if(|asked| asked.is_finished()) {
            match asked.join() {
                Ok(Sight::Stranded) => return true,
                Ok(Sight::Found) => self.next = None,
                Ok(Sight::Away) | Err(_) => self.next = Some(Instant::now() + ASK_EVERY),
            }
        }
        let is_due = self.next.is_some_and(|next| next <= Instant::now());
        if is_due && self.asked.is_none() {
            let asking = thread::Builder::new().name("kafka-lookout".into());
            // Without a thread it is tried again.
            self.asked = asking.spawn(look()).ok();
        }
        false
    }
}

/// A clock for a client that is asked by whoever needs it: when looking further is worth it.
pub(crate) struct Patience {
    down_since: Instant,
    looked: Option<Instant>,
}

impl Patience {
    /// From the client's word that all brokers are down.
    pub(crate) fn new() -> Self {
        Self {
            down_since: Instant::now(),
            looked: None,
        }
    }

    /// Whether it is time to look; then it is some time until the next.
    pub(crate) fn is_over(&mut self) -> bool {
        let since = self.looked.unwrap_or(self.down_since);
        let over = since.elapsed() >= ASK_EVERY;
        if over {
            self.looked = Some(Instant::now());
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until what was asked is answered.
    fn answered(watch: &mut Watch) {
        while watch
            .asked
            .as_ref()
            .is_some_and(|asked| !asked.is_finished())
        {
            thread::yield_now();
        }
    }

    /// Asks at once: time is the watch's own affair.
    fn asks(watch: &mut Watch, sight: Sight) -> bool {
        watch.next = watch.next.map(|_| Instant::now());
        let stranded = watch.is_stranded(|| move || sight);
        answered(watch);
        stranded
    }

    #[test]
    fn nothing_is_asked_until_something_is_suspected_and_not_at_once() {
        let mut watch = Watch::new();
        assert!(!asks(&mut watch, Sight::Stranded));
        assert!(watch.asked.is_none());
        watch.suspect();
        assert!(!watch.is_stranded(|| || Sight::Stranded));
        assert!(
            watch.asked.is_none(),
            "a client finds most brokers by itself"
        );
    }

    #[test]
    fn a_client_that_alone_sees_nothing_is_stranded() {
        let mut watch = Watch::new();
        watch.suspect();
        assert!(!asks(&mut watch, Sight::Away));
        // The answer, and the next question.
        assert!(!asks(&mut watch, Sight::Away));
        assert!(!asks(&mut watch, Sight::Stranded));
        assert!(asks(&mut watch, Sight::Away));
    }

    #[test]
    fn a_client_that_found_one_is_left_alone() {
        let mut watch = Watch::new();
        watch.suspect();
        assert!(!asks(&mut watch, Sight::Found));
        assert!(!asks(&mut watch, Sight::Stranded));
        assert!(watch.next.is_none() && watch.asked.is_none());
    }
}
