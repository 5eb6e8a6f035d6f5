//! Kafka and a CQL store that ask who is there, over TLS: the programs get in by what their
//! configuration says, and what is wrong with it is one sentence and an exit code.

use std::fs;

use fanfare_test_services::{cql, kafka};
use fanfare_tests::server::{Program, Server};
use fanfare_tests::sink::{Script, Sink};
use fanfare_tests::{Fleet, Services, api};
use tokio::sync::OnceCell;

use super::refusals::sentence;
use super::stage::turn;

/// Both, for all tests of this process.
struct Secured {
    kafka: kafka::Secured,
    cql: cql::Secured,
}

async fn secured() -> &'static Secured {
    static SECURED: OnceCell<Secured> = OnceCell::const_new();
    let start = || Secured {
        kafka: kafka::start_secured().unwrap(),
        cql: cql::start_secured().unwrap(),
    };
    let started = || async move { tokio::task::spawn_blocking(start).await.unwrap() };
    SECURED.get_or_init(started).await
}

impl Secured {
    /// Nothing runs yet, and the keyspace is migrated.
    async fn fleet(&self) -> Fleet {
        let fleet = Fleet::prepare(Services {
            brokers: vec![self.kafka.passwords.clone()],
            nodes: vec![self.cql.tls.clone()],
            kafka: None,
            cql: None,
        });
        let text = fs::read_to_string(fleet.config()).unwrap();
        let store = format!(
            "[cql]
user = {:?}
password_file = \"{}\"
tls_ca_file = \"{}\"
",
            cql::USER,
            self.cql.password_file.display(),
            self.cql.certificates.authority.display(),
        );
        let log = format!(
            "
[kafka.security]
tls = true
ca_file = \"{}\"
sasl = {{ mechanism = \"scram-sha512\", username = {:?}, password_file = \"{}\" }}
",
            self.kafka.certificates.authority.display(),
            kafka::USER,
            self.kafka.password_file.display(),
        );
        fs::write(fleet.config(), text.replace("[cql]\n", &store) + &log).unwrap();
        // The store's first user is made in the background once the node answers.
        let mut migrated = fleet.migrate().await;
        for _ in 0..20 {
            if migrated.code == 0 {
                break;
            }
            migrated = fleet.migrate().await;
        }
        migrated.ok();
        fleet
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_log_in_over_tls_deliver() {
    let _turn = turn().await;
    let mut fleet = secured().await.fleet().await;
    fleet.add(Program::Router).await;
    fleet.add(Program::Worker).await;
    let sink = Sink::start(Script::ok()).await;
    let url = sink.url();
    let create = ["endpoint", "create", "--event-type", "order.*", &url];
    fleet.fanfare(&create).await.ok();
    for _ in 0..10 {
        let sent = api::event("order.paid", "{}");
        fleet.api().publish(sent).await.unwrap();
    }
    sink.receives(10).await;
    for exit in fleet.stop_all().await {
        assert_eq!(exit.code, Some(0), "{}", exit.log);
    }
    assert_eq!(sink.receipts().len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_brokers_and_nodes_do_not_let_in_is_told_what_to_correct() {
    let _turn = turn().await;
    let secured = secured().await;
    let mut fleet = secured.fleet().await;
    fleet.env("FANFARE__SERVER__BACKEND_WAIT", "1s");
    fleet.env("FANFARE__KAFKA__REQUEST_TIMEOUT_MS", "4000");
    fleet.env("FANFARE__CQL__REQUEST_TIMEOUT_MS", "4000");
    let wrong = secured.kafka.password_file.with_file_name("wrong");
    fs::write(&wrong, "guess-5170").unwrap();
    let wrong = wrong.display().to_string();
    let stranger = |certificates: &fanfare_test_services::Certificates| {
        certificates.stranger.display().to_string()
    };
    let (no_kafka_ca, no_cql_ca) = (
        stranger(&secured.kafka.certificates),
        stranger(&secured.cql.certificates),
    );
    let cases = [
        // variable, value, exit code, what the sentence names
        (
            "KAFKA__SECURITY__SASL__PASSWORD_FILE",
            &*wrong,
            64,
            "password_file",
        ),
        ("KAFKA__SECURITY__SASL__USERNAME", "nobody", 64, "username"),
        ("KAFKA__SECURITY__CA_FILE", &no_kafka_ca, 64, "ca_file"),
        (
            "KAFKA__BOOTSTRAP_SERVERS",
            &secured.kafka.tokens,
            64,
            "mechanism",
        ),
        ("KAFKA__SECURITY__TLS", "false", 1, "security.tls"),
        ("CQL__PASSWORD_FILE", &wrong, 64, "check user and password"),
        ("CQL__USER", "nobody", 64, "check user and password"),
        ("CQL__TLS_CA_FILE", &no_cql_ca, 64, "tls_ca_file"),
    ];
    for (variable, value, code, named) in cases {
        let mut options = fleet.options(Program::Router);
        let variable = format!("FANFARE__{variable}");
        options
            .environment
            .insert(variable.clone(), value.to_owned());
        let exit = match Server::start(&options).await {
            Err(exit) => exit,
            Ok(server) => panic!("{variable}: it is ready: {}", server.log().text()),
        };
        assert_eq!(exit.code, Some(code), "{variable}: {}", exit.log);
        let said = sentence(&exit);
        assert!(said.contains(named), "{variable}: {said}");
        assert!(!exit.log.contains("guess-5170"), "{variable}: {}", exit.log);
    }
    // Nothing of it has changed anything: with all corrected it starts.
    fleet.add(Program::Router).await;
    for exit in fleet.stop_all().await {
        assert_eq!(exit.code, Some(0), "{}", exit.log);
    }
}
