//! What the management services share: how a change of configuration is decided and made.
//!
//! A change is decided on the follower's catalog, freshly confirmed, and written only if its
//! bucket's head is still the one it was decided on; otherwise it is decided again. Checks made on
//! the catalog (quota, the endpoint of a subscription, an etag) therefore hold when the write does.
//!
//! A call that changed something returns when every process uses the change: this one has applied
//! it, and what the backend says about the others ([`Configuration::propagation`]) has passed.
//!
//! [`Configuration::propagation`]: fanfare_store::Configuration::propagation

use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::TenantId;
use fanfare_event_log::EventLog;
use fanfare_service::Clock;
use fanfare_service::egress::EgressPolicy;
use fanfare_store::config::{WRITE_MAX, bucket_of};
use fanfare_store::{Catalog, Follower, Head, StoreErrorKind, Stores, Write};
use serde::{Deserialize, Serialize};

use tonic::Code;

use super::errors::Refusal;

/// How often a change is decided again because another one came first.
const DECISIONS_MAX: usize = 20;
/// How long a change that was written may take until this process applies it.
const APPLY_MAX: Duration = Duration::from_secs(5);
/// How long a request id is remembered.
pub(super) const REQUEST_KEPT: Duration = Duration::from_hours(24);

/// Quotas of what a tenant configures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ManagementConfig {
    /// Most endpoints of one tenant.
    pub endpoints_per_tenant_max: usize,
    /// Most subscriptions of one endpoint; at most 90, because deleting an endpoint deletes them
    /// in the same write.
    pub subscriptions_per_endpoint_max: usize,
}

/// What the management services work with.
pub struct Management {
    /// Takes redrives and tests.
    pub log: Arc<dyn EventLog>,
    /// Configuration, and what became of deliveries.
    pub stores: Stores,
    /// The configuration as this process sees it.
    pub follower: Arc<Follower>,
    /// Which URLs may be stored.
    pub egress: Arc<EgressPolicy>,
    /// Quotas.
    pub config: ManagementConfig,
    /// The time of changes.
    pub clock: Clock,
}

/// What was decided about a change.
pub(super) enum Change<T> {
    /// Write this, then answer.
    Write(Vec<Write>, T),
    /// It is so already: answer.
    Nothing(T),
}

impl Default for ManagementConfig {
    fn default() -> Self {
        Self {
            endpoints_per_tenant_max: 50,
            subscriptions_per_endpoint_max: 50,
        }
    }
}

impl ManagementConfig {
    /// Checks what the types do not: the error names the field.
    pub fn check(&self) -> Result<(), String> {
        // The endpoint itself and its request are in the same write.
        let most = WRITE_MAX - 10;
        if !(1..=most).contains(&self.subscriptions_per_endpoint_max) {
            return Err(format!(
                "management.subscriptions_per_endpoint_max must be 1 to {most}"
            ));
        }
        if self.endpoints_per_tenant_max == 0 {
            return Err("management.endpoints_per_tenant_max must be at least 1".into());
        }
        Ok(())
    }
}

impl Management {
    /// Decides and makes a change of `tenant`'s configuration. `decide` gets the catalog and the
    /// version that its writes will have; it may be called several times.
    pub(super) async fn change<T>(
        &self,
        tenant: &TenantId,
        mut decide: impl FnMut(&Catalog, u64) -> Result<Change<T>, Refusal>,
    ) -> Result<T, Refusal> {
        for _ in 0..DECISIONS_MAX {
            self.refresh().await?;
            let catalog = self.follower.catalog();
            let head = catalog.head_of(tenant);
            let (writes, answer) = match decide(&catalog, head.0 + 1)? {
                Change::Write(writes, answer) => (writes, answer),
                Change::Nothing(answer) => return Ok(answer),
            };
            let writing = self.stores.config.write(bucket_of(tenant), head, writes);
            match writing.await {
                Ok(head) => return self.in_force(tenant, head).await.map(|()| answer),
                Err(error) if error.kind() == StoreErrorKind::HeadMoved => {}
                Err(error) => return Err(error.into()),
            }
        }
        let what = "too many changes are made at once; nothing was changed; try again shortly";
        Err(unavailable(what))
    }

    async fn refresh(&self) -> Result<(), Refusal> {
        Ok(self.follower.refresh().await?)
    }

    /// Waits until every process uses the configuration as of `head`.
    async fn in_force(&self, tenant: &TenantId, head: Head) -> Result<(), Refusal> {
        if self.refresh().await.is_err() {
            // It is written: only how soon it is used is open. Whoever runs the follower catches up.
            let reached = self.follower.reached(tenant, head);
            if tokio::time::timeout(APPLY_MAX, reached).await.is_err() {
                let what = "it was changed, but is not in force yet: the store is not available; \
                            read it again before you rely on it";
                return Err(unavailable(what));
            }
        }
        let propagation = self.stores.config.propagation();
        if !propagation.is_zero() {
            tokio::time::sleep(propagation).await;
        }
        Ok(())
    }
}

fn unavailable(what: &str) -> Refusal {
    let refusal = Refusal::new(Code::Unavailable, "STORE_UNAVAILABLE", what);
    refusal.retry_after(Duration::from_secs(1))
}
