//! Configuration: entries as they are, and the changes that a feed carries.

use std::collections::BTreeMap;
use std::time::Duration;

use fanfare_domain::{
    Endpoint, EndpointId, EndpointState, Envelope, RetrySchedule, Secret, Subscription,
    SubscriptionId, TypePattern,
};
use prost::Message;

use super::{Kind, Row, WireError, damaged, duration_micros, fixed, micros, open, seal, tenant};
use crate::config::{Entry, EntryKey, Write};

#[derive(Clone, PartialEq, Message)]
struct EndpointWire {
    #[prost(fixed64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    tenant: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    url: String,
    #[prost(uint32, tag = "5")]
    state: u32,
    #[prost(string, tag = "6")]
    state_reason: String,
    #[prost(message, required, tag = "7")]
    secret: SecretWire,
    #[prost(message, repeated, tag = "8")]
    old_secrets: Vec<SecretWire>,
    #[prost(btree_map = "string, string", tag = "9")]
    headers: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "10")]
    labels: BTreeMap<String, String>,
    #[prost(message, optional, tag = "11")]
    retry_schedule: Option<ScheduleWire>,
    #[prost(uint64, tag = "12")]
    timeout_micros: u64,
    #[prost(uint32, tag = "13")]
    envelope: u32,
    #[prost(sint64, tag = "14")]
    create_time: i64,
    #[prost(sint64, tag = "15")]
    update_time: i64,
    #[prost(uint64, tag = "16")]
    version: u64,
}

/// A secret as it is spelt, and until when it still signs if it is an old one.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct SecretWire {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(sint64, tag = "2")]
    until: i64,
}

impl std::fmt::Debug for SecretWire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretWire(redacted)")
    }
}

#[derive(Clone, PartialEq, Message)]
struct ScheduleWire {
    #[prost(uint64, repeated, tag = "1")]
    steps_micros: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct SubscriptionWire {
    #[prost(fixed64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    tenant: String,
    #[prost(fixed64, tag = "3")]
    endpoint: u64,
    #[prost(string, repeated, tag = "4")]
    event_types: Vec<String>,
    #[prost(sint64, tag = "5")]
    create_time: i64,
    #[prost(sint64, tag = "6")]
    update_time: i64,
    #[prost(uint64, tag = "7")]
    version: u64,
}

#[derive(Clone, PartialEq, Message)]
struct RequestWire {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(string, tag = "2")]
    request_id: String,
    #[prost(bytes = "vec", tag = "3")]
    hash: Vec<u8>,
    #[prost(fixed64, tag = "4")]
    made: u64,
    #[prost(sint64, tag = "5")]
    at: i64,
}

#[derive(Clone, PartialEq, Message)]
struct EntryWire {
    #[prost(oneof = "EntryKindWire", tags = "1, 2, 3")]
    entry: Option<EntryKindWire>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum EntryKindWire {
    #[prost(message, tag = "1")]
    Endpoint(EndpointWire),
    #[prost(message, tag = "2")]
    Subscription(SubscriptionWire),
    #[prost(message, tag = "3")]
    Request(RequestWire),
}

#[derive(Clone, PartialEq, Message)]
struct ChangeWire {
    #[prost(message, repeated, tag = "1")]
    writes: Vec<WriteWire>,
}

/// A put has an entry; a delete has a tenant and the id of one kind.
#[derive(Clone, PartialEq, Message)]
struct WriteWire {
    #[prost(message, optional, tag = "1")]
    put: Option<EntryWire>,
    #[prost(string, tag = "2")]
    tenant: String,
    #[prost(oneof = "DeleteWire", tags = "3, 4, 5")]
    delete: Option<DeleteWire>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum DeleteWire {
    #[prost(fixed64, tag = "3")]
    Endpoint(u64),
    #[prost(fixed64, tag = "4")]
    Subscription(u64),
    #[prost(string, tag = "5")]
    Request(String),
}

impl Row for Entry {
    fn seal(&self) -> Vec<u8> {
        seal(Kind::Entry, &EntryWire::from(self))
    }

    fn open(bytes: &[u8]) -> Result<Self, WireError> {
        open::<EntryWire>(Kind::Entry, bytes)?.try_into()
    }
}

/// The writes of one change.
impl Row for Vec<Write> {
    fn seal(&self) -> Vec<u8> {
        let writes = self.iter().map(WriteWire::from).collect();
        seal(Kind::Change, &ChangeWire { writes })
    }

    fn open(bytes: &[u8]) -> Result<Self, WireError> {
        let wire: ChangeWire = open(Kind::Change, bytes)?;
        wire.writes.into_iter().map(Write::try_from).collect()
    }
}

impl From<&Entry> for EntryWire {
    fn from(entry: &Entry) -> Self {
        let entry = match entry {
            Entry::Endpoint(endpoint) => EntryKindWire::Endpoint(endpoint.into()),
            Entry::Subscription(sub) => EntryKindWire::Subscription(sub.into()),
            Entry::Request {
                tenant,
                request_id,
                hash,
                made,
                at_micros,
            } => EntryKindWire::Request(RequestWire {
                tenant: tenant.as_str().into(),
                request_id: request_id.clone(),
                hash: hash.to_vec(),
                made: *made,
                at: *at_micros,
            }),
        };
        Self { entry: Some(entry) }
    }
}

impl TryFrom<EntryWire> for Entry {
    type Error = WireError;

    fn try_from(wire: EntryWire) -> Result<Self, WireError> {
        match wire.entry.ok_or(WireError::Damaged)? {
            EntryKindWire::Endpoint(wire) => wire.try_into().map(Self::Endpoint),
            EntryKindWire::Subscription(wire) => wire.try_into().map(Self::Subscription),
            EntryKindWire::Request(wire) => Ok(Self::Request {
                tenant: tenant(&wire.tenant)?,
                request_id: wire.request_id,
                hash: fixed(&wire.hash)?,
                made: wire.made,
                at_micros: wire.at,
            }),
        }
    }
}

impl From<&Write> for WriteWire {
    fn from(write: &Write) -> Self {
        let delete = |tenant: &fanfare_domain::TenantId, delete| Self {
            put: None,
            tenant: tenant.as_str().into(),
            delete: Some(delete),
        };
        match write {
            Write::Put(entry) => Self {
                put: Some((&**entry).into()),
                ..Self::default()
            },
            Write::Delete(EntryKey::Endpoint(tenant, id)) => {
                delete(tenant, DeleteWire::Endpoint(id.0))
            }
            Write::Delete(EntryKey::Subscription(tenant, id)) => {
                delete(tenant, DeleteWire::Subscription(id.0))
            }
            Write::Delete(EntryKey::Request(tenant, id)) => {
                delete(tenant, DeleteWire::Request(id.clone()))
            }
        }
    }
}

impl TryFrom<WriteWire> for Write {
    type Error = WireError;

    fn try_from(wire: WriteWire) -> Result<Self, WireError> {
        if let Some(entry) = wire.put {
            return Ok(Self::Put(Box::new(entry.try_into()?)));
        }
        let tenant = tenant(&wire.tenant)?;
        Ok(Self::Delete(
            match wire.delete.ok_or(WireError::Damaged)? {
                DeleteWire::Endpoint(id) => EntryKey::Endpoint(tenant, EndpointId(id)),
                DeleteWire::Subscription(id) => EntryKey::Subscription(tenant, SubscriptionId(id)),
                DeleteWire::Request(id) => EntryKey::Request(tenant, id),
            },
        ))
    }
}

impl From<&Endpoint> for EndpointWire {
    fn from(endpoint: &Endpoint) -> Self {
        let secret = |secret: &Secret, until| SecretWire {
            text: secret.reveal(),
            until,
        };
        let steps = |s: &RetrySchedule| s.steps().iter().copied().map(duration_micros).collect();
        let old = endpoint.old_secrets.iter();
        Self {
            id: endpoint.id.0,
            tenant: endpoint.tenant.as_str().into(),
            name: endpoint.name.clone(),
            url: endpoint.url.clone(),
            state: match endpoint.state {
                EndpointState::Active => 1,
                EndpointState::Paused => 2,
                EndpointState::Disabled => 3,
            },
            state_reason: endpoint.state_reason.clone(),
            secret: secret(&endpoint.secret, 0),
            old_secrets: old.map(|(s, until)| secret(s, until.micros())).collect(),
            headers: endpoint.headers.clone(),
            labels: endpoint.labels.clone(),
            retry_schedule: endpoint.retry_schedule.as_ref().map(|s| ScheduleWire {
                steps_micros: steps(s),
            }),
            timeout_micros: duration_micros(endpoint.timeout),
            envelope: match endpoint.envelope {
                Envelope::Binary => 1,
                Envelope::Structured => 2,
            },
            create_time: endpoint.create_time.micros(),
            update_time: endpoint.update_time.micros(),
            version: endpoint.version,
        }
    }
}

impl TryFrom<EndpointWire> for Endpoint {
    type Error = WireError;

    fn try_from(wire: EndpointWire) -> Result<Self, WireError> {
        let secret = |wire: &SecretWire| Secret::parse(&wire.text).map_err(damaged);
        let old = wire.old_secrets.iter();
        let old = old.map(|wire| Ok((secret(wire)?, micros(wire.until))));
        Ok(Self {
            id: EndpointId(wire.id),
            tenant: tenant(&wire.tenant)?,
            name: wire.name,
            url: wire.url,
            state: match wire.state {
                1 => EndpointState::Active,
                2 => EndpointState::Paused,
                3 => EndpointState::Disabled,
                _ => return Err(WireError::Damaged),
            },
            state_reason: wire.state_reason,
            secret: secret(&wire.secret)?,
            old_secrets: old.collect::<Result<_, _>>()?,
            headers: wire.headers,
            labels: wire.labels,
            retry_schedule: wire.retry_schedule.map(schedule).transpose()?,
            timeout: Duration::from_micros(wire.timeout_micros),
            envelope: match wire.envelope {
                1 => Envelope::Binary,
                2 => Envelope::Structured,
                _ => return Err(WireError::Damaged),
            },
            create_time: micros(wire.create_time),
            update_time: micros(wire.update_time),
            version: wire.version,
        })
    }
}

fn schedule(wire: ScheduleWire) -> Result<RetrySchedule, WireError> {
    let steps = wire.steps_micros.into_iter().map(Duration::from_micros);
    RetrySchedule::try_new(steps.collect()).map_err(damaged)
}

impl From<&Subscription> for SubscriptionWire {
    fn from(sub: &Subscription) -> Self {
        let types = sub.event_types.iter().map(|p| p.as_str().to_owned());
        Self {
            id: sub.id.0,
            tenant: sub.tenant.as_str().into(),
            endpoint: sub.endpoint.0,
            event_types: types.collect(),
            create_time: sub.create_time.micros(),
            update_time: sub.update_time.micros(),
            version: sub.version,
        }
    }
}

impl TryFrom<SubscriptionWire> for Subscription {
    type Error = WireError;

    fn try_from(wire: SubscriptionWire) -> Result<Self, WireError> {
        let types = wire.event_types.iter();
        let types = types.map(|text| TypePattern::try_new(text).map_err(damaged));
        Ok(Self {
            id: SubscriptionId(wire.id),
            tenant: tenant(&wire.tenant)?,
            endpoint: EndpointId(wire.endpoint),
            event_types: types.collect::<Result<_, _>>()?,
            create_time: micros(wire.create_time),
            update_time: micros(wire.update_time),
            version: wire.version,
        })
    }
}
