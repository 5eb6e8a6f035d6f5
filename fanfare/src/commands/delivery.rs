//! `fanfare delivery`: what is owed, what became of it, and another go for dead letters.

use std::collections::HashMap;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use fanfare_proto::v1;

use crate::args::{ConnectionArgs, ListArgs};
use crate::commands::paging;
use crate::connect::Server;
use crate::failure::Failure;
use crate::output::Format;
use crate::output::delivery::{DeliveryRow, RedriveRow};
use crate::output::value::wire_time;

/// How often a watched list is asked for.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Most deliveries of one redrive call.
const REDRIVE_MAX: usize = 1000;

/// `fanfare delivery …`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare delivery list --state dead_letter
  fanfare delivery redrive --endpoint ep_0000000000000 --state dead_letter")]
pub struct DeliveryArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: DeliveryVerb,
}

#[derive(Debug, Subcommand)]
enum DeliveryVerb {
    /// List deliveries, newest first
    List(DeliveryListArgs),
    /// Show a delivery with its attempts
    Get(GetArgs),
    /// Deliver dead letters again, under the same webhook-id
    Redrive(RedriveArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare delivery list --state dead_letter --since 1d
  fanfare delivery list --event order-17 -o json
  fanfare delivery list --endpoint ep_0000000000000 --watch")]
struct DeliveryListArgs {
    /// Only of this event
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    event: String,
    /// The event's source; needed only when several sources used its id
    #[arg(
        long,
        value_name = "SOURCE",
        default_value = "",
        hide_default_value = true
    )]
    event_source: String,
    /// Only to this endpoint: ep_…
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    endpoint: String,
    /// Only in this state; repeatable
    #[arg(long = "state", value_name = "STATE")]
    states: Vec<StateArg>,
    /// Go on printing what is new or changes, until interrupted
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StateArg {
    Pending,
    Retrying,
    Parked,
    Delivered,
    #[value(name = "dead_letter", alias = "dead-letter")]
    DeadLetter,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  fanfare delivery get dlv_000000000002kqlh7e00d96au1kh4agdbbgqjpo")]
struct GetArgs {
    /// dlv_…
    id: String,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare delivery redrive dlv_000000000002kqlh7e00d96au1kh4agdbbgqjpo
  fanfare delivery redrive --endpoint ep_0000000000000 --state dead_letter --since 2d")]
struct RedriveArgs {
    /// dlv_…; repeatable
    #[arg(required_unless_present = "endpoint", conflicts_with = "endpoint")]
    ids: Vec<String>,
    /// All dead letters of this endpoint: ep_…
    #[arg(long, value_name = "ID", requires = "state")]
    endpoint: Option<String>,
    /// Which of them; only dead_letter can be redriven
    #[arg(long, value_name = "STATE", value_parser = ["dead_letter", "dead-letter"], requires = "endpoint")]
    state: Option<String>,
    /// Only of events published since then: a time or how long ago
    #[arg(long, value_name = "TIME", requires = "endpoint")]
    since: Option<crate::args::Since>,
}

impl StateArg {
    fn wire(self) -> i32 {
        let state = match self {
            Self::Pending => v1::DeliveryState::Pending,
            Self::Retrying => v1::DeliveryState::Retrying,
            Self::Parked => v1::DeliveryState::Parked,
            Self::Delivered => v1::DeliveryState::Delivered,
            Self::DeadLetter => v1::DeliveryState::DeadLetter,
        };
        state.into()
    }
}

/// Runs the verb.
pub async fn run(args: DeliveryArgs, format: Format) -> Result<(), Failure> {
    let server = &Server::connect(&args.connection).await?;
    match args.verb {
        DeliveryVerb::List(args) if args.watch => watch(args, server, format).await,
        DeliveryVerb::List(args) => {
            let rows = rows(&args, server).await?;
            Ok(format.list(&rows, "no such deliveries")?)
        }
        DeliveryVerb::Get(args) => get(args, server, format).await,
        DeliveryVerb::Redrive(args) => redrive(args, server, format).await,
    }
}

/// The deliveries of an event, of which there are `count`.
pub(super) async fn of_event(
    server: &Server,
    id: &str,
    source: &str,
    count: u32,
) -> Result<Vec<v1::Delivery>, Failure> {
    let args = DeliveryListArgs {
        event: id.to_owned(),
        event_source: source.to_owned(),
        endpoint: String::new(),
        states: Vec::new(),
        watch: false,
        list: ListArgs {
            limit: count,
            all: false,
            since: None,
        },
    };
    list(&args, server).await
}

async fn rows(args: &DeliveryListArgs, server: &Server) -> Result<Vec<DeliveryRow>, Failure> {
    let deliveries = list(args, server).await?;
    Ok(deliveries.into_iter().map(DeliveryRow::new).collect())
}

async fn list(args: &DeliveryListArgs, server: &Server) -> Result<Vec<v1::Delivery>, Failure> {
    let deliveries = paging::collect(&args.list, |page_token| {
        let request = v1::ListDeliveriesRequest {
            page_size: args.list.page_size(),
            page_token,
            event_id: args.event.clone(),
            event_source: args.event_source.clone(),
            endpoint_id: args.endpoint.clone(),
            states: args.states.iter().map(|s| s.wire()).collect(),
            since: args.list.since.map(|since| wire_time(since.0)),
            until: None,
        };
        async move {
            let response = server.deliveries().list_deliveries(request).await;
            let page = response.map_err(|s| server.failed(&s))?.into_inner();
            Ok((page.deliveries, page.next_page_token))
        }
    });
    deliveries.await
}

/// Prints the list, then every row that is new or has changed. What it remembers is what the
/// list shows, so its memory is bounded by --limit.
async fn watch(args: DeliveryListArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let mut seen = HashMap::new();
    loop {
        let rows = rows(&args, server).await?;
        for row in rows.iter().rev() {
            if seen.get(&row.id) != Some(&row.mark()) {
                format.next(row)?;
            }
        }
        seen = rows
            .into_iter()
            .map(|row| (row.id.clone(), row.mark()))
            .collect();
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

async fn get(args: GetArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let request = v1::GetDeliveryRequest { id: args.id };
    let response = server.deliveries().get_delivery(request).await;
    let response = response.map_err(|s| server.failed(&s))?.into_inner();
    let row = DeliveryRow::new(response.delivery.unwrap_or_default());
    format.sheet(&row)?;
    if format == Format::Table && !row.attempts().is_empty() {
        println!();
        format.list(row.attempts(), "")?;
    }
    Ok(())
}

async fn redrive(args: RedriveArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let ids = match &args.endpoint {
        None => args.ids,
        Some(endpoint) => dead_letters_of(endpoint, args.since, server).await?,
    };
    let mut rows = Vec::new();
    for some in ids.chunks(REDRIVE_MAX) {
        let request = v1::RedriveDeliveriesRequest { ids: some.to_vec() };
        let response = server.deliveries().redrive_deliveries(request).await;
        let repeat = "repeat: what was redriven is no longer a dead letter";
        let response = response
            .map_err(|s| server.write_failed(&s, repeat))?
            .into_inner();
        rows.extend(response.results.into_iter().map(RedriveRow::new));
    }
    let refused = rows.iter().filter(|row| !row.is_redriven()).count();
    format.list(&rows, "no dead letters to redrive")?;
    match refused {
        0 => Ok(()),
        n => Err(Failure::refused(
            "DELIVERY_NOT_REDRIVABLE",
            format!("{n} were not redriven; see 'fanfare delivery get ID' for where they stand"),
        )),
    }
}

async fn dead_letters_of(
    endpoint: &str,
    since: Option<crate::args::Since>,
    server: &Server,
) -> Result<Vec<String>, Failure> {
    let args = DeliveryListArgs {
        event: String::new(),
        event_source: String::new(),
        endpoint: endpoint.to_owned(),
        states: vec![StateArg::DeadLetter],
        watch: false,
        list: ListArgs {
            limit: 0,
            all: true,
            since,
        },
    };
    Ok(list(&args, server)
        .await?
        .into_iter()
        .map(|delivery| delivery.id)
        .collect())
}
