use super::*;

fn refusal(change: impl FnOnce(&mut KafkaConfig)) -> String {
    let mut config = KafkaConfig::default();
    change(&mut config);
    config.check().expect_err("it is refused").to_string()
}

#[test]
fn the_defaults_are_valid_and_survive_being_written() {
    let config = KafkaConfig::default();
    config.check().expect("valid");
    let text = toml::to_string(&config).expect("written");
    assert_eq!(toml::from_str::<KafkaConfig>(&text).expect("read"), config);
    assert_eq!(toml::from_str::<KafkaConfig>("").expect("read"), config);
}

#[test]
fn unknown_fields_are_refused() {
    for text in [
        "topic_prefx = \"a\"",
        "security = { tsl = true }",
        "dedicated_topics = [{ subject = \"a\", number = 1, partitions = 4 }]",
    ] {
        toml::from_str::<KafkaConfig>(text).expect_err(text);
    }
}

#[test]
fn what_cannot_work_is_refused_with_what_to_set() {
    let dedicated = |subject: &str, number| Dedicated {
        subject: subject.into(),
        number,
    };
    let cases = [
        (
            refusal(|c| c.bootstrap_servers.clear()),
            "bootstrap_servers",
        ),
        (refusal(|c| c.topic_prefix = "a.b".into()), "topic_prefix"),
        (refusal(|c| c.event_topics = 129), "event_topics"),
        (refusal(|c| c.event_partitions = 3), "divide 256"),
        (refusal(|c| c.delivery_partitions = 0), "divide 256"),
        (
            refusal(|c| c.min_insync_replicas = 4),
            "min_insync_replicas",
        ),
        (
            refusal(|c| c.session_timeout_ms = 4000),
            "session_timeout_ms",
        ),
        (refusal(|c| c.publish_timeout_ms = 1), "publish_timeout_ms"),
        (refusal(|c| c.drain_timeout_ms = 0), "time-out"),
        (refusal(|c| c.commit_timeout_ms = u64::MAX), "a day"),
        (
            refusal(|c| c.append_queue_max_bytes = 1),
            "append_queue_max_bytes",
        ),
        (
            refusal(|c| c.dedicated_topics = vec![dedicated("a", 1), dedicated("b", 1)]),
            "number",
        ),
        (
            refusal(|c| c.dedicated_topics = vec![dedicated("a.b", 1)]),
            "subject",
        ),
    ];
    for (said, wanted) in cases {
        assert!(said.contains(wanted), "{said:?} does not name {wanted}");
    }
}

#[test]
fn what_promises_rest_on_cannot_be_overridden() {
    for key in [
        "acks",
        "enable.idempotence",
        "auto.offset.reset",
        "group.instance.id",
    ] {
        let said = refusal(|c| {
            c.librdkafka.insert(key.into(), "1".into());
        });
        assert!(said.contains(key) && said.contains("remove it"), "{said}");
    }
    let mut config = KafkaConfig::default();
    config.librdkafka.insert("client.id".into(), "mine".into());
    config.check().expect("free");
    assert_eq!(
        config.client().expect("built").get("client.id"),
        Some("mine")
    );
}

#[test]
fn a_login_needs_what_its_mechanism_needs() {
    let sasl = |mechanism, username: Option<&str>| SaslConfig {
        mechanism,
        username: username.map(Into::into),
        password_file: username.map(|_| "/nonexistent/password".into()),
    };
    let said = refusal(|c| c.security.sasl = Some(sasl(SaslMechanism::ScramSha512, None)));
    assert!(said.contains("password_file"), "{said}");
    let said = refusal(|c| c.security.sasl = Some(sasl(SaslMechanism::Oauthbearer, Some("a"))));
    assert!(said.contains("remove them"), "{said}");

    let mut config = KafkaConfig::default();
    config.security.tls = true;
    config.security.sasl = Some(sasl(SaslMechanism::Plain, Some("a")));
    config.check().expect("valid");
    let said = config.client().expect_err("no such file").to_string();
    assert!(said.contains("/nonexistent/password"), "{said}");
}
