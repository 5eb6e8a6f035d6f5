//! The POST that a session sends: what a subscriber gets from a worker, in CloudEvents binary
//! mode, signed with the session's secret.

use std::fmt::Write as _;

use bytes::Bytes;
use fanfare_delivery_worker::sign::Signer;
use fanfare_domain::event::BodyHash;
use fanfare_domain::{
    DeliverySeed, EndpointId, EventId, Source, SubscriptionId, TenantId, Timestamp,
};
use fanfare_proto::v1;
use fanfare_proto::v1::event::Payload;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http_body_util::Full;
use url::Url;

use crate::output::value::time;

/// Who signs, and what makes its ids its own.
#[derive(Clone)]
pub(super) struct Session {
    /// Stands for the endpoint that there is not.
    pub(super) endpoint: EndpointId,
    /// Whose events these are.
    pub(super) tenant: String,
    /// Signs with the session's secret.
    pub(super) signer: Signer,
}

impl Session {
    /// Names an event as a delivery id does: the same event is the same id for the session.
    pub(super) fn webhook_id(&self, event: &v1::Event, accepted: Timestamp) -> String {
        let parts = (
            TenantId::try_new(&self.tenant),
            Source::try_new(&event.source),
            EventId::try_new(&event.id),
        );
        let (Ok(tenant), Ok(source), Ok(id)) = parts else {
            // The server has none of these; a stranger's server is not our business to mend.
            return "dlv_unknown".to_owned();
        };
        DeliverySeed::new(&tenant, &source, &id, &BodyHash([0; 16]))
            .delivery(self.endpoint, SubscriptionId(0), accepted, 0)
            .to_string()
    }

    /// The request; the error says which part cannot be sent.
    pub(super) fn request(
        &self,
        target: &Url,
        webhook_id: &str,
        event: v1::Event,
        now: Timestamp,
    ) -> Result<http::Request<Full<Bytes>>, String> {
        let body = match event.payload {
            Some(Payload::Data(bytes)) => bytes,
            Some(Payload::Text(text)) => Bytes::from(text),
            None => Bytes::new(),
        };
        let content_type = match event.data_content_type.as_str() {
            "" => "application/json",
            named => named,
        };
        let signature = self.signer.sign(webhook_id, now, &body);
        let mut headers: Vec<(String, String)> = vec![
            (CONTENT_TYPE.to_string(), content_type.to_owned()),
            (
                USER_AGENT.to_string(),
                concat!("Fanfare/", env!("CARGO_PKG_VERSION")).to_owned(),
            ),
            (HOST.to_string(), target.authority().to_owned()),
            ("webhook-id".into(), webhook_id.to_owned()),
            ("webhook-timestamp".into(), now.seconds().to_string()),
            ("webhook-signature".into(), signature),
            ("idempotency-key".into(), webhook_id.to_owned()),
            ("ce-specversion".into(), "1.0".into()),
            ("ce-id".into(), event.id),
            ("ce-type".into(), event.r#type),
            ("ce-source".into(), event.source),
        ];
        let optional = [
            ("ce-time", time(event.time.as_ref())),
            ("ce-subject", event.subject),
            ("ce-dataschema", event.data_schema),
            ("ce-partitionkey", event.ordering_key),
        ];
        let given = optional
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        headers.extend(given);
        headers.extend(
            event
                .extensions
                .into_iter()
                .map(|(name, value)| (format!("ce-{name}"), value)),
        );
        let mut request = http::Request::post(target.as_str());
        for (name, value) in headers {
            let value = if name.starts_with("ce-") {
                percent(&value)
            } else {
                value
            };
            let name = HeaderName::try_from(name).map_err(|e| e.to_string())?;
            let value = HeaderValue::try_from(value).map_err(|e| e.to_string())?;
            request = request.header(name, value);
        }
        request.body(Full::new(body)).map_err(|e| e.to_string())
    }
}

/// CloudEvents' encoding of header values: what is not printable ASCII, space, `"` and `%`.
fn percent(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && byte != b'"' && byte != b'%' {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}
