//! Migrating, and what is refused at the door, each with one sentence that says what to do.

use fanfare_store_scylla::{CqlConfig, OpenError, OpenErrorKind, SCHEMA_VERSION, migrate, open};

use crate::node;

/// What opening is refused with.
pub(crate) async fn refusal(config: &CqlConfig) -> OpenError {
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
    let says = async |why: &str| {
        let error = refusal(&config).await;
        assert_eq!(error.kind(), OpenErrorKind::NotMigrated);
        let said = format!("{why}; run fanfare migrate");
        assert!(error.to_string().ends_with(&said), "{error}");
    };
    says("is not there").await;
    let keyspace = format!(
        "CREATE KEYSPACE {} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}",
        config.keyspace
    );
    let session = node::raw(&config).await;
    session.query_unpaged(keyspace, ()).await.unwrap();
    says("has no tables").await;
    drop_keyspace(&config).await;
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
