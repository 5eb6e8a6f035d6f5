//! The three endpoints: made once, found again by the next run.

use std::path::Path;

use fanfare_domain::{EventType, Secret, TypePattern};
use fanfare_proto::v1;
use fanfare_service::HumanDuration;
use serde::{Deserialize, Serialize};

use super::RETRY_DELAYS;
use super::receiver::Serving;
use crate::connect::Server;
use crate::failure::Failure;
use crate::output::value::wire_duration;

/// How the receiver behaves at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Takes everything.
    Healthy,
    /// Answers 503 to the first two tries of each delivery.
    FailsTwice,
    /// Answers 410.
    Gone,
}

/// One of the cast.
#[derive(Debug)]
pub(super) struct Role {
    /// Name of the endpoint, and path at the receiver.
    pub(super) name: &'static str,
    pub(super) behaviour: Behaviour,
    /// For people.
    pub(super) says: &'static str,
    pub(super) wants: &'static [&'static str],
}

/// The cast.
pub(super) const CAST: [Role; 3] = [
    Role {
        name: "shop",
        behaviour: Behaviour::Healthy,
        says: "healthy",
        wants: &["order.**"],
    },
    Role {
        name: "ledger",
        behaviour: Behaviour::FailsTwice,
        says: "fails twice, then recovers",
        wants: &["order.paid", "invoice.*"],
    },
    Role {
        name: "old-crm",
        behaviour: Behaviour::Gone,
        says: "answers 410 Gone",
        wants: &["customer.*"],
    },
];

/// What a run before left: where the receiver was, and the endpoints with their secrets. The
/// secrets are worth nothing outside the demo.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) receiver_port: u16,
    pub(super) endpoints: Vec<KnownEndpoint>,
}

/// An endpoint of a run before, or of this one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KnownEndpoint {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) secret: String,
}

impl Role {
    /// Whether it is owed events of this type.
    pub(super) fn wants(&self, event_type: &str) -> bool {
        let Ok(event_type) = EventType::try_new(event_type) else {
            return false;
        };
        let patterns = self
            .wants
            .iter()
            .filter_map(|p| TypePattern::try_new(p).ok());
        patterns
            .into_iter()
            .any(|pattern| pattern.matches(&event_type))
    }
}

impl Known {
    /// Nothing, in a new directory.
    pub(super) fn load(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join("endpoints.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                let sentence = format!("{} is damaged ({e}); remove its directory", path.display());
                Failure::refused("DEMO", sentence)
            }),
            Err(_) => Ok(Self::default()),
        }
    }

    fn save(&self, dir: &Path) -> std::io::Result<()> {
        let beside = dir.join("endpoints.json.tmp");
        std::fs::write(&beside, serde_json::to_vec(self)?)?;
        std::fs::rename(&beside, dir.join("endpoints.json"))
    }
}

/// Makes what is missing, points everything at the receiver, and resumes what was disabled.
pub(super) async fn ensure(
    dir: &Path,
    mut known: Known,
    server: &Server,
    receiver: &Serving,
) -> Result<(), Failure> {
    let moved = known.receiver_port != receiver.port();
    known.receiver_port = receiver.port();
    for role in &CAST {
        let url = receiver.url(role.name);
        let before = known
            .endpoints
            .iter()
            .find(|e| e.name == role.name)
            .cloned();
        if let Some(endpoint) = before {
            revive(server, &endpoint.id, moved.then_some(url)).await?;
        } else {
            known.endpoints.push(create(server, role, url).await?);
            receiver.knows(&known.endpoints);
        }
        // After each: a kill between two must not make the first one twice.
        known.save(dir).map_err(|e| {
            Failure::refused("DEMO", format!("cannot write {} ({e})", dir.display()))
        })?;
    }
    Ok(())
}

async fn create(server: &Server, role: &Role, url: String) -> Result<KnownEndpoint, Failure> {
    let secret = Secret::generate(&mut rand::rng()).reveal();
    let endpoint = v1::Endpoint {
        name: role.name.to_owned(),
        url,
        secret: secret.clone(),
        retry_schedule: Some(v1::RetrySchedule {
            delays: RETRY_DELAYS
                .map(|d| wire_duration(HumanDuration(d)))
                .to_vec(),
        }),
        ..v1::Endpoint::default()
    };
    let request = v1::CreateEndpointRequest {
        endpoint: Some(endpoint),
        event_types: role.wants.iter().map(|p| (*p).to_owned()).collect(),
        request_id: String::new(),
    };
    let response = server.endpoints().create_endpoint(request).await;
    let made = response.map_err(|s| server.failed(&s))?.into_inner();
    Ok(KnownEndpoint {
        name: role.name.to_owned(),
        id: made.endpoint.unwrap_or_default().id,
        secret,
    })
}

async fn revive(server: &Server, id: &str, url: Option<String>) -> Result<(), Failure> {
    let request = v1::ResumeEndpointRequest { id: id.to_owned() };
    let response = server.endpoints().resume_endpoint(request).await;
    response.map_err(|s| server.failed(&s))?;
    let Some(url) = url else { return Ok(()) };
    let request = v1::UpdateEndpointRequest {
        endpoint: Some(v1::Endpoint {
            id: id.to_owned(),
            url,
            ..v1::Endpoint::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["url".to_owned()],
        }),
    };
    let response = server.endpoints().update_endpoint(request).await;
    response.map_err(|s| server.failed(&s))?;
    Ok(())
}
