//! A node that asks who is there, with and without TLS.

use std::path::Path;

use fanfare_store_scylla::{CqlConfig, OpenErrorKind, Password, migrate, open};
use fanfare_test_services::cql::{self, Secured};
use tokio::sync::OnceCell;

use crate::opening::refusal;

/// Its start takes most of the time, so all tests have one.
async fn node() -> &'static Secured {
    static NODE: OnceCell<Secured> = OnceCell::const_new();
    let start = || async {
        let node = tokio::task::spawn_blocking(cql::start_secured);
        let node = node.await.unwrap().unwrap();
        // The first user is made in the background once the node answers.
        let config = known(node.cluster.addresses());
        let mut last = migrate(&config).await;
        for _ in 0..20 {
            if last.is_ok() {
                break;
            }
            last = migrate(&config).await;
        }
        last.unwrap();
        node
    };
    NODE.get_or_init(start).await
}

/// Somebody that the node knows.
fn known(contact_points: Vec<String>) -> CqlConfig {
    CqlConfig {
        contact_points,
        replication: 1,
        user: Some(cql::USER.into()),
        password: Some(Password::new(cql::PASSWORD)),
        request_timeout_ms: 20_000,
        ..CqlConfig::default()
    }
}

/// The same, over TLS.
fn known_over_tls(node: &Secured, authority: &Path) -> CqlConfig {
    CqlConfig {
        tls_ca_file: Some(authority.to_owned()),
        ..known(vec![node.tls.clone()])
    }
}

/// Both ways in.
async fn ways() -> [CqlConfig; 2] {
    let node = node().await;
    let over_tls = known_over_tls(node, &node.certificates.authority);
    [known(node.cluster.addresses()), over_tls]
}

/// What opening is refused with.
async fn one_sentence(config: &CqlConfig, kind: OpenErrorKind) -> String {
    let error = refusal(config).await;
    let said = error.to_string();
    assert_eq!(error.kind(), kind, "{said}");
    assert!(!said.contains('\n'), "more than one line: {said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_known_opens_by_either_way() {
    for way in ways().await {
        open(&way).await.unwrap();
        let by_file = CqlConfig {
            password: None,
            password_file: Some(node().await.password_file.clone()),
            ..way
        };
        open(&by_file).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_refused() {
    for way in ways().await {
        let guess = CqlConfig {
            password: Some(Password::new("guess-5170")),
            ..way.clone()
        };
        let nobody = CqlConfig {
            user: None,
            password: None,
            ..way
        };
        for wrong in [guess, nobody] {
            let said = one_sentence(&wrong, OpenErrorKind::Credentials).await;
            assert!(said.contains("check user and password"), "{said}");
            assert!(!said.contains("guess-5170"), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_signed_nothing_is_refused() {
    let node = node().await;
    let stranger = known_over_tls(node, &node.certificates.stranger);
    let said = one_sentence(&stranger, OpenErrorKind::Config).await;
    assert!(said.contains("check tls_ca_file"), "{said}");
}

/// A port that does not speak our language may be that of a node that starts: not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn tls_on_one_side_alone_is_told() {
    let [plain, over_tls] = ways().await;
    let without = CqlConfig {
        contact_points: over_tls.contact_points.clone(),
        request_timeout_ms: 2_000,
        ..plain.clone()
    };
    let alone = CqlConfig {
        contact_points: plain.contact_points,
        request_timeout_ms: 2_000,
        ..over_tls
    };
    for wrong in [without, alone] {
        let said = one_sentence(&wrong, OpenErrorKind::Unreachable).await;
        assert!(said.contains("tls_ca_file"), "{said}");
    }
}
