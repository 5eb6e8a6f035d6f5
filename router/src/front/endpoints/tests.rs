//! EndpointService through a real client.

use std::collections::BTreeMap;
use std::time::Duration;

use fanfare_event_log::Record;
use fanfare_proto::v1;
use prost_types::FieldMask;
use tonic::Code;

use super::super::served::{NOW, acme, create, refused, refused_field, serve};

fn not_found() -> (Code, String) {
    (Code::NotFound, "ENDPOINT_NOT_FOUND".into())
}

fn get(id: &str) -> v1::GetEndpointRequest {
    v1::GetEndpointRequest { id: id.into() }
}

fn update(endpoint: v1::Endpoint, paths: &[&str]) -> v1::UpdateEndpointRequest {
    v1::UpdateEndpointRequest {
        endpoint: Some(endpoint),
        update_mask: Some(FieldMask {
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        }),
    }
}

#[tokio::test]
async fn create_makes_endpoint_and_subscription_in_one_write() {
    let served = serve().await;
    let head = served.follower.catalog().head_of(&acme());
    let made = served.endpoint(&["order.*", "all", "**"]).await;
    let catalog = served.follower.catalog();
    assert_eq!(catalog.head_of(&acme()).0, head.0 + 1, "one write");
    let (endpoint, subscription) = (made.endpoint.unwrap(), made.subscription.unwrap());
    assert!(endpoint.secret.starts_with("whsec_"));
    assert_eq!(endpoint.state, i32::from(v1::EndpointState::Active));
    assert_eq!(subscription.event_types, ["order.*", "**"], "no repeats");
    assert_eq!(subscription.endpoint_id, endpoint.id);
    assert!(subscription.live);
    assert!(made.notes.is_empty(), "{:?}", made.notes);
}

#[tokio::test]
async fn create_says_what_may_not_be_meant() {
    let served = serve().await;
    let without = served.endpoint(&[]).await;
    assert!(without.subscription.is_none());
    assert!(
        without.notes[0].contains("no subscription"),
        "{:?}",
        without.notes
    );
    let bare = served.endpoint(&["*"]).await;
    assert!(bare.notes[0].contains("'**'"), "{:?}", bare.notes);
}

#[tokio::test]
async fn secrets_and_header_values_are_not_read_back() {
    let served = serve().await;
    let mut request = create(&[]);
    let given = request.endpoint.as_mut().unwrap();
    given.secret = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into();
    given.headers = BTreeMap::from([("X-Team".into(), "a-secret-value".into())]);
    let secret = given.secret.clone();
    let made = served
        .endpoints()
        .create_endpoint(request)
        .await
        .unwrap()
        .into_inner();
    let made = made.endpoint.unwrap();
    assert_eq!(made.secret, secret);
    let id = made.id.clone();
    let got = served
        .endpoints()
        .get_endpoint(get(&id))
        .await
        .unwrap()
        .into_inner();
    let list = v1::ListEndpointsRequest::default();
    let listed = served
        .endpoints()
        .list_endpoints(list)
        .await
        .unwrap()
        .into_inner();
    for shown in [got.endpoint.unwrap(), listed.endpoints[0].clone()] {
        assert_eq!(shown.secret, "");
        assert_eq!(
            shown.headers,
            BTreeMap::from([("x-team".into(), String::new())])
        );
    }
}

#[tokio::test]
async fn a_request_id_makes_create_safe_to_repeat() {
    let served = serve().await;
    let mut request = create(&["order.*"]);
    request.request_id = "r-1".into();
    let mut endpoints = served.endpoints();
    let first = endpoints
        .create_endpoint(request.clone())
        .await
        .unwrap()
        .into_inner();
    let again = endpoints
        .create_endpoint(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first, again, "the secret, too");
    request.endpoint.as_mut().unwrap().name = "another".into();
    let reused = endpoints.create_endpoint(request.clone()).await;
    assert_eq!(
        refused_field(reused),
        ("REQUEST_ID_REUSED".into(), "request_id".into())
    );
    served.clock.advance(Duration::from_hours(25));
    let later = endpoints
        .create_endpoint(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_ne!(later.endpoint.unwrap().id, first.endpoint.unwrap().id);
    request.request_id = "r 2".into();
    assert_eq!(
        refused_field(endpoints.create_endpoint(request).await).1,
        "request_id"
    );
}

#[tokio::test]
async fn request_ids_are_forgotten_when_they_are_no_longer_needed() {
    let served = serve().await;
    for i in 0..3 {
        let mut request = create(&[]);
        request.request_id = format!("r-{i}");
        served.endpoints().create_endpoint(request).await.unwrap();
        served.clock.advance(Duration::from_hours(25));
    }
    let catalog = served.follower.catalog();
    assert!(catalog.request(&acme(), "r-0").is_none());
    assert!(catalog.request(&acme(), "r-2").is_some());
}

/// Makes one field of an endpoint bad.
type Spoil = fn(&mut v1::Endpoint);

/// Creates an endpoint that `spoil` spoiled, and a subscription to `patterns` with it.
async fn create_refused(spoil: Spoil, patterns: &[&str]) -> (String, String) {
    let served = serve().await;
    let mut request = create(patterns);
    spoil(request.endpoint.as_mut().unwrap());
    let refused = refused_field(served.endpoints().create_endpoint(request).await);
    let counts = served.follower.catalog().counts();
    assert_eq!(counts, (0, 0), "nothing is half-written");
    refused
}

#[tokio::test]
async fn bad_fields_are_refused_by_name_and_nothing_is_written() {
    let cases: [(Spoil, &str, &str); 12] = [
        (|e| e.url.clear(), "URL_INVALID", "url"),
        (
            |e| e.url = "ftp://a.example.com".into(),
            "URL_INVALID",
            "url",
        ),
        (
            |e| e.url = "http://a.example.com/".into(),
            "URL_NOT_ALLOWED",
            "url",
        ),
        (
            |e| e.url = "https://127.0.0.1/".into(),
            "URL_NOT_ALLOWED",
            "url",
        ),
        (|e| e.secret = "hunter2".into(), "SECRET_INVALID", "secret"),
        (
            |e| e.headers = one("host"),
            "HEADER_NOT_ALLOWED",
            "headers[host]",
        ),
        (
            |e| e.headers = one("webhook-id"),
            "HEADER_NOT_ALLOWED",
            "headers[webhook-id]",
        ),
        (|e| e.labels = one("a b"), "LABEL_INVALID", "labels"),
        (|e| e.name = "a\nb".into(), "LABEL_INVALID", "name"),
        (|e| e.envelope = 9, "FIELD_NOT_SUPPORTED", "envelope"),
        (
            |e| e.timeout = Some(of_seconds(31)),
            "TIMEOUT_INVALID",
            "timeout",
        ),
        (
            |e| e.retry_schedule = Some(after_seconds(-1)),
            "SCHEDULE_INVALID",
            "retry_schedule",
        ),
    ];
    for (spoil, reason, field) in cases {
        let want = (reason.to_owned(), format!("endpoint.{field}"));
        assert_eq!(create_refused(spoil, &["order.*"]).await, want);
    }
}

#[tokio::test]
async fn bad_patterns_are_refused_by_place_and_nothing_is_written() {
    for (patterns, field) in [
        (&["order."][..], "event_types[0]"),
        (&["a", "a/b"], "event_types[1]"),
        (&["a"; 51], "event_types"),
    ] {
        let want = ("PATTERN_INVALID".to_owned(), field.to_owned());
        assert_eq!(create_refused(|_| (), patterns).await, want);
    }
}

fn one(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(name.into(), "x".into())])
}

fn of_seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn after_seconds(seconds: i64) -> v1::RetrySchedule {
    v1::RetrySchedule {
        delays: vec![of_seconds(seconds)],
    }
}

#[tokio::test]
async fn a_refused_url_names_the_flag_that_opens_it() {
    let served = serve().await;
    let mut request = create(&[]);
    request.endpoint.as_mut().unwrap().url = "http://localhost:8080/hook".into();
    let refused = served
        .endpoints()
        .create_endpoint(request)
        .await
        .unwrap_err();
    assert!(refused.message().contains("--"), "{}", refused.message());
}

#[tokio::test]
async fn a_tenant_has_as_many_endpoints_as_it_may() {
    let served = serve().await;
    for _ in 0..3 {
        served.endpoint(&[]).await;
    }
    let over = served.endpoints().create_endpoint(create(&[])).await;
    assert_eq!(
        refused(over),
        (Code::ResourceExhausted, "QUOTA_EXCEEDED".into())
    );
    let other = served
        .endpoints_of("globex")
        .create_endpoint(create(&[]))
        .await;
    assert!(other.is_ok(), "a quota is a tenant's own");
}

#[tokio::test]
async fn concurrent_creates_do_not_pass_the_quota() {
    let served = serve().await;
    let create = || async {
        served
            .endpoints()
            .create_endpoint(create(&["a"]))
            .await
            .is_ok()
    };
    let made = futures::future::join_all((0..10).map(|_| create())).await;
    assert_eq!(made.iter().filter(|made| **made).count(), 3);
    assert_eq!(served.follower.catalog().counts(), (3, 3));
}

#[tokio::test]
async fn another_tenants_endpoint_is_as_good_as_none() {
    let served = serve().await;
    let theirs = served.endpoint(&["order.*"]).await.endpoint.unwrap();
    let none = "ep_0000000000000";
    for id in [&*theirs.id, none] {
        let id = id.to_owned();
        let mut endpoints = served.endpoints_of("globex");
        assert_eq!(refused(endpoints.get_endpoint(get(&id)).await), not_found());
        let named = v1::Endpoint {
            id: id.clone(),
            name: "mine".into(),
            ..v1::Endpoint::default()
        };
        assert_eq!(
            refused(endpoints.update_endpoint(update(named, &["name"])).await),
            not_found()
        );
        let delete = v1::DeleteEndpointRequest {
            id: id.clone(),
            etag: String::new(),
        };
        assert_eq!(
            refused(endpoints.delete_endpoint(delete).await),
            not_found()
        );
        let pause = v1::PauseEndpointRequest {
            id: id.clone(),
            reason: String::new(),
        };
        assert_eq!(refused(endpoints.pause_endpoint(pause).await), not_found());
        let resume = v1::ResumeEndpointRequest { id: id.clone() };
        assert_eq!(
            refused(endpoints.resume_endpoint(resume).await),
            not_found()
        );
        let rotate = v1::RotateEndpointSecretRequest {
            id: id.clone(),
            ..Default::default()
        };
        assert_eq!(
            refused(endpoints.rotate_endpoint_secret(rotate).await),
            not_found()
        );
        let test = v1::TestEndpointRequest {
            id: id.clone(),
            event: None,
        };
        assert_eq!(refused(endpoints.test_endpoint(test).await), not_found());
        let of_it = v1::ListSubscriptionsRequest {
            endpoint_id: id,
            ..Default::default()
        };
        let listed = served
            .subscriptions_of("globex")
            .list_subscriptions(of_it)
            .await;
        assert_eq!(refused(listed), not_found());
    }
    let list = v1::ListEndpointsRequest::default();
    let listed = served
        .endpoints_of("globex")
        .list_endpoints(list)
        .await
        .unwrap();
    assert!(listed.into_inner().endpoints.is_empty());
}

#[tokio::test]
async fn update_changes_what_the_mask_names_and_keeps_header_values() {
    let served = serve().await;
    let mut request = create(&[]);
    let given = request.endpoint.as_mut().unwrap();
    given.name = "before".into();
    given.headers = BTreeMap::from([("a".into(), "1".into()), ("b".into(), "2".into())]);
    let made = served
        .endpoints()
        .create_endpoint(request)
        .await
        .unwrap()
        .into_inner();
    let made = made.endpoint.unwrap();
    let change = v1::Endpoint {
        id: made.id.clone(),
        etag: made.etag.clone(),
        name: "ignored".into(),
        url: "https://shop.example.com/other#part".into(),
        headers: BTreeMap::from([("a".into(), String::new()), ("c".into(), "3".into())]),
        ..v1::Endpoint::default()
    };
    let update = update(change.clone(), &["url", "headers"]);
    let changed = served
        .endpoints()
        .update_endpoint(update.clone())
        .await
        .unwrap()
        .into_inner();
    let changed = changed.endpoint.unwrap();
    assert_eq!(
        (&*changed.name, &*changed.url),
        ("before", "https://shop.example.com/other")
    );
    let stored = served
        .follower
        .catalog()
        .endpoint(made.id.parse().unwrap())
        .unwrap()
        .clone();
    let headers = BTreeMap::from([("a".into(), "1".into()), ("c".into(), "3".into())]);
    assert_eq!(stored.headers, headers);
    assert_ne!(changed.etag, made.etag);
    let stale = served.endpoints().update_endpoint(update).await;
    assert_eq!(refused(stale), (Code::Aborted, "ETAG_MISMATCH".into()));
    let immutable = v1::UpdateEndpointRequest {
        update_mask: Some(FieldMask {
            paths: vec!["secret".into()],
        }),
        endpoint: Some(change),
    };
    let immutable = served.endpoints().update_endpoint(immutable).await;
    assert_eq!(
        refused(immutable),
        (Code::Unimplemented, "FIELD_NOT_SUPPORTED".into())
    );
}

#[tokio::test]
async fn lists_are_newest_first_in_pages_bound_to_their_filters() {
    let served = serve().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.insert(0, served.endpoint(&[]).await.endpoint.unwrap().id);
        served.clock.advance(Duration::from_secs(1));
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = v1::ListEndpointsRequest {
            page_size: 2,
            page_token: token,
            ..v1::ListEndpointsRequest::default()
        };
        let page = served
            .endpoints()
            .list_endpoints(page)
            .await
            .unwrap()
            .into_inner();
        seen.extend(page.endpoints.into_iter().map(|endpoint| endpoint.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        let other = v1::ListEndpointsRequest {
            page_token: token.clone(),
            states: vec![v1::EndpointState::Paused.into()],
            ..v1::ListEndpointsRequest::default()
        };
        let other = served.endpoints().list_endpoints(other).await;
        assert_eq!(
            refused(other),
            (Code::InvalidArgument, "PAGE_TOKEN_INVALID".into())
        );
    }
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn delete_takes_the_subscriptions_along() {
    let served = serve().await;
    let made = served.endpoint(&["order.*"]).await;
    let id = made.endpoint.unwrap().id;
    let head = served.follower.catalog().head_of(&acme()).0;
    let delete = v1::DeleteEndpointRequest {
        id: id.clone(),
        etag: String::new(),
    };
    served.endpoints().delete_endpoint(delete).await.unwrap();
    let catalog = served.follower.catalog();
    assert_eq!(
        (catalog.counts(), catalog.head_of(&acme()).0),
        ((0, 0), head + 1)
    );
    assert_eq!(
        refused(served.endpoints().get_endpoint(get(&id)).await),
        not_found()
    );
}

#[tokio::test]
async fn pause_and_resume_change_the_state_and_say_why() {
    let served = serve().await;
    let id = served.endpoint(&[]).await.endpoint.unwrap().id;
    let pause = |reason: &str| v1::PauseEndpointRequest {
        id: id.clone(),
        reason: reason.into(),
    };
    let paused = served
        .endpoints()
        .pause_endpoint(pause("maintenance"))
        .await
        .unwrap();
    let paused = paused.into_inner().endpoint.unwrap();
    assert_eq!(paused.state, i32::from(v1::EndpointState::Paused));
    assert_eq!(paused.state_reason, "maintenance");
    let again = served
        .endpoints()
        .pause_endpoint(pause("maintenance"))
        .await
        .unwrap();
    assert_eq!(
        again.into_inner().endpoint.unwrap().etag,
        paused.etag,
        "nothing changed"
    );
    let resume = v1::ResumeEndpointRequest { id: id.clone() };
    let resumed = served.endpoints().resume_endpoint(resume).await.unwrap();
    let resumed = resumed.into_inner().endpoint.unwrap();
    assert_eq!(resumed.state, i32::from(v1::EndpointState::Active));
    assert_eq!(resumed.state_reason, "");
}

#[tokio::test]
async fn rotation_keeps_the_old_secret_for_a_while() {
    let served = serve().await;
    let made = served.endpoint(&[]).await.endpoint.unwrap();
    let stored = || {
        served
            .follower
            .catalog()
            .endpoint(made.id.parse().unwrap())
            .unwrap()
            .clone()
    };
    let mut secrets = vec![made.secret.clone()];
    for _ in 0..3 {
        let rotate = v1::RotateEndpointSecretRequest {
            id: made.id.clone(),
            ..v1::RotateEndpointSecretRequest::default()
        };
        let rotated = served
            .endpoints()
            .rotate_endpoint_secret(rotate)
            .await
            .unwrap();
        secrets.insert(0, rotated.into_inner().endpoint.unwrap().secret);
        let signing: Vec<_> = stored()
            .signing_secrets(NOW)
            .map(fanfare_domain::Secret::reveal)
            .collect();
        assert_eq!(signing, secrets[..secrets.len().min(3)]);
    }
    let tomorrow = NOW.plus(Duration::from_hours(24));
    assert_eq!(stored().signing_secrets(tomorrow).count(), 1);
    let at_once = v1::RotateEndpointSecretRequest {
        id: made.id.clone(),
        overlap: Some(prost_types::Duration::default()),
        ..v1::RotateEndpointSecretRequest::default()
    };
    served
        .endpoints()
        .rotate_endpoint_secret(at_once)
        .await
        .unwrap();
    assert!(
        !stored()
            .signing_secrets(NOW)
            .any(|s| s.reveal() == secrets[0])
    );
}

#[tokio::test]
async fn a_test_is_one_record_and_answers_with_its_attempt() {
    let served = serve().await;
    let made = served.endpoint(&[]).await.endpoint.unwrap();
    let mut endpoints = served.endpoints();
    let test = v1::TestEndpointRequest {
        id: made.id.clone(),
        event: None,
    };
    let testing = tokio::spawn(async move { endpoints.test_endpoint(test).await });
    // Plays the worker: takes the record, keeps the attempt.
    let record = loop {
        match served.records().await.pop() {
            Some(Record::Test(record)) => break record,
            Some(other) => panic!("not a test: {other:?}"),
            None => tokio::task::yield_now().await,
        }
    };
    let event = &record.event;
    let seed = event.delivery_seed();
    let target = record.targets[0];
    let delivery = seed.delivery(target.endpoint, target.subscription, event.accept_time, 0);
    let mut row = fanfare_store::conformance::fixtures::attempt(1, NOW, 1, 1);
    row.delivery = delivery;
    served.stores.history.append(vec![row]).await.unwrap();
    let answer = testing.await.unwrap().unwrap().into_inner();
    assert_eq!(answer.delivery_id, delivery.to_string());
    assert_eq!(
        answer.attempt.unwrap().outcome.unwrap().http_status,
        Some(204)
    );
    assert_eq!(target.endpoint.to_string(), made.id);
}

#[tokio::test]
async fn a_store_that_is_away_refuses_changes_and_says_to_retry() {
    let served = serve().await;
    served.memory.go_away();
    let away = served.endpoints().create_endpoint(create(&[])).await;
    assert_eq!(
        refused(away),
        (Code::Unavailable, "STORE_UNAVAILABLE".into())
    );
    served.memory.come_back();
    served.endpoint(&[]).await;
}
