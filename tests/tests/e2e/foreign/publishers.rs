//! gRPC clients that have never seen our `.proto` files.

use fanfare_tests::binary::repository;
use fanfare_tests::world::said;
use fanfare_tests::{World, foreign};
use tokio::process::Command;

#[tokio::test]
async fn python_publishes_through_reflection() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let mut publish = Command::new(foreign::python());
    publish.arg(repository().join("examples/publish.py")).args([
        &address(&world),
        "order.paid",
        r#"{"amount": 1250}"#,
        "from-python",
    ]);
    assert_eq!(said(&mut publish).await.ok(), "published from-python\n");
    let post = &shop.receives(1).await[0];
    assert_eq!(
        (post.header("ce-id"), &post.body[..]),
        ("from-python", &br#"{"amount": 1250}"#[..])
    );
}

#[tokio::test]
async fn grpcurl_lists_describes_and_publishes() {
    let world = World::start().await;
    let shop = world.endpoint().await;
    let grpcurl = async |arguments: &[&str]| {
        let mut command = Command::new(foreign::grpcurl());
        said(command.arg("-plaintext").args(arguments))
            .await
            .ok()
            .to_owned()
    };
    let address = address(&world);
    let services = grpcurl(&[&address, "list"]).await;
    for service in [
        "EventService",
        "EndpointService",
        "SubscriptionService",
        "DeliveryService",
    ] {
        assert!(
            services.contains(&format!("fanfare.v1.{service}")),
            "{services}"
        );
    }
    assert!(services.contains("grpc.health.v1.Health"), "{services}");
    let method = grpcurl(&[&address, "describe", "fanfare.v1.EventService.Publish"]).await;
    assert!(method.contains("PublishRequest"), "{method}");
    let health = grpcurl(&[&address, "grpc.health.v1.Health/Check"]).await;
    assert!(health.contains("SERVING"), "{health}");
    // Bytes are base64 in gRPC's JSON; text is text.
    let request =
        r#"{"event": {"id": "from-grpcurl", "type": "order.paid", "text": "{\"amount\": 1250}"}}"#;
    let answer = grpcurl(&["-d", request, &address, "fanfare.v1.EventService/Publish"]).await;
    assert!(answer.contains("from-grpcurl"), "{answer}");
    assert_eq!(shop.receives(1).await[0].body, r#"{"amount": 1250}"#);
}

fn address(world: &World) -> String {
    world.server().addresses().listen.to_string()
}
