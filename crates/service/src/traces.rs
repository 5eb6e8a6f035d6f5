//! Spans to an OpenTelemetry collector, when `OTEL_EXPORTER_OTLP_ENDPOINT` names one; otherwise
//! nothing happens and nothing is allocated. Like the log, it is the process's, not a component's.
//!
//! Who a span is and whether it is sampled is decided by [`EventTrace`]; here it is only handed
//! over. The queue to the exporter is bounded: with a collector that is dead or slow, spans are
//! dropped and nobody waits.
//!
//! Settings are OpenTelemetry's own: `OTEL_EXPORTER_OTLP_ENDPOINT` (or `_TRACES_ENDPOINT`; gRPC,
//! `http://`), `OTEL_TRACES_SAMPLER_ARG` (the share of traces without a parent, default 1),
//! `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_*`.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanfare_domain::{EventTrace, Timestamp};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanProcessor};

use crate::telemetry::TelemetryError;

/// Longest that the last spans may take at the end; well within a drain.
const FLUSH_MAX: Duration = Duration::from_secs(2);

static TRACES: OnceLock<Traces> = OnceLock::new();

struct Traces {
    processor: BatchSpanProcessor,
    ratio: f64,
    scope: InstrumentationScope,
}

/// What a span is about, in OpenTelemetry's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call from outside.
    Server,
    /// A record that was read.
    Consumer,
    /// A call to outside.
    Client,
}

/// A span that has ended.
#[derive(Debug)]
pub struct Span {
    /// Its name: one of a few.
    pub name: &'static str,
    /// What it is about.
    pub kind: Kind,
    /// Its own id.
    pub id: u64,
    /// The span above it, and whether that is another program's.
    pub parent: Option<(u64, bool)>,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Whose it is; ids belong here.
    pub attributes: Vec<KeyValue>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// Starts exporting if the environment names a collector. `name` is the service's unless
/// `OTEL_SERVICE_NAME` is set. Needs a tokio runtime, which the connection lives in.
///
/// # Errors
/// When a setting cannot be understood. A collector that is away is no error.
pub fn start(name: &'static str) -> Result<(), TelemetryError> {
    if !is_asked_for() {
        return Ok(());
    }
    let ratio = ratio(std::env::var("OTEL_TRACES_SAMPLER_ARG").ok().as_deref())?;
    let exporter = SpanExporter::builder().with_tonic().build();
    let exporter = exporter.map_err(|e| TelemetryError::new(format!("traces: {e}")))?;
    let mut processor = BatchSpanProcessor::builder(exporter).build();
    processor.set_resource(&resource(name));
    let scope = InstrumentationScope::builder("fanfare")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build();
    let traces = Traces {
        processor,
        ratio,
        scope,
    };
    TRACES
        .set(traces)
        .map_err(|_| TelemetryError::new("traces were started before".into()))
}

/// Sends what is left, for a bounded time; nothing can be recorded afterwards.
pub async fn stop() {
    let Some(traces) = TRACES.get() else { return };
    let flushing = move || traces.processor.shutdown_with_timeout(FLUSH_MAX);
    match tokio::task::spawn_blocking(flushing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the last spans were not sent"),
        Err(error) => tracing::error!(%error, "sending the last spans panicked"),
    }
}

/// Whether spans are exported at all: ask before anything is computed for one.
pub fn is_on() -> bool {
    TRACES.get().is_some()
}

/// Whether the spans of `trace` are recorded.
pub fn is_sampled(trace: &EventTrace) -> bool {
    TRACES.get().is_some_and(|t| trace.is_sampled(t.ratio))
}

/// Hands a span of `trace` over, if that is sampled. Never waits. `span` is not called otherwise.
pub fn record(trace: &EventTrace, span: impl FnOnce() -> Span) {
    let Some(traces) = TRACES.get().filter(|t| trace.is_sampled(t.ratio)) else {
        return;
    };
    traces
        .processor
        .on_end(data(trace, span(), traces.scope.clone()));
}

fn is_asked_for() -> bool {
    let set = |name| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let on = set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    on && std::env::var("OTEL_SDK_DISABLED").as_deref() != Ok("true")
}

fn ratio(text: Option<&str>) -> Result<f64, TelemetryError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(1.0);
    };
    let read = text.parse().ok();
    read.filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| {
            TelemetryError::new(format!(
                "OTEL_TRACES_SAMPLER_ARG={text:?} must be a number from 0 to 1"
            ))
        })
}

fn resource(name: &'static str) -> Resource {
    let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty());
    let builder = Resource::builder();
    if named {
        return builder.build();
    }
    builder.with_service_name(name).build()
}

fn data(trace: &EventTrace, span: Span, scope: InstrumentationScope) -> SpanData {
    let context = SpanContext::new(
        TraceId::from(trace.trace),
        SpanId::from(span.id),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    );
    SpanData {
        span_context: context,
        parent_span_id: span.parent.map_or(SpanId::INVALID, |(id, _)| id.into()),
        parent_span_is_remote: span.parent.is_some_and(|(_, remote)| remote),
        span_kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Consumer => SpanKind::Consumer,
            Kind::Client => SpanKind::Client,
        },
        name: span.name.into(),
        start_time: system(span.start),
        end_time: system(span.end.max(span.start)),
        attributes: span.attributes,
        dropped_attributes_count: 0,
        events: opentelemetry_sdk::trace::SpanEvents::default(),
        links: opentelemetry_sdk::trace::SpanLinks::default(),
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope,
    }
}

fn system(time: Timestamp) -> SystemTime {
    let micros = u64::try_from(time.micros()).unwrap_or_default();
    UNIX_EPOCH + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_a_share() {
        for (text, read) in [(None, 1.0), (Some(""), 1.0), (Some("0.25"), 0.25)] {
            assert!((ratio(text).unwrap() - read).abs() < f64::EPSILON);
        }
        for text in ["-1", "1.5", "NaN", "all"] {
            assert!(ratio(Some(text)).is_err(), "{text}");
        }
    }
}
