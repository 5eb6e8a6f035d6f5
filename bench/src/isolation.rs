//! What endpoints that hang do to the others: the same load on two servers in turn, of which one has
//! endpoints that take every request and answer none.

use std::time::Duration;

use anyhow::Result;

use crate::Settings;
use crate::publish::{Load, Way, subscribe};
use crate::report::{Report, Row, median};
use crate::server::Server;
use crate::sink::{HANG, Sink};

/// Endpoints, each with a type of its own, and how many of them may hang.
const ENDPOINTS: u64 = 20;
const HANGING: u64 = 2;
/// Events per second, one by one, in turn over all endpoints.
const PACE: u64 = 1000;
/// Longer than a request may take: what hangs comes to its time-out and is tried again meanwhile.
const LENGTH: Duration = Duration::from_secs(20);
const ROUNDS: usize = 3;
/// By how much the others may be later: a fifth, or this.
const LATER_MAX: f64 = 10.0;

/// Both kinds, in turn.
pub(crate) async fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let (mut none, mut some) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        none.push(p99(settings, 0).await?);
        some.push(p99(settings, HANGING).await?);
    }
    let (without, with) = (median(&none), median(&some));
    let met = with - without <= LATER_MAX.max(without / 5.0);
    report.add(
        Row::new(
            &format!("publish to receipt of the others while {HANGING} of {ENDPOINTS} endpoints hang"),
            "p99 at most 20 % or 10 ms later",
        )
        .said(
            format!("p99 {with:.1} ms against {without:.1} ms"),
            Some(met),
        )
        .note(format!(
            "{PACE} events/s one by one, one endpoint each, for {} s; {ROUNDS} rounds: {} against {}",
            LENGTH.as_secs(),
            listed(&some),
            listed(&none),
        )),
    );
    Ok(())
}

/// p99 from publishing to receipt at the endpoints that answer, in milliseconds.
async fn p99(settings: &Settings, hanging: u64) -> Result<f64> {
    let mut sink = Sink::start().await?;
    let server = Server::start(settings).await?;
    for n in 0..ENDPOINTS {
        let path = if n < hanging { HANG } else { "answers" };
        let (url, pattern) = (sink.url(&format!("{path}/{n}")), format!("bench.t{n}"));
        subscribe(server.channel(), url, &pattern).await?;
    }
    let load = Load {
        fan_out: 1,
        types: ENDPOINTS,
        ..Load::unwatched(server.channel(), "bench")
    };
    let events = load
        .run(Way::Unary { window: 64 }, LENGTH, Some(PACE))
        .await?;
    let (turns, rest) = (events / ENDPOINTS, events % ENDPOINTS);
    sink.reaches(events - turns * hanging - rest.min(hanging))
        .await?;
    let seen = sink.latencies().await?;
    // Not stopped: it would wait for what hangs.
    drop(server);
    Ok(seen.quantile(0.99).as_secs_f64() * 1e3)
}

fn listed(millis: &[f64]) -> String {
    let all: Vec<_> = millis.iter().map(|ms| format!("{ms:.1}")).collect();
    all.join(", ")
}
