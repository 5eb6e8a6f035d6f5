//! The egress guard: which URLs may be stored, and which addresses may be connected to.
//!
//! Deny by default. [`check_url`] judges a URL when somebody writes it: a courtesy that answers
//! early and clearly. [`EgressPolicy::check_addr`] judges the address when a connection is made:
//! the control itself, asked by the connector with every resolved or literal address, so that no
//! name, redirect, rebinding or spelling gets around it.
//!
//! What may be opened: networks by CIDR, names, plain http, and with `dev` the loopback. What never
//! opens: the metadata services of clouds, and our own listeners. A refusal names the flag that
//! would open it.

mod addresses;
#[cfg(test)]
mod tests;
mod urls;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use fanfare_domain::{Invalid, Reason};
use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};

pub use urls::check_url;

/// What the operator opened; everything is closed by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressConfig {
    /// Networks that endpoints may lie in although they are not public (`10.1.0.0/16`).
    pub allow_egress: Vec<String>,
    /// Names that may be called whatever they resolve to (`hooks.svc`, `*.example.internal`).
    pub allow_hosts: Vec<String>,
    /// Plain http beside https.
    pub allow_http: bool,
    /// A laptop: loopback addresses, `localhost` and plain http.
    pub dev: bool,
    /// The /96 that a DNS64 cluster maps IPv4 into (`64:ff9b::/96`): its addresses are judged by
    /// the IPv4 address inside.
    pub nat64_prefix: Option<String>,
}

/// Decides what may be called. Immutable; share it in an `Arc`.
#[derive(Clone, Debug, Default)]
pub struct EgressPolicy {
    networks: Vec<IpNet>,
    hosts: Vec<HostRule>,
    allow_http: bool,
    dev: bool,
    nat64: Option<Ipv6Net>,
    listeners: Vec<SocketAddr>,
}

/// A refused address. Display is one sentence that names what would open it, if anything would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied(String);

/// A name that was opened: itself, or with `*.` everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum HostRule {
    Exact(String),
    Below(String),
}

impl EgressConfig {
    /// Validates and builds; the error names the setting.
    pub fn build(&self) -> Result<EgressPolicy, Invalid> {
        let networks = self.allow_egress.iter().map(|text| parse_network(text));
        let hosts = self.allow_hosts.iter().map(|text| HostRule::parse(text));
        Ok(EgressPolicy {
            networks: networks.collect::<Result<_, _>>()?,
            hosts: hosts.collect::<Result<_, _>>()?,
            allow_http: self.allow_http || self.dev,
            dev: self.dev,
            nat64: self.nat64_prefix.as_deref().map(parse_nat64).transpose()?,
            listeners: Vec::new(),
        })
    }
}

impl EgressPolicy {
    /// What a laptop needs: loopback, `localhost`, plain http.
    pub fn dev() -> Self {
        Self {
            allow_http: true,
            dev: true,
            ..Self::default()
        }
    }

    /// Also refuses these addresses: where we listen ourselves.
    #[must_use]
    pub fn deny_listeners(mut self, listeners: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.listeners.extend(listeners);
        self
    }

    /// Judges one address that `host` (a name or a literal, as in the URL) led to.
    pub fn check_addr(&self, addr: SocketAddr, host: &str) -> Result<(), Denied> {
        let ip = addresses::judged(addr.ip(), self.nat64);
        if addresses::is_metadata(addr.ip(), self.nat64) {
            return Err(Denied(format!(
                "{} is a metadata address, which is never called",
                addr.ip()
            )));
        }
        if self.is_own(SocketAddr::new(ip, addr.port())) {
            return Err(Denied(format!("{addr} is this server itself")));
        }
        if addresses::is_public(ip) || self.is_opened(ip) || self.is_host_opened(host) {
            return Ok(());
        }
        Err(self.closed(ip))
    }

    /// Judges a connection that was made, by both its ends: reaching an own listener by whatever
    /// address of this machine.
    pub fn check_connected(&self, local: SocketAddr, peer: SocketAddr) -> Result<(), Denied> {
        let same_machine = local.ip() == peer.ip();
        let own_port = self.listeners.iter().any(|own| own.port() == peer.port());
        if same_machine && own_port && self.listens_anywhere(peer.port()) {
            return Err(Denied(format!("{peer} is this server itself")));
        }
        Ok(())
    }

    fn is_own(&self, addr: SocketAddr) -> bool {
        self.listeners.contains(&addr)
            || (self.listens_anywhere(addr.port())
                && (addr.ip().is_loopback() || addr.ip().is_unspecified()))
            || (addr.ip().is_unspecified()
                && self.listeners.iter().any(|own| own.port() == addr.port()))
    }

    fn listens_anywhere(&self, port: u16) -> bool {
        self.listeners
            .iter()
            .any(|own| own.port() == port && own.ip().is_unspecified())
    }

    fn is_opened(&self, ip: IpAddr) -> bool {
        (self.dev && ip.is_loopback()) || self.networks.iter().any(|net| net.contains(&ip))
    }

    fn is_host_opened(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        self.hosts.iter().any(|rule| rule.covers(host))
    }

    fn closed(&self, ip: IpAddr) -> Denied {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let dev = if ip.is_loopback() && !self.dev {
            ", or --dev on a laptop,"
        } else {
            ""
        };
        Denied(format!(
            "{ip} is not a public address; --allow-egress {ip}/{bits} (or its network){dev} opens it"
        ))
    }
}

impl HostRule {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let lower = text.trim_end_matches('.').to_ascii_lowercase();
        let (name, below) = match lower.strip_prefix("*.") {
            Some(rest) => (rest.to_owned(), true),
            None => (lower, false),
        };
        let ok = |b: u8| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b);
        if name.is_empty() || !name.bytes().all(ok) {
            return Err(Invalid::new(
                Reason::UrlNotAllowed,
                "allow_hosts",
                "must be a host name without scheme and port, for example hooks.svc or *.example.internal",
            ));
        }
        Ok(if below {
            Self::Below(format!(".{name}"))
        } else {
            Self::Exact(name)
        })
    }

    fn covers(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Below(suffix) => host
                .len()
                .checked_sub(suffix.len())
                .and_then(|at| host.get(at..))
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix) && host.len() > suffix.len()),
        }
    }
}

fn parse_network(text: &str) -> Result<IpNet, Invalid> {
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(|_| single()).map_err(|_| {
        Invalid::new(
            Reason::UrlNotAllowed,
            "allow_egress",
            format!("'{text}' is not a network; write it as 10.1.0.0/16 or fd12::/16"),
        )
    })
}

fn parse_nat64(text: &str) -> Result<Ipv6Net, Invalid> {
    let parsed = text.parse::<Ipv6Net>().ok();
    parsed.filter(|net| net.prefix_len() == 96).ok_or_else(|| {
        Invalid::new(
            Reason::UrlNotAllowed,
            "nat64_prefix",
            format!("'{text}' is not an IPv6 /96; write it as 64:ff9b::/96"),
        )
    })
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Denied {}
