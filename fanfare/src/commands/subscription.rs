//! `fanfare subscription`: which events an endpoint wants.

use clap::{Args, Subcommand};
use fanfare_proto::v1;

use crate::args::{ConnectionArgs, ListArgs};
use crate::commands::paging;
use crate::connect::Server;
use crate::failure::Failure;
use crate::output::Format;
use crate::output::endpoint::SubscriptionRow;
use crate::output::value::wire_time;

/// `fanfare subscription …`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare subscription create --endpoint ep_0000000000000 --event-type 'order.*'
  fanfare subscription list --endpoint ep_0000000000000")]
pub struct SubscriptionArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    verb: SubscriptionVerb,
}

#[derive(Debug, Subcommand)]
enum SubscriptionVerb {
    /// Subscribe an endpoint
    Create(CreateArgs),
    /// Show a subscription
    #[command(after_help = "Example:\n  fanfare subscription get sub_0000000000000")]
    Get(IdArgs),
    /// List subscriptions, newest first
    List(SubscriptionListArgs),
    /// Change which types are wanted
    Update(UpdateArgs),
    /// Delete a subscription; what is open becomes dead letters
    #[command(after_help = "Example:\n  fanfare subscription delete sub_0000000000000")]
    Delete(IdArgs),
}

#[derive(Args, Debug)]
struct IdArgs {
    /// sub_…
    id: String,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  fanfare subscription create --endpoint ep_0000000000000 --event-type 'order.*' --event-type invoice.sent")]
struct CreateArgs {
    /// The endpoint: ep_…
    #[arg(long, value_name = "ID")]
    endpoint: String,
    /// Types that match this pattern; repeatable; several matching is still one delivery
    #[arg(long = "event-type", value_name = "PATTERN", required = true)]
    event_types: Vec<String>,
    /// Makes the call safe to repeat for 24 h
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    request_id: String,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  fanfare subscription list --endpoint ep_0000000000000")]
struct SubscriptionListArgs {
    /// Only of this endpoint: ep_…
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    endpoint: String,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  fanfare subscription update sub_0000000000000 --event-type 'order.**'")]
struct UpdateArgs {
    /// sub_…
    id: String,
    /// The patterns it has from now on; repeatable
    #[arg(long = "event-type", value_name = "PATTERN", required = true)]
    event_types: Vec<String>,
    /// Change only this version
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
}

/// Runs the verb.
pub async fn run(args: SubscriptionArgs, format: Format) -> Result<(), Failure> {
    let server = &Server::connect(&args.connection).await?;
    match args.verb {
        SubscriptionVerb::Create(args) => create(args, server, format).await,
        SubscriptionVerb::Get(args) => get(args, server, format).await,
        SubscriptionVerb::List(args) => list(args, server, format).await,
        SubscriptionVerb::Update(args) => update(args, server, format).await,
        SubscriptionVerb::Delete(args) => delete(args, server, format).await,
    }
}

async fn create(args: CreateArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let request = v1::CreateSubscriptionRequest {
        subscription: Some(v1::Subscription {
            endpoint_id: args.endpoint,
            event_types: args.event_types,
            ..v1::Subscription::default()
        }),
        request_id: args.request_id,
    };
    let response = server.subscriptions().create_subscription(request).await;
    let repeat = "see 'fanfare subscription list', then repeat with --request-id to make it once";
    let response = response
        .map_err(|s| server.write_failed(&s, repeat))?
        .into_inner();
    print(response.subscription, &response.notes, format)
}

async fn get(args: IdArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let request = v1::GetSubscriptionRequest { id: args.id };
    let response = server.subscriptions().get_subscription(request).await;
    let response = response.map_err(|s| server.failed(&s))?.into_inner();
    print(response.subscription, &[], format)
}

async fn list(args: SubscriptionListArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let subscriptions = paging::collect(&args.list, |page_token| {
        let request = v1::ListSubscriptionsRequest {
            page_size: args.list.page_size(),
            page_token,
            endpoint_id: args.endpoint.clone(),
            since: args.list.since.map(|since| wire_time(since.0)),
        };
        async move {
            let response = server.subscriptions().list_subscriptions(request).await;
            let page = response.map_err(|s| server.failed(&s))?.into_inner();
            Ok((page.subscriptions, page.next_page_token))
        }
    });
    let rows: Vec<_> = subscriptions
        .await?
        .into_iter()
        .map(SubscriptionRow::new)
        .collect();
    let nothing = "no subscriptions; make one with 'fanfare subscription create --endpoint ID --event-type PATTERN'";
    Ok(format.list(&rows, nothing)?)
}

async fn update(args: UpdateArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let request = v1::UpdateSubscriptionRequest {
        subscription: Some(v1::Subscription {
            id: args.id,
            event_types: args.event_types,
            etag: args.etag,
            ..v1::Subscription::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["event_types".to_owned()],
        }),
    };
    let response = server.subscriptions().update_subscription(request).await;
    let response = response.map_err(|s| server.write_failed(&s, "repeat: it is safe"))?;
    let response = response.into_inner();
    print(response.subscription, &response.notes, format)
}

async fn delete(args: IdArgs, server: &Server, format: Format) -> Result<(), Failure> {
    let request = v1::DeleteSubscriptionRequest {
        id: args.id.clone(),
        etag: String::new(),
    };
    let response = server.subscriptions().delete_subscription(request).await;
    response.map_err(|s| server.write_failed(&s, "repeat: deleting twice is safe"))?;
    Ok(super::deleted(&args.id, format)?)
}

fn print(
    subscription: Option<v1::Subscription>,
    notes: &[String],
    format: Format,
) -> Result<(), Failure> {
    format.sheet(&SubscriptionRow::new(subscription.unwrap_or_default()))?;
    for note in notes {
        format.note(&format!("note: {note}"));
    }
    Ok(())
}
