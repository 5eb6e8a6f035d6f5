//! URLs as somebody writes them.
//!
//! The raw text is checked before it is parsed, because a WHATWG parser forgives what a person
//! should be told about: white space, backslashes, user names, missing slashes. What is stored is
//! the parsed URL, serialized; a fragment, which no server ever sees, is left out of it.

use std::net::{IpAddr, SocketAddr};

use fanfare_domain::{Invalid, Reason};
use url::{Host, Url};

use super::EgressPolicy;

/// Longest URL, raw and serialized, in bytes.
const URL_MAX_BYTES: usize = 2048;
/// Longest name and longest part of a name in DNS.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// Names that never lead to the Internet: this machine, this network, this cluster.
const LOCAL_SUFFIXES: [&str; 6] = [
    ".localhost",
    ".local",
    ".localdomain",
    ".internal",
    ".svc",
    ".home.arpa",
];

/// Google's metadata service by name; its address is closed as well.
const METADATA_NAME: &str = "metadata.google.internal";

/// Checks the URL of an endpoint at write time and brings it into the form that is stored.
///
/// Errors: `UrlInvalid` for what is no usable URL, `UrlNotAllowed` for what the policy refuses;
/// the message names the flag that opens it. Names are not resolved here: what they resolve to is
/// judged at every connect.
pub fn check_url(raw: &str, policy: &EgressPolicy) -> Result<Url, Invalid> {
    check_raw(raw)?;
    let mut url = Url::parse(raw)
        .map_err(|error| invalid(format!("is not a URL ({error}); write https://host/path")))?;
    url.set_fragment(None);
    if url.as_str().len() > URL_MAX_BYTES {
        return Err(too_long());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(user_info());
    }
    if url.port() == Some(0) {
        return Err(invalid("has port 0, where nothing can listen"));
    }
    check_host(&url, policy)?;
    if url.scheme() == "http" && !policy.allow_http {
        let rule = "must be https; --allow-http (or --dev on a laptop) opens plain http";
        return Err(refused(rule));
    }
    Ok(url)
}

/// What must be true of the text before any parser bends it into shape.
fn check_raw(raw: &str) -> Result<(), Invalid> {
    if raw.is_empty() {
        return Err(invalid("is missing; write https://host/path"));
    }
    if raw.len() > URL_MAX_BYTES {
        return Err(too_long());
    }
    if raw.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(invalid(
            "contains white space or control characters; percent-encode them",
        ));
    }
    if raw.contains('\\') {
        return Err(invalid("contains a backslash; use '/'"));
    }
    let Some(rest) = after_scheme(raw) else {
        return Err(invalid(
            "must start with https:// (or http:// where that is allowed)",
        ));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err(invalid("has no host"));
    }
    if authority.contains('@') {
        return Err(user_info());
    }
    if authority.starts_with('[') && authority.contains('%') {
        return Err(invalid(
            "has an IPv6 zone id, which means nothing to anybody else",
        ));
    }
    Ok(())
}

fn after_scheme(raw: &str) -> Option<&str> {
    let strip = |scheme: &str| {
        let (head, rest) = raw.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    strip("https://").or_else(|| strip("http://"))
}

fn check_host(url: &Url, policy: &EgressPolicy) -> Result<(), Invalid> {
    let port = url.port_or_known_default().unwrap_or(443);
    let literal = |ip: IpAddr| {
        let host = url.host_str().unwrap_or_default();
        policy
            .check_addr(SocketAddr::new(ip, port), host)
            .map_err(|denied| refused(denied.to_string()))
    };
    match url.host() {
        None => Err(invalid("has no host")),
        Some(Host::Ipv4(ip)) => literal(ip.into()),
        Some(Host::Ipv6(ip)) => literal(ip.into()),
        Some(Host::Domain(name)) => check_name(name, policy),
    }
}

fn check_name(name: &str, policy: &EgressPolicy) -> Result<(), Invalid> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label_ok = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() > NAME_MAX || !name.split('.').all(label_ok) {
        return Err(invalid("has a host that is no valid DNS name"));
    }
    if name == METADATA_NAME {
        return Err(refused(format!(
            "{name} is a metadata service, which is never called"
        )));
    }
    if policy.is_host_opened(name) {
        return Ok(());
    }
    let loopback = name == "localhost" || name.ends_with(".localhost");
    if loopback && policy.dev {
        return Ok(());
    }
    let local = !name.contains('.') || LOCAL_SUFFIXES.iter().any(|s| name.ends_with(s));
    if local {
        let dev = if loopback {
            ", or --dev on a laptop,"
        } else {
            ""
        };
        return Err(refused(format!(
            "{name} is a local name; --allow-host {name}{dev} opens it"
        )));
    }
    Ok(())
}

fn user_info() -> Invalid {
    invalid("contains a user name; send credentials in a custom header instead")
}

fn too_long() -> Invalid {
    invalid(format!("is longer than {URL_MAX_BYTES} bytes"))
}

fn invalid(rule: impl Into<String>) -> Invalid {
    Invalid::new(Reason::UrlInvalid, "url", rule)
}

fn refused(rule: impl Into<String>) -> Invalid {
    Invalid::new(Reason::UrlNotAllowed, "url", rule)
}
