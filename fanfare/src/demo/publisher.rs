//! Publishes the demo's events through the front door, each with an id of its own, written down
//! before it is sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanfare_proto::v1;
use fanfare_proto::v1::event::Payload;
use tokio::time::MissedTickBehavior;

use super::journal::Journal;
use super::screen::Screen;
use super::story;
use crate::connect::Server;
use crate::failure::Failure;

/// The trickle that goes on after the story: something is always under way, so that a kill has
/// something to lose. Bounded, so that a demo that is forgotten fills no disk.
const TRICKLE_INTERVAL: Duration = Duration::from_millis(200);
const TRICKLE_MAX: u32 = 5 * 60 * 60;
/// The source of every event.
const SOURCE: &str = "/demo";

/// Publishes and remembers.
pub(super) struct Publisher {
    server: Server,
    journal: Arc<Journal>,
    screen: Arc<Screen>,
}

impl Publisher {
    pub(super) fn new(server: Server, journal: Arc<Journal>, screen: Arc<Screen>) -> Self {
        Self {
            server,
            journal,
            screen,
        }
    }

    /// Publishes one event and tells it; answers its id once it is durable.
    pub(super) async fn publish(&self, event_type: &str, data: &str) -> Result<String, Failure> {
        let event = event(new_id(), event_type, data);
        let id = event.id.clone();
        self.journal.intend(&event, true);
        let started = Instant::now();
        self.send(event).await?;
        self.screen.published(event_type, &id, started.elapsed());
        Ok(id)
    }

    /// Publishes some at once, so that they are under way together.
    pub(super) async fn publish_together(
        &self,
        events: &[(&str, String)],
    ) -> Result<Vec<String>, Failure> {
        let events: Vec<_> = events
            .iter()
            .map(|(event_type, data)| event(new_id(), event_type, data))
            .collect();
        for event in &events {
            self.journal.intend(event, true);
        }
        let started = Instant::now();
        let request = v1::PublishBatchRequest {
            events: events.clone(),
        };
        let response = self.server.events().publish_batch(request).await;
        let results = response
            .map_err(|s| self.server.failed(&s))?
            .into_inner()
            .results;
        let took = started.elapsed();
        let mut ids = Vec::new();
        for (event, result) in events.into_iter().zip(results) {
            if let Some(v1::publish_result::Result::Accepted(_)) = result.result {
                self.journal.accepted(&event.id);
                self.screen.published(&event.r#type, &event.id, took);
                ids.push(event.id);
            }
        }
        Ok(ids)
    }

    /// Publishes again, under its id, what the last run had no answer for.
    pub(super) async fn repeat(
        &self,
        id: &str,
        event_type: &str,
        data: &str,
    ) -> Result<(), Failure> {
        self.send(event(id.to_owned(), event_type, data)).await
    }

    /// Goes on quietly until `stop`, for at most an hour.
    pub(super) async fn trickle(&self) -> Result<(), Failure> {
        let mut ticks = tokio::time::interval(TRICKLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0..TRICKLE_MAX {
            ticks.tick().await;
            let event = event(new_id(), "order.paid", &story::order(number));
            self.journal.intend(&event, false);
            // A server that is killed or drains comes back; the same id makes repeating safe.
            while self.send(event.clone()).await.is_err() {
                ticks.tick().await;
            }
        }
        self.screen
            .note("an hour is over: the demo publishes no more, and goes on serving");
        Ok(())
    }

    async fn send(&self, event: v1::Event) -> Result<(), Failure> {
        let id = event.id.clone();
        let request = v1::PublishRequest { event: Some(event) };
        let response = self.server.events().publish(request).await;
        response.map_err(|s| self.server.failed(&s))?;
        self.journal.accepted(&id);
        Ok(())
    }
}

fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn event(id: String, event_type: &str, data: &str) -> v1::Event {
    v1::Event {
        id,
        source: SOURCE.to_owned(),
        r#type: event_type.to_owned(),
        payload: Some(Payload::Data(Bytes::copy_from_slice(data.as_bytes()))),
        ..v1::Event::default()
    }
}
