//! `fanfare ready`: what a probe asks, as a command, for where nothing else can ask: an image without a
//! shell, a script.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;

use crate::connect::innermost;
use crate::failure::{Exit, Failure};
use crate::output::{Format, Sheet};

/// How long an answer may take, and how large it may be.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_MAX: usize = 64 * 1024;

/// `fanfare ready`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fanfare ready
  fanfare ready http://fanfare-worker.internal:7401

Ready is exit code 0; not ready is 1 and says why; 69 is no answer.")]
pub struct ReadyArgs {
    /// The admin address of a server, a router or a delivery worker
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:7401")]
    admin: Uri,
}

#[derive(Serialize)]
struct ReadySheet {
    admin: String,
    ready: bool,
}

impl Sheet for ReadySheet {
    fn lines(&self) -> Vec<(&'static str, String)> {
        vec![("ready", format!("{} says so", self.admin))]
    }
}

/// Asks and prints.
pub async fn run(args: &ReadyArgs, format: Format) -> Result<(), Failure> {
    let admin = args.admin.to_string();
    let admin = admin.trim_end_matches('/');
    let asking = tokio::time::timeout(PATIENCE, ask(admin));
    let answer = asking
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
    let (is_ready, text) = answer.map_err(|why| {
        let message = format!(
            "nothing answers at {admin} ({why}); name the admin address of a server: server.admin_listen, or its addresses file, has it"
        );
        Failure::new(Exit::Unreachable, "ADMIN_UNREACHABLE", message)
    })?;
    if !is_ready {
        let why = text.trim().replace('\n', "; ");
        return Err(Failure::refused("NOT_READY", format!("not ready: {why}")));
    }
    format.sheet(&ReadySheet {
        admin: admin.to_owned(),
        ready: true,
    })?;
    Ok(())
}

/// Whether it is ready, and what it says.
async fn ask(admin: &str) -> Result<(bool, String), String> {
    let client =
        Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(HttpConnector::new());
    let url: Uri = format!("{admin}/readyz")
        .parse()
        .map_err(|error| format!("it is no URL: {error}"))?;
    let answer = client.get(url).await.map_err(|error| innermost(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_MAX);
    let body = body.collect().await.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    match status.as_u16() {
        200 => Ok((true, text)),
        503 => Ok((false, text)),
        other => Err(format!("it answers {other}, which no admin address does")),
    }
}
