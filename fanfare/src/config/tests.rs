//! What the configuration promises.

use fanfare_event_log_kafka::config::{SaslConfig, SaslMechanism};

use super::*;

fn refusal(change: impl FnOnce(&mut Config)) -> String {
    let mut config = Config::default();
    change(&mut config);
    config.check(Role::Everything).unwrap_err().to_string()
}

fn load(text: &str) -> Result<Config, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    configuration::load(Some(file.path()), [], &[]).map_err(|e| e.to_string())
}

#[test]
fn the_default_file_says_what_the_defaults_are() {
    assert_eq!(load(DEFAULT_FILE).unwrap(), Config::default());
    // And it names every setting: what it leaves out would be hidden from everyone.
    let all: toml::Table = toml::from_str(&Config::default().redacted()).unwrap();
    let file: toml::Table = toml::from_str(DEFAULT_FILE).unwrap();
    for (section, settings) in &all {
        for name in settings.as_table().unwrap().keys() {
            let named = file[section].as_table().unwrap().contains_key(name);
            assert!(named, "{section}.{name} is in the default file");
        }
    }
}

#[test]
fn every_list_can_be_set_in_the_environment() {
    let file: toml::Table = toml::from_str(DEFAULT_FILE).unwrap();
    for (section, settings) in &file {
        for (name, value) in settings.as_table().unwrap() {
            let setting = format!("{section}.{name}");
            // Tables are too much for a variable.
            if value.is_array() && setting != "kafka.dedicated_topics" {
                assert!(LISTS.contains(&&*setting), "{setting}");
            }
        }
    }
}

type Change = fn(&mut Config);

#[test]
fn services_need_kafka_and_a_store_that_fit_together() {
    let refused = |change: fn(&mut Config)| {
        let mut config = Config::default();
        config.storage.mode = StorageMode::Distributed;
        config.check(Role::Router).unwrap();
        config.check(Role::Worker).unwrap();
        change(&mut config);
        config.check(Role::Router).unwrap_err().to_string()
    };
    let cases: [(Change, &str); 5] = [
        (|c| c.kafka.event_partitions = 7, "event_partitions"),
        (
            |c| {
                c.kafka.security.sasl = Some(SaslConfig {
                    mechanism: SaslMechanism::Oauthbearer,
                    username: None,
                    password_file: None,
                });
            },
            "no source of tokens",
        ),
        (|c| c.cql.keyspace = "A-b".into(), "cql.keyspace"),
        (|c| c.cql.propagation_ms = 500, "routing.freshness"),
        (
            |c| c.cql.dead_letter_retention_days = 14,
            "cql.event_retention_days",
        ),
    ];
    for (change, named) in cases {
        let text = refused(change);
        assert!(text.contains(named), "{named}: {text}");
    }
}

#[test]
fn a_worker_needs_no_keys() {
    let mut config = Config::default();
    config.storage.mode = StorageMode::Distributed;
    config.server.listen = "0.0.0.0:7400".parse().unwrap();
    config.check(Role::Worker).unwrap();
    config.check(Role::Router).unwrap_err();
}

#[test]
fn the_defaults_pass_their_own_checks() {
    Config::default().check(Role::Everything).unwrap();
}

#[test]
fn what_is_printed_can_be_loaded_and_shows_no_secret() {
    let mut config = Config::default();
    config.keys.push(KeyStanza {
        name: "billing".into(),
        all_tenants: true,
        sha256: "ab".repeat(32),
        ..KeyStanza::default()
    });
    let printed = config.redacted();
    assert!(!printed.contains("abab"), "{printed}");
    "(redacted)".clone_into(&mut config.keys[0].sha256);
    assert_eq!(load(&printed).unwrap(), config);
}

#[test]
fn rules_across_settings_name_what_to_change() {
    let text = refusal(|c| c.storage.retention = HumanDuration::from_secs(8 * 24 * 3600));
    assert!(
        text.contains("storage.retention") && text.contains("14d"),
        "{text}"
    );
    let text = refusal(|c| c.server.drain_deadline = HumanDuration::from_secs(10));
    assert!(
        text.contains("server.drain_deadline") && text.contains("45s"),
        "{text}"
    );
    let text = refusal(|c| c.server.listen = "0.0.0.0:7400".parse().unwrap());
    assert!(
        text.contains("--insecure-no-auth") && text.contains("[[keys]]"),
        "{text}"
    );
    let text = refusal(|c| c.storage.max_bytes = ByteSize::mib(8));
    assert!(text.contains("storage.max_bytes"), "{text}");
    let text = refusal(|c| c.egress.allow_egress = vec!["10.0.0.0/40".into()]);
    assert!(text.contains("allow_egress"), "{text}");
    let text = refusal(|c| {
        c.keys.push(KeyStanza {
            name: "x".into(),
            all_tenants: true,
            sha256: "12".into(),
            ..KeyStanza::default()
        });
    });
    assert!(text.contains("sha256"), "{text}");
}

#[test]
fn unknown_settings_are_refused_with_the_nearest_name() {
    let text = load("[server]\nadmin_listn = '127.0.0.1:1'").unwrap_err();
    assert!(
        text.contains("`admin_listn`") && text.contains("`admin_listen`"),
        "{text}"
    );
}
