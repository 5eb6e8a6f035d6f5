//! Lists of deliveries.
//!
//! No table lists deliveries as such, so a list reads what its filters make cheap:
//!
//! | filters | reads |
//! | --- | --- |
//! | an event | its row |
//! | an endpoint | what waits there untried, then attempts newest first, then what died untried |
//! | an endpoint and one state | the table of that state |
//! | only dead letters | dead letters |
//! | otherwise | events newest first, each with its deliveries |
//!
//! A list is therefore a sequence of *sections*, each newest first where its table is (parked
//! deliveries are first in, first out); a page token names the section and the place in it.

use fanfare_domain::{
    DeliveryId, DeliveryState, EndpointId, EventId, Place, Position, Source, TenantId, Timestamp,
};
use fanfare_proto::v1;
use fanfare_store::{
    AttemptFilter, EventFilter, EventRow, PAGE_MAX, PageToken, ParkedKey, StoreError,
    StoreErrorKind,
};
use prost::Message as _;
use tonic::Code;

use super::super::endpoints;
use super::super::errors::Refusal;
use super::super::messages;
use super::super::paging::Paging;
use super::Deliveries;
use crate::inquiry::{Delivery, targets};

/// Reads of one call: a page that finds nothing in them is empty and has a next one.
const READS_MAX: usize = 20;
/// Events of one read of the list over events.
const EVENTS_READ: usize = 20;

/// One request for a page of a list.
pub(super) struct List<'a> {
    service: &'a Deliveries,
    tenant: &'a TenantId,
    paging: Paging,
    event: Option<(EventId, Option<Source>)>,
    endpoint: Option<EndpointId>,
    /// Empty: every state.
    states: Vec<DeliveryState>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// A part of a list that one table answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    /// The deliveries of the event.
    Event,
    /// Everything that is parked at the endpoint.
    Parked,
    /// What is parked there and was never tried.
    ParkedUntried,
    /// What will be retried there.
    Retrying,
    /// What was tried there.
    Tried,
    /// Dead letters.
    Dead,
    /// Dead letters that were never tried.
    DeadUntried,
    /// Deliveries of all events.
    Events,
}

/// Rows of a section, and where it goes on.
struct Part {
    rows: Vec<Delivery>,
    next: Option<Vec<u8>>,
}

impl<'a> List<'a> {
    pub(super) fn new(
        service: &'a Deliveries,
        tenant: &'a TenantId,
        mut request: v1::ListDeliveriesRequest,
    ) -> Result<Self, Refusal> {
        let token = std::mem::take(&mut request.page_token);
        let size = std::mem::take(&mut request.page_size);
        let paging = Paging::try_new(tenant, &request.encode_to_vec(), size, &token)?;
        let endpoint = match &*request.endpoint_id {
            "" => None,
            id => Some(endpoints::parse_id(id)?),
        };
        let states = request
            .states
            .iter()
            .filter_map(|s| messages::delivery_state_of(*s));
        Ok(Self {
            service,
            tenant,
            paging,
            event: event_of(&request)?,
            endpoint,
            states: states.collect(),
            since: request.since.as_ref().map(messages::time_of),
            until: request.until.as_ref().map(messages::time_of),
        })
    }

    /// The page.
    pub(super) async fn page(&self) -> Result<v1::ListDeliveriesResponse, Refusal> {
        let sections = self.sections();
        let (mut section, mut after) = self.start(&sections)?;
        let mut rows = Vec::new();
        for _ in 0..READS_MAX {
            let Some(current) = sections.get(section) else {
                break;
            };
            let part = self.read(*current, after.as_deref(), self.paging.limit - rows.len());
            let part = part.await?;
            rows.extend(part.rows.into_iter().filter(|d| self.admits(d)));
            after = part.next;
            if after.is_none() {
                section += 1;
            }
            if rows.len() == self.paging.limit {
                break;
            }
        }
        let next = (section < sections.len()).then(|| {
            let section = u8::try_from(section).unwrap_or(u8::MAX);
            PageToken([&[section], &after.unwrap_or_default()[..]].concat())
        });
        Ok(v1::ListDeliveriesResponse {
            deliveries: rows.iter().map(messages::delivery).collect(),
            next_page_token: self.paging.token(next),
        })
    }

    /// What answers the filters, in order.
    fn sections(&self) -> Vec<Section> {
        use DeliveryState as State;
        if self.event.is_some() {
            return vec![Section::Event];
        }
        match (self.endpoint, &*self.states) {
            (_, [State::DeadLetter]) => vec![Section::Dead],
            (Some(_), [State::Parked]) => vec![Section::Parked],
            (Some(_), [State::Retrying]) => vec![Section::Retrying],
            (None, _) | (_, [State::Pending]) => vec![Section::Events],
            (Some(_), _) => vec![Section::ParkedUntried, Section::Tried, Section::DeadUntried],
        }
    }

    /// The section and the place in it where the page starts.
    fn start(&self, sections: &[Section]) -> Result<(usize, Option<Vec<u8>>), Refusal> {
        let Some(PageToken(token)) = &self.paging.after else {
            return Ok((0, None));
        };
        match token.split_first() {
            Some((section, rest)) if usize::from(*section) < sections.len() => {
                let after = (!rest.is_empty()).then(|| rest.to_vec());
                Ok((usize::from(*section), after))
            }
            _ => Err(bad_token().into()),
        }
    }

    fn admits(&self, delivery: &Delivery) -> bool {
        let published = delivery.id.published();
        // Published seconds are rounded down, so the first second is admitted whole.
        let since = self.since.map(Timestamp::seconds);
        (self.states.is_empty() || self.states.contains(&delivery.standing.state))
            && self
                .endpoint
                .is_none_or(|endpoint| delivery.id.endpoint() == endpoint)
            && since.is_none_or(|since| published.seconds() >= since)
            && self.until.is_none_or(|until| published < until)
    }

    async fn read(
        &self,
        section: Section,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Part, Refusal> {
        let limit = limit.clamp(1, PAGE_MAX);
        match section {
            Section::Event => self.of_event(after, limit).await,
            Section::Parked => self.parked(after, limit, |_| true).await,
            Section::ParkedUntried => self.parked(after, limit, is_untried).await,
            Section::Retrying => self.retrying(after, limit).await,
            Section::Tried => self.tried(after, limit).await,
            Section::Dead => self.dead(after, limit, |_| true).await,
            Section::DeadUntried => self.dead(after, limit, is_untried).await,
            Section::Events => self.of_all_events(after, limit).await,
        }
    }

    async fn of_event(&self, after: Option<&[u8]>, limit: usize) -> Result<Part, Refusal> {
        let skip = after.map_or(Ok(0), offset)?;
        let row = self.event_row().await?;
        let (rows, next) = self.of_row(&row, skip, limit).await?;
        let next = next.map(|next| offset_token(next).to_vec());
        Ok(Part { rows, next })
    }

    /// Deliveries of a row from target `skip` on, at most `limit`; where they go on.
    async fn of_row(
        &self,
        row: &EventRow,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<Delivery>, Option<usize>), Refusal> {
        let targets = targets(row);
        let wanted = |endpoint| self.endpoint.is_none_or(|only| only == endpoint);
        let targets: Vec<_> = targets
            .iter()
            .filter(|t| wanted(t.endpoint))
            .copied()
            .collect();
        let end = targets.len().min(skip.saturating_add(limit));
        let part = targets.get(skip..end).unwrap_or_default();
        let rows = self.service.inquiry.deliveries(row, part).await?;
        Ok((rows, (end < targets.len()).then_some(end)))
    }

    async fn event_row(&self) -> Result<EventRow, Refusal> {
        let Some((id, source)) = &self.event else {
            return Err(bad_token().into());
        };
        let mut rows = self.events().get(self.tenant, id).await?;
        rows.retain(|row| {
            source
                .as_ref()
                .is_none_or(|only| row.event.event.source == *only)
        });
        if rows.len() > 1 {
            let what = format!("several sources used the id {id}; name one in event_source");
            let (code, reason) = (Code::FailedPrecondition, "EVENT_ID_AMBIGUOUS");
            return Err(Refusal::new(code, reason, what));
        }
        rows.pop()
            .ok_or_else(|| Refusal::not_found("EVENT_NOT_FOUND", id))
    }

    async fn parked(
        &self,
        after: Option<&[u8]>,
        limit: usize,
        keep: fn(&Delivery) -> bool,
    ) -> Result<Part, Refusal> {
        let endpoint = self.endpoint()?;
        let after = after.map(parked_key).transpose()?;
        let parking = &self.service.management.stores.parking;
        let parked = parking.peek(endpoint, after, limit).await?;
        let last = parked.last().filter(|_| parked.len() == limit);
        let next = last.map(|last| parked_token(last.key));
        let ids: Vec<_> = parked.iter().map(|parked| parked.delivery).collect();
        self.part(&ids, next, keep).await
    }

    async fn retrying(&self, after: Option<&[u8]>, limit: usize) -> Result<Part, Refusal> {
        let retries = &self.service.management.stores.retries;
        let page = retries
            .open(self.endpoint()?, token(after).as_ref(), limit)
            .await?;
        let ids: Vec<_> = page.rows.iter().map(|row| row.delivery).collect();
        self.part(&ids, page.next.map(|next| next.0), |_| true)
            .await
    }

    /// Attempts of one delivery are adjacent, but a page may end between them: the token carries
    /// the delivery that was listed last.
    async fn tried(&self, after: Option<&[u8]>, limit: usize) -> Result<Part, Refusal> {
        let (seen, after) = match after.map(<[u8]>::split_first_chunk::<24>) {
            None => (None, None),
            Some(Some((seen, after))) => (Some(DeliveryId::from_bytes(*seen)), Some(after)),
            Some(None) => return Err(bad_token().into()),
        };
        let filter = AttemptFilter {
            endpoint: self.endpoint()?,
            since: self.since,
            until: self.until,
            blame: None,
        };
        let history = &self.service.management.stores.history;
        let after = token(after);
        let page = history
            .list(self.tenant, &filter, after.as_ref(), limit)
            .await?;
        let mut ids: Vec<_> = page.rows.iter().map(|row| row.delivery).collect();
        let last = ids.last().copied().or(seen);
        ids.dedup();
        ids.retain(|id| Some(*id) != seen);
        let next = page
            .next
            .zip(last)
            .map(|(next, last)| [last.as_bytes(), &next.0[..]].concat());
        self.part(&ids, next, |_| true).await
    }

    async fn dead(
        &self,
        after: Option<&[u8]>,
        limit: usize,
        keep: fn(&Delivery) -> bool,
    ) -> Result<Part, Refusal> {
        let letters = &self.service.management.stores.dead_letters;
        let after = token(after);
        let page = letters.list(
            self.tenant,
            self.endpoint,
            self.since,
            after.as_ref(),
            limit,
        );
        let page = page.await?;
        let ids: Vec<_> = page.rows.iter().map(|row| row.delivery).collect();
        self.part(&ids, page.next.map(|next| next.0), keep).await
    }

    /// Walks the events, newest first. A page may end within an event's deliveries, and within a
    /// page of events: its token says how far into both. New events must not shift what was
    /// counted, so the walk keeps the moment that it started at.
    async fn of_all_events(&self, after: Option<&[u8]>, limit: usize) -> Result<Part, Refusal> {
        let mut walk = match after {
            Some(token) => Walk::from_token(token)?,
            None => Walk::start(self.until.unwrap_or(self.service.management.clock.now())),
        };
        let filter = EventFilter {
            since: self.since,
            until: Some(walk.until),
        };
        let page = self
            .events()
            .list(self.tenant, &filter, walk.after.as_ref(), EVENTS_READ);
        let page = page.await?;
        let mut rows = Vec::new();
        for summary in page.rows.iter().skip(walk.events).filter(|s| s.matched > 0) {
            let key = &summary.event.key;
            let found = self.events().get(self.tenant, &key.id).await?;
            let row = found
                .iter()
                .find(|row| row.event.event.source == key.source);
            let position = page.rows.iter().position(|s| s.event == summary.event);
            walk.move_to(position.unwrap_or(walk.events));
            let Some(row) = row else { continue };
            let (part, more) = self.of_row(row, walk.targets, limit - rows.len()).await?;
            rows.extend(part.into_iter().filter(|d| self.admits(d)));
            match more {
                Some(targets) => walk.targets = targets,
                None => walk.move_to(walk.events + 1),
            }
            if rows.len() == limit {
                let next = Some(walk.token());
                return Ok(Part { rows, next });
            }
        }
        let next = page.next.map(|next| walk.next_page(next).token());
        Ok(Part { rows, next })
    }

    /// The deliveries `ids` that `keep` keeps.
    async fn part(
        &self,
        ids: &[DeliveryId],
        next: Option<Vec<u8>>,
        keep: fn(&Delivery) -> bool,
    ) -> Result<Part, Refusal> {
        let rows = self.service.inquiry.by_id(self.tenant, ids).await?;
        let rows = rows.into_iter().flatten().filter(keep).collect();
        Ok(Part { rows, next })
    }

    fn events(&self) -> &dyn fanfare_store::EventRows {
        &*self.service.management.stores.events
    }

    fn endpoint(&self) -> Result<EndpointId, Refusal> {
        self.endpoint.ok_or_else(|| bad_token().into())
    }
}

/// How far a walk over all events came.
struct Walk {
    /// Only events accepted before it.
    until: Timestamp,
    /// Events of the current page that are done.
    events: usize,
    /// Targets of the next event that are done.
    targets: usize,
    /// Where the current page of events starts.
    after: Option<PageToken>,
}

impl Walk {
    fn start(until: Timestamp) -> Self {
        Self {
            until,
            events: 0,
            targets: 0,
            after: None,
        }
    }

    fn move_to(&mut self, event: usize) {
        if event != self.events {
            (self.events, self.targets) = (event, 0);
        }
    }

    fn next_page(self, after: PageToken) -> Self {
        Self {
            after: Some(after),
            ..Self::start(self.until)
        }
    }

    fn token(&self) -> Vec<u8> {
        let after = self.after.as_ref().map_or(&[][..], |after| &after.0);
        let mut token = self.until.key().to_vec();
        token.extend(offset_token(self.events));
        token.extend(offset_token(self.targets));
        token.extend(after);
        token
    }

    fn from_token(bytes: &[u8]) -> Result<Self, Refusal> {
        let (until, rest) = bytes.split_first_chunk::<8>().ok_or_else(bad_token)?;
        let (events, rest) = rest.split_first_chunk::<4>().ok_or_else(bad_token)?;
        let (targets, after) = rest.split_first_chunk::<4>().ok_or_else(bad_token)?;
        Ok(Self {
            until: Timestamp::from_key(*until),
            events: offset(events)?,
            targets: offset(targets)?,
            after: token(Some(after).filter(|after| !after.is_empty())),
        })
    }
}

fn event_of(
    request: &v1::ListDeliveriesRequest,
) -> Result<Option<(EventId, Option<Source>)>, Refusal> {
    if request.event_id.is_empty() {
        return Ok(None);
    }
    let source = match &*request.event_source {
        "" => None,
        source => Some(Source::try_new(source)?),
    };
    Ok(Some((EventId::try_new(&request.event_id)?, source)))
}

fn is_untried(delivery: &Delivery) -> bool {
    delivery.standing.attempts == 0
}

fn bad_token() -> StoreError {
    StoreError::new(StoreErrorKind::BadToken)
}

fn token(bytes: Option<&[u8]>) -> Option<PageToken> {
    bytes.map(|bytes| PageToken(bytes.to_vec()))
}

fn offset_token(offset: usize) -> [u8; 4] {
    u32::try_from(offset).unwrap_or(u32::MAX).to_be_bytes()
}

fn offset(bytes: &[u8]) -> Result<usize, Refusal> {
    let bytes = bytes.try_into().map_err(|_| bad_token())?;
    Ok(usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX))
}

fn parked_token(key: ParkedKey) -> Vec<u8> {
    let mut token = key.place.span.to_be_bytes().to_vec();
    token.extend(key.place.position.0.to_be_bytes());
    token.extend(key.part.to_be_bytes());
    token
}

fn parked_key(bytes: &[u8]) -> Result<ParkedKey, Refusal> {
    let bad = |_| bad_token();
    let (span, rest) = bytes.split_first_chunk::<2>().ok_or_else(bad_token)?;
    let (position, part) = rest.split_first_chunk::<8>().ok_or_else(bad_token)?;
    Ok(ParkedKey {
        place: Place {
            span: u16::from_be_bytes(*span),
            position: Position(u64::from_be_bytes(*position)),
        },
        part: u32::from_be_bytes(part.try_into().map_err(bad)?),
    })
}
