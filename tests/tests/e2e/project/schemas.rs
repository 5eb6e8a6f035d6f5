//! The JSON Schemas say what is: judged by a validator that is not ours.

use std::fs;
use std::path::Path;

use fanfare_proto::v1;
use fanfare_tests::api::event;
use fanfare_tests::world::{fanfare, said};
use fanfare_tests::{World, foreign};
use serde_json::{Map, Value, json};
use tokio::process::Command;

use super::root;

/// Validates standard arguments: a schema and documents; prints a line for each.
const VALIDATOR: &str = "
import json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
for path in sys.argv[2:]:
    errors = [e.message.replace(chr(10), ' ') for e in validator.iter_errors(json.load(open(path)))]
    print(errors[0] if errors else 'ok')
";

#[tokio::test]
async fn the_configuration_has_the_settings_that_its_schema_has() {
    let schema = schema("config");
    let default = fanfare(None, &["config", "default", "-o", "json"]).await;
    let default = default.json().remove(0);
    let text = fs::read_to_string(root().join("fanfare/src/config/default.toml")).unwrap();
    for (section, described) in schema["properties"].as_object().unwrap() {
        let settings = default.get(section).cloned().unwrap_or(json!({}));
        same_settings(section, described, &settings, &text);
    }
    for section in default.as_object().unwrap().keys() {
        assert!(schema["properties"].get(section).is_some(), "{section}");
    }
}

/// Every setting is described, and whatever else is described can be set: the default file shows it
/// as a comment.
fn same_settings(name: &str, described: &Value, settings: &Value, file: &str) {
    let empty = Map::new();
    let described = described["properties"].as_object().unwrap_or(&empty);
    let settings = settings.as_object().unwrap_or(&empty);
    for (setting, value) in settings {
        let Some(description) = described.get(setting) else {
            panic!("{name}.{setting} is not in the schema");
        };
        if value.is_object() {
            same_settings(setting, description, value, file);
        }
    }
    for setting in described.keys().filter(|key| !settings.contains_key(*key)) {
        let commented = format!("# {setting} = ");
        assert!(file.contains(&commented), "{name}.{setting} is no setting");
    }
}

#[tokio::test]
async fn the_configurations_schema_refuses_what_the_program_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let default = fanfare(None, &["config", "default", "-o", "json"]).await;
    let default = default.json().remove(0);
    let cases = [
        ("/server/listen", json!("here")),
        ("/server/drain_deadline", json!("soon")),
        ("/server/log_format", json!("xml")),
        ("/server/no_such_setting", json!(1)),
        ("/storage/mode", json!("floppy")),
        ("/storage/max_bytes", json!("much")),
        ("/worker/in_flight", json!("many")),
        ("/kafka/compression", json!("zip")),
        ("/egress/allow_http", json!("perhaps")),
        ("/no_such_section", json!({})),
    ];
    let mut documents = vec![default.clone()];
    for (at, value) in cases.clone() {
        let mut broken = default.clone();
        let (section, setting) = at.rsplit_once('/').unwrap();
        let section = broken.pointer_mut(section).unwrap();
        section[setting] = value;
        documents.push(broken);
    }
    let verdicts = verdicts(dir.path(), "config", &documents).await;
    assert_eq!(verdicts[0], "ok");
    for ((at, _), (verdict, document)) in cases.iter().zip(verdicts.iter().zip(&documents).skip(1))
    {
        assert_ne!(verdict, "ok", "{at}");
        let file = dir.path().join("broken.toml");
        fs::write(&file, toml::to_string(document).unwrap()).unwrap();
        let file = file.display().to_string();
        let checked = fanfare(None, &["config", "check", "--config", &file]).await;
        assert_eq!(checked.code, 64, "{at}");
    }
}

#[tokio::test]
async fn what_is_delivered_is_as_the_envelopes_schema_says() {
    let world = World::start().await;
    let shop = world.endpoint().structured().await;
    let mut all = event("order.paid", r#"{"amount": 1250.00}"#.to_owned());
    all.subject = Some("order-17".to_owned());
    all.extensions.insert("region".to_owned(), "eu".to_owned());
    let mut image = event("photo.taken", String::new());
    image.payload = Some(v1::event::Payload::Data(vec![0, 159, 146, 150].into()));
    image.data_content_type = "image/png".to_owned();
    let mut note = event("note.left", String::new());
    note.payload = Some(v1::event::Payload::Text("Zoë was here".to_owned()));
    note.data_content_type = "text/plain".to_owned();
    let mut bare = event("nothing.happened", String::new());
    bare.payload = None;
    for event in [all, image, note, bare] {
        world.api().publish(event).await.expect("accepted");
    }
    let posts = shop.receives(4).await;
    let mut documents: Vec<Value> = posts
        .iter()
        .map(fanfare_tests::sink::Receipt::json)
        .collect();
    let count = documents.len();
    for (attribute, value) in [
        ("specversion", json!("0.3")),
        ("id", Value::Null),
        ("type", json!("a/b")),
        ("time", json!("yesterday")),
        ("Region", json!("eu")),
        ("data_base64", json!("no base64!")),
    ] {
        let mut broken = documents[0].clone();
        broken[attribute] = value;
        documents.push(broken);
    }
    let verdicts = verdicts(world.dir(), "envelope", &documents).await;
    for (document, verdict) in documents.iter().zip(&verdicts).take(count) {
        assert_eq!(verdict, "ok", "{document}");
    }
    for (document, verdict) in documents.iter().zip(&verdicts).skip(count) {
        assert_ne!(verdict, "ok", "{document}");
    }
}

fn schema(name: &str) -> Value {
    let path = root().join(format!("schemas/{name}.schema.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

async fn verdicts(dir: &Path, schema: &str, documents: &[Value]) -> Vec<String> {
    let mut python = Command::new(foreign::python());
    python.arg("-c").arg(VALIDATOR);
    python.arg(root().join(format!("schemas/{schema}.schema.json")));
    for (number, document) in documents.iter().enumerate() {
        let path = dir.join(format!("document-{number}.json"));
        fs::write(&path, document.to_string()).unwrap();
        python.arg(path);
    }
    let said = said(&mut python).await;
    said.ok().lines().map(str::to_owned).collect()
}
