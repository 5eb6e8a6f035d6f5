//! DeliveryService: what became of each event that was owed to a subscription.
//!
//! Where a delivery stands is the inquiry's to say; here are the lists over it ([`listing`]) and
//! the redriving of dead letters, which arrives at the shard's owner as a record in the log.

mod listing;
mod redrive;

use std::sync::Arc;

use fanfare_domain::{DeliveryId, TenantId};
use fanfare_proto::v1;
use fanfare_proto::v1::delivery_service_server::DeliveryService;
use tonic::{Request, Response, Status};

use super::caller::caller;
use super::errors::Refusal;
use super::management::Management;
use super::messages;
use crate::inquiry::{Delivery, Inquiry};

/// The service.
#[derive(Clone)]
pub struct Deliveries {
    management: Arc<Management>,
    inquiry: Inquiry,
}

impl Deliveries {
    /// Works on what `management` has.
    pub fn new(management: Arc<Management>) -> Self {
        let inquiry = Inquiry::new(management.stores.clone());
        Self {
            management,
            inquiry,
        }
    }

    async fn get(&self, tenant: &TenantId, id: DeliveryId) -> Result<v1::Delivery, Refusal> {
        let delivery = self.find(tenant, id).await?;
        let delivery = delivery.ok_or_else(|| Refusal::not_found("DELIVERY_NOT_FOUND", id))?;
        let attempts = self.inquiry.attempts(tenant, id).await?;
        Ok(v1::Delivery {
            attempts: attempts.iter().map(messages::attempt).collect(),
            ..messages::delivery(&delivery)
        })
    }

    async fn find(&self, tenant: &TenantId, id: DeliveryId) -> Result<Option<Delivery>, Refusal> {
        let mut known = self.inquiry.by_id(tenant, &[id]).await?;
        match known.pop().flatten() {
            Some(delivery) => Ok(Some(delivery)),
            // Nothing happened to it yet: only its event tells of it.
            None => Ok(self.inquiry.untouched(tenant, id).await?),
        }
    }
}

#[tonic::async_trait]
impl DeliveryService for Deliveries {
    async fn list_deliveries(
        &self,
        request: Request<v1::ListDeliveriesRequest>,
    ) -> Result<Response<v1::ListDeliveriesResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        let list = listing::List::new(self, &tenant, request.into_inner())?;
        Ok(Response::new(list.page().await?))
    }

    async fn get_delivery(
        &self,
        request: Request<v1::GetDeliveryRequest>,
    ) -> Result<Response<v1::GetDeliveryResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        let id = request.get_ref().id.parse().map_err(Refusal::from)?;
        let delivery = self.get(&tenant, id).await?;
        Ok(Response::new(v1::GetDeliveryResponse {
            delivery: Some(delivery),
        }))
    }

    async fn redrive_deliveries(
        &self,
        request: Request<v1::RedriveDeliveriesRequest>,
    ) -> Result<Response<v1::RedriveDeliveriesResponse>, Status> {
        let tenant = caller(&request)?.tenant;
        let results = redrive::redrive(self, &tenant, &request.get_ref().ids).await?;
        Ok(Response::new(v1::RedriveDeliveriesResponse { results }))
    }
}

#[cfg(test)]
mod tests;
