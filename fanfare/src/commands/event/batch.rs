//! `fanfare event publish --batch`: a file of CloudEvents, one JSON object per line, sent in
//! batches. Ids are made for events that have none before anything is sent, and printed with what
//! became of them, also when nobody knows: a line without its id must not be published again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fanfare_domain::Timestamp;
use fanfare_proto::v1;
use fanfare_proto::v1::event::Payload;
use fanfare_proto::v1::publish_result::Result as Published;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::publish::new_id;
use crate::args::ConnectionArgs;
use crate::connect::Server;
use crate::failure::Failure;
use crate::output::value::{time, wire_time};
use crate::output::{Format, Row};

/// Bounds of one batch; the server takes 1,000 events and 4 MiB.
const BATCH_EVENTS: usize = 500;
const BATCH_BYTES: usize = 3 * 1024 * 1024;
/// Most bytes of a line: an event of 1 MiB as base64 fits.
const LINE_MAX: usize = 2 * 1024 * 1024;
/// What to do when an outcome is unknown.
const REPEAT: &str = "publish the file again, with the ids printed here in lines that have none: nothing is delivered twice";

/// A CloudEvent in its JSON format.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(rename = "type")]
    event_type: String,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    datacontenttype: Option<String>,
    #[serde(default)]
    dataschema: Option<String>,
    #[serde(default)]
    partitionkey: Option<String>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    data_base64: Option<String>,
    #[serde(default)]
    specversion: Option<String>,
    #[serde(flatten)]
    extensions: HashMap<String, serde_json::Value>,
}

/// An event of the file.
struct Numbered {
    line: usize,
    event: v1::Event,
    id_made: bool,
}

/// What became of one line.
#[derive(Serialize)]
struct ResultRow {
    line: usize,
    id: String,
    /// Whether the line has no id itself: people are shown it even when all is well.
    #[serde(skip)]
    id_made: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    accept_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
    /// What may not be meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorRow>,
}

#[derive(Serialize)]
struct ErrorRow {
    code: String,
    message: String,
}

/// Counts of a whole file.
#[derive(Default)]
struct Tally {
    accepted: usize,
    duplicates: usize,
    refused: usize,
    unknown: usize,
}

impl Row for ResultRow {
    const COLUMNS: &'static [&'static str] = &["LINE", "ID", "RESULT"];

    fn cells(&self) -> Vec<String> {
        let mut result = match (&self.error, self.duplicate) {
            (Some(error), _) => format!("{}: {}", error.code, error.message),
            (None, Some(true)) => "accepted before".to_owned(),
            (None, _) => "durable".to_owned(),
        };
        for note in &self.notes {
            result = format!("{result}; {note}");
        }
        vec![format!("line {}", self.line), self.id.clone(), result]
    }
}

/// Publishes a file.
pub(super) async fn run(
    file: &Path,
    source: &str,
    connection: &ConnectionArgs,
    format: Format,
) -> Result<(), Failure> {
    let events = read(file, source)?;
    let server = Server::connect(connection).await?;
    let bar = bar(events.len());
    let mut tally = Tally::default();
    let mut rest = events.into_iter().peekable();
    while rest.peek().is_some() {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = rest.peek() {
            bytes += size(&next.event);
            if !batch.is_empty() && (batch.len() == BATCH_EVENTS || bytes > BATCH_BYTES) {
                break;
            }
            batch.extend(rest.next());
        }
        let sent = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let (rows, failure) = send(&server, batch).await;
        for row in &rows {
            tally.add(row);
            if format == Format::Json || row.is_worth_a_line() {
                bar.suspend(|| format.next(row))?;
            }
        }
        if let Some(failure) = failure {
            bar.finish_and_clear();
            return Err(failure);
        }
        bar.inc(sent);
    }
    bar.finish_and_clear();
    tally.end(format)
}

/// Sends one batch. A call that fails says so for each of its lines, and ends the whole.
async fn send(server: &Server, batch: Vec<Numbered>) -> (Vec<ResultRow>, Option<Failure>) {
    let mut rows: Vec<_> = batch.iter().map(ResultRow::new).collect();
    let events = batch.into_iter().map(|one| one.event).collect();
    let request = v1::PublishBatchRequest { events };
    match server.events().publish_batch(request).await {
        Ok(response) => {
            let mut results = response.into_inner().results.into_iter();
            for row in &mut rows {
                row.settle(results.next().unwrap_or_default());
            }
            (rows, None)
        }
        Err(status) => {
            let failure = server.write_failed(&status, REPEAT);
            for row in &mut rows {
                row.error = Some(ErrorRow::of_call(&failure));
            }
            let line = |row: Option<&ResultRow>| row.map(|row| row.line).unwrap_or_default();
            let lines = format!("lines {} to {}", line(rows.first()), line(rows.last()));
            (rows, Some(failure.context(&lines)))
        }
    }
}

impl ResultRow {
    /// Not settled yet.
    fn new(of: &Numbered) -> Self {
        Self {
            line: of.line,
            id: of.event.id.clone(),
            id_made: of.id_made,
            accept_time: None,
            duplicate: None,
            notes: Vec::new(),
            error: None,
        }
    }

    /// Whether a person wants to see it, who hears of the rest in one sum.
    fn is_worth_a_line(&self) -> bool {
        self.error.is_some() || self.id_made || !self.notes.is_empty()
    }

    fn settle(&mut self, result: v1::PublishResult) {
        match result.result {
            Some(Published::Accepted(accepted)) => {
                self.accept_time = time(accepted.accept_time.as_ref());
                self.duplicate = Some(accepted.duplicate);
                self.notes = accepted.notes;
            }
            Some(Published::Error(error)) => self.error = Some(ErrorRow::of_event(error)),
            None => self.error = Some(ErrorRow::of_event(tonic_types::Status::default())),
        }
    }
}

impl ErrorRow {
    fn of_event(status: tonic_types::Status) -> Self {
        Self {
            code: reason(&status),
            message: status.message,
        }
    }

    fn of_call(failure: &Failure) -> Self {
        Self {
            code: failure.code().to_owned(),
            message: failure.message().to_owned(),
        }
    }
}

impl Tally {
    fn add(&mut self, row: &ResultRow) {
        match (&row.error, row.duplicate) {
            (Some(error), _) if error.code == "PUBLISH_UNKNOWN" => self.unknown += 1,
            (Some(_), _) => self.refused += 1,
            (None, Some(true)) => self.duplicates += 1,
            (None, _) => self.accepted += 1,
        }
    }

    fn end(&self, format: Format) -> Result<(), Failure> {
        let Self {
            accepted,
            duplicates,
            refused,
            unknown,
        } = self;
        if format == Format::Table {
            println!(
                "published {accepted}, accepted before {duplicates}, refused {refused}, unknown {unknown}"
            );
        }
        if *unknown > 0 {
            return Err(Failure::unknown(format!(
                "it is not known whether {unknown} events were published; {REPEAT}"
            )));
        }
        if *refused > 0 {
            return Err(Failure::refused(
                "REFUSED",
                format!(
                    "{refused} events were refused; correct those lines and publish the file again"
                ),
            ));
        }
        Ok(())
    }
}

/// Reads and checks the whole file first, so that a broken line publishes nothing.
fn read(file: &Path, source: &str) -> Result<Vec<Numbered>, Failure> {
    let cannot =
        |e: io::Error| Failure::usage(format!("cannot read --batch {}: {e}", file.display()));
    let mut input: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(file).map_err(cannot)?))
    };
    let mut events = Vec::new();
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        if io::Read::take(&mut input, LINE_MAX as u64)
            .read_line(&mut text)
            .map_err(cannot)?
            == 0
        {
            break;
        }
        if !text.trim().is_empty() {
            let wrong = |why| Failure::usage(format!("{} line {line}: {why}", file.display()));
            let mut event = parse(&text, source).map_err(wrong)?;
            let id_made = event.id.is_empty();
            if id_made {
                event.id = new_id();
            }
            events.push(Numbered {
                line,
                event,
                id_made,
            });
        }
    }
    Ok(events)
}

/// The event of a line; its id is empty if the line has none.
fn parse(text: &str, default_source: &str) -> Result<v1::Event, String> {
    let line: Line<'_> =
        serde_json::from_str(text).map_err(|e| format!("is not a CloudEvent in JSON: {e}"))?;
    if line
        .specversion
        .as_deref()
        .is_some_and(|version| version != "1.0")
    {
        return Err("has a specversion other than 1.0".to_owned());
    }
    let time = match &line.time {
        None => None,
        Some(text) => {
            Some(Timestamp::parse_rfc3339(text).ok_or("has a time that is not RFC 3339")?)
        }
    };
    let payload = match (line.data, &line.data_base64) {
        (Some(_), Some(_)) => return Err("has both data and data_base64".to_owned()),
        (Some(raw), None) => Some(Payload::Data(Bytes::copy_from_slice(raw.get().as_bytes()))),
        (None, Some(text)) => {
            let bytes = STANDARD
                .decode(text)
                .map_err(|_| "has data_base64 that is not base64")?;
            Some(Payload::Data(Bytes::from(bytes)))
        }
        (None, None) => None,
    };
    let extensions = line.extensions.into_iter().map(|(name, value)| {
        let text = match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        (name, text)
    });
    Ok(v1::Event {
        id: line.id.unwrap_or_default(),
        source: line.source.unwrap_or_else(|| default_source.to_owned()),
        r#type: line.event_type,
        subject: line.subject,
        time: time.map(wire_time),
        data_content_type: line.datacontenttype.unwrap_or_default(),
        data_schema: line.dataschema,
        payload,
        ordering_key: line.partitionkey,
        extensions: extensions.collect(),
    })
}

/// The machine-readable reason of a refused event.
fn reason(status: &tonic_types::Status) -> String {
    use tonic_types::StatusExt as _;
    let details = tonic::Status::with_details(
        status.code.into(),
        status.message.clone(),
        prost::Message::encode_to_vec(status).into(),
    );
    details
        .get_details_error_info()
        .map_or_else(|| "UNKNOWN".to_owned(), |info| info.reason)
}

fn size(event: &v1::Event) -> usize {
    prost::Message::encoded_len(event)
}

/// A bar on a terminal, nothing elsewhere.
fn bar(events: usize) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} events  {per_sec}  {eta} left");
    let bar = ProgressBar::new(u64::try_from(events).unwrap_or(u64::MAX));
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_cloud_event_with_its_data_as_it_was() {
        let event = parse(
            r#"{"specversion":"1.0","id":"a","source":"/s","type":"t.x","partitionkey":"k","team":"x","data":{"n": 1.0}}"#,
            "",
        )
        .unwrap();
        assert_eq!(
            event.payload,
            Some(Payload::Data(Bytes::from_static(b"{\"n\": 1.0}")))
        );
        assert_eq!(event.ordering_key.as_deref(), Some("k"));
        assert_eq!(event.extensions["team"], "x");
        assert_eq!(parse(r#"{"type":"t"}"#, "/d").unwrap().source, "/d");
    }

    #[test]
    fn broken_lines_say_what_is_wrong() {
        for (line, says) in [
            ("{", "CloudEvent"),
            (r#"{"id":"a"}"#, "type"),
            (r#"{"type":"t","data":1,"data_base64":"AA=="}"#, "both"),
            (r#"{"type":"t","data_base64":"!"}"#, "base64"),
            (r#"{"type":"t","time":"noon"}"#, "RFC 3339"),
            (r#"{"type":"t","specversion":"0.3"}"#, "specversion"),
        ] {
            let error = parse(line, "").unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
