//! The guard behind a name: a DNS server of our own answers what an attacker's would, and beside
//! the address that the policy opens a listener waits on one that it does not.

use std::io::ErrorKind;
use std::net::TcpListener;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
use hickory_resolver::proto::op::{Message, OpCode};
use hickory_resolver::proto::rr::{RData, Record};
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use fanfare_service::egress::EgressConfig;
use rustls::RootCertStore;

use super::*;

/// The only address that is opened; it stands for the public ones.
const OPENED: &str = "127.0.0.2";

/// A DNS server that gives one answer to every name, not to be kept.
struct Dns {
    at: SocketAddr,
    answer: Arc<Mutex<Vec<IpAddr>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Dns {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        let answer = Arc::<Mutex<Vec<IpAddr>>>::default();
        let given = answer.clone();
        let serving = tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
                let reply = reply(&buffer[..len], &given.lock());
                socket.send_to(&reply, from).await.unwrap();
            }
        });
        Self {
            at,
            answer,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// From now on every name resolves to `ips`, in this order within a family.
    fn answers(&self, ips: &[&str]) {
        *self.answer.lock() = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    }
}

/// Those of `ips` that the family in `question` has.
fn reply(question: &[u8], ips: &[IpAddr]) -> Vec<u8> {
    let question = Message::from_vec(question).unwrap();
    let mut reply = Message::response(question.metadata.id, OpCode::Query);
    let query = question.queries[0].clone();
    for ip in ips {
        let data = match ip {
            IpAddr::V4(ip) => RData::A((*ip).into()),
            IpAddr::V6(ip) => RData::AAAA((*ip).into()),
        };
        if data.record_type() == query.query_type() {
            reply.add_answer(Record::from_rdata(query.name().clone(), 0, data));
        }
    }
    reply.add_query(query);
    reply.to_vec().unwrap()
}

/// Two listeners on one port: at the opened address and at a closed one.
struct Listeners {
    opened: TcpListener,
    closed: TcpListener,
    port: u16,
}

impl Listeners {
    fn start() -> Self {
        // The port that one was given may be taken at the other.
        let mut pairs = (0..20).filter_map(|_| {
            let opened = TcpListener::bind((OPENED, 0)).unwrap();
            let port = opened.local_addr().unwrap().port();
            let closed = TcpListener::bind(("127.0.0.1", port)).ok()?;
            Some((opened, closed, port))
        });
        let (opened, closed, port) = pairs.next().expect("a port that is free at both");
        for listener in [&opened, &closed] {
            listener.set_nonblocking(true).unwrap();
        }
        Self {
            opened,
            closed,
            port,
        }
    }

    /// How many connections were made since the last look: at the opened address, and at the
    /// closed one. A connection is in its listener's backlog before the side that made it knows.
    fn accepted(&self) -> (usize, usize) {
        (accepted(&self.opened), accepted(&self.closed))
    }
}

fn accepted(listener: &TcpListener) -> usize {
    let accept = || match listener.accept() {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("cannot accept: {error}"),
    };
    std::iter::repeat_with(accept)
        .take_while(|yes| *yes)
        .count()
}

/// A connector that asks `dns` and may connect to [`OPENED`] only.
fn connector(dns: &Dns) -> Connector {
    let policy = EgressConfig {
        allow_egress: vec![OPENED.to_owned()],
        allow_http: true,
        ..EgressConfig::default()
    };
    let mut udp = ConnectionConfig::udp();
    udp.port = dns.at.port();
    let server = NameServerConfig::new(dns.at.ip(), true, vec![udp]);
    Connector::resolving(
        Arc::new(policy.build().unwrap()),
        Duration::from_secs(20),
        tls::with_roots(RootCertStore::empty()).unwrap(),
        ResolverConfig::from_parts(None, vec![], vec![server]),
        ResolverOpts::default(),
    )
    .unwrap()
}

fn address(host: &str, port: u16) -> Address {
    Address {
        scheme: Scheme::Http,
        host: Host::parse(host).unwrap(),
        port,
    }
}

/// Connects to a name that resolves to `ips`: how that ended, and where it was noticed.
async fn outcome(ips: &[&str]) -> (Option<OutcomeKind>, (usize, usize)) {
    let (dns, listeners) = (Dns::start().await, Listeners::start());
    dns.answers(ips);
    let to = address("hooks.example", listeners.port);
    let connected = connector(&dns).connect(&to).await;
    (connected.err().map(|o| o.kind), listeners.accepted())
}

#[tokio::test]
async fn a_name_is_connected_to_where_it_resolves_to() {
    assert_eq!(outcome(&[OPENED]).await, (None, (1, 0)));
    assert_eq!(outcome(&[OPENED, OPENED]).await, (None, (1, 0)));
}

#[tokio::test]
async fn one_denied_address_rejects_the_whole_answer() {
    let answers: &[&[&str]] = &[
        &["127.0.0.1"],
        &["::ffff:127.0.0.1"],
        &["::1"],
        &[OPENED, "127.0.0.1"],
        &["127.0.0.1", OPENED],
        &[OPENED, "::ffff:127.0.0.1"],
        &[OPENED, "::1"],
        // Beyond those that would be tried.
        &[OPENED, OPENED, OPENED, OPENED, OPENED, "127.0.0.1"],
    ];
    for ips in answers {
        let denied = (Some(OutcomeKind::EgressDenied), (0, 0));
        assert_eq!(outcome(ips).await, denied, "{ips:?}");
    }
}

#[tokio::test]
async fn a_literal_is_vetted_like_an_answer() {
    let (dns, listeners) = (Dns::start().await, Listeners::start());
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "[::1]"] {
        let connected = connector(&dns)
            .connect(&address(host, listeners.port))
            .await;
        let kind = connected.err().map(|o| o.kind);
        assert_eq!(kind, Some(OutcomeKind::EgressDenied), "{host}");
    }
    assert_eq!(listeners.accepted(), (0, 0));
}

#[tokio::test]
async fn a_name_without_an_address_is_connected_to_nowhere() {
    assert_eq!(outcome(&[]).await, (Some(OutcomeKind::Dns), (0, 0)));
}

#[tokio::test]
async fn a_name_that_is_bound_anew_is_vetted_anew() {
    let (dns, listeners) = (Dns::start().await, Listeners::start());
    let (connector, to) = (connector(&dns), address("hooks.example", listeners.port));
    dns.answers(&[OPENED]);
    assert!(connector.connect(&to).await.is_ok());
    assert_eq!(listeners.accepted(), (1, 0));
    for rebound in ["127.0.0.1", "::ffff:127.0.0.1"] {
        dns.answers(&[rebound]);
        let refused = connector.connect(&to).await.err().map(|o| o.kind);
        assert_eq!(refused, Some(OutcomeKind::EgressDenied), "{rebound}");
        assert_eq!(listeners.accepted(), (0, 0));
    }
}
