//! EndpointService: where subscribers are called.
//!
//! Secrets leave only in the answers to Create and Rotate, header values never. What a message
//! says is validated into a value first ([`fields`]), what may be done is then decided on the
//! catalog, in one write ([`Management::change`]).

mod fields;
mod testing;

use std::sync::Arc;

use fanfare_domain::catalog::ROTATION_OVERLAP;
use fanfare_domain::{
    Endpoint, EndpointId, EndpointState, Reason, Subscription, TenantId, Timestamp,
};
use fanfare_proto::v1;
use fanfare_proto::v1::endpoint_service_server::EndpointService;
use fanfare_store::{Catalog, Entry, EntryKey, Write};
use prost::Message as _;
use tonic::{Code, Request, Response, Status};

use super::caller::caller;
use super::errors::Refusal;
use super::management::{Change, Management};
use super::messages::{self, duration_of, etag};
use super::newest::{Listed, newest_first};
use super::paging::Paging;
use super::subscriptions::{self, parse_patterns};
use fields::Draft;
pub(super) use fields::RequestId;

/// The service.
#[derive(Clone)]
pub struct Endpoints(Arc<Management>);

/// What a Create made.
struct Created {
    endpoint: Endpoint,
    subscription: Option<Subscription>,
}

impl Endpoints {
    /// Works on what `management` has.
    pub fn new(management: Arc<Management>) -> Self {
        Self(management)
    }

    async fn create(
        &self,
        tenant: &TenantId,
        mut request: v1::CreateEndpointRequest,
    ) -> Result<v1::CreateEndpointResponse, Refusal> {
        let request_id = RequestId::take(&mut request.request_id)?;
        let hash = RequestId::hash(&request);
        let message = request.endpoint.unwrap_or_default();
        let draft = Draft::of_create(message, &self.0.egress)?;
        let patterns = match &*request.event_types {
            [] => Vec::new(),
            given => parse_patterns(given)?,
        };
        let change = |catalog: &Catalog, version| {
            let now = self.0.clock.now();
            if let Some(id) = &request_id
                && let Some(made) = id.made(catalog, tenant, hash, now)?
            {
                return found(catalog, tenant, EndpointId(made)).map(|endpoint| {
                    let subscription = catalog.subscriptions_at(endpoint.id).next();
                    Change::Nothing(Created {
                        subscription: subscription.map(|s| (**s).clone()),
                        endpoint,
                    })
                });
            }
            self.check_quota(catalog, tenant)?;
            let endpoint = draft
                .clone()
                .into_endpoint(new_id(catalog), tenant, version, now);
            let subscription = (!patterns.is_empty()).then(|| Subscription {
                id: subscriptions::new_id(catalog),
                tenant: tenant.clone(),
                endpoint: endpoint.id,
                event_types: patterns.clone(),
                create_time: now,
                update_time: now,
                version,
            });
            let mut writes = vec![put(Entry::Endpoint(endpoint.clone()))];
            writes.extend(subscription.clone().map(|s| put(Entry::Subscription(s))));
            if let Some(id) = &request_id {
                writes.extend(id.remembered(catalog, tenant, hash, endpoint.id.0, now));
            }
            let created = Created {
                endpoint,
                subscription,
            };
            Ok(Change::Write(writes, created))
        };
        let created = self.0.change(tenant, change).await?;
        Ok(v1::CreateEndpointResponse {
            notes: notes(&created),
            endpoint: Some(messages::endpoint_with_secret(&created.endpoint)),
            subscription: created
                .subscription
                .map(|s| messages::subscription(&s, true)),
        })
    }

    fn check_quota(&self, catalog: &Catalog, tenant: &TenantId) -> Result<(), Refusal> {
        let max = self.0.config.endpoints_per_tenant_max;
        if catalog.endpoints_of(tenant).count() < max {
            return Ok(());
        }
        let rule = format!("this tenant has {max} endpoints, as many as it may; delete one first");
        Err(Refusal::new(
            Code::ResourceExhausted,
            "QUOTA_EXCEEDED",
            rule,
        ))
    }

    /// Changes one endpoint by `edit`, which says whether anything is different.
    async fn edit(
        &self,
        tenant: &TenantId,
        id: &str,
        etag: &str,
        edit: impl Fn(&mut Endpoint, Timestamp) -> Result<(), Refusal>,
    ) -> Result<Endpoint, Refusal> {
        let id = parse_id(id)?;
        let change = |catalog: &Catalog, version| {
            let before = found(catalog, tenant, id)?;
            check_etag(etag, before.version)?;
            let (mut after, now) = (before.clone(), self.0.clock.now());
            edit(&mut after, now)?;
            if after == before {
                return Ok(Change::Nothing(before));
            }
            after.version = version;
            after.update_time = now;
            let writes = vec![put(Entry::Endpoint(after.clone()))];
            Ok(Change::Write(writes, after))
        };
        self.0.change(tenant, change).await
    }

    async fn delete(
        &self,
        tenant: &TenantId,
        request: v1::DeleteEndpointRequest,
    ) -> Result<(), Refusal> {
        let id = parse_id(&request.id)?;
        let change = |catalog: &Catalog, _| {
            let endpoint = found(catalog, tenant, id)?;
            check_etag(&request.etag, endpoint.version)?;
            let subscriptions = catalog.subscriptions_at(id);
            let keys = subscriptions.map(|s| EntryKey::Subscription(tenant.clone(), s.id));
            let keys = keys.chain([EntryKey::Endpoint(tenant.clone(), id)]);
            Ok(Change::Write(keys.map(Write::Delete).collect(), ()))
        };
        self.0.change(tenant, change).await
    }

    fn list(
        &self,
        tenant: &TenantId,
        mut request: v1::ListEndpointsRequest,
    ) -> Result<v1::ListEndpointsResponse, Refusal> {
        let token = std::mem::take(&mut request.page_token);
        let size = std::mem::take(&mut request.page_size);
        let paging = Paging::try_new(tenant, &request.encode_to_vec(), size, &token)?;
        let since = request.since.as_ref().map(messages::time_of);
        let catalog = self.0.follower.catalog();
        let wanted = |endpoint: &&Arc<Endpoint>| {
            let state = messages::endpoint(endpoint).state;
            (request.states.is_empty() || request.states.contains(&state))
                && since.is_none_or(|since| endpoint.create_time >= since)
                && request
                    .labels
                    .iter()
                    .all(|(k, v)| endpoint.labels.get(k) == Some(v))
        };
        let rows = catalog.endpoints_of(tenant).filter(wanted);
        let rows = rows
            .map(|e| Listed::new(e.create_time, e.id.0, e))
            .collect();
        let (rows, next_page_token) = newest_first(&paging, rows)?;
        Ok(v1::ListEndpointsResponse {
            endpoints: rows.iter().map(|e| messages::endpoint(e)).collect(),
            next_page_token,
        })
    }
}

/// An endpoint of the tenant. Another tenant's is as good as none.
pub(super) fn found(
    catalog: &Catalog,
    tenant: &TenantId,
    id: EndpointId,
) -> Result<Endpoint, Refusal> {
    let endpoint = catalog.endpoint(id).filter(|e| e.tenant == *tenant);
    let found = endpoint.map(|e| (**e).clone());
    found.ok_or_else(|| Refusal::not_found("ENDPOINT_NOT_FOUND", id))
}

pub(super) fn parse_id(text: &str) -> Result<EndpointId, Refusal> {
    text.parse().map_err(Refusal::from)
}

/// Refuses a change of another version than the one that the caller saw; empty is any.
pub(super) fn check_etag(given: &str, version: u64) -> Result<(), Refusal> {
    if given.is_empty() || given == etag(version) {
        return Ok(());
    }
    let rule = "it was changed since this etag was read; read it again, then decide again";
    Err(Refusal::new(Code::Aborted, "ETAG_MISMATCH", rule))
}

pub(super) fn put(entry: Entry) -> Write {
    Write::Put(Box::new(entry))
}

fn new_id(catalog: &Catalog) -> EndpointId {
    loop {
        let id = EndpointId(rand::random());
        if catalog.endpoint(id).is_none() {
            return id;
        }
    }
}

fn notes(created: &Created) -> Vec<String> {
    match &created.subscription {
        None => vec![
            "no subscription was created: nothing is sent to this endpoint until there is one"
                .into(),
        ],
        Some(subscription) => subscriptions::notes_on_patterns(&subscription.event_types),
    }
}

fn pause(endpoint: &mut Endpoint, reason: &str) -> Result<(), Refusal> {
    if endpoint.state == EndpointState::Disabled {
        let rule = format!(
            "endpoint {} is disabled ({}); resume it before you pause it",
            endpoint.id, endpoint.state_reason
        );
        return Err(Refusal::new(
            Code::FailedPrecondition,
            "ENDPOINT_DISABLED",
            rule,
        ));
    }
    endpoint.state = EndpointState::Paused;
    endpoint.state_reason = fields::check_text("reason", reason)?;
    if endpoint.state_reason.is_empty() {
        endpoint.state_reason = "paused by request".into();
    }
    Ok(())
}

#[tonic::async_trait]
impl EndpointService for Endpoints {
    async fn create_endpoint(
        &self,
        request: Request<v1::CreateEndpointRequest>,
    ) -> Result<Response<v1::CreateEndpointResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        Ok(Response::new(
            self.create(&tenant, request.into_inner()).await?,
        ))
    }

    async fn get_endpoint(
        &self,
        request: Request<v1::GetEndpointRequest>,
    ) -> Result<Response<v1::GetEndpointResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        let id = parse_id(&request.get_ref().id)?;
        let endpoint = found(&self.0.follower.catalog(), &tenant, id)?;
        Ok(Response::new(v1::GetEndpointResponse {
            endpoint: Some(messages::endpoint(&endpoint)),
        }))
    }

    async fn list_endpoints(
        &self,
        request: Request<v1::ListEndpointsRequest>,
    ) -> Result<Response<v1::ListEndpointsResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        Ok(Response::new(self.list(&tenant, request.into_inner())?))
    }

    async fn update_endpoint(
        &self,
        request: Request<v1::UpdateEndpointRequest>,
    ) -> Result<Response<v1::UpdateEndpointResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        let request = request.into_inner();
        let message = request.endpoint.unwrap_or_default();
        let (id, etag) = (message.id.clone(), message.etag.clone());
        let update = fields::Update::new(message, request.update_mask, &self.0.egress)?;
        let edit = |endpoint: &mut Endpoint, _| update.apply(endpoint);
        let endpoint = self.edit(&tenant, &id, &etag, edit).await?;
        Ok(Response::new(v1::UpdateEndpointResponse {
            endpoint: Some(messages::endpoint(&endpoint)),
            notes: Vec::new(),
        }))
    }

    async fn delete_endpoint(
        &self,
        request: Request<v1::DeleteEndpointRequest>,
    ) -> Result<Response<v1::DeleteEndpointResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        self.delete(&tenant, request.into_inner()).await?;
        Ok(Response::new(v1::DeleteEndpointResponse {}))
    }

    async fn pause_endpoint(
        &self,
        request: Request<v1::PauseEndpointRequest>,
    ) -> Result<Response<v1::PauseEndpointResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        let request = request.into_inner();
        let edit = |endpoint: &mut Endpoint, _| pause(endpoint, &request.reason);
        let endpoint = self.edit(&tenant, &request.id, "", edit).await?;
        Ok(Response::new(v1::PauseEndpointResponse {
            endpoint: Some(messages::endpoint(&endpoint)),
        }))
    }

    async fn resume_endpoint(
        &self,
        request: Request<v1::ResumeEndpointRequest>,
    ) -> Result<Response<v1::ResumeEndpointResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        let edit = |endpoint: &mut Endpoint, _| {
            endpoint.state = EndpointState::Active;
            endpoint.state_reason.clear();
            Ok(())
        };
        let endpoint = self.edit(&tenant, &request.get_ref().id, "", edit).await?;
        Ok(Response::new(v1::ResumeEndpointResponse {
            endpoint: Some(messages::endpoint(&endpoint)),
        }))
    }

    async fn rotate_endpoint_secret(
        &self,
        request: Request<v1::RotateEndpointSecretRequest>,
    ) -> Result<Response<v1::RotateEndpointSecretResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        let request = request.into_inner();
        let overlap = match request.overlap {
            None => ROTATION_OVERLAP,
            Some(given) => {
                duration_of("overlap", Reason::TimeoutInvalid, given).map_err(Refusal::from)?
            }
        };
        let secret = fields::secret("secret", &request.secret)?;
        let edit = |endpoint: &mut Endpoint, now| {
            if endpoint.secret != secret {
                endpoint.rotate_secret(secret.clone(), overlap, now);
            }
            Ok(())
        };
        let endpoint = self.edit(&tenant, &request.id, "", edit).await?;
        Ok(Response::new(v1::RotateEndpointSecretResponse {
            endpoint: Some(messages::endpoint_with_secret(&endpoint)),
        }))
    }

    async fn test_endpoint(
        &self,
        request: Request<v1::TestEndpointRequest>,
    ) -> Result<Response<v1::TestEndpointResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        let answer = testing::test(&self.0, &tenant, request.into_inner()).await?;
        Ok(Response::new(answer))
    }
}

#[cfg(test)]
mod tests;
