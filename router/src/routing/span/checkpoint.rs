//! The span's own checkpoint in the store: where it is routed from when the log has lost the
//! group's progress. An older one only means that more is routed again, under the same ids, so a
//! failure to save is not repeated.

use std::convert::Infallible;
use std::time::Duration;

use fanfare_event_log::{Lease, Phase, Stream};
use fanfare_service::Backoff;
use fanfare_store::{ShardState, StoreErrorKind};

use super::{Context, SpanRouter};

/// How often the checkpoint of a span that moves is saved, and how long that may take.
const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);

/// Takes over from the last owner: stamps go on above its own, and that is saved first. Waits for
/// the store; `false` when the lease is wanted back before, or the store is closed.
pub(super) async fn succeed(context: &Context, lease: &Lease) -> bool {
    let (shards, span) = (&context.stores.shards, lease.span.index);
    let mut backoff = Backoff::new("take over the state of a span");
    loop {
        let taking = async {
            let state = shards.load(Stream::Events.name(), span).await?;
            let micros = u64::try_from(context.clock.now().micros()).unwrap_or(0);
            let state = state.succeed(&lease.tenure, micros);
            let saving = shards.save(&lease.tenure, Stream::Events.name(), span, state);
            saving.await
        };
        tokio::select! {
            taken = taking => match taken {
                Ok(()) => return true,
                Err(error) if error.kind() == StoreErrorKind::Closed => return false,
                Err(error) => backoff.wait(&error).await,
            },
            () = lease.reached(Phase::Revoking) => return false,
        }
    }
}

/// Saves it now and then.
pub(super) async fn keep(router: &SpanRouter) -> Infallible {
    let mut saved = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let progress = router.settler.progress();
        if saved.as_ref() != Some(&progress) && save(router).await {
            saved = Some(progress);
        }
    }
}

/// Saves it; whether that worked in time.
pub(super) async fn save(router: &SpanRouter) -> bool {
    let lease = &router.lease;
    let micros = u64::try_from(router.context.clock.now().micros()).unwrap_or(0);
    let state = ShardState {
        checkpoint: Some(router.settler.progress().encode()),
        last_stamp: lease.tenure.stamp(micros),
        ..ShardState::default()
    };
    let shards = &router.context.stores.shards;
    let saving = shards.save(
        &lease.tenure,
        Stream::Events.name(),
        lease.span.index,
        state,
    );
    match tokio::time::timeout(TIMEOUT, saving).await {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => tracing::debug!(?lease, %error, "the checkpoint was not saved"),
        Err(_) => tracing::debug!(?lease, "the checkpoint was not saved in time"),
    }
    false
}
