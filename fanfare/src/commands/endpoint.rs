//! `fanfare endpoint`: where subscribers are called.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use fanfare_proto::v1;
use fanfare_service::HumanDuration;

use crate::args::{ConnectionArgs, ListArgs, pair};
use crate::commands::paging;
use crate::connect::Server;
use crate::failure::Failure;
use crate::output::Format;
use crate::output::delivery::AttemptRow;
use crate::output::endpoint::EndpointRow;
use crate::output::value::{wire_duration, wire_time};

/// `fanfare endpoint …`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare endpoint create https://shop.example/hook --event-type 'order.*'
  fanfare endpoint list")]
pub struct EndpointArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: EndpointVerb,
}

#[derive(Debug, Subcommand)]
enum EndpointVerb {
    /// Create an endpoint; prints its secret, once
    Create(Box<CreateArgs>),
    /// Show an endpoint
    #[command(after_help = "Example:\n  fanfare endpoint get ep_0000000000000")]
    Get(IdArgs),
    /// List endpoints, newest first
    List(EndpointListArgs),
    /// Change an endpoint; what is not named stays
    Update(Box<UpdateArgs>),
    /// Delete an endpoint and its subscriptions; what is open becomes dead letters
    #[command(after_help = "Example:\n  fanfare endpoint delete ep_0000000000000")]
    Delete(IdArgs),
    /// Pause an endpoint; its deliveries wait
    Pause(PauseArgs),
    /// Make a paused or disabled endpoint active again
    #[command(after_help = "Example:\n  fanfare endpoint resume ep_0000000000000")]
    Resume(IdArgs),
    /// Make a new secret; the old one signs beside it for a while
    RotateSecret(RotateArgs),
    /// Send one signed POST now and show the answer
    Test(TestArgs),
}

#[derive(Args, Debug)]
struct IdArgs {
    /// ep_…
    id: String,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare endpoint create https://shop.example/hook --event-type 'order.*' --event-type invoice.sent
  fanfare endpoint create http://localhost:3000/hook --event-type all --retry-schedule 5s,5m,30m")]
struct CreateArgs {
    /// Where to POST
    url: String,
    /// Subscribe it to types that match this pattern; repeatable
    #[arg(long = "event-type", value_name = "PATTERN")]
    event_types: Vec<String>,
    /// File with the secret to sign with; - is standard input; without it one is made
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Makes the call safe to repeat for 24 h
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    request_id: String,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args, Debug)]
struct Settings {
    /// Name for people
    #[arg(long)]
    name: Option<String>,
    /// Header sent with every POST; repeatable
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    headers: Vec<(String, String)>,
    /// Label for people and selectors; repeatable
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Delays between the tries, like 5s,5m,30m; never; or default
    #[arg(long, value_name = "DELAYS")]
    retry_schedule: Option<Schedule>,
    /// Total deadline of an attempt, 1s to 30s
    #[arg(long, value_name = "DURATION")]
    timeout: Option<HumanDuration>,
    /// What the signed body is: the data, or the whole CloudEvent
    #[arg(long)]
    envelope: Option<EnvelopeArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EnvelopeArg {
    Binary,
    Structured,
}

#[derive(Clone, Debug)]
enum Schedule {
    Default,
    Delays(Vec<HumanDuration>),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare endpoint list
  fanfare endpoint list --state disabled -o json")]
struct EndpointListArgs {
    /// Only in this state; repeatable
    #[arg(long = "state", value_name = "STATE")]
    states: Vec<StateArg>,
    /// Only with this label; repeatable
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateArg {
    Active,
    Paused,
    Disabled,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare endpoint update ep_0000000000000 --url https://shop.example/new
  fanfare endpoint update ep_0000000000000 --header x-team=billing --remove-label old")]
struct UpdateArgs {
    /// ep_…
    id: String,
    /// Where to POST
    #[arg(long)]
    url: Option<String>,
    /// Header to remove; repeatable
    #[arg(long = "remove-header", value_name = "NAME")]
    remove_headers: Vec<String>,
    /// Label to remove; repeatable
    #[arg(long = "remove-label", value_name = "NAME")]
    remove_labels: Vec<String>,
    /// Change only this version
    #[arg(long)]
    etag: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  fanfare endpoint pause ep_0000000000000 --reason 'planned downtime'")]
struct PauseArgs {
    /// ep_…
    id: String,
    /// Why, for people
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare endpoint rotate-secret ep_0000000000000
  fanfare endpoint rotate-secret ep_0000000000000 --overlap 1h")]
struct RotateArgs {
    /// ep_…
    id: String,
    /// File with the new secret; - is standard input; without it one is made
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// How long the old one keeps signing; 0s stops it at once; the default is 24h
    #[arg(long, value_name = "DURATION")]
    overlap: Option<HumanDuration>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare endpoint test ep_0000000000000
  fanfare endpoint test ep_0000000000000 --event-type order.paid --data '{\"amount\":1}'")]
struct TestArgs {
    /// ep_…
    id: String,
    /// Type of the event to send; the default is fanfare.test
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,
    /// Its data
    #[arg(long, value_name = "JSON", requires = "event_type")]
    data: Option<String>,
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let delays = match text {
            "default" => return Ok(Self::Default),
            "never" => Vec::new(),
            text => text
                .split(',')
                .map(str::parse)
                .collect::<Result<Vec<HumanDuration>, _>>()
                .map_err(|e| e.to_string())?,
        };
        Ok(Self::Delays(delays))
    }
}

impl Schedule {
    fn wire(&self) -> Option<v1::RetrySchedule> {
        match self {
            Self::Default => None,
            Self::Delays(delays) => Some(v1::RetrySchedule {
                delays: delays.iter().copied().map(wire_duration).collect(),
            }),
        }
    }
}

impl EnvelopeArg {
    fn wire(self) -> i32 {
        match self {
            Self::Binary => v1::Envelope::Binary.into(),
            Self::Structured => v1::Envelope::Structured.into(),
        }
    }
}

impl StateArg {
    fn wire(self) -> i32 {
        match self {
            Self::Active => v1::EndpointState::Active.into(),
            Self::Paused => v1::EndpointState::Paused.into(),
            Self::Disabled => v1::EndpointState::Disabled.into(),
        }
    }
}

/// Runs the verb.
pub async fn run(args: EndpointArgs, format: Format) -> Result<(), Failure> {
    let server = &Server::connect(&args.connection).await?;
    match args.verb {
        EndpointVerb::Create(args) => create(*args, server, format).await,
        EndpointVerb::Get(args) => {
            let endpoint = read(server, args.id).await?;
            Ok(format.sheet(&EndpointRow::new(endpoint))?)
        }
        EndpointVerb::List(args) => list(args, server, format).await,
        EndpointVerb::Update(args) => update(*args, server, format).await,
        EndpointVerb::Delete(args) => delete(args, server, format).await,
        EndpointVerb::Pause(args) => pause(args, server, format).await,
        EndpointVerb::Resume(args) => resume(args, server, format).await,
        EndpointVerb::RotateSecret(args) => rotate(args, server, format).await,
        EndpointVerb::Test(args) => test(args, server, format).await,
    }
}

async fn create(args: CreateArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let settings = args.settings;
    let endpoint = v1::Endpoint {
        url: args.url,
        name: settings.name.unwrap_or_default(),
        secret: args
            .secret_file
            .map(|f| secret(&f))
            .transpose()?
            .unwrap_or_default(),
        headers: settings.headers.into_iter().collect(),
        labels: settings.labels.into_iter().collect(),
        retry_schedule: settings.retry_schedule.and_then(|s| s.wire()),
        timeout: settings.timeout.map(wire_duration),
        envelope: settings.envelope.map(EnvelopeArg::wire).unwrap_or_default(),
        ..v1::Endpoint::default()
    };
    let request = v1::CreateEndpointRequest {
        endpoint: Some(endpoint),
        event_types: args.event_types,
        request_id: args.request_id,
    };
    let response = server.endpoints().create_endpoint(request).await;
    let repeat = "see 'fanfare endpoint list', then repeat with --request-id to make it once";
    let response = response
        .map_err(|s| server.write_failed(&s, repeat))?
        .into_inner();
    let endpoint = EndpointRow::new(response.endpoint.unwrap_or_default());
    format.sheet(&endpoint.with(response.subscription))?;
    notes(&response.notes, format);
    Ok(())
}

async fn read(server: &Server, id: String) -> Result<v1::Endpoint, Failure> {
    let response = server
        .endpoints()
        .get_endpoint(v1::GetEndpointRequest { id })
        .await;
    let response = response.map_err(|s| server.failed(&s))?;
    Ok(response.into_inner().endpoint.unwrap_or_default())
}

async fn list(args: EndpointListArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let labels: BTreeMap<String, String> = args.labels.into_iter().collect();
    let endpoints = paging::collect(&args.list, |page_token| {
        let request = v1::ListEndpointsRequest {
            page_size: args.list.page_size(),
            page_token,
            states: args.states.iter().map(|s| s.wire()).collect(),
            labels: labels.clone(),
            since: args.list.since.map(|since| wire_time(since.0)),
        };
        async move {
            let response = server.endpoints().list_endpoints(request).await;
            let page = response.map_err(|s| server.failed(&s))?.into_inner();
            Ok((page.endpoints, page.next_page_token))
        }
    });
    let rows: Vec<_> = endpoints.await?.into_iter().map(EndpointRow::new).collect();
    Ok(format.list(
        &rows,
        "no endpoints; make one with 'fanfare endpoint create URL'",
    )?)
}

async fn update(args: UpdateArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let before = read(server, args.id.clone()).await?;
    let (endpoint, paths) = changed(args, before);
    if paths.is_empty() {
        return Err(Failure::usage(
            "nothing to change; name what to change, for example --url or --label",
        ));
    }
    let request = v1::UpdateEndpointRequest {
        endpoint: Some(endpoint),
        update_mask: Some(prost_types::FieldMask { paths }),
    };
    let response = server.endpoints().update_endpoint(request).await;
    let repeat = "see 'fanfare endpoint get ID', then repeat";
    let response = response
        .map_err(|s| server.write_failed(&s, repeat))?
        .into_inner();
    format.sheet(&EndpointRow::new(response.endpoint.unwrap_or_default()))?;
    notes(&response.notes, format);
    Ok(())
}

/// What to send, and the mask. Headers and labels are merged into what was read, so the write
/// names the version that was read.
fn changed(args: UpdateArgs, before: v1::Endpoint) -> (v1::Endpoint, Vec<String>) {
    let settings = args.settings;
    let mut paths = Vec::new();
    let mut endpoint = v1::Endpoint {
        id: args.id,
        etag: args.etag.unwrap_or(before.etag),
        ..v1::Endpoint::default()
    };
    let mut change = |path: &str| paths.push(path.to_owned());
    if let Some(url) = args.url {
        endpoint.url = url;
        change("url");
    }
    if let Some(name) = settings.name {
        endpoint.name = name;
        change("name");
    }
    if !settings.headers.is_empty() || !args.remove_headers.is_empty() {
        endpoint.headers = merged(before.headers, settings.headers, &args.remove_headers);
        change("headers");
    }
    if !settings.labels.is_empty() || !args.remove_labels.is_empty() {
        endpoint.labels = merged(before.labels, settings.labels, &args.remove_labels);
        change("labels");
    }
    if let Some(schedule) = settings.retry_schedule {
        endpoint.retry_schedule = schedule.wire();
        change("retry_schedule");
    }
    if let Some(timeout) = settings.timeout {
        endpoint.timeout = Some(wire_duration(timeout));
        change("timeout");
    }
    if let Some(envelope) = settings.envelope {
        endpoint.envelope = envelope.wire();
        change("envelope");
    }
    (endpoint, paths)
}

fn merged(
    mut before: BTreeMap<String, String>,
    set: Vec<(String, String)>,
    removed: &[String],
) -> BTreeMap<String, String> {
    for name in removed {
        before.remove(name);
    }
    before.extend(set);
    before
}

async fn delete(args: IdArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let request = v1::DeleteEndpointRequest {
        id: args.id.clone(),
        etag: String::new(),
    };
    let response = server.endpoints().delete_endpoint(request).await;
    response.map_err(|s| server.write_failed(&s, "repeat: deleting twice is safe"))?;
    Ok(super::deleted(&args.id, format)?)
}

async fn pause(args: PauseArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let request = v1::PauseEndpointRequest {
        id: args.id,
        reason: args.reason,
    };
    let response = server.endpoints().pause_endpoint(request).await;
    let response = response.map_err(|s| server.write_failed(&s, "repeat: it is safe"))?;
    let endpoint = response.into_inner().endpoint.unwrap_or_default();
    Ok(format.sheet(&EndpointRow::new(endpoint))?)
}

async fn resume(args: IdArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let request = v1::ResumeEndpointRequest { id: args.id };
    let response = server.endpoints().resume_endpoint(request).await;
    let response = response.map_err(|s| server.write_failed(&s, "repeat: it is safe"))?;
    let endpoint = response.into_inner().endpoint.unwrap_or_default();
    Ok(format.sheet(&EndpointRow::new(endpoint))?)
}

async fn rotate(args: RotateArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let request = v1::RotateEndpointSecretRequest {
        id: args.id,
        secret: args
            .secret_file
            .map(|f| secret(&f))
            .transpose()?
            .unwrap_or_default(),
        overlap: args.overlap.map(wire_duration),
    };
    let response = server.endpoints().rotate_endpoint_secret(request).await;
    let repeat = "repeat: the secret that may have been made signs beside the next";
    let response = response.map_err(|s| server.write_failed(&s, repeat))?;
    let endpoint = response.into_inner().endpoint.unwrap_or_default();
    Ok(format.sheet(&EndpointRow::new(endpoint))?)
}

async fn test(args: TestArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let data = args.data.unwrap_or_else(|| "{}".to_owned());
    let event = args.event_type.map(|event_type| v1::TestEvent {
        r#type: event_type,
        data: data.into_bytes().into(),
        data_content_type: String::new(),
    });
    let request = v1::TestEndpointRequest { id: args.id, event };
    let response = server.endpoints().test_endpoint(request).await;
    let repeat = "repeat: the test is sent again";
    let response = response
        .map_err(|s| server.write_failed(&s, repeat))?
        .into_inner();
    let attempt = AttemptRow::new(response.attempt.unwrap_or_default());
    format.list(std::slice::from_ref(&attempt), "")?;
    if attempt.is_delivered() {
        return Ok(());
    }
    Err(Failure::refused(
        "TEST_FAILED",
        format!(
            "the test was not delivered ({}); correct the endpoint and test again",
            attempt.outcome()
        ),
    ))
}

/// Remarks of the server about what may not be meant.
fn notes(notes: &[String], format: Format) {
    for note in notes {
        format.note(&format!("note: {note}"));
    }
}

/// Reads a secret; it never comes from the command line, where everyone on the machine sees it.
fn secret(file: &PathBuf) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().lock().take(1024).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(1024).read_to_string(&mut text))
    };
    read.map_err(|e| Failure::usage(format!("cannot read --secret-file {}: {e}", file.display())))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            name: None,
            headers: vec![("x-new".into(), "1".into())],
            labels: Vec::new(),
            retry_schedule: Some("5s,5m".parse().unwrap()),
            timeout: None,
            envelope: None,
        }
    }

    #[test]
    fn an_update_names_what_it_changes_and_keeps_the_other_headers() {
        let before = v1::Endpoint {
            etag: "7".into(),
            headers: [
                ("x-old".into(), String::new()),
                ("x-gone".into(), String::new()),
            ]
            .into(),
            ..v1::Endpoint::default()
        };
        let args = UpdateArgs {
            id: "ep_1".into(),
            url: None,
            remove_headers: vec!["x-gone".into()],
            remove_labels: Vec::new(),
            etag: None,
            settings: settings(),
        };
        let (endpoint, paths) = changed(args, before);
        assert_eq!(paths, ["headers", "retry_schedule"]);
        assert_eq!(endpoint.etag, "7");
        let mut names: Vec<_> = endpoint.headers.keys().cloned().collect();
        names.sort();
        assert_eq!(names, ["x-new", "x-old"]);
        assert_eq!(
            endpoint.headers["x-old"], "",
            "an empty value keeps what is there"
        );
    }

    #[test]
    fn schedules_are_delays_never_or_the_default() {
        let wire = |text: &str| text.parse::<Schedule>().unwrap().wire();
        assert!(wire("default").is_none());
        assert_eq!(wire("never").unwrap().delays.len(), 0);
        assert_eq!(wire("5s,5m").unwrap().delays[1].seconds, 300);
        assert!("soon".parse::<Schedule>().is_err());
    }
}
