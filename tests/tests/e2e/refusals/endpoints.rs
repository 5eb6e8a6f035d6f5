//! Endpoints and subscriptions that cannot be made.

use fanfare_proto::v1;
use fanfare_tests::World;
use fanfare_tests::refusal::Refusal;
use fanfare_tests::server::Options;
use tonic::Code;

use super::refused;

/// One URL of every kind that is refused on a server without `--dev`, and why.
const URLS: &[(&str, &str)] = &[
    ("http://example.com/", "URL_NOT_ALLOWED"), // plain http
    ("https://127.0.0.1/", "URL_NOT_ALLOWED"),
    ("https://127.1/", "URL_NOT_ALLOWED"),
    ("https://0x7f.1/", "URL_NOT_ALLOWED"),
    ("https://2130706433/", "URL_NOT_ALLOWED"),
    ("https://0.0.0.0/", "URL_NOT_ALLOWED"),
    ("https://10.1.2.3/", "URL_NOT_ALLOWED"),
    (
        "https://169.254.169.254/latest/meta-data/",
        "URL_NOT_ALLOWED",
    ),
    ("https://[::1]/", "URL_NOT_ALLOWED"),
    ("https://[::ffff:10.0.0.1]/", "URL_NOT_ALLOWED"),
    ("https://[64:ff9b::a9fe:a9fe]/", "URL_NOT_ALLOWED"),
    ("https://localhost/", "URL_NOT_ALLOWED"),
    ("https://intranet/", "URL_NOT_ALLOWED"),
    ("https://printer.local/", "URL_NOT_ALLOWED"),
    ("https://db.internal/", "URL_NOT_ALLOWED"),
    ("https://api.default.svc/", "URL_NOT_ALLOWED"),
    ("https://metadata.google.internal/", "URL_NOT_ALLOWED"),
    ("https://user:password@example.com/", "URL_INVALID"),
    ("https://exam ple.com/", "URL_INVALID"),
    ("https://example.com/a\nb", "URL_INVALID"),
    ("https://[fe80::1%25eth0]/", "URL_INVALID"),
    ("ftp://example.com/", "URL_INVALID"),
    ("file:///etc/passwd", "URL_INVALID"),
    ("example.com/hook", "URL_INVALID"),
    ("", "URL_INVALID"),
];

const PATTERNS: &[&str] = &[
    "order.",
    ".order",
    "or*der",
    "**.order",
    "order.**.x",
    "a b",
    "",
    "order/*",
];

const HEADERS: &[(&str, &str)] = &[
    ("host", "example.com"),
    ("Content-Length", "1"),
    ("transfer-encoding", "chunked"),
    ("connection", "close"),
    ("webhook-id", "x"),
    ("Webhook-Signature", "x"),
    ("ce-id", "x"),
    ("x-bad name", "x"),
    ("x-injected", "a\r\nhost: evil"),
];

#[tokio::test]
async fn every_kind_of_refused_url() {
    let world = public().await;
    for (url, reason) in URLS {
        let refusal = create(&world, |endpoint| endpoint.url = (*url).to_owned()).await;
        assert_eq!(refusal.reason, *reason, "{url}: {refusal:?}");
        names(&refusal, "url", url);
    }
    // A refusal that a flag could lift names the flag.
    for (url, flag) in [
        ("http://example.com/", "--allow-http"),
        ("https://10.1.2.3/", "--allow-egress"),
        ("https://api.default.svc/", "--allow-host"),
    ] {
        let refusal = create(&world, |endpoint| endpoint.url = url.to_owned()).await;
        assert!(format!("{refusal:?}").contains(flag), "{url}: {refusal:?}");
    }
    nothing_made(&world).await;
}

#[tokio::test]
async fn forbidden_headers() {
    let world = World::start().await;
    for (name, value) in HEADERS {
        let refusal = create(&world, |endpoint| {
            endpoint
                .headers
                .insert((*name).to_owned(), (*value).to_owned());
        })
        .await;
        assert_eq!(refusal.reason, "HEADER_NOT_ALLOWED", "{name}: {refusal:?}");
        names(&refusal, "headers", name);
    }
    nothing_made(&world).await;
}

#[tokio::test]
async fn bad_patterns() {
    let world = World::start().await;
    for pattern in PATTERNS {
        let request = v1::CreateEndpointRequest {
            endpoint: Some(good()),
            event_types: vec!["order.paid".to_owned(), (*pattern).to_owned()],
            request_id: String::new(),
        };
        let answer = world.api().endpoints().create_endpoint(request).await;
        let refusal = Refusal::of(answer.expect_err(pattern));
        assert_eq!(
            refusal.reason, "PATTERN_INVALID",
            "{pattern:?}: {refusal:?}"
        );
        names(&refusal, "event_types", pattern);
    }
    nothing_made(&world).await;
}

#[tokio::test]
async fn bad_schedules_secrets_and_timeouts() {
    let world = World::start().await;
    let seconds = |n: i64| prost_types::Duration {
        seconds: n,
        nanos: 0,
    };
    let schedule = |delays| v1::Endpoint {
        retry_schedule: Some(v1::RetrySchedule { delays }),
        ..good()
    };
    let secret = |text: &str| v1::Endpoint {
        secret: text.to_owned(),
        ..good()
    };
    let timeout = |n| v1::Endpoint {
        timeout: Some(seconds(n)),
        ..good()
    };
    let cases = [
        (
            "a negative delay",
            "SCHEDULE_INVALID",
            schedule(vec![seconds(-1)]),
        ),
        (
            "a delay of 2 days",
            "SCHEDULE_INVALID",
            schedule(vec![seconds(172_800)]),
        ),
        (
            "31 delays",
            "SCHEDULE_INVALID",
            schedule(vec![seconds(1); 31]),
        ),
        (
            "10 days in all",
            "SCHEDULE_INVALID",
            schedule(vec![seconds(86_400); 10]),
        ),
        ("a short secret", "SECRET_INVALID", secret("whsec_c2hvcnQ=")),
        ("no base64", "SECRET_INVALID", secret("whsec_!!!")),
        ("a timeout of an hour", "TIMEOUT_INVALID", timeout(3_600)),
        ("a timeout of nothing", "TIMEOUT_INVALID", timeout(0)),
    ];
    for (what, reason, bad) in cases {
        let refusal = create(&world, |endpoint| *endpoint = bad).await;
        assert_eq!(refusal.code, Code::InvalidArgument, "{what}: {refusal:?}");
        assert_eq!(refusal.reason, reason, "{what}: {refusal:?}");
        assert!(!refusal.fields.is_empty(), "{what}: {refusal:?}");
    }
    nothing_made(&world).await;
}

#[tokio::test]
async fn what_is_not_there_yet_is_refused_and_not_ignored() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let changes: [fn(&mut v1::Subscription); 2] =
        [|s| s.filter = Some("{}".to_owned()), |s| s.ordered = true];
    for change in changes {
        let mut subscription = v1::Subscription {
            endpoint_id: shop.endpoint.id.clone(),
            event_types: vec!["order.*".to_owned()],
            ..v1::Subscription::default()
        };
        change(&mut subscription);
        let request = v1::CreateSubscriptionRequest {
            subscription: Some(subscription),
            request_id: String::new(),
        };
        let answer = world
            .api()
            .subscriptions()
            .create_subscription(request)
            .await;
        let refusal = Refusal::of(answer.expect_err("not supported yet"));
        assert_eq!(
            (refusal.code, &*refusal.reason),
            (Code::Unimplemented, "FIELD_NOT_SUPPORTED")
        );
    }
}

#[tokio::test]
async fn an_unknown_endpoint() {
    let world = World::start().await;
    let unknown = "ep_0123456789abg";
    let request = v1::GetEndpointRequest {
        id: unknown.to_owned(),
    };
    let refusal = Refusal::of(
        world
            .api()
            .endpoints()
            .get_endpoint(request)
            .await
            .unwrap_err(),
    );
    assert_eq!(refusal.reason, "ENDPOINT_NOT_FOUND", "{refusal:?}");
    let subscription = v1::Subscription {
        endpoint_id: "ep_0000000000000".to_owned(),
        event_types: vec!["order.*".to_owned()],
        ..v1::Subscription::default()
    };
    let request = v1::CreateSubscriptionRequest {
        subscription: Some(subscription),
        request_id: String::new(),
    };
    let answer = world
        .api()
        .subscriptions()
        .create_subscription(request)
        .await;
    let refusal = Refusal::of(answer.expect_err("there is no such endpoint"));
    assert_eq!(
        (refusal.code, &*refusal.reason),
        (Code::NotFound, "ENDPOINT_NOT_FOUND")
    );
    let said = world
        .fanfare(&["-o", "json", "endpoint", "get", "ep_0000000000000"])
        .await;
    let (exit, error) = refused(&said);
    assert_eq!(
        (exit, error["code"].as_str()),
        (1, Some("ENDPOINT_NOT_FOUND")),
        "{error}"
    );
    let said = world
        .fanfare(&[
            "-o",
            "json",
            "subscription",
            "create",
            "--endpoint",
            "ep_0000000000000",
            "--event-type",
            "order.*",
        ])
        .await;
    assert_eq!(refused(&said).1["code"], "ENDPOINT_NOT_FOUND");
}

#[tokio::test]
async fn the_same_on_the_command_line() {
    let world = public().await;
    let cases: &[(&[&str], &str)] = &[
        (
            &["https://127.0.0.1/", "--event-type", "order.*"],
            "URL_NOT_ALLOWED",
        ),
        (
            &["http://example.com/", "--event-type", "order.*"],
            "URL_NOT_ALLOWED",
        ),
        (&["nonsense", "--event-type", "order.*"], "URL_INVALID"),
        (
            &["https://example.com/", "--event-type", "or*der"],
            "PATTERN_INVALID",
        ),
        (
            &["https://example.com/", "--header", "host=x"],
            "HEADER_NOT_ALLOWED",
        ),
        (
            &["https://example.com/", "--header", "webhook-id=x"],
            "HEADER_NOT_ALLOWED",
        ),
    ];
    for (arguments, code) in cases {
        let command = [&["-o", "json", "endpoint", "create"], *arguments].concat();
        let (exit, error) = refused(&world.fanfare(&command).await);
        assert_eq!((exit, error["code"].as_str()), (1, Some(*code)), "{error}");
        assert!(error["violations"][0]["field"].is_string(), "{error}");
    }
    nothing_made(&world).await;
}

/// A server as it runs in production: public addresses and https only.
async fn public() -> World {
    World::with(|options| Options {
        arguments: Vec::new(),
        ..options
    })
    .await
}

/// An endpoint that is as it should be. Nothing listens there.
fn good() -> v1::Endpoint {
    v1::Endpoint {
        url: "http://127.0.0.1:9/".to_owned(),
        ..v1::Endpoint::default()
    }
}

async fn create(world: &World, change: impl FnOnce(&mut v1::Endpoint)) -> Refusal {
    let mut endpoint = good();
    change(&mut endpoint);
    let request = v1::CreateEndpointRequest {
        endpoint: Some(endpoint),
        event_types: vec!["order.*".to_owned()],
        request_id: String::new(),
    };
    match world.api().endpoints().create_endpoint(request).await {
        Ok(made) => panic!("it was made: {made:?}"),
        Err(status) => Refusal::of(status),
    }
}

fn names(refusal: &Refusal, field: &str, case: &str) {
    assert_eq!(refusal.code, Code::InvalidArgument, "{case:?}: {refusal:?}");
    let named = refusal
        .fields
        .iter()
        .any(|(name, advice)| name.contains(field) && !advice.is_empty());
    assert!(named, "{case:?}: the field is named: {refusal:?}");
}

/// Neither endpoints nor subscriptions.
async fn nothing_made(world: &World) {
    let request = v1::ListEndpointsRequest::default();
    let endpoints = world
        .api()
        .endpoints()
        .list_endpoints(request)
        .await
        .expect("listed");
    assert_eq!(endpoints.into_inner().endpoints, []);
    let request = v1::ListSubscriptionsRequest::default();
    let listed = world
        .api()
        .subscriptions()
        .list_subscriptions(request)
        .await
        .expect("listed");
    assert_eq!(listed.into_inner().subscriptions, []);
}
