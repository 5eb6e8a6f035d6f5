//! What a person must correct: one sentence, an exit code, and nothing changed.

use fanfare_test_services::cql;
use fanfare_tests::server::{Exit, Options, Program, Server};
use fanfare_tests::{Fleet, Services};

use super::stage::turn;

/// Starts a router that must not become ready.
async fn refused(fleet: &Fleet) -> Exit {
    refused_with(&fleet.options(Program::Router)).await
}

async fn refused_with(options: &Options) -> Exit {
    match Server::start(options).await {
        Err(exit) => exit,
        Ok(server) => panic!("{options:?} is ready: {}", server.log().text()),
    }
}

/// The last line, which is the one that a person reads.
pub(crate) fn sentence(exit: &Exit) -> &str {
    exit.log.lines().last().unwrap_or_default()
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let _turn = turn().await;
    let mut fleet = Fleet::prepare(Services::shared().await);
    fleet.env("FANFARE__SERVER__BACKEND_WAIT", "1s");
    let exit = refused(&fleet).await;
    assert_eq!(exit.code, Some(1), "{}", exit.log);
    assert!(sentence(&exit).contains("run fanfare migrate"), "{exit:?}");

    fleet.migrate().await.ok();
    fleet.services.brokers = vec!["127.0.0.1:1".to_owned()];
    fleet.configure();
    fleet.env("FANFARE__KAFKA__REQUEST_TIMEOUT_MS", "1000");
    let exit = refused(&fleet).await;
    assert_eq!(exit.code, Some(1), "{}", exit.log);
    assert!(sentence(&exit).contains("bootstrap_servers"), "{exit:?}");

    fleet.services.nodes = vec!["127.0.0.1:1".to_owned()];
    fleet.configure();
    let exit = refused(&fleet).await;
    assert_eq!(exit.code, Some(1), "{}", exit.log);
    assert!(sentence(&exit).contains("contact_points"), "{exit:?}");
}

#[tokio::test]
async fn configurations_that_disagree_are_refused() {
    let _turn = turn().await;
    let mut fleet = Fleet::start(Services::shared().await, 1, 0).await;
    for (setting, value, named) in [
        ("EVENT_PARTITIONS", "8", "partitions"),
        ("DELIVERY_PARTITIONS", "8", "partitions"),
        ("EVENT_RETENTION_HOURS", "4000", "retention.ms"),
        ("MIN_INSYNC_REPLICAS", "2", "min_insync_replicas"),
    ] {
        let variable = format!("FANFARE__KAFKA__{setting}");
        let mut options = fleet.options(Program::Router);
        options.environment.insert(variable, value.to_owned());
        let exit = refused_with(&options).await;
        assert_eq!(exit.code, Some(64), "{setting}: {}", exit.log);
        let text = sentence(&exit);
        assert!(text.contains(named), "{setting}: {text}");
    }
    // What runs goes on.
    let sent = fanfare_tests::api::event("order.paid", "{}");
    fleet.api().publish(sent).await.unwrap();
    for exit in fleet.stop_all().await {
        assert_eq!(exit.code, Some(0), "{}", exit.log);
    }
}

/// Nothing was published yet: only the store knows how many partitions are in use.
#[tokio::test]
async fn a_worker_with_fewer_partitions_than_its_router_is_refused_on_empty_topics() {
    let _turn = turn().await;
    let mut fleet = Fleet::start(Services::shared().await, 1, 0).await;
    let topics = ["deliveries", "events.0"].map(|topic| format!("{}.{topic}", fleet.name()));
    for (setting, topic) in ["DELIVERY", "EVENT"].iter().zip(&topics) {
        let variable = format!("FANFARE__KAFKA__{setting}_PARTITIONS");
        let options = fleet.options(Program::Worker).env(&variable, "2");
        let exit = refused_with(&options).await;
        assert_eq!(exit.code, Some(64), "{variable}: {}", exit.log);
        let both = format!("use 4 partitions of the topic {topic} and this configuration says 2;");
        let next = format!("set {}_partitions to 4", setting.to_lowercase());
        let text = sentence(&exit);
        assert!(text.contains(&both) && text.contains(&next), "{text}");
    }
    // Who says the same as the first is ready.
    fleet.add(Program::Worker).await;
    for exit in fleet.stop_all().await {
        assert_eq!(exit.code, Some(0), "{}", exit.log);
    }
}

#[tokio::test]
async fn a_program_that_is_older_than_the_store_allows_is_refused() {
    let _turn = turn().await;
    let fleet = Fleet::prepare(Services::shared().await);
    fleet.migrate().await.ok();
    let insert = format!(
        "INSERT INTO {}.fanfare_schema (name, version, runs_from) VALUES ('fanfare', 99, 98)",
        fleet.name()
    );
    let node = fleet.services.nodes[0].clone();
    let inserted = tokio::task::spawn_blocking(move || cql::run(&node, &insert));
    inserted.await.unwrap().unwrap();
    for program in [Program::Serve, Program::Router, Program::Worker] {
        let exit = refused_with(&fleet.options(program)).await;
        assert_eq!(exit.code, Some(64), "{program:?}: {}", exit.log);
        let text = sentence(&exit);
        let said = ["schema 99", "schema 98 or newer", "run a newer fanfare"];
        assert!(said.iter().all(|said| text.contains(said)), "{text}");
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_before_anything_is_asked() {
    let fleet = Fleet::prepare(Services {
        brokers: vec!["127.0.0.1:1".into()],
        nodes: vec!["127.0.0.1:1".into()],
        kafka: None,
        cql: None,
    });
    let file = fleet.config().display().to_string();
    for (variable, value, named) in [
        ("FANFARE__KAFKA__EVENT_PARTITIONS", "7", "event_partitions"),
        ("FANFARE__CQL__PROPAGATION_MS", "10", "routing.freshness"),
        ("FANFARE__CQL__EVENT_RETENTION_DAYS", "1", "cql."),
    ] {
        let mut options = fleet.options(Program::Worker);
        options
            .environment
            .insert(variable.to_owned(), value.to_owned());
        let Err(exit) = Server::start(&options).await else {
            panic!("{variable}: it is ready");
        };
        assert_eq!(exit.code, Some(64), "{variable}: {}", exit.log);
        assert!(sentence(&exit).contains(named), "{variable}: {exit:?}");
    }
    fleet
        .fanfare(&["config", "check", "--config", &file])
        .await
        .ok();
}
