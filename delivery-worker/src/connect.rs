//! Connections, and the egress guard at the one place where addresses are final.
//!
//! Literals and every resolved address are vetted; one denied address rejects the whole answer, so
//! a name cannot smuggle an inner address beside a public one. The address that was vetted is the
//! one that is connected to. No redirects, no proxies, no HTTP/2: one line, one request at a time.

mod stream;
#[cfg(test)]
mod tests;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fanfare_domain::{Outcome, OutcomeKind};
use fanfare_service::egress::EgressPolicy;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Host;

use crate::callee::{Address, Scheme};

pub(crate) use stream::{Allowance, Stream};

/// Most addresses of one answer that are tried.
const ADDRESSES_MAX: usize = 4;
/// Time for one address while there is another one to try.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes vetted connections.
pub(crate) struct Connector {
    pub(crate) policy: Arc<EgressPolicy>,
    resolver: TokioResolver,
    tls: TlsConnector,
    timeout: Duration,
}

impl Connector {
    /// Resolves as the system is configured to. `extra_ca` is a PEM file.
    pub(crate) fn new(
        policy: Arc<EgressPolicy>,
        timeout: Duration,
        extra_ca: Option<&Path>,
    ) -> Result<Self, String> {
        let tls = tls::config(extra_ca)?;
        let (config, options) = hickory_resolver::system_conf::read_system_conf()
            .map_err(|error| format!("cannot read the system's DNS configuration: {error}"))?;
        Self::resolving(policy, timeout, tls, config, options)
    }

    fn resolving(
        policy: Arc<EgressPolicy>,
        connect_timeout: Duration,
        tls: ClientConfig,
        config: ResolverConfig,
        mut options: ResolverOpts,
    ) -> Result<Self, String> {
        // Both families are asked, so that both are vetted.
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.timeout = options.timeout.min(ADDRESS_TIMEOUT);
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|error| format!("cannot start the DNS resolver: {error}"))?;
        Ok(Self {
            policy,
            resolver,
            tls: TlsConnector::from(Arc::new(tls)),
            timeout: connect_timeout,
        })
    }

    /// Resolves, vets, connects and shakes hands, within the connect timeout. Cancel safe.
    pub(crate) async fn connect(&self, to: &Address) -> Result<Stream, Outcome> {
        match timeout(self.timeout, self.connect_unbounded(to)).await {
            Ok(connected) => connected,
            Err(_) => Err(Outcome::failed(
                OutcomeKind::Timeout,
                format!("no connection within {:?}", self.timeout),
            )),
        }
    }

    async fn connect_unbounded(&self, to: &Address) -> Result<Stream, Outcome> {
        let addresses = self.vetted(to).await?;
        let tcp = self.dial(&addresses).await?;
        match to.scheme {
            Scheme::Http => Ok(Stream::plain(tcp)),
            Scheme::Https => self.shake_hands(tcp, &to.host).await,
        }
    }

    /// Every address of `to`, all of which may be connected to.
    async fn vetted(&self, to: &Address) -> Result<Vec<SocketAddr>, Outcome> {
        let ips = match &to.host {
            Host::Ipv4(ip) => vec![IpAddr::V4(*ip)],
            Host::Ipv6(ip) => vec![IpAddr::V6(*ip)],
            Host::Domain(name) => self.resolve(name).await?,
        };
        let host = to.host.to_string();
        let vet = |ip: IpAddr| {
            let address = SocketAddr::new(ip, to.port);
            self.policy.check_addr(address, &host)?;
            Ok(address)
        };
        ips.into_iter().map(vet).collect::<Result<_, _>>().map_err(
            |denied: fanfare_service::egress::Denied| {
                Outcome::failed(OutcomeKind::EgressDenied, denied.to_string())
            },
        )
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Outcome> {
        let failed = |what: String| Outcome::failed(OutcomeKind::Dns, what);
        let answer = self
            .resolver
            .lookup_ip(name)
            .await
            .map_err(|error| failed(format!("{name} did not resolve: {error}")))?;
        let ips: Vec<IpAddr> = answer.iter().collect();
        if ips.is_empty() {
            return Err(failed(format!("{name} has no address")));
        }
        Ok(ips)
    }

    /// Connects to the first of `addresses` that answers.
    async fn dial(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Outcome> {
        let mut failed = Outcome::failed(OutcomeKind::Connect, "no address to connect to");
        let tried = &addresses[..addresses.len().min(ADDRESSES_MAX)];
        for (i, address) in tried.iter().enumerate() {
            let is_last = i + 1 == tried.len();
            let limit = if is_last {
                self.timeout
            } else {
                ADDRESS_TIMEOUT
            };
            match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return self.settle_in(tcp),
                Ok(Err(error)) => {
                    let message = format!("cannot connect to {address}: {error}");
                    failed = Outcome::failed(OutcomeKind::Connect, message);
                }
                Err(_) => {
                    let message = format!("{address} did not accept within {limit:?}");
                    failed = Outcome::failed(OutcomeKind::Timeout, message);
                }
            }
        }
        Err(failed)
    }

    fn settle_in(&self, tcp: TcpStream) -> Result<TcpStream, Outcome> {
        let broken = |error: std::io::Error| {
            Outcome::failed(
                OutcomeKind::Connect,
                format!("the connection broke: {error}"),
            )
        };
        let (local, peer) = (
            tcp.local_addr().map_err(broken)?,
            tcp.peer_addr().map_err(broken)?,
        );
        self.policy
            .check_connected(local, peer)
            .map_err(|denied| Outcome::failed(OutcomeKind::EgressDenied, denied.to_string()))?;
        tcp.set_nodelay(true).map_err(broken)?;
        Ok(tcp)
    }

    async fn shake_hands(&self, tcp: TcpStream, host: &Host<String>) -> Result<Stream, Outcome> {
        let failed = |what: String| Outcome::failed(OutcomeKind::Tls, what);
        let name = match host {
            Host::Domain(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
                .map_err(|_| failed(format!("{name} cannot be named in TLS")))?,
            Host::Ipv4(ip) => ServerName::from(IpAddr::V4(*ip)),
            Host::Ipv6(ip) => ServerName::from(IpAddr::V6(*ip)),
        };
        let tls = self.tls.connect(name, tcp).await;
        tls.map(Stream::tls)
            .map_err(|error| failed(format!("the TLS handshake failed: {error}")))
    }
}
