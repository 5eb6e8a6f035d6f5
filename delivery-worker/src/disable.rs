//! 410 Gone: the endpoint is disabled, by the same conditional write that the API uses.

use std::sync::Arc;

use fanfare_domain::{Endpoint, EndpointState};
use fanfare_event_log::Phase;
use fanfare_service::Backoff;
use fanfare_store::config::bucket_of;
use fanfare_store::{Entry, StoreError, StoreErrorKind, Write};

use crate::shift::Shift;

/// Disables `endpoint` in its own time: what it answers until then is 410 again, most likely.
pub(crate) fn spawn(shift: &Arc<Shift>, endpoint: Arc<Endpoint>) {
    let shift = shift.clone();
    shift.crew.clone().tasks.spawn(async move {
        let lost = shift.lease.reached(Phase::Lost);
        tokio::select! {
            () = disable(&shift, &endpoint) => {}
            () = lost => {}
        }
    });
}

async fn disable(shift: &Shift, endpoint: &Endpoint) {
    let mut backoff = Backoff::new("disable an endpoint that is gone");
    loop {
        match try_disable(shift, endpoint).await {
            Ok(()) => return,
            Err(error) if error.kind() == StoreErrorKind::Closed => return,
            // Someone else changed the configuration: decide again on what it is now.
            Err(error) if error.kind() == StoreErrorKind::HeadMoved => {
                if let Err(error) = shift.follower.refresh().await {
                    backoff.wait(&error).await;
                }
            }
            Err(error) => backoff.wait(&error).await,
        }
    }
}

async fn try_disable(shift: &Shift, called: &Endpoint) -> Result<(), StoreError> {
    let catalog = shift.follower.catalog();
    let Some(current) = catalog.endpoint(called.id) else {
        return Ok(());
    };
    // What answered 410 is no longer what is configured.
    if current.url != called.url || current.state == EndpointState::Disabled {
        return Ok(());
    }
    let head = catalog.head_of(&current.tenant);
    let mut disabled = Endpoint::clone(current);
    disabled.state = EndpointState::Disabled;
    disabled.state_reason = "the endpoint answered 410 Gone".into();
    disabled.update_time = shift.crew.outfit.clock.now();
    disabled.version = head.0 + 1;
    let write = Write::Put(Box::new(Entry::Endpoint(disabled)));
    let bucket = bucket_of(&current.tenant);
    shift.stores.config.write(bucket, head, vec![write]).await?;
    tracing::info!(endpoint = %called.id, "disabled: it answered 410 Gone");
    // Only for everybody here to know at once; the follower finds it by itself.
    let _ = shift.follower.refresh().await;
    Ok(())
}
