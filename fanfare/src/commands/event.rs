//! `fanfare event`: publish, and see what became of it.

pub mod batch;
pub mod publish;

use clap::{Args, Subcommand};
use fanfare_proto::v1;

use crate::args::{ConnectionArgs, ListArgs};
use crate::commands::{delivery, paging};
use crate::connect::Server;
use crate::failure::Failure;
use crate::output::Format;
use crate::output::event::{EventRow, EventSheet, EventSummaryRow};
use crate::output::value::wire_time;

/// `fanfare event …`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare event publish order.paid --data '{\"amount\":1250}' --wait
  fanfare event get 01990000-0000-7000-8000-000000000000
  fanfare event tail --event-type 'order.**'")]
pub struct EventArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: EventVerb,
}

#[derive(Debug, Subcommand)]
enum EventVerb {
    /// Publish an event; done means that it is durable
    Publish(Box<publish::PublishArgs>),
    /// Show an event and what became of it
    Get(GetArgs),
    /// List events, newest first
    List(EventListArgs),
    /// Follow events as they are accepted, until interrupted
    Tail(TailArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare event get 01990000-0000-7000-8000-000000000000
  fanfare event get order-17 --source /shop -o json")]
struct GetArgs {
    /// The event's id
    id: String,
    /// Its source; needed only when several sources used this id
    #[arg(long, default_value = "", hide_default_value = true)]
    source: String,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare event list --event-type 'order.*' --since 1h
  fanfare event list --all -o json")]
struct EventListArgs {
    /// Only types that match this pattern; repeatable
    #[arg(long = "event-type", value_name = "PATTERN")]
    event_types: Vec<String>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare event tail --event-type 'order.**'
  fanfare event tail -o json --limit 10")]
struct TailArgs {
    /// Only types that match this pattern; repeatable
    #[arg(long = "event-type", value_name = "PATTERN")]
    event_types: Vec<String>,
    /// Stop after so many events
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Runs the verb.
pub async fn run(args: EventArgs, format: Format) -> Result<(), Failure> {
    let connection = args.connection;
    match args.verb {
        EventVerb::Publish(args) => publish::run(*args, &connection, format).await,
        EventVerb::Get(args) => get(args, &Server::connect(&connection).await?, format).await,
        EventVerb::List(args) => list(args, &Server::connect(&connection).await?, format).await,
        EventVerb::Tail(args) => tail(args, &Server::connect(&connection).await?, format).await,
    }
}

/// An event with all of its deliveries: the answer itself names the first 100.
async fn told(server: &Server, id: &str, source: &str) -> Result<v1::GetEventResponse, Failure> {
    let request = v1::GetEventRequest {
        id: id.to_owned(),
        source: source.to_owned(),
    };
    let response = server.events().get_event(request).await;
    let mut told = response.map_err(|s| server.failed(&s))?.into_inner();
    if told.deliveries.len() < usize::try_from(told.delivery_count).unwrap_or(usize::MAX) {
        let source = told.event.as_ref().map_or(source, |event| &event.source);
        told.deliveries = delivery::of_event(server, id, source, told.delivery_count).await?;
    }
    Ok(told)
}

async fn get(args: GetArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let sheet = EventSheet::new(told(server, &args.id, &args.source).await?);
    format.sheet(&sheet)?;
    if format == Format::Table && !sheet.deliveries().is_empty() {
        println!();
        format.list(sheet.deliveries(), "")?;
    }
    Ok(())
}

async fn list(args: EventListArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let events = paging::collect(&args.list, |page_token| {
        let request = v1::ListEventsRequest {
            page_size: args.list.page_size(),
            page_token,
            event_types: args.event_types.clone(),
            since: args.list.since.map(|since| wire_time(since.0)),
            until: None,
        };
        async move {
            let response = server.events().list_events(request).await;
            let page = response.map_err(|s| server.failed(&s))?.into_inner();
            Ok((page.events, page.next_page_token))
        }
    });
    let rows: Vec<_> = events
        .await?
        .into_iter()
        .map(EventSummaryRow::new)
        .collect();
    Ok(format.list(
        &rows,
        "no events; publish one with 'fanfare event publish TYPE'",
    )?)
}

async fn tail(args: TailArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let request = v1::TailEventsRequest {
        event_types: args.event_types,
    };
    let response = server.events().tail_events(request).await;
    let mut stream = response.map_err(|s| server.failed(&s))?.into_inner();
    format.note("following events as they are accepted; stop with Ctrl-C");
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let message = stream.message().await.map_err(|s| server.failed(&s))?;
        let Some(message) = message else {
            return Err(Failure::unreachable(&server.address, "it ended the stream"));
        };
        if message.skipped > 0 {
            format.note(&format!("({} events were skipped)", message.skipped));
        }
        for tailed in message.events {
            let event = tailed.event.unwrap_or_default();
            format.next(&EventRow::new(event, tailed.accept_time.as_ref()))?;
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    Ok(())
}
