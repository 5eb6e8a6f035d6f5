//! Endpoints that misbehave: each is one failed attempt with a name, soon, and nothing worse.

use std::time::Duration;

use fanfare_delivery_worker::EgressPolicy;
use fanfare_domain::{Endpoint, OutcomeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::sink::{RawServer, Sink};
use crate::world::{State, World, eventually, schedule};

/// Reads until the head of a request is over, and its body of two bytes.
async fn request(socket: &mut TcpStream) -> std::io::Result<()> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !seen.windows(4).any(|w| w == b"\r\n\r\n") || !seen.ends_with(b"{}") {
        let read = socket.read(&mut buffer).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        seen.extend_from_slice(&buffer[..read]);
    }
    Ok(())
}

/// Publishes one event to `url` and answers how the one attempt ended.
async fn outcome_at(url: &str, set: impl FnOnce(&mut Endpoint)) -> (OutcomeKind, String) {
    outcome_in(&mut World::running().await, url, set).await
}

async fn outcome_in(
    world: &mut World,
    url: &str,
    set: impl FnOnce(&mut Endpoint),
) -> (OutcomeKind, String) {
    world
        .endpoint_with(1, url, |e| {
            e.retry_schedule = Some(schedule(&[]));
            set(e);
        })
        .await;
    let id = world.publish("{}", &[1]).await[0];
    let attempt = eventually(async || {
        world
            .attempts(id)
            .await
            .pop()
            .ok_or("no attempt yet".to_owned())
    })
    .await;
    (attempt.outcome.kind, attempt.outcome.message)
}

fn hurried(endpoint: &mut Endpoint) {
    endpoint.timeout = Duration::from_secs(1);
}

#[tokio::test]
async fn no_answer_is_a_timeout() {
    let server = RawServer::start(|mut socket| async move {
        request(&mut socket).await?;
        std::future::pending().await
    })
    .await;
    assert_eq!(
        outcome_at(&server.url(), hurried).await.0,
        OutcomeKind::Timeout
    );
}

#[tokio::test]
async fn a_head_or_a_body_that_drips_is_a_timeout() {
    for head in ["", "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"] {
        let server = RawServer::start(move |mut socket| async move {
            request(&mut socket).await?;
            socket.write_all(head.as_bytes()).await?;
            for byte in b"HTTP/1.1 200 OK\r\nx-slow: ".iter().cycle() {
                socket.write_all(&[*byte]).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        })
        .await;
        let (kind, message) = outcome_at(&server.url(), hurried).await;
        assert_eq!(kind, OutcomeKind::Timeout, "{head:?}: {message}");
    }
}

#[tokio::test]
async fn a_connection_that_is_never_accepted_is_a_timeout() {
    // A listener whose backlog is full: the kernel drops what comes.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut fillers = Vec::new();
    for _ in 0..4 {
        let connect = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address));
        fillers.push(connect.await);
    }
    let mut world = World::new();
    world.config.connect_timeout = fanfare_service::HumanDuration::from_millis(300);
    world.start().await;
    let (kind, message) = outcome_in(&mut world, &format!("http://{address}/"), |_| {}).await;
    assert_eq!(kind, OutcomeKind::Timeout, "{message}");
}

#[tokio::test]
async fn nobody_there_is_a_failed_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(outcome_at(&url, |_| {}).await.0, OutcomeKind::Connect);
}

#[tokio::test]
async fn closed_at_once_is_a_failed_connection() {
    let server = RawServer::start(|socket| async move {
        drop(socket);
        Ok(())
    })
    .await;
    assert_eq!(
        outcome_at(&server.url(), |_| {}).await.0,
        OutcomeKind::Connect
    );
    let cut = RawServer::start(|mut socket| async move {
        request(&mut socket).await?;
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
            .await
    })
    .await;
    let (kind, message) = outcome_at(&cut.url(), |_| {}).await;
    assert_ne!(kind, OutcomeKind::Delivered, "{message}");
}

#[tokio::test]
async fn an_endless_body_is_read_no_further_than_its_bound() {
    let server = RawServer::start(|mut socket| async move {
        request(&mut socket).await?;
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await?;
        loop {
            socket.write_all(b"1000\r\n").await?;
            socket.write_all(&[b'x'; 0x1000]).await?;
            socket.write_all(b"\r\n").await?;
        }
    })
    .await;
    assert_eq!(
        outcome_at(&server.url(), |_| {}).await.0,
        OutcomeKind::Delivered
    );
}

#[tokio::test]
async fn interim_responses_without_end_are_refused() {
    let server = RawServer::start(|mut socket| async move {
        request(&mut socket).await?;
        loop {
            socket
                .write_all(&b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100))
                .await?;
        }
    })
    .await;
    let (kind, message) = outcome_at(&server.url(), |_| {}).await;
    assert_eq!(kind, OutcomeKind::BadResponse, "{message}");
}

#[tokio::test]
async fn huge_heads_and_noise_are_bad_responses() {
    let many = "x-many: y\r\n".repeat(80);
    for answer in [
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000)),
        format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n"),
        "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(),
        "\u{1b}[31m\0\0\r\n\r\n".to_owned(),
    ] {
        let bytes = answer.clone().into_bytes();
        let server = RawServer::start(move |mut socket| {
            let bytes = bytes.clone();
            async move {
                request(&mut socket).await?;
                socket.write_all(&bytes).await?;
                request(&mut socket).await
            }
        })
        .await;
        let (kind, message) = outcome_at(&server.url(), |_| {}).await;
        assert_eq!(kind, OutcomeKind::BadResponse, "{answer:.40}: {message}");
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }
}

#[tokio::test]
async fn an_upgrade_is_a_failure() {
    let server = RawServer::start(|mut socket| async move {
        request(&mut socket).await?;
        socket
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            )
            .await?;
        std::future::pending().await
    })
    .await;
    let (kind, message) = outcome_at(&server.url(), hurried).await;
    assert_ne!(kind, OutcomeKind::Delivered, "{message}");
}

#[tokio::test]
async fn a_keep_alive_that_was_closed_in_between_costs_no_attempt() {
    let server = RawServer::start(|mut socket| async move {
        request(&mut socket).await?;
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await
        // ...and closed, without having said so.
    })
    .await;
    let mut world = World::running().await;
    world.endpoint(1, &server.url()).await;
    for accepted in 1..=5 {
        let id = world.publish("{}", &[1]).await[0];
        world.becomes(id, State::Delivered(1)).await;
        assert_eq!(server.accepted(), accepted);
    }
}

#[tokio::test]
async fn broken_tls_is_named() {
    let plain = Sink::start().await;
    let url = plain.url.replace("http://", "https://");
    let (kind, message) = outcome_at(&url, |_| {}).await;
    assert_eq!(kind, OutcomeKind::Tls, "{message}");
    let closing = RawServer::start(|socket| async move {
        drop(socket);
        Ok(())
    })
    .await;
    let url = closing.url().replace("http://", "https://");
    assert_eq!(outcome_at(&url, |_| {}).await.0, OutcomeKind::Tls);
}

#[tokio::test]
async fn a_closed_address_is_never_connected_to() {
    let sink = Sink::start().await;
    let mut world = World::new();
    world.policy = EgressPolicy::default();
    world.start().await;
    let https = sink.url.replace("http://", "https://");
    let (kind, message) = outcome_in(&mut world, &https, |_| {}).await;
    assert_eq!(kind, OutcomeKind::EgressDenied);
    assert!(message.contains("--allow-egress"), "{message}");
    assert_eq!(sink.connections(), 0);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named() {
    let (kind, message) = outcome_at("https://no-such-name.invalid/", |_| {}).await;
    assert!(
        matches!(kind, OutcomeKind::Dns | OutcomeKind::Timeout),
        "{kind}: {message}"
    );
}
