//! An endpoint, prepared for being called: its URL vetted again, its headers checked again, its
//! signer keyed. Prepared once per version of the endpoint, at the first call.

use std::sync::{Arc, OnceLock};

use fanfare_domain::catalog::check_headers;
use fanfare_domain::{Endpoint, Outcome, OutcomeKind};
use fanfare_service::egress::{EgressPolicy, check_url};
use http::header::{HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Uri};
use url::{Host, Position, Url};

use crate::sign::Signer;

/// What a subscriber sees us as.
const AGENT: HeaderValue = HeaderValue::from_static(concat!(
    "Fanfare/",
    env!("CARGO_PKG_VERSION_MAJOR"),
    ".",
    env!("CARGO_PKG_VERSION_MINOR")
));

/// An endpoint that can be called.
#[derive(Debug)]
pub(crate) struct Callee {
    pub(crate) endpoint: Arc<Endpoint>,
    prepared: OnceLock<Result<Prepared, Outcome>>,
}

/// What every request to it has in common.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) address: Address,
    /// Path and query: what the request line names.
    pub(crate) uri: Uri,
    /// Host, agent and custom headers.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) signer: Signer,
}

/// Whom to connect to. Two endpoints with equal addresses share nothing all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) scheme: Scheme,
    pub(crate) host: Host<String>,
    pub(crate) port: u16,
}

/// How to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Callee {
    /// Whom it connects to; `None` before the first call and when it cannot be called.
    pub(crate) fn address(&self) -> Option<&Address> {
        let prepared = self.prepared.get()?.as_ref().ok()?;
        Some(&prepared.address)
    }

    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            prepared: OnceLock::new(),
        }
    }

    /// Ready to be called, or what every attempt comes to.
    pub(crate) fn prepared(&self, policy: &EgressPolicy) -> Result<&Prepared, &Outcome> {
        self.prepared
            .get_or_init(|| prepare(&self.endpoint, policy))
            .as_ref()
    }
}

fn prepare(endpoint: &Endpoint, policy: &EgressPolicy) -> Result<Prepared, Outcome> {
    // The policy may have been narrowed since the URL was written.
    let url = check_url(&endpoint.url, policy)
        .map_err(|invalid| Outcome::failed(OutcomeKind::EgressDenied, invalid.to_string()))?;
    let custom = check_headers(&endpoint.headers)
        .map_err(|invalid| Outcome::failed(OutcomeKind::Internal, invalid.to_string()))?;
    let internal = |what: &str| Outcome::failed(OutcomeKind::Internal, what);
    let mut headers = vec![
        (
            HOST,
            host_header(&url).ok_or_else(|| internal("the URL has no host"))?,
        ),
        (USER_AGENT, AGENT),
    ];
    for (name, value) in &custom {
        let name = HeaderName::try_from(name.as_str());
        let value = HeaderValue::try_from(value.as_str());
        let (Ok(name), Ok(mut value)) = (name, value) else {
            return Err(internal("a custom header is not one"));
        };
        // They often carry credentials: never in a log.
        value.set_sensitive(true);
        headers.retain(|(present, _)| *present != name);
        headers.push((name, value));
    }
    Ok(Prepared {
        address: Address::of(&url).ok_or_else(|| internal("the URL has no host"))?,
        uri: url[Position::BeforePath..Position::AfterQuery]
            .parse()
            .map_err(|_| internal("the path of the URL cannot be requested"))?,
        headers,
        signer: Signer::of(endpoint),
    })
}

impl Address {
    fn of(url: &Url) -> Option<Self> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        Some(Self {
            scheme,
            host: url.host()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }
}

/// Host and, unless it is the scheme's own, port.
fn host_header(url: &Url) -> Option<HeaderValue> {
    url.host()?;
    HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]).ok()
}
