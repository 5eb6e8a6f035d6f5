//! SubscriptionService: which events an endpoint wants.

use std::sync::Arc;

use fanfare_domain::catalog::PATTERNS_MAX;
use fanfare_domain::{
    EndpointId, Invalid, Reason, Subscription, SubscriptionId, TenantId, TypePattern,
};
use fanfare_proto::v1;
use fanfare_proto::v1::subscription_service_server::SubscriptionService;
use fanfare_store::{Catalog, Entry, EntryKey, Write};
use prost::Message as _;
use prost_types::FieldMask;
use tonic::{Code, Request, Response, Status};

use super::caller::caller;
use super::endpoints::{self, RequestId, check_etag, put};
use super::errors::Refusal;
use super::management::{Change, Management};
use super::messages;
use super::newest::{Listed, newest_first};
use super::paging::Paging;

/// The service.
#[derive(Clone)]
pub struct Subscriptions(Arc<Management>);

/// A subscription as it is now, and what may not be meant about it.
struct Changed {
    subscription: Subscription,
    notes: Vec<String>,
}

impl Subscriptions {
    /// Works on what `management` has.
    pub fn new(management: Arc<Management>) -> Self {
        Self(management)
    }

    async fn create(
        &self,
        tenant: &TenantId,
        mut request: v1::CreateSubscriptionRequest,
    ) -> Result<Changed, Refusal> {
        let request_id = RequestId::take(&mut request.request_id)?;
        let hash = RequestId::hash(&request);
        let message = request.subscription.unwrap_or_default();
        check_supported(&message)?;
        let patterns = parse_patterns(&message.event_types)?;
        let endpoint = endpoints::parse_id(&message.endpoint_id)?;
        let change = |catalog: &Catalog, version| {
            let now = self.0.clock.now();
            if let Some(id) = &request_id
                && let Some(made) = id.made(catalog, tenant, hash, now)?
            {
                let subscription = found(catalog, tenant, SubscriptionId(made))?;
                return Ok(Change::Nothing(Changed::new(subscription, catalog)));
            }
            let endpoint = endpoints::found(catalog, tenant, endpoint)?.id;
            self.check_quota(catalog, endpoint)?;
            let subscription = Subscription {
                id: new_id(catalog),
                tenant: tenant.clone(),
                endpoint,
                event_types: patterns.clone(),
                create_time: now,
                update_time: now,
                version,
            };
            let mut writes = vec![put(Entry::Subscription(subscription.clone()))];
            if let Some(id) = &request_id {
                writes.extend(id.remembered(catalog, tenant, hash, subscription.id.0, now));
            }
            Ok(Change::Write(writes, Changed::new(subscription, catalog)))
        };
        self.0.change(tenant, change).await
    }

    fn check_quota(&self, catalog: &Catalog, endpoint: EndpointId) -> Result<(), Refusal> {
        let max = self.0.config.subscriptions_per_endpoint_max;
        if catalog.subscriptions_at(endpoint).count() < max {
            return Ok(());
        }
        let rule = format!(
            "endpoint {endpoint} has {max} subscriptions, as many as it may; one subscription may \
             have up to {PATTERNS_MAX} patterns"
        );
        Err(Refusal::new(
            Code::ResourceExhausted,
            "QUOTA_EXCEEDED",
            rule,
        ))
    }

    async fn update(
        &self,
        tenant: &TenantId,
        request: v1::UpdateSubscriptionRequest,
    ) -> Result<Changed, Refusal> {
        let message = request.subscription.unwrap_or_default();
        check_supported(&message)?;
        check_mask(request.update_mask)?;
        let id = parse_id(&message.id)?;
        let patterns = parse_patterns(&message.event_types)?;
        let change = |catalog: &Catalog, version| {
            let mut subscription = found(catalog, tenant, id)?;
            check_etag(&message.etag, subscription.version)?;
            if subscription.event_types == patterns {
                return Ok(Change::Nothing(Changed::new(subscription, catalog)));
            }
            subscription.event_types.clone_from(&patterns);
            subscription.update_time = self.0.clock.now();
            subscription.version = version;
            let writes = vec![put(Entry::Subscription(subscription.clone()))];
            Ok(Change::Write(writes, Changed::new(subscription, catalog)))
        };
        self.0.change(tenant, change).await
    }

    async fn delete(
        &self,
        tenant: &TenantId,
        request: v1::DeleteSubscriptionRequest,
    ) -> Result<(), Refusal> {
        let id = parse_id(&request.id)?;
        let change = |catalog: &Catalog, _| {
            let subscription = found(catalog, tenant, id)?;
            check_etag(&request.etag, subscription.version)?;
            let key = EntryKey::Subscription(tenant.clone(), id);
            Ok(Change::Write(vec![Write::Delete(key)], ()))
        };
        self.0.change(tenant, change).await
    }

    fn list(
        &self,
        tenant: &TenantId,
        mut request: v1::ListSubscriptionsRequest,
    ) -> Result<v1::ListSubscriptionsResponse, Refusal> {
        let token = std::mem::take(&mut request.page_token);
        let size = std::mem::take(&mut request.page_size);
        let paging = Paging::try_new(tenant, &request.encode_to_vec(), size, &token)?;
        let since = request.since.as_ref().map(messages::time_of);
        let catalog = self.0.follower.catalog();
        let endpoint = match &*request.endpoint_id {
            "" => None,
            id => Some(endpoints::found(&catalog, tenant, endpoints::parse_id(id)?)?.id),
        };
        let wanted = |s: &&Arc<Subscription>| {
            endpoint.is_none_or(|endpoint| s.endpoint == endpoint)
                && since.is_none_or(|since| s.create_time >= since)
        };
        let rows = catalog.subscriptions_of(tenant).filter(wanted);
        let rows = rows
            .map(|s| Listed::new(s.create_time, s.id.0, s))
            .collect();
        let (rows, next_page_token) = newest_first(&paging, rows)?;
        Ok(v1::ListSubscriptionsResponse {
            subscriptions: rows.iter().map(|s| self.message(s)).collect(),
            next_page_token,
        })
    }

    fn message(&self, subscription: &Subscription) -> v1::Subscription {
        let age = self.0.clock.now().since(subscription.update_time);
        messages::subscription(subscription, age >= self.0.stores.config.propagation())
    }
}

impl Changed {
    /// With notes on its patterns and on the other subscriptions of its endpoint.
    fn new(subscription: Subscription, catalog: &Catalog) -> Self {
        let mut notes = notes_on_patterns(&subscription.event_types);
        let others = catalog.subscriptions_at(subscription.endpoint);
        let others = others.filter(|other| other.id != subscription.id);
        notes.extend(others.filter_map(|other| note_on_overlap(&subscription, other)));
        Self {
            subscription,
            notes,
        }
    }
}

/// 1..=50 patterns in canonical spelling, without repeats.
pub(super) fn parse_patterns(given: &[String]) -> Result<Vec<TypePattern>, Refusal> {
    if given.is_empty() || given.len() > PATTERNS_MAX {
        let rule = format!("must be 1 to {PATTERNS_MAX} patterns; 'all' is everything");
        return Err(Invalid::new(Reason::PatternInvalid, "event_types", rule).into());
    }
    let mut patterns: Vec<TypePattern> = Vec::with_capacity(given.len());
    for (i, text) in given.iter().enumerate() {
        let pattern = TypePattern::try_new(text).map_err(|invalid| Invalid {
            field: format!("event_types[{i}]"),
            ..invalid
        })?;
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    Ok(patterns)
}

/// What may not be meant about patterns.
pub(super) fn notes_on_patterns(patterns: &[TypePattern]) -> Vec<String> {
    let bare = patterns.iter().any(|pattern| pattern.as_str() == "*");
    let note = "'*' selects only types of one part, such as order; '**' selects everything";
    bare.then(|| note.to_owned()).into_iter().collect()
}

fn note_on_overlap(subscription: &Subscription, other: &Subscription) -> Option<String> {
    let ours = subscription.event_types.iter();
    let (ours, theirs) = ours
        .flat_map(|ours| other.event_types.iter().map(move |theirs| (ours, theirs)))
        .find(|(ours, theirs)| ours.overlaps(theirs))?;
    Some(format!(
        "'{}' overlaps '{}' of subscription {} of the same endpoint: an event that both select is \
         delivered twice",
        ours.as_str(),
        theirs.as_str(),
        other.id
    ))
}

pub(super) fn new_id(catalog: &Catalog) -> SubscriptionId {
    loop {
        let id = SubscriptionId(rand::random());
        // 0 stands for nobody: a test of an endpoint.
        if id.0 != 0 && catalog.subscription(id).is_none() {
            return id;
        }
    }
}

/// A subscription of the tenant. Another tenant's is as good as none.
fn found(
    catalog: &Catalog,
    tenant: &TenantId,
    id: SubscriptionId,
) -> Result<Subscription, Refusal> {
    let subscription = catalog.subscription(id).filter(|s| s.tenant == *tenant);
    let found = subscription.map(|s| (**s).clone());
    found.ok_or_else(|| Refusal::not_found("SUBSCRIPTION_NOT_FOUND", id))
}

fn parse_id(text: &str) -> Result<SubscriptionId, Refusal> {
    text.parse().map_err(Refusal::from)
}

/// Refuses what is declared and does not work yet, rather than to ignore it.
fn check_supported(message: &v1::Subscription) -> Result<(), Refusal> {
    let asked = [
        ("subscription.filter", message.filter.is_some()),
        ("subscription.ordered", message.ordered),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        None => Ok(()),
        Some((field, _)) => {
            let rule = "is not supported by this version; leave it out";
            Err(Invalid::new(Reason::FieldNotSupported, field, rule).into())
        }
    }
}

fn check_mask(mask: Option<FieldMask>) -> Result<(), Refusal> {
    let paths = mask.map_or_else(Vec::new, |mask| mask.paths);
    match paths.iter().find(|path| *path != "event_types") {
        None => Ok(()),
        Some(path) => {
            let rule = format!("'{path}' cannot be changed by an update; it may name event_types");
            Err(Invalid::new(Reason::FieldNotSupported, "update_mask", rule).into())
        }
    }
}

#[tonic::async_trait]
impl SubscriptionService for Subscriptions {
    async fn create_subscription(
        &self,
        request: Request<v1::CreateSubscriptionRequest>,
    ) -> Result<Response<v1::CreateSubscriptionResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        let created = self.create(&tenant, request.into_inner()).await?;
        Ok(Response::new(v1::CreateSubscriptionResponse {
            subscription: Some(messages::subscription(&created.subscription, true)),
            notes: created.notes,
        }))
    }

    async fn get_subscription(
        &self,
        request: Request<v1::GetSubscriptionRequest>,
    ) -> Result<Response<v1::GetSubscriptionResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        let id = parse_id(&request.get_ref().id)?;
        let subscription = found(&self.0.follower.catalog(), &tenant, id)?;
        Ok(Response::new(v1::GetSubscriptionResponse {
            subscription: Some(self.message(&subscription)),
        }))
    }

    async fn list_subscriptions(
        &self,
        request: Request<v1::ListSubscriptionsRequest>,
    ) -> Result<Response<v1::ListSubscriptionsResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        Ok(Response::new(self.list(&tenant, request.into_inner())?))
    }

    async fn update_subscription(
        &self,
        request: Request<v1::UpdateSubscriptionRequest>,
    ) -> Result<Response<v1::UpdateSubscriptionResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        let updated = self.update(&tenant, request.into_inner()).await?;
        Ok(Response::new(v1::UpdateSubscriptionResponse {
            subscription: Some(messages::subscription(&updated.subscription, true)),
            notes: updated.notes,
        }))
    }

    async fn delete_subscription(
        &self,
        request: Request<v1::DeleteSubscriptionRequest>,
    ) -> Result<Response<v1::DeleteSubscriptionResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        self.delete(&tenant, request.into_inner()).await?;
        Ok(Response::new(v1::DeleteSubscriptionResponse {}))
    }
}

#[cfg(test)]
mod tests;
