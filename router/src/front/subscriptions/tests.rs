//! SubscriptionService through a real client.

use fanfare_proto::v1;
use tonic::Code;

use super::super::served::{Served, refused, refused_field, serve};

fn wanting(endpoint: &str, patterns: &[&str]) -> v1::CreateSubscriptionRequest {
    v1::CreateSubscriptionRequest {
        subscription: Some(v1::Subscription {
            endpoint_id: endpoint.into(),
            event_types: patterns.iter().map(|p| (*p).to_owned()).collect(),
            ..v1::Subscription::default()
        }),
        request_id: String::new(),
    }
}

async fn endpoint(served: &Served) -> String {
    served.endpoint(&[]).await.endpoint.unwrap().id
}

async fn subscribe(
    served: &Served,
    endpoint: &str,
    patterns: &[&str],
) -> v1::CreateSubscriptionResponse {
    let request = wanting(endpoint, patterns);
    served
        .subscriptions()
        .create_subscription(request)
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn create_get_update_delete() {
    let served = serve().await;
    let endpoint = endpoint(&served).await;
    let made = subscribe(&served, &endpoint, &["order.*", "all"]).await;
    let made = made.subscription.unwrap();
    assert_eq!(made.event_types, ["order.*", "**"]);
    let get = v1::GetSubscriptionRequest {
        id: made.id.clone(),
    };
    let got = served
        .subscriptions()
        .get_subscription(get.clone())
        .await
        .unwrap();
    assert_eq!(got.into_inner().subscription.unwrap(), made);
    let update = v1::UpdateSubscriptionRequest {
        subscription: Some(v1::Subscription {
            event_types: vec!["invoice.paid".into()],
            ..made.clone()
        }),
        update_mask: None,
    };
    let updated = served
        .subscriptions()
        .update_subscription(update.clone())
        .await
        .unwrap();
    let updated = updated.into_inner().subscription.unwrap();
    assert_eq!(updated.event_types, ["invoice.paid"]);
    let stale = v1::UpdateSubscriptionRequest {
        subscription: Some(made.clone()),
        update_mask: None,
    };
    let stale = served.subscriptions().update_subscription(stale).await;
    assert_eq!(refused(stale), (Code::Aborted, "ETAG_MISMATCH".into()));
    let delete = v1::DeleteSubscriptionRequest {
        id: made.id,
        etag: updated.etag,
    };
    served
        .subscriptions()
        .delete_subscription(delete.clone())
        .await
        .unwrap();
    let gone = (Code::NotFound, "SUBSCRIPTION_NOT_FOUND".to_owned());
    assert_eq!(
        refused(served.subscriptions().get_subscription(get).await),
        gone
    );
    assert_eq!(
        refused(served.subscriptions().delete_subscription(delete).await),
        gone
    );
}

#[tokio::test]
async fn a_request_id_makes_create_safe_to_repeat() {
    let served = serve().await;
    let endpoint = endpoint(&served).await;
    let mut request = wanting(&endpoint, &["order.*"]);
    request.request_id = "r-1".into();
    let mut subscriptions = served.subscriptions();
    let first = subscriptions
        .create_subscription(request.clone())
        .await
        .unwrap()
        .into_inner();
    let again = subscriptions
        .create_subscription(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first, again);
    request.subscription.as_mut().unwrap().event_types = vec!["other".into()];
    let reused = subscriptions.create_subscription(request).await;
    assert_eq!(
        refused_field(reused),
        ("REQUEST_ID_REUSED".into(), "request_id".into())
    );
}

#[tokio::test]
async fn an_overlap_with_another_subscription_of_the_endpoint_is_noted() {
    let served = serve().await;
    let (one, other) = (endpoint(&served).await, endpoint(&served).await);
    let first = subscribe(&served, &one, &["order.*"]).await;
    assert!(first.notes.is_empty(), "{:?}", first.notes);
    let elsewhere = subscribe(&served, &other, &["order.*"]).await;
    assert!(elsewhere.notes.is_empty(), "{:?}", elsewhere.notes);
    let apart = subscribe(&served, &one, &["invoice.*"]).await;
    assert!(apart.notes.is_empty(), "{:?}", apart.notes);
    let overlapping = subscribe(&served, &one, &["*", "order.paid"]).await;
    assert_eq!(overlapping.notes.len(), 2, "{:?}", overlapping.notes);
    assert!(overlapping.notes[1].contains(&first.subscription.unwrap().id));
}

#[tokio::test]
async fn what_does_not_work_yet_is_refused_and_not_ignored() {
    let served = serve().await;
    let endpoint = endpoint(&served).await;
    let mut filtered = wanting(&endpoint, &["order.*"]);
    filtered.subscription.as_mut().unwrap().filter = Some("{}".into());
    let mut ordered = wanting(&endpoint, &["order.*"]);
    ordered.subscription.as_mut().unwrap().ordered = true;
    for (request, field) in [
        (filtered, "subscription.filter"),
        (ordered, "subscription.ordered"),
    ] {
        let answer = served.subscriptions().create_subscription(request).await;
        assert_eq!(
            refused_field(answer),
            ("FIELD_NOT_SUPPORTED".into(), field.into())
        );
    }
}

#[tokio::test]
async fn an_endpoint_has_as_many_subscriptions_as_it_may() {
    let served = serve().await;
    let endpoint = endpoint(&served).await;
    for _ in 0..3 {
        subscribe(&served, &endpoint, &["order.*"]).await;
    }
    let over = served
        .subscriptions()
        .create_subscription(wanting(&endpoint, &["a"]))
        .await;
    assert_eq!(
        refused(over),
        (Code::ResourceExhausted, "QUOTA_EXCEEDED".into())
    );
}

#[tokio::test]
async fn another_tenants_endpoint_and_subscription_are_as_good_as_none() {
    let served = serve().await;
    let endpoint = endpoint(&served).await;
    let theirs = subscribe(&served, &endpoint, &["order.*"])
        .await
        .subscription
        .unwrap();
    let mut subscriptions = served.subscriptions_of("globex");
    let create = subscriptions
        .create_subscription(wanting(&endpoint, &["a"]))
        .await;
    assert_eq!(
        refused(create),
        (Code::NotFound, "ENDPOINT_NOT_FOUND".into())
    );
    let gone = (Code::NotFound, "SUBSCRIPTION_NOT_FOUND".to_owned());
    let get = v1::GetSubscriptionRequest {
        id: theirs.id.clone(),
    };
    assert_eq!(refused(subscriptions.get_subscription(get).await), gone);
    let update = v1::UpdateSubscriptionRequest {
        subscription: Some(theirs.clone()),
        update_mask: None,
    };
    assert_eq!(
        refused(subscriptions.update_subscription(update).await),
        gone
    );
    let delete = v1::DeleteSubscriptionRequest {
        id: theirs.id,
        etag: String::new(),
    };
    assert_eq!(
        refused(subscriptions.delete_subscription(delete).await),
        gone
    );
    let list = v1::ListSubscriptionsRequest::default();
    let listed = subscriptions
        .list_subscriptions(list)
        .await
        .unwrap()
        .into_inner();
    assert!(listed.subscriptions.is_empty());
}
