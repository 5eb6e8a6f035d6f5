//! Connecting: address, credential, tenant.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use super::Client;
use super::retry::RetryPolicy;

/// How long to wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How often a silent connection is asked whether it is still there, and for how long.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// A channel that says who we are with every call.
pub type Channelled = InterceptedService<Channel, Identity>;

/// What every call carries.
#[derive(Clone, Default)]
pub struct Identity {
    authorization: Option<MetadataValue<Ascii>>,
    tenant: Option<MetadataValue<Ascii>>,
}

/// Describes a connection.
#[derive(Clone)]
pub struct ClientBuilder {
    server: String,
    api_key: Option<String>,
    tenant: Option<String>,
    policy: RetryPolicy,
}

/// Why there is no connection.
#[derive(Debug)]
pub struct ConnectError {
    kind: ConnectErrorKind,
    server: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectErrorKind {
    /// The address is not a URL like `http://127.0.0.1:7400`.
    Address,
    /// The API key has characters that no key has.
    ApiKey,
    /// The tenant has characters that no tenant's name has.
    Tenant,
    /// Nobody answers there.
    Unreachable,
}

impl ClientBuilder {
    pub(super) fn new(server: String) -> Self {
        Self {
            server,
            api_key: None,
            tenant: None,
            policy: RetryPolicy::default(),
        }
    }

    /// The credential, `ffk_…`.
    #[must_use]
    pub fn api_key(mut self, api_key: impl Into<String>) -> Self {
        self.api_key = Some(api_key.into());
        self
    }

    /// The tenant to act for; without it, `default`.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// How long and how often to try.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Connects now. The connection is made again whenever it breaks.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let channel = self.endpoint()?.connect().await;
        let channel = channel.map_err(|e| self.error(ConnectErrorKind::Unreachable, Some(e)))?;
        self.client(channel)
    }

    /// Connects at the first call, which then fails if nobody answers. Within a runtime.
    pub fn connect_lazy(self) -> Result<Client, ConnectError> {
        let channel = self.endpoint()?.connect_lazy();
        self.client(channel)
    }

    fn endpoint(&self) -> Result<Endpoint, ConnectError> {
        let endpoint = Endpoint::from_shared(self.server.clone());
        let endpoint = endpoint.map_err(|e| self.error(ConnectErrorKind::Address, Some(e)))?;
        if !matches!(endpoint.uri().scheme_str(), Some("http" | "https")) {
            return Err(self.error(ConnectErrorKind::Address, None));
        }
        Ok(endpoint
            .connect_timeout(CONNECT_WAIT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .keep_alive_while_idle(true))
    }

    fn client(&self, channel: Channel) -> Result<Client, ConnectError> {
        let identity = self.identity()?;
        Ok(Client {
            channel: InterceptedService::new(channel, identity),
            policy: self.policy.clone(),
        })
    }

    fn identity(&self) -> Result<Identity, ConnectError> {
        let mut identity = Identity::default();
        if let Some(key) = &self.api_key {
            let mut value: MetadataValue<Ascii> = format!("Bearer {}", key.trim())
                .parse()
                .map_err(|_| self.error(ConnectErrorKind::ApiKey, None))?;
            value.set_sensitive(true);
            identity.authorization = Some(value);
        }
        if let Some(tenant) = &self.tenant {
            let value = tenant.parse();
            identity.tenant = Some(value.map_err(|_| self.error(ConnectErrorKind::Tenant, None))?);
        }
        Ok(identity)
    }

    fn error(
        &self,
        kind: ConnectErrorKind,
        source: Option<tonic::transport::Error>,
    ) -> ConnectError {
        ConnectError {
            kind,
            server: self.server.clone(),
            source: source.map(Into::into),
        }
    }
}

impl Interceptor for Identity {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        let metadata = request.metadata_mut();
        if let Some(value) = &self.authorization {
            metadata.insert("authorization", value.clone());
        }
        if let Some(value) = &self.tenant {
            metadata.insert("fanfare-tenant", value.clone());
        }
        Ok(request)
    }
}

impl ConnectError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ConnectErrorKind {
        self.kind
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = &self.server;
        match self.kind {
            ConnectErrorKind::Address => write!(
                f,
                "{server:?} is not an address; write it like http://127.0.0.1:7400"
            ),
            ConnectErrorKind::ApiKey => f.write_str("the API key has characters that no key has"),
            ConnectErrorKind::Tenant => {
                f.write_str("the tenant has characters that no tenant's name has")
            }
            ConnectErrorKind::Unreachable => write!(f, "no Fanfare server answers at {server}"),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
