//! Migrating, and what is refused at the door, each with one sentence that says what to do.

use std::path::Path;

use fanfare_store_scylla::{
    CqlConfig, OpenError, OpenErrorKind, Password, SCHEMA_VERSION, migrate, open,
};
use fanfare_test_services::cql;

use crate::node;

async fn refusal(config: &CqlConfig) -> OpenError {
    match open(config).await {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_migrate_at_once_both_succeed() {
    let config = node::config("twice").await;
    assert_eq!(refusal(&config).await.kind(), OpenErrorKind::NotMigrated);
    let (one, other) = futures::join!(migrate(&config), migrate(&config));
    assert_eq!(
        (one.unwrap(), other.unwrap()),
        (SCHEMA_VERSION, SCHEMA_VERSION)
    );
    open(&config).await.unwrap();
    assert_eq!(migrate(&config).await.unwrap(), SCHEMA_VERSION);
    drop_keyspace(&config).await;
}

#[tokio::test]
async fn a_store_for_newer_programs_is_refused_and_one_that_is_only_newer_is_not() {
    let config = node::config("newer").await;
    migrate(&config).await.unwrap();
    let session = node::raw(&config).await;
    let record = |runs_from: i32| {
        let table = format!("{}.fanfare_schema", config.keyspace);
        format!(
            "INSERT INTO {table} (name, version, runs_from) VALUES ('fanfare', 99, {runs_from})"
        )
    };
    session
        .query_unpaged(record(SCHEMA_VERSION), ())
        .await
        .unwrap();
    open(&config).await.unwrap();
    session.query_unpaged(record(99), ()).await.unwrap();
    let error = refusal(&config).await;
    assert_eq!(error.kind(), OpenErrorKind::NewerVersion);
    assert!(error.to_string().contains("run a newer fanfare"), "{error}");
    drop_keyspace(&config).await;
}

#[tokio::test]
async fn a_keyspace_without_tables_is_not_migrated() {
    let config = node::config("bare").await;
    let error = refusal(&config).await;
    assert_eq!(error.kind(), OpenErrorKind::NotMigrated);
    assert!(error.to_string().contains("run fanfare migrate"), "{error}");
}

#[tokio::test]
async fn a_store_that_is_away_is_named() {
    let config = CqlConfig {
        contact_points: vec!["127.0.0.1:1".into()],
        ..CqlConfig::default()
    };
    let error = refusal(&config).await;
    assert_eq!(error.kind(), OpenErrorKind::Unreachable);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

/// One node for all that it has to say about who is let in: its start takes most of the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_asks_who_is_there_lets_in_whom_it_knows() {
    let node = tokio::task::spawn_blocking(cql::start_secured);
    let node = node.await.unwrap().unwrap();
    let plain = node.cluster.addresses();
    let known = |points: Vec<String>| CqlConfig {
        contact_points: points,
        replication: 1,
        user: Some(cql::USER.into()),
        password: Some(Password::new(cql::PASSWORD)),
        request_timeout_ms: 20_000,
        ..CqlConfig::default()
    };
    let known_over_tls = |authority: &Path| CqlConfig {
        tls_ca_file: Some(authority.to_owned()),
        ..known(vec![node.tls.clone()])
    };
    let by_file = |config: CqlConfig| CqlConfig {
        password: None,
        password_file: Some(node.password_file.clone()),
        ..config
    };
    let authority = &node.certificates.authority;

    // The first user is made in the background once the node answers.
    let mut last = migrate(&known(plain.clone())).await;
    for _ in 0..20 {
        if last.is_ok() {
            break;
        }
        last = migrate(&known(plain.clone())).await;
    }
    last.unwrap();
    for right in [
        by_file(known(plain.clone())),
        known_over_tls(authority),
        by_file(known_over_tls(authority)),
    ] {
        open(&right).await.unwrap();
    }

    let guess = |config: CqlConfig| CqlConfig {
        password: Some(Password::new("guess-5170")),
        ..config
    };
    let nobody = |config: CqlConfig| CqlConfig {
        user: None,
        password: None,
        ..config
    };
    for wrong in [
        guess(known(plain.clone())),
        guess(known_over_tls(authority)),
        nobody(known(plain.clone())),
        nobody(known_over_tls(authority)),
    ] {
        let said = one_sentence(&wrong, OpenErrorKind::Credentials).await;
        assert!(said.contains("check user and password"), "{said}");
        assert!(!said.contains("guess-5170"), "{said}");
    }
    let stranger = known_over_tls(&node.certificates.stranger);
    let said = one_sentence(&stranger, OpenErrorKind::Config).await;
    assert!(said.contains("check tls_ca_file"), "{said}");
    let without_tls = CqlConfig {
        request_timeout_ms: 2_000,
        ..known(vec![node.tls.clone()])
    };
    let plain_over_tls = CqlConfig {
        contact_points: plain,
        request_timeout_ms: 2_000,
        ..known_over_tls(authority)
    };
    // A port that does not speak our language may be that of a node that starts.
    for wrong in [without_tls, plain_over_tls] {
        let said = one_sentence(&wrong, OpenErrorKind::Unreachable).await;
        assert!(said.contains("tls_ca_file"), "{said}");
    }
}

/// What opening is refused with.
async fn one_sentence(config: &CqlConfig, kind: OpenErrorKind) -> String {
    let error = refusal(config).await;
    let said = error.to_string();
    assert_eq!(error.kind(), kind, "{said}");
    assert!(!said.contains('\n'), "more than one line: {said}");
    said
}

#[test]
fn configuration_refuses_what_it_does_not_know_and_hides_the_password() {
    let config: CqlConfig = toml::from_str("user = 'u'\npassword = 'geheim'").unwrap();
    assert!(!format!("{config:?}").contains("geheim"));
    assert!(toml::from_str::<CqlConfig>("keyspaces = 'x'").is_err());
    for (wrong, field) in [
        ("keyspace = 'a;b'", "keyspace"),
        ("contact_points = []", "contact_points"),
        (
            "dead_letter_retention_days = 15",
            "dead_letter_retention_days",
        ),
        ("password = 'a'\npassword_file = 'b'", "password_file"),
    ] {
        let config: CqlConfig = toml::from_str(wrong).unwrap();
        assert!(config.check().unwrap_err().contains(field), "{wrong}");
    }
}

async fn drop_keyspace(config: &CqlConfig) {
    let session = node::raw(config).await;
    let drop = format!("DROP KEYSPACE {}", config.keyspace);
    session.query_unpaged(drop, ()).await.unwrap();
}
