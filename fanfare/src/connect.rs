//! A connection to a server: address, credential, tenant.

use std::time::Duration;

use fanfare_proto::v1;
use http::Uri;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig};

use crate::args::ConnectionArgs;
use crate::failure::Failure;

/// How long to wait for a connection, and for the answer of a call.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Most bytes of one answer: a page of 1,000 deliveries and a batch fit well within.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// A channel that says who we are with every call.
pub type Channelled = InterceptedService<Channel, Identity>;

/// A connected server.
#[derive(Clone)]
pub struct Server {
    /// As it was named.
    pub address: String,
    channel: Channelled,
}

/// What every call carries.
#[derive(Clone)]
pub struct Identity {
    authorization: Option<MetadataValue<Ascii>>,
    tenant: Option<MetadataValue<Ascii>>,
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

impl Server {
    /// Connects, so that a server that is not there is told before anything is sent.
    pub async fn connect(args: &ConnectionArgs) -> Result<Self, Failure> {
        let identity = Identity::read(args)?;
        let wrong = |why: &str| {
            Failure::usage(format!(
                "--server {:?} {why}; write it like http://127.0.0.1:7400",
                args.server
            ))
        };
        let uri: Uri = args.server.parse().map_err(|_| wrong("is not a URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong("does not begin with http:// or https://"));
        }
        let tls = uri.scheme_str() == Some("https");
        let mut endpoint = Channel::builder(uri)
            .connect_timeout(CONNECT_WAIT)
            .timeout(ANSWER_WAIT)
            .user_agent(concat!("fanfare/", env!("CARGO_PKG_VERSION")))
            .map_err(|e| Failure::usage(e.to_string()))?;
        if tls {
            let roots = ClientTlsConfig::new().with_native_roots();
            endpoint = endpoint
                .tls_config(roots)
                .map_err(|e| Failure::usage(format!("TLS cannot be set up: {}", innermost(&e))))?;
        }
        let connected = endpoint.connect().await;
        let channel = connected.map_err(|e| Failure::unreachable(&args.server, &innermost(&e)))?;
        Ok(Self {
            address: args.server.clone(),
            channel: InterceptedService::new(channel, identity),
        })
    }

    /// Connects to a server in this very process, which asks for no key.
    pub async fn local(listen: std::net::SocketAddr) -> Result<Self, Failure> {
        let args = ConnectionArgs {
            server: format!("http://{listen}"),
            api_key_file: None,
            tenant: None,
        };
        Self::connect(&args).await
    }

    /// The service of events.
    pub fn events(&self) -> v1::event_service_client::EventServiceClient<Channelled> {
        v1::event_service_client::EventServiceClient::new(self.channel.clone())
            .max_decoding_message_size(ANSWER_MAX)
    }

    /// The service of endpoints.
    pub fn endpoints(&self) -> v1::endpoint_service_client::EndpointServiceClient<Channelled> {
        v1::endpoint_service_client::EndpointServiceClient::new(self.channel.clone())
            .max_decoding_message_size(ANSWER_MAX)
    }

    /// The service of subscriptions.
    pub fn subscriptions(
        &self,
    ) -> v1::subscription_service_client::SubscriptionServiceClient<Channelled> {
        v1::subscription_service_client::SubscriptionServiceClient::new(self.channel.clone())
            .max_decoding_message_size(ANSWER_MAX)
    }

    /// The service of deliveries.
    pub fn deliveries(&self) -> v1::delivery_service_client::DeliveryServiceClient<Channelled> {
        v1::delivery_service_client::DeliveryServiceClient::new(self.channel.clone())
            .max_decoding_message_size(ANSWER_MAX)
    }

    /// What a failed read means.
    pub fn failed(&self, status: &tonic::Status) -> Failure {
        Failure::of_status(status, &self.address)
    }

    /// What a failed write means; `repeat` says how to repeat it safely.
    pub fn write_failed(&self, status: &tonic::Status, repeat: &str) -> Failure {
        Failure::of_write(status, &self.address, repeat)
    }
}

impl Identity {
    fn read(args: &ConnectionArgs) -> Result<Self, Failure> {
        let key = match &args.api_key_file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|e| {
                Failure::usage(format!(
                    "cannot read --api-key-file {}: {e}",
                    path.display()
                ))
            })?),
            None => std::env::var("FANFARE_API_KEY").ok(),
        };
        let key = key
            .map(|key| key.trim().to_owned())
            .filter(|key| !key.is_empty());
        let authorization = key.map(|key| format!("Bearer {key}").parse());
        let mut authorization: Option<MetadataValue<Ascii>> = authorization
            .transpose()
            .map_err(|_| Failure::usage("the API key has characters that no key has"))?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        let tenant = args.tenant.as_deref().filter(|tenant| !tenant.is_empty());
        let tenant = tenant.map(str::parse).transpose();
        Ok(Self {
            authorization,
            tenant: tenant.map_err(|_| Failure::usage("--tenant is not a tenant's name"))?,
        })
    }
}

/// The last cause: what the operating system said.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
