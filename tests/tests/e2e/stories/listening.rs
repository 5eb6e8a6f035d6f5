//! `fanfare listen`: events come to a laptop, signed with a secret of the session.

use std::ops::ControlFlow;
use std::process::Stdio;

use fanfare_proto::v1::event::Payload;
use fanfare_tests::sink::{Script, Sink};
use fanfare_tests::{World, binary, eventually};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

#[tokio::test]
async fn listen_forwards_what_is_published_and_leaves_nothing_behind() {
    let world = World::start().await;
    let laptop = Sink::start(Script::ok()).await;
    let mut listen = Command::new(binary::fanfare())
        .args([
            "listen",
            "--event-type",
            "order.**",
            "--forward-to",
            &laptop.url(),
        ])
        .env("FANFARE_SERVER", world.url())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("fanfare starts");
    let secret = secret_of(&mut listen).await;
    // The session follows from some moment after its start: publish until something comes.
    let post = eventually("a forwarded event", async || {
        world.publish("invoice.sent", "{}").await;
        world.publish("order.paid", r#"{"amount":1}"#).await;
        match laptop.receipts().first() {
            Some(post) => ControlFlow::Break(post.clone()),
            None => ControlFlow::Continue("nothing came"),
        }
    })
    .await;
    assert_eq!(
        (post.header("ce-type"), &post.body[..]),
        ("order.paid", &br#"{"amount":1}"#[..])
    );
    post.verify(&secret)
        .expect("it is signed with the session's secret");
    // Bytes that are no text come as from a worker: inside the envelope.
    publish_photo(&world).await;
    let post = eventually("a forwarded photo", async || {
        let posts = laptop.receipts();
        match posts.iter().find(|post| {
            post.header("content-type")
                .starts_with("application/cloudevents+json")
        }) {
            Some(post) => ControlFlow::Break(post.clone()),
            None => ControlFlow::Continue("it did not come"),
        }
    })
    .await;
    post.verify(&secret).expect("it is signed, too");
    let body = post.json();
    assert_eq!(
        (&body["type"], &body["data_base64"]),
        (&"order.photo".into(), &"/wA=".into())
    );
    assert!(
        post.headers
            .keys()
            .all(|name| !name.as_str().starts_with("ce-"))
    );
    let request = fanfare_proto::v1::ListEndpointsRequest::default();
    let endpoints = world
        .api()
        .endpoints()
        .list_endpoints(request)
        .await
        .expect("listed");
    assert_eq!(endpoints.into_inner().endpoints.len(), 0);
    listen.kill().await.expect("a child can be killed");
}

/// An event with bytes that are no text.
async fn publish_photo(world: &World) {
    let photo = fanfare_proto::v1::Event {
        id: "photo-1".into(),
        source: "/camera".into(),
        r#type: "order.photo".into(),
        data_content_type: "image/png".into(),
        payload: Some(Payload::Data(vec![0xff, 0].into())),
        ..Default::default()
    };
    let request = fanfare_proto::v1::PublishRequest { event: Some(photo) };
    let published = world.api().events().publish(request).await;
    published.expect("published");
}

/// The secret that a session prints when it starts, on either stream.
async fn secret_of(listen: &mut tokio::process::Child) -> String {
    let mut out = BufReader::new(listen.stdout.take().expect("piped")).lines();
    let mut err = BufReader::new(listen.stderr.take().expect("piped")).lines();
    let mut said = String::new();
    loop {
        let line = tokio::select! {
            Ok(Some(line)) = out.next_line() => line,
            Ok(Some(line)) = err.next_line() => line,
            else => panic!("listen ended: {said}"),
        };
        if let Some(at) = line.find("whsec_") {
            let rest = &line[at..];
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_+/=".contains(c)));
            // Whatever else it says must still be read, or it would block.
            tokio::spawn(async move { while let Ok(Some(_)) = out.next_line().await {} });
            tokio::spawn(async move { while let Ok(Some(_)) = err.next_line().await {} });
            return rest[..end.unwrap_or(rest.len())].to_owned();
        }
        said.push_str(&line);
        said.push('\n');
    }
}
