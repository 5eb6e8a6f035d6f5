//! The gRPC surface as a test calls it: one tenant, generated clients, nothing hidden.

use std::time::Duration;

use bytes::Bytes;
use fanfare_proto::v1;
use fanfare_proto::v1::delivery_service_client::DeliveryServiceClient;
use fanfare_proto::v1::endpoint_service_client::EndpointServiceClient;
use fanfare_proto::v1::event_service_client::EventServiceClient;
use fanfare_proto::v1::subscription_service_client::SubscriptionServiceClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// A channel that says whose request it is.
pub type Tenanted = InterceptedService<Channel, Tenant>;

/// Puts the tenant, if any, into each request.
#[derive(Clone, Debug)]
pub struct Tenant(Option<String>);

/// The four services of one server.
#[derive(Clone)]
pub struct Api {
    channel: Channel,
    tenant: Tenant,
}

impl tonic::service::Interceptor for Tenant {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(tenant) = &self.0 {
            let tenant = tenant.parse().expect("a tenant is ASCII");
            request.metadata_mut().insert("fanfare-tenant", tenant);
        }
        Ok(request)
    }
}

impl Api {
    /// To the server at `url`, connected at the first call.
    pub fn new(url: &str) -> Self {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
        let channel = endpoint.timeout(Duration::from_secs(30)).connect_lazy();
        Self {
            channel,
            tenant: Tenant(None),
        }
    }

    /// The same server, in the name of `tenant`.
    #[must_use]
    pub fn tenant(&self, tenant: &str) -> Self {
        Self {
            channel: self.channel.clone(),
            tenant: Tenant(Some(tenant.to_owned())),
        }
    }

    /// EventService.
    pub fn events(&self) -> EventServiceClient<Tenanted> {
        EventServiceClient::with_interceptor(self.channel.clone(), self.tenant.clone())
    }

    /// EndpointService.
    pub fn endpoints(&self) -> EndpointServiceClient<Tenanted> {
        EndpointServiceClient::with_interceptor(self.channel.clone(), self.tenant.clone())
    }

    /// SubscriptionService.
    pub fn subscriptions(&self) -> SubscriptionServiceClient<Tenanted> {
        SubscriptionServiceClient::with_interceptor(self.channel.clone(), self.tenant.clone())
    }

    /// DeliveryService.
    pub fn deliveries(&self) -> DeliveryServiceClient<Tenanted> {
        DeliveryServiceClient::with_interceptor(self.channel.clone(), self.tenant.clone())
    }

    /// Publishes one event.
    pub async fn publish(&self, event: v1::Event) -> Result<v1::PublishResponse, Status> {
        let request = v1::PublishRequest { event: Some(event) };
        Ok(self.events().publish(request).await?.into_inner())
    }

    /// What became of an event.
    pub async fn event(&self, id: &str) -> Result<v1::GetEventResponse, Status> {
        let request = v1::GetEventRequest {
            id: id.to_owned(),
            ..Default::default()
        };
        Ok(self.events().get_event(request).await?.into_inner())
    }

    /// One delivery with its attempts.
    pub async fn delivery(&self, id: &str) -> Result<v1::Delivery, Status> {
        let request = v1::GetDeliveryRequest { id: id.to_owned() };
        let response = self.deliveries().get_delivery(request).await?.into_inner();
        Ok(response.delivery.expect("the answer has a delivery"))
    }

    /// Every delivery in one of `states` (all if none are given), page by page.
    pub async fn every_delivery(
        &self,
        states: &[v1::DeliveryState],
    ) -> Result<Vec<v1::Delivery>, Status> {
        let mut all = Vec::new();
        let mut request = v1::ListDeliveriesRequest {
            page_size: 1_000,
            states: states.iter().map(|state| (*state).into()).collect(),
            ..Default::default()
        };
        loop {
            let page = self
                .deliveries()
                .list_deliveries(request.clone())
                .await?
                .into_inner();
            all.extend(page.deliveries);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }
}

/// An event of a type with JSON data and everything else left to the server.
pub fn event(event_type: &str, data: impl Into<Bytes>) -> v1::Event {
    v1::Event {
        r#type: event_type.to_owned(),
        payload: Some(v1::event::Payload::Data(data.into())),
        ..v1::Event::default()
    }
}

/// The same with an id of the caller's choice.
pub fn named(id: &str, event_type: &str, data: impl Into<Bytes>) -> v1::Event {
    v1::Event {
        id: id.to_owned(),
        ..event(event_type, data)
    }
}
