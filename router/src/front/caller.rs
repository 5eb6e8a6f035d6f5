//! Who asks: put into the request by the access check, taken out by the services. No service ever
//! reads a tenant from a message.

use std::sync::Arc;

use fanfare_domain::TenantId;
use tonic::Request;
use tonic::Status;

/// Who asks, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant chosen among those that the credential covers.
    pub tenant: TenantId,
    /// Name of the credential: the default source of what it publishes.
    pub credential: Arc<str>,
    /// The trace that the call belongs to, if it said so in a valid way.
    pub traceparent: Option<Arc<str>>,
}

/// The caller of `request`.
///
/// Errors: `INTERNAL` when no access check came before: never a tenant by default.
pub fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Status::internal("the request was not checked for access"))
}
