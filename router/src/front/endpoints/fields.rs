//! What a message says about an endpoint, validated into values. The error names the field.

use std::collections::BTreeMap;
use std::time::Duration;

use fanfare_domain::catalog::{TIMEOUT_DEFAULT, TIMEOUT_RANGE, check_headers};
use fanfare_domain::{
    Endpoint, EndpointId, EndpointState, Envelope, Invalid, Reason, RetrySchedule, Secret,
    TenantId, Timestamp,
};
use fanfare_proto::v1;
use fanfare_service::egress::{EgressPolicy, check_url};
use fanfare_store::{Catalog, Entry, EntryKey, Write};
use prost::Message;
use prost_types::FieldMask;
use sha2::{Digest, Sha256};

use super::super::errors::Refusal;
use super::super::management::REQUEST_KEPT;
use super::super::messages::duration_of;
use super::put;

/// Most labels of an endpoint, and bytes of a label's name and of its value.
const LABELS_MAX: (usize, usize, usize) = (20, 63, 255);
/// Most bytes of a name or a reason.
const TEXT_MAX: usize = 255;

/// What the caller decides about an endpoint.
#[derive(Clone)]
pub(super) struct Draft {
    name: String,
    url: String,
    secret: Secret,
    headers: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    retry_schedule: Option<RetrySchedule>,
    timeout: Duration,
    envelope: Envelope,
}

/// A change of some fields.
pub(super) struct Update {
    message: v1::Endpoint,
    fields: Vec<Field>,
    /// Checked; empty unless it is among the fields.
    url: String,
}

/// A caller's own id of a Create, which makes it safe to repeat.
pub(in crate::front) struct RequestId(String);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Url,
    Headers,
    Labels,
    RetrySchedule,
    Timeout,
    Envelope,
}

impl Draft {
    /// Everything that a Create may say; what the server makes is ignored.
    pub(super) fn of_create(message: v1::Endpoint, egress: &EgressPolicy) -> Result<Self, Refusal> {
        Ok(Self {
            name: check_text("endpoint.name", &message.name)?,
            url: checked_url(&message.url, egress)?,
            secret: secret("endpoint.secret", &message.secret)?,
            headers: check_headers(&message.headers).map_err(|e| within("endpoint", e))?,
            labels: check_labels(&message.labels)?,
            retry_schedule: schedule(message.retry_schedule)?,
            timeout: timeout(message.timeout)?,
            envelope: envelope(message.envelope)?,
        })
    }

    /// The endpoint that it makes.
    pub(super) fn into_endpoint(
        self,
        id: EndpointId,
        tenant: &TenantId,
        version: u64,
        now: Timestamp,
    ) -> Endpoint {
        Endpoint {
            id,
            tenant: tenant.clone(),
            name: self.name,
            url: self.url,
            state: EndpointState::Active,
            state_reason: String::new(),
            secret: self.secret,
            old_secrets: Vec::new(),
            headers: self.headers,
            labels: self.labels,
            retry_schedule: self.retry_schedule,
            timeout: self.timeout,
            envelope: self.envelope,
            create_time: now,
            update_time: now,
            version,
        }
    }
}

impl Update {
    /// The fields of `message` that `mask` names; without a mask those that are not empty.
    pub(super) fn new(
        message: v1::Endpoint,
        mask: Option<FieldMask>,
        egress: &EgressPolicy,
    ) -> Result<Self, Refusal> {
        let paths = mask.map_or_else(Vec::new, |mask| mask.paths);
        let fields: Vec<_> = if paths.is_empty() {
            Field::given(&message)
        } else {
            paths
                .iter()
                .map(|p| Field::named(p))
                .collect::<Result<_, _>>()?
        };
        let url = if fields.contains(&Field::Url) {
            checked_url(&message.url, egress)?
        } else {
            String::new()
        };
        Ok(Self {
            message,
            fields,
            url,
        })
    }

    /// Changes `endpoint`.
    pub(super) fn apply(&self, endpoint: &mut Endpoint) -> Result<(), Refusal> {
        let message = &self.message;
        for field in &self.fields {
            match field {
                Field::Name => endpoint.name = check_text("endpoint.name", &message.name)?,
                Field::Url => endpoint.url.clone_from(&self.url),
                Field::Headers => endpoint.headers = kept_headers(&message.headers, endpoint)?,
                Field::Labels => endpoint.labels = check_labels(&message.labels)?,
                Field::RetrySchedule => {
                    endpoint.retry_schedule = schedule(message.retry_schedule.clone())?;
                }
                Field::Timeout => endpoint.timeout = timeout(message.timeout)?,
                Field::Envelope => endpoint.envelope = envelope(message.envelope)?,
            }
        }
        Ok(())
    }
}

impl Field {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Name, "name"),
        (Self::Url, "url"),
        (Self::Headers, "headers"),
        (Self::Labels, "labels"),
        (Self::RetrySchedule, "retry_schedule"),
        (Self::Timeout, "timeout"),
        (Self::Envelope, "envelope"),
    ];

    fn named(path: &str) -> Result<Self, Refusal> {
        let field = Self::ALL.iter().find(|(_, name)| *name == path);
        field.map(|(field, _)| *field).ok_or_else(|| {
            let names = Self::ALL.map(|(_, name)| name).join(", ");
            let rule = format!("'{path}' cannot be changed by an update; it may name {names}");
            Invalid::new(Reason::FieldNotSupported, "update_mask", rule).into()
        })
    }

    fn given(message: &v1::Endpoint) -> Vec<Self> {
        let given = [
            (Self::Name, !message.name.is_empty()),
            (Self::Url, !message.url.is_empty()),
            (Self::Headers, !message.headers.is_empty()),
            (Self::Labels, !message.labels.is_empty()),
            (Self::RetrySchedule, message.retry_schedule.is_some()),
            (Self::Timeout, message.timeout.is_some()),
            (Self::Envelope, message.envelope != 0),
        ];
        given
            .into_iter()
            .filter_map(|(field, is)| is.then_some(field))
            .collect()
    }
}

impl RequestId {
    /// Takes it out of a request, so that what is left can be hashed; `None` when it is empty.
    pub(in crate::front) fn take(text: &mut String) -> Result<Option<Self>, Refusal> {
        let text = std::mem::take(text);
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > 64 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            let rule = "must be 1 to 64 visible ASCII characters";
            return Err(Invalid::new(Reason::IdInvalid, "request_id", rule).into());
        }
        Ok(Some(Self(text)))
    }

    /// What tells one request from another.
    pub(in crate::front) fn hash(request: &impl Message) -> [u8; 16] {
        let mut hash = [0; 16];
        hash.copy_from_slice(&Sha256::digest(request.encode_to_vec())[..16]);
        hash
    }

    /// What a request under this id made before; refused if it was another request.
    pub(in crate::front) fn made(
        &self,
        catalog: &Catalog,
        tenant: &TenantId,
        hash: [u8; 16],
        now: Timestamp,
    ) -> Result<Option<u64>, Refusal> {
        let Some((before, made, at)) = catalog.request(tenant, &self.0) else {
            return Ok(None);
        };
        if now.since(Timestamp::from_micros(at)) >= REQUEST_KEPT {
            return Ok(None);
        }
        if before != hash {
            let rule = "another request was made under this id; use a new id for a new request";
            return Err(Refusal::field("REQUEST_ID_REUSED", "request_id", rule));
        }
        Ok(Some(made))
    }

    /// The writes that remember what it made, and forget a few that are no longer needed.
    pub(in crate::front) fn remembered(
        &self,
        catalog: &Catalog,
        tenant: &TenantId,
        hash: [u8; 16],
        made: u64,
        now: Timestamp,
    ) -> Vec<Write> {
        let horizon = now.minus(REQUEST_KEPT).micros();
        let old = catalog.requests_before(tenant, horizon).take(2);
        let forget = old.map(|id| Write::Delete(EntryKey::Request(tenant.clone(), id.to_owned())));
        let remember = put(Entry::Request {
            tenant: tenant.clone(),
            request_id: self.0.clone(),
            hash,
            made,
            at_micros: now.micros(),
        });
        forget.chain([remember]).collect()
    }
}

/// A given secret, or a new one.
pub(super) fn secret(field: &str, given: &str) -> Result<Secret, Refusal> {
    if given.is_empty() {
        return Ok(Secret::generate(&mut rand::rng()));
    }
    let secret = Secret::parse(given).map_err(|invalid| Invalid {
        field: field.into(),
        ..invalid
    });
    Ok(secret?)
}

/// Text for people: short, and without control characters.
pub(super) fn check_text(field: &str, text: &str) -> Result<String, Refusal> {
    if text.len() > TEXT_MAX || text.chars().any(char::is_control) {
        let rule = format!("must be at most {TEXT_MAX} bytes without control characters");
        return Err(Invalid::new(Reason::LabelInvalid, field, rule).into());
    }
    Ok(text.to_owned())
}

fn checked_url(url: &str, egress: &EgressPolicy) -> Result<String, Refusal> {
    let url = check_url(url, egress).map_err(|e| within("endpoint", e))?;
    Ok(url.into())
}

/// Headers of an update: an empty value keeps the one that the endpoint has.
fn kept_headers(
    given: &BTreeMap<String, String>,
    endpoint: &Endpoint,
) -> Result<BTreeMap<String, String>, Refusal> {
    let mut headers = check_headers(given).map_err(|e| within("endpoint", e))?;
    for (name, value) in &mut headers {
        if let Some(kept) = endpoint.headers.get(name)
            && value.is_empty()
        {
            value.clone_from(kept);
        }
    }
    // The kept values count, too.
    Ok(check_headers(&headers).map_err(|e| within("endpoint", e))?)
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Refusal> {
    let (count_max, name_max, value_max) = LABELS_MAX;
    let named = |name: &str| {
        (1..=name_max).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_.-/".contains(&b))
    };
    let valued = |value: &str| value.len() <= value_max && !value.chars().any(char::is_control);
    if labels.len() > count_max || !labels.iter().all(|(n, v)| named(n) && valued(v)) {
        let rule = format!(
            "must be at most {count_max}, named by 1 to {name_max} of letters, digits and '_.-/', with \
             values of at most {value_max} bytes without control characters"
        );
        return Err(Invalid::new(Reason::LabelInvalid, "endpoint.labels", rule).into());
    }
    Ok(labels.clone())
}

fn schedule(given: Option<v1::RetrySchedule>) -> Result<Option<RetrySchedule>, Refusal> {
    let Some(given) = given else {
        return Ok(None);
    };
    let field = "endpoint.retry_schedule";
    let delays = given.delays.into_iter();
    let delays = delays.map(|delay| duration_of(field, Reason::ScheduleInvalid, delay));
    let delays = delays.collect::<Result<_, _>>()?;
    Ok(Some(
        RetrySchedule::try_new(delays).map_err(|e| within("endpoint", e))?,
    ))
}

fn timeout(given: Option<prost_types::Duration>) -> Result<Duration, Refusal> {
    let Some(given) = given else {
        return Ok(TIMEOUT_DEFAULT);
    };
    let (min, max) = TIMEOUT_RANGE;
    let given = Duration::try_from(given).ok();
    given.filter(|t| (min..=max).contains(t)).ok_or_else(|| {
        let rule = format!("must be {} s to {} s", min.as_secs(), max.as_secs());
        Invalid::new(Reason::TimeoutInvalid, "endpoint.timeout", rule).into()
    })
}

fn envelope(given: i32) -> Result<Envelope, Refusal> {
    match v1::Envelope::try_from(given) {
        Ok(v1::Envelope::Unspecified | v1::Envelope::Binary) => Ok(Envelope::Binary),
        Ok(v1::Envelope::Structured) => Ok(Envelope::Structured),
        Err(_) => {
            let rule = "is not an envelope that this version knows; use binary or structured";
            Err(Invalid::new(Reason::FieldNotSupported, "endpoint.envelope", rule).into())
        }
    }
}

/// The same refusal, of a field of `message`.
fn within(message: &str, mut invalid: Invalid) -> Invalid {
    if !invalid.field.starts_with(message) {
        invalid.field = format!("{message}.{}", invalid.field);
    }
    invalid
}
