//! Whether a delivery may go out: a pure function of the catalog.

use std::sync::Arc;

use fanfare_domain::{DeadLetterReason, Endpoint, EndpointState, Target, TenantId};
use fanfare_store::Catalog;

/// Where a target stands.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// Called.
    Active(Arc<Endpoint>),
    /// Waits for its endpoint to be resumed.
    Paused,
    /// Never called again: what is owed becomes a dead letter.
    Ended(DeadLetterReason),
}

impl Standing {
    /// Of a target of `tenant`. An endpoint of someone else is none.
    pub(crate) fn of(catalog: &Catalog, tenant: &TenantId, target: Target) -> Self {
        let endpoint = catalog.endpoint(target.endpoint);
        let Some(endpoint) = endpoint.filter(|endpoint| endpoint.tenant == *tenant) else {
            return Self::Ended(DeadLetterReason::EndpointDeleted);
        };
        if endpoint.state == EndpointState::Disabled {
            return Self::Ended(DeadLetterReason::EndpointDisabled);
        }
        let subscription = catalog.subscription(target.subscription);
        if subscription.is_none_or(|subscription| subscription.endpoint != target.endpoint) {
            return Self::Ended(DeadLetterReason::SubscriptionDeleted);
        }
        Self::of_endpoint(Some(endpoint))
    }

    /// Of an endpoint alone.
    pub(crate) fn of_endpoint(endpoint: Option<&Arc<Endpoint>>) -> Self {
        let Some(endpoint) = endpoint else {
            return Self::Ended(DeadLetterReason::EndpointDeleted);
        };
        match endpoint.state {
            EndpointState::Active => Self::Active(endpoint.clone()),
            EndpointState::Paused => Self::Paused,
            EndpointState::Disabled => Self::Ended(DeadLetterReason::EndpointDisabled),
        }
    }
}
