//! The POST that a session sends: what a subscriber gets from a worker that was told no envelope,
//! signed with the session's secret.

use bytes::Bytes;
use fanfare_delivery_worker::envelope;
use fanfare_delivery_worker::sign::Signer;
use fanfare_domain::event::BodyHash;
use fanfare_domain::{
    Data, DeliverySeed, EndpointId, Envelope, Event, EventId, EventType, Source, SubscriptionId,
    TenantId, Timestamp,
};
use fanfare_proto::v1;
use fanfare_proto::v1::event::Payload;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http_body_util::Full;
use url::Url;

use crate::output::value::timestamp;

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
        let event = domain(event)?;
        let envelope = envelope::of(&event, Envelope::Binary);
        let (body, attributes) = match envelope {
            Envelope::Binary => (event.data.bytes().clone(), envelope::attributes(&event)),
            Envelope::Structured => (envelope::structured(&event), Vec::new()),
        };
        let signature = self.signer.sign(webhook_id, now, &body);
        let mut request = http::Request::post(target.as_str())
            .header(USER_AGENT, concat!("Fanfare/", env!("CARGO_PKG_VERSION")))
            .header(HOST, target.authority())
            .header("webhook-id", webhook_id)
            .header("webhook-timestamp", now.seconds())
            .header("webhook-signature", signature)
            .header("idempotency-key", webhook_id);
        if let Some(content_type) = envelope::content_type(&event, envelope) {
            request = request.header(CONTENT_TYPE, content_type);
        }
        for (name, value) in attributes {
            request = request.header(name, value);
        }
        request.body(Full::new(body)).map_err(|e| e.to_string())
    }
}

/// The event as the server took it; a stranger's server may answer with what is none.
fn domain(event: v1::Event) -> Result<Event, String> {
    let data = match event.payload {
        Some(Payload::Data(bytes)) => Data::Bytes(bytes),
        Some(Payload::Text(text)) => Data::Text(text.into()),
        None => Data::None,
    };
    let data_content_type = match event.data_content_type {
        none if none.is_empty() => "application/json".to_owned(),
        named => named,
    };
    Ok(Event {
        id: EventId::try_new(&event.id).map_err(|e| e.to_string())?,
        source: Source::try_new(&event.source).map_err(|e| e.to_string())?,
        event_type: EventType::try_new(&event.r#type).map_err(|e| e.to_string())?,
        subject: event.subject,
        time: event.time.as_ref().map(timestamp),
        data_content_type,
        data_schema: event.data_schema,
        data,
        ordering_key: event.ordering_key,
        extensions: event.extensions.into_iter().collect(),
    })
}
