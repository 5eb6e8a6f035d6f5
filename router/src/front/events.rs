//! EventService: publishing, and asking what became of an event.
//!
//! A thin face: publishing is [`Ingest`]'s, following is [`Tails`]', what became of an event is
//! read from the stores.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::{EventId, EventKey, Invalid, Source, TenantId, TypePattern};
use fanfare_proto::v1;
use fanfare_proto::v1::event_service_server::EventService;
use fanfare_store::{EventFilter, EventRow, EventSummary, Page, Stores};
use futures::Stream;
use prost::Message as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use super::caller::{Caller, caller};
use super::errors::Refusal;
use super::ingest::{Accepted, Ingest, Outcome};
use super::messages;
use super::paging::Paging;
use super::publish_stream;
use super::tail::Tails;
use super::wire;
use crate::inquiry::{self, Inquiry};

/// How long GetEvent waits for an event that was accepted and is not routed yet.
const ROUTE_WAIT: Duration = Duration::from_secs(1);
/// How often it looks.
const ROUTE_POLL: Duration = Duration::from_millis(10);
/// Most deliveries of an event that GetEvent describes.
const DELIVERIES_SHOWN: usize = 100;
/// Most pages of the store that one page of a filtered list is looked for in.
const SCAN_MAX: usize = 10;

/// The service.
pub(crate) struct Events {
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) tails: Tails,
    pub(crate) stores: Stores,
    pub(crate) inquiry: Inquiry,
    pub(crate) limits: publish_stream::Unanswered,
    pub(crate) drain: CancellationToken,
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl EventService for Events {
    type PublishStreamStream = Answers<v1::PublishStreamResponse>;
    type TailEventsStream = Answers<v1::TailEventsResponse>;

    async fn publish(&self, request: Request<v1::PublishRequest>) -> Answer<v1::PublishResponse> {
        let caller = caller(&request)?;
        let arrival = self.ingest.check(&caller, request.into_inner().event);
        let published = self.ingest.publish(arrival).await?;
        Ok(Response::new(accepted(&published)))
    }

    async fn publish_batch(
        &self,
        request: Request<v1::PublishBatchRequest>,
    ) -> Answer<v1::PublishBatchResponse> {
        let caller = caller(&request)?;
        let events = request.into_inner().events;
        self.limits.check_batch(events.len())?;
        let arrivals = events
            .into_iter()
            .map(|event| self.ingest.check(&caller, Some(event)))
            .collect();
        let outcomes = self.ingest.publish_all(arrivals).await;
        let results = (0..).zip(&outcomes).map(|(i, one)| result(i, one));
        Ok(Response::new(v1::PublishBatchResponse {
            results: results.collect(),
        }))
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<v1::PublishStreamRequest>>,
    ) -> Answer<Self::PublishStreamStream> {
        let caller = caller(&request)?;
        let stream = publish_stream::run(
            self.ingest.clone(),
            caller,
            request.into_inner(),
            self.limits,
            self.drain.clone(),
        );
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_event(
        &self,
        request: Request<v1::GetEventRequest>,
    ) -> Answer<v1::GetEventResponse> {
        let caller = caller(&request)?;
        let asked = request.into_inner().try_into().map_err(Refusal::from)?;
        Ok(Response::new(self.found(&caller, &asked).await?))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Answer<v1::ListEventsResponse> {
        let tenant = caller(&request)?.tenant;
        let mut asked = request.into_inner();
        let page_token = std::mem::take(&mut asked.page_token);
        let page_size = std::mem::take(&mut asked.page_size);
        let paging = Paging::try_new(&tenant, &asked.encode_to_vec(), page_size, &page_token)?;
        let patterns = wire::patterns_from(&asked.event_types).map_err(Refusal::from)?;
        let filter = filter_from(&asked).map_err(Refusal::from)?;
        let page = self.scan(&tenant, &filter, &patterns, &paging).await?;
        Ok(Response::new(v1::ListEventsResponse {
            events: page.rows.iter().map(summary).collect(),
            next_page_token: paging.token(page.next),
        }))
    }

    async fn tail_events(
        &self,
        request: Request<v1::TailEventsRequest>,
    ) -> Answer<Self::TailEventsStream> {
        let tenant = caller(&request)?.tenant;
        let asked = request.into_inner();
        let patterns = wire::patterns_from(&asked.event_types).map_err(Refusal::from)?;
        let stream = self.tails.follow(tenant, patterns).await?;
        Ok(Response::new(Box::pin(stream)))
    }
}

impl Events {
    /// What is known of an event, once it is routed or the wait for that is over.
    async fn found(&self, caller: &Caller, asked: &Asked) -> Result<v1::GetEventResponse, Refusal> {
        let give_up = Instant::now() + ROUTE_WAIT;
        let mut pause = ROUTE_POLL;
        loop {
            let rows = self.stores.events.get(&caller.tenant, &asked.id).await?;
            let row = choose(rows, asked)?;
            let waited = Instant::now() >= give_up;
            match row {
                Some(row) if row.route.is_some() || waited => return self.describe(row).await,
                None if waited => return self.on_its_way(caller, asked),
                _ => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(give_up.saturating_duration_since(Instant::now()));
        }
    }

    async fn describe(&self, row: EventRow) -> Result<v1::GetEventResponse, Refusal> {
        let matched = inquiry::targets(&row);
        let shown = &matched[..matched.len().min(DELIVERIES_SHOWN)];
        let deliveries = self.inquiry.deliveries(&row, shown).await?;
        let conflicts = row.conflicts.iter().map(|conflict| v1::EventConflict {
            accept_time: Some(wire::time_to(conflict.accept_time)),
        });
        Ok(v1::GetEventResponse {
            accept_time: Some(wire::time_to(row.event.accept_time)),
            route_time: row
                .route
                .as_ref()
                .map(|route| wire::time_to(route.route_time)),
            deliveries: deliveries.iter().map(messages::delivery).collect(),
            delivery_count: u32::try_from(matched.len()).unwrap_or(u32::MAX),
            conflicts: conflicts.collect(),
            event: Some(wire::event_to(row.event)),
        })
    }

    /// The answer when there is no row: what this process remembers of having accepted it.
    fn on_its_way(&self, caller: &Caller, asked: &Asked) -> Result<v1::GetEventResponse, Refusal> {
        let source = match &asked.source {
            Some(source) => source.clone(),
            None => wire::source_of(caller)?,
        };
        let key = EventKey {
            tenant: caller.tenant.clone(),
            id: asked.id.clone(),
            source,
        };
        let Some(known) = self.ingest.accepted(&key) else {
            // Another process may have accepted it, or from another source.
            let what = format!(
                "there is no event {} that is routed; if it was published just now, ask again \
                 shortly, and name its source",
                asked.id
            );
            return Err(Refusal::new(Code::NotFound, "EVENT_NOT_FOUND", what));
        };
        Ok(v1::GetEventResponse {
            event: Some(v1::Event {
                id: key.id.as_str().into(),
                source: key.source.as_str().into(),
                ..v1::Event::default()
            }),
            accept_time: Some(wire::time_to(known.accept_time)),
            ..v1::GetEventResponse::default()
        })
    }

    /// One page of events that `patterns` select. May be short, or even empty, and have a next
    /// one: the store does not know of patterns, and one call reads a bounded part of it.
    async fn scan(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        patterns: &[TypePattern],
        paging: &Paging,
    ) -> Result<Page<EventSummary>, Refusal> {
        let mut found = Page::last(Vec::new());
        let mut after = paging.after.clone();
        for _ in 0..SCAN_MAX {
            let want = paging.limit - found.rows.len();
            let page = self
                .stores
                .events
                .list(tenant, filter, after.as_ref(), want)
                .await?;
            let selected = page.rows.into_iter();
            found
                .rows
                .extend(selected.filter(|row| wire::selects(patterns, &row.event_type)));
            found.next.clone_from(&page.next);
            after = page.next;
            if after.is_none() || found.rows.len() >= paging.limit {
                break;
            }
        }
        Ok(found)
    }
}

/// Which event was asked for.
struct Asked {
    id: EventId,
    source: Option<Source>,
}

impl TryFrom<v1::GetEventRequest> for Asked {
    type Error = Invalid;

    fn try_from(request: v1::GetEventRequest) -> Result<Self, Invalid> {
        let given = Some(request.source).filter(|source| !source.is_empty());
        Ok(Self {
            id: EventId::try_new(&request.id)?,
            source: given.map(Source::try_new).transpose()?,
        })
    }
}

/// The one row that was asked for.
fn choose(mut rows: Vec<EventRow>, asked: &Asked) -> Result<Option<EventRow>, Refusal> {
    if let Some(source) = &asked.source {
        rows.retain(|row| row.event.event.source == *source);
    }
    if rows.len() > 1 {
        let sources: Vec<_> = rows
            .iter()
            .map(|row| row.event.event.source.as_str())
            .collect();
        let what = format!(
            "several sources used the id {}: name one of {}",
            asked.id,
            sources.join(" ")
        );
        return Err(Refusal::new(
            Code::FailedPrecondition,
            "EVENT_ID_AMBIGUOUS",
            what,
        ));
    }
    Ok(rows.pop())
}

fn filter_from(asked: &v1::ListEventsRequest) -> Result<EventFilter, Invalid> {
    let time = |field, time: &Option<prost_types::Timestamp>| {
        time.as_ref()
            .map(|time| wire::time_from(field, time))
            .transpose()
    };
    Ok(EventFilter {
        since: time("since", &asked.since)?,
        until: time("until", &asked.until)?,
    })
}

fn summary(row: &EventSummary) -> v1::EventSummary {
    v1::EventSummary {
        id: row.event.key.id.as_str().into(),
        source: row.event.key.source.as_str().into(),
        r#type: row.event_type.as_str().into(),
        accept_time: Some(wire::time_to(row.accept_time)),
        data_size: row.size,
        delivery_count: row.matched,
    }
}

fn accepted(accepted: &Accepted) -> v1::PublishResponse {
    v1::PublishResponse {
        id: accepted.id.as_str().into(),
        source: accepted.source.as_str().into(),
        accept_time: Some(wire::time_to(accepted.accept_time)),
        duplicate: accepted.duplicate,
        notes: accepted.note.into_iter().map(Into::into).collect(),
    }
}

/// One result of a batch or stream.
pub(super) fn result(sequence: u64, outcome: &Outcome) -> v1::PublishResult {
    use v1::publish_result::Result;
    v1::PublishResult {
        sequence,
        result: Some(match outcome {
            Ok(one) => Result::Accepted(accepted(one)),
            Err(refusal) => Result::Error(refusal.to_message()),
        }),
    }
}

#[cfg(test)]
mod tests;
