//! `fanfare event publish`: the id is made before anything is sent and printed whatever happens,
//! so that an unknown outcome can be repeated.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use fanfare_proto::v1;
use fanfare_proto::v1::event::Payload;
use fanfare_service::HumanDuration;
use tokio::time::Instant;

use super::batch;
use crate::args::{ConnectionArgs, pair};
use crate::connect::Server;
use crate::failure::Failure;
use crate::output::Format;
use crate::output::delivery::DeliveryRow;
use crate::output::event::PublishedRow;

/// How often `--wait` asks.
const WAIT_INTERVAL: Duration = Duration::from_millis(100);
/// Most bytes read as data: the server's hard cap is 1 MiB, and it says so better than we could.
const DATA_MAX: u64 = 2 * 1024 * 1024;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare event publish order.paid --data '{\"amount\":1250}' --wait
  fanfare event publish invoice.sent --data-file invoice.json --id invoice-17 --source /billing
  cat order.json | fanfare event publish order.created -
  fanfare event publish --batch events.ndjson")]
pub(super) struct PublishArgs {
    /// Type of the event, like order.paid
    #[arg(value_name = "TYPE", required_unless_present = "batch")]
    event_type: Option<String>,

    /// Read the data from standard input
    #[arg(value_name = "-", value_parser = ["-"], conflicts_with_all = ["data", "data_file"])]
    stdin: Option<String>,

    /// The data
    #[arg(long, value_name = "JSON", conflicts_with = "data_file")]
    data: Option<String>,

    /// File with the data, byte for byte; - is standard input
    #[arg(long, value_name = "FILE")]
    data_file: Option<PathBuf>,

    /// Media type of the data
    #[arg(long, default_value = "application/json", value_name = "TYPE")]
    content_type: String,

    /// Id of the event; publishing the same id again delivers nothing twice
    #[arg(long)]
    id: Option<String>,

    /// Where it comes from; the default is / and the name of the key
    #[arg(long, default_value = "", hide_default_value = true)]
    source: String,

    /// What it happened to
    #[arg(long)]
    subject: Option<String>,

    /// Ordering key: events with the same key keep their order on their way
    #[arg(long, value_name = "ORDERING_KEY")]
    key: Option<String>,

    /// Further attribute; repeatable
    #[arg(long = "extension", value_name = "NAME=VALUE", value_parser = pair)]
    extensions: Vec<(String, String)>,

    /// Wait for each delivery and print what it came to
    #[arg(long)]
    wait: bool,

    /// How long to wait at most
    #[arg(
        long,
        default_value = "30s",
        value_name = "DURATION",
        requires = "wait"
    )]
    wait_timeout: HumanDuration,

    /// File of CloudEvents, one JSON object per line; - is standard input
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["event_type", "stdin", "data", "data_file", "id", "subject", "key", "extensions", "wait"]
    )]
    batch: Option<PathBuf>,
}

/// Publishes.
pub(super) async fn run(
    args: PublishArgs,
    connection: &ConnectionArgs,
    format: Format,
) -> Result<(), Failure> {
    if let Some(file) = &args.batch {
        return batch::run(file, &args.source, connection, format).await;
    }
    let wait = args.wait.then_some(args.wait_timeout.0);
    let event = args.event()?;
    let id = event.id.clone();
    let published = publish(event, connection).await;
    let (server, response) = published.inspect_err(|_| print_id(&id, format))?;
    let source = response.source.clone();
    for note in &response.notes {
        format.note(note);
    }
    format.sheet(&PublishedRow::new(response))?;
    match wait {
        Some(at_most) => wait_for(&server, id, source, at_most, format).await,
        None => Ok(()),
    }
}

async fn publish(
    event: v1::Event,
    connection: &ConnectionArgs,
) -> Result<(Server, v1::PublishResponse), Failure> {
    let server = Server::connect(connection).await?;
    let repeat = format!("repeat with --id {}: it is delivered once", event.id);
    let request = v1::PublishRequest { event: Some(event) };
    let response = server.events().publish(request).await;
    let response = response.map_err(|s| server.write_failed(&s, &repeat))?;
    Ok((server, response.into_inner()))
}

/// The id of an event that was not published, or perhaps was: whoever repeats needs it.
fn print_id(id: &str, format: Format) {
    match format {
        Format::Table => println!("id  {id}"),
        Format::Json => println!("{}", serde_json::json!({ "id": id })),
    }
}

impl PublishArgs {
    fn event(self) -> Result<v1::Event, Failure> {
        let payload = self.payload()?;
        Ok(v1::Event {
            id: self.id.unwrap_or_else(new_id),
            source: self.source,
            r#type: self.event_type.unwrap_or_default(),
            subject: self.subject,
            time: None,
            data_content_type: self.content_type,
            data_schema: None,
            payload,
            ordering_key: self.key,
            extensions: self.extensions.into_iter().collect(),
        })
    }

    fn payload(&self) -> Result<Option<Payload>, Failure> {
        let bytes = if let Some(text) = &self.data {
            Some(text.clone().into_bytes())
        } else if self.stdin.is_some() {
            Some(read_stdin()?)
        } else {
            let file = self.data_file.as_ref();
            file.map(read_data).transpose()?
        };
        Ok(bytes.map(|bytes| Payload::Data(Bytes::from(bytes))))
    }
}

/// A new event id: sorts by time, and nobody else has it.
pub(super) fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn read_data(file: &PathBuf) -> Result<Vec<u8>, Failure> {
    if file.as_os_str() == "-" {
        return read_stdin();
    }
    let cannot = |e| Failure::usage(format!("cannot read --data-file {}: {e}", file.display()));
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(cannot)?;
    opened
        .take(DATA_MAX)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    Ok(bytes)
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(DATA_MAX)
        .read_to_end(&mut bytes);
    read.map_err(|e| Failure::usage(format!("cannot read standard input: {e}")))?;
    Ok(bytes)
}

/// Prints each delivery once it is final, until all are or the time is up.
async fn wait_for(
    server: &Server,
    id: String,
    source: String,
    at_most: Duration,
    format: Format,
) -> Result<(), Failure> {
    let until = Instant::now() + at_most;
    let mut printed = std::collections::HashSet::new();
    let mut dead: usize = 0;
    loop {
        let (rows, open) = deliveries_of(server, &id, &source).await?;
        for row in rows.iter().filter(|row| row.is_final()) {
            if printed.insert(row.id.clone()) {
                format.next(row)?;
                dead += usize::from(row.state == "dead_letter");
            }
        }
        if open == Some(0) {
            break;
        }
        if Instant::now() >= until {
            return Err(still_open(&id, &rows, at_most, format));
        }
        tokio::time::sleep(WAIT_INTERVAL).await;
    }
    if printed.is_empty() {
        format.note("no subscription wanted it; 'fanfare subscription list' shows who wants what");
    }
    match dead {
        0 => Ok(()),
        n => Err(Failure::refused(
            "DEAD_LETTER",
            format!(
                "{n} of its deliveries became dead letters; see 'fanfare delivery get ID', then 'fanfare delivery redrive ID'"
            ),
        )),
    }
}

/// The deliveries so far, and how many are not final; `None` while it is not routed.
async fn deliveries_of(
    server: &Server,
    id: &str,
    source: &str,
) -> Result<(Vec<DeliveryRow>, Option<usize>), Failure> {
    let told = super::told(server, id, source).await?;
    let routed = told.route_time.is_some();
    let rows: Vec<_> = told.deliveries.into_iter().map(DeliveryRow::new).collect();
    let count = usize::try_from(told.delivery_count).unwrap_or(usize::MAX);
    let finals = rows.iter().filter(|row| row.is_final()).count();
    Ok((rows, routed.then(|| count.saturating_sub(finals))))
}

/// The time is up: the event is safe, its deliveries go on.
fn still_open(id: &str, rows: &[DeliveryRow], waited: Duration, format: Format) -> Failure {
    for row in rows.iter().filter(|row| !row.is_final()) {
        // A closed output does not change the answer.
        let _ = format.next(row);
    }
    Failure::unknown(format!(
        "the event is durable and still under way after {}; see 'fanfare event get {id}', or wait again with --id {id} --wait",
        HumanDuration(waited)
    ))
}
