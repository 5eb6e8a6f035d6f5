//! Real payloads: every example webhook of GitHub's, published once, arrives byte for byte.

use std::collections::BTreeMap;
use std::fs;

use bytes::Bytes;
use fanfare_proto::v1;
use fanfare_tests::api::named;
use fanfare_tests::{World, foreign};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Webhook {
    name: String,
    examples: Vec<Box<RawValue>>,
}

#[tokio::test]
async fn every_github_payload_arrives_unchanged_and_verified() {
    let payloads = payloads();
    assert!(payloads.len() > 500, "only {} payloads", payloads.len());
    let world = World::start().await;
    let everything = world.endpoint().wants(&["github.**"]).await;
    let events: Vec<_> = payloads
        .iter()
        .map(|(id, (event_type, body))| named(id, event_type, body.clone()))
        .collect();
    for chunk in events.chunks(100) {
        let request = v1::PublishBatchRequest {
            events: chunk.to_vec(),
        };
        let response = world
            .api()
            .events()
            .publish_batch(request)
            .await
            .expect("answered");
        for result in response.into_inner().results {
            let accepted = matches!(result.result, Some(v1::publish_result::Result::Accepted(_)));
            assert!(accepted, "{result:?}");
        }
    }
    let posts = everything.receives(payloads.len()).await; // verified there
    let got: BTreeMap<_, _> = posts
        .iter()
        .map(|post| (post.header("ce-id").to_owned(), post))
        .collect();
    assert_eq!(
        (got.len(), posts.len()),
        (payloads.len(), payloads.len()),
        "each exactly once"
    );
    for (id, (event_type, body)) in &payloads {
        assert_eq!(got[id].body, body, "{id}");
        assert_eq!(got[id].header("ce-type"), event_type);
    }
}

/// Id -> type and body, as the package has them, white space and all.
fn payloads() -> BTreeMap<String, (String, Bytes)> {
    let package = foreign::node_modules().join("@octokit/webhooks-examples");
    let mut payloads = BTreeMap::new();
    for folder in fs::read_dir(package).expect("the package is there") {
        let index = folder.expect("readable").path().join("index.json");
        let Ok(text) = fs::read(&index) else { continue };
        let webhooks: Vec<Webhook> = serde_json::from_slice(&text).expect("a list of webhooks");
        for webhook in webhooks {
            for example in webhook.examples {
                let id = format!("github-{}", payloads.len());
                let body = Bytes::from(example.get().to_owned());
                payloads.insert(id, (format!("github.{}", webhook.name), body));
            }
        }
    }
    payloads
}
