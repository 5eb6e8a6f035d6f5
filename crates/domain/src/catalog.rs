//! What a tenant configures: endpoints and subscriptions, as stored and as both services see them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event_type::TypePattern;
use crate::id::{EndpointId, SubscriptionId, TenantId};
use crate::invalid::{Invalid, Reason};
use crate::retry::RetrySchedule;
use crate::secret::Secret;
use crate::time::Timestamp;

/// How long an old secret keeps signing beside the new one, by default.
pub const ROTATION_OVERLAP: Duration = Duration::from_hours(24);
/// Most old secrets that sign beside the current one.
pub const OLD_SECRETS_MAX: usize = 2;
/// Total deadline of an attempt, by default.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);
/// Allowed total deadlines.
pub const TIMEOUT_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Most patterns of one subscription.
pub const PATTERNS_MAX: usize = 50;

/// Where a subscriber is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `ep_…`.
    pub id: EndpointId,
    /// Owner.
    pub tenant: TenantId,
    /// For people; may be empty.
    pub name: String,
    /// Serialized by a WHATWG parser and vetted at write; vetted again at every connect.
    pub url: String,
    /// Active, paused or disabled.
    pub state: EndpointState,
    /// Why it is not active; empty when it is.
    pub state_reason: String,
    /// The secret that signs.
    pub secret: Secret,
    /// Secrets that still sign, until when; newest first, at most [`OLD_SECRETS_MAX`].
    pub old_secrets: Vec<(Secret, Timestamp)>,
    /// Custom headers: lower-case names, valid values.
    pub headers: BTreeMap<String, String>,
    /// For people and selectors.
    pub labels: BTreeMap<String, String>,
    /// `None`: the server's default.
    pub retry_schedule: Option<RetrySchedule>,
    /// Total deadline of an attempt.
    pub timeout: Duration,
    /// What the signed body is.
    pub envelope: Envelope,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it was last changed.
    pub update_time: Timestamp,
    /// Sequence number of the change that wrote this version; the etag.
    pub version: u64,
}

/// Whether an endpoint is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointState {
    /// Called.
    Active,
    /// Its deliveries park until it is resumed.
    Paused,
    /// Its deliveries become dead letters until it is resumed.
    Disabled,
}

/// What the signed body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Envelope {
    /// The data, byte for byte; attributes as `ce-*` headers.
    #[default]
    Binary,
    /// The whole CloudEvent as JSON.
    Structured,
}

/// Which events an endpoint wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// `sub_…`.
    pub id: SubscriptionId,
    /// Owner.
    pub tenant: TenantId,
    /// Where they go.
    pub endpoint: EndpointId,
    /// Any match is one delivery. 1..=50, no repeats.
    pub event_types: Vec<TypePattern>,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it was last changed.
    pub update_time: Timestamp,
    /// Sequence number of the change that wrote this version; the etag.
    pub version: u64,
}

impl Endpoint {
    /// The secrets that sign at `now`: the current one, then old ones still in their overlap.
    pub fn signing_secrets(&self, now: Timestamp) -> impl Iterator<Item = &Secret> {
        let old = self
            .old_secrets
            .iter()
            .filter(move |(_, until)| *until > now)
            .map(|(s, _)| s);
        std::iter::once(&self.secret).chain(old)
    }

    /// Makes `secret` the current one; the one it replaces keeps signing for `overlap`.
    pub fn rotate_secret(&mut self, secret: Secret, overlap: Duration, now: Timestamp) {
        let old = std::mem::replace(&mut self.secret, secret);
        self.old_secrets.retain(|(_, until)| *until > now);
        self.old_secrets.insert(0, (old, now.plus(overlap)));
        self.old_secrets.truncate(OLD_SECRETS_MAX);
    }
}

/// Header names that are ours or the connection's.
const HEADERS_REFUSED: [&str; 10] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "idempotency-key",
];

/// Most custom headers, bytes of one (name and value), and bytes of all.
const HEADERS_MAX: (usize, usize, usize) = (20, 4 * 1024, 16 * 1024);

/// Checks custom headers and lower-cases their names.
///
/// Called at write and again at send, so that nothing that got into a store can split a request.
pub fn check_headers(
    headers: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Invalid> {
    let (count_max, one_max, all_max) = HEADERS_MAX;
    let refuse = |name: &str, rule: String| {
        let name: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
        Err(Invalid::new(
            Reason::HeaderNotAllowed,
            format!("headers[{name}]"),
            rule,
        ))
    };
    let mut checked = BTreeMap::new();
    for (name, value) in headers {
        let lower = name.to_ascii_lowercase();
        let ours = lower.starts_with("webhook-") || lower.starts_with("ce-");
        if ours || HEADERS_REFUSED.contains(&lower.as_str()) {
            return refuse(
                name,
                "is set by Fanfare or by the connection; choose another name".into(),
            );
        }
        if lower.is_empty() || !lower.bytes().all(is_token) {
            return refuse(
                name,
                "is not a header name; use letters, digits and '-'".into(),
            );
        }
        if !value
            .bytes()
            .all(|b| b == b'\t' || (0x20..0x7f).contains(&b))
        {
            return refuse(name, "has a value with bytes outside visible ASCII".into());
        }
        if name.len() + value.len() > one_max {
            return refuse(name, format!("is longer than {one_max} bytes"));
        }
        if checked.insert(lower, value.clone()).is_some() {
            return refuse(name, "is given twice".into());
        }
    }
    let all: usize = checked.iter().map(|(n, v)| n.len() + v.len()).sum();
    if checked.len() > count_max || all > all_max {
        let rule = format!("at most {count_max} headers of together {all_max} bytes are allowed");
        return Err(Invalid::new(Reason::HeaderNotAllowed, "headers", rule));
    }
    Ok(checked)
}

/// A `token` byte of RFC 9110.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(n, v)| ((*n).into(), (*v).into()))
            .collect()
    }

    #[test]
    fn at_most_two_old_secrets_sign_beside_the_current_one() {
        let secret = |n: i64| Secret::parse(&format!("whsec_{}", n.to_string().repeat(32)));
        let secret = |n| secret(n).unwrap();
        let mut endpoint = endpoint(secret(0));
        for n in 1..=3 {
            let now = Timestamp::from_millis(n);
            endpoint.rotate_secret(secret(n), ROTATION_OVERLAP, now);
        }
        let signing = |millis| {
            let now = Timestamp::from_millis(millis).plus(ROTATION_OVERLAP);
            endpoint.signing_secrets(now).cloned().collect::<Vec<_>>()
        };
        assert_eq!(signing(0), [secret(3), secret(2), secret(1)]);
        assert_eq!(signing(2), [secret(3), secret(2)]);
        assert_eq!(signing(3), [secret(3)]);
    }

    fn endpoint(secret: Secret) -> Endpoint {
        Endpoint {
            id: EndpointId(1),
            tenant: TenantId::try_new("acme").unwrap(),
            name: String::new(),
            url: "https://example.com/".into(),
            state: EndpointState::Active,
            state_reason: String::new(),
            secret,
            old_secrets: Vec::new(),
            headers: BTreeMap::new(),
            labels: BTreeMap::new(),
            retry_schedule: None,
            timeout: TIMEOUT_DEFAULT,
            envelope: Envelope::Binary,
            create_time: Timestamp::default(),
            update_time: Timestamp::default(),
            version: 1,
        }
    }

    #[test]
    fn ordinary_headers_pass_in_lower_case() {
        let checked = check_headers(&headers(&[
            ("X-Team", "billing"),
            ("authorization", "Bearer x"),
        ]))
        .unwrap();
        assert_eq!(
            checked.keys().collect::<Vec<_>>(),
            ["authorization", "x-team"]
        );
    }

    #[test]
    fn headers_of_ours_or_that_split_a_request_are_refused() {
        for (name, value) in [
            ("Host", "x"),
            ("Content-Length", "1"),
            ("transfer-encoding", "chunked"),
            ("Connection", "close"),
            ("Webhook-Id", "x"),
            ("ce-type", "x"),
            ("x y", "x"),
            ("", "x"),
            ("x\r\ny", "x"),
            ("x", "a\r\nb: c"),
            ("x", "ä"),
            ("x", "\0"),
        ] {
            assert!(
                check_headers(&headers(&[(name, value)])).is_err(),
                "{name:?}: {value:?}"
            );
        }
        let long = "v".repeat(5000);
        assert!(check_headers(&headers(&[("x", &long)])).is_err());
        assert!(check_headers(&headers(&[("x", "1"), ("X", "2")])).is_err());
        let many: BTreeMap<_, _> = (0..21).map(|i| (format!("x-{i}"), String::new())).collect();
        assert!(check_headers(&many).is_err());
    }
}
