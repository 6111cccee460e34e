//! Logs to stderr and traces to a collector.
//!
//! A failover is seen by several processes that cannot hand each other a trace context in time. So the trace of a
//! tenure has an id that all of them can work out ([`understudy_wire::event::trace_id`]), and so has its root span.

use std::{borrow::Cow, cell::Cell, io::IsTerminal as _, time::Duration};

use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId, global,
    trace::{
        Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState, Tracer as _,
        TracerProvider as _,
    },
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{IdGenerator, RandomIdGenerator, SdkTracerProvider},
};
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::filter_fn, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};
use understudy_wire::BootTime;

use crate::{clock, config::Telemetry};

/// How long the end of a process may wait for a collector that does not answer.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// How long one export may take; the spans of a failed one are dropped.
const EXPORT_LIMIT: Duration = Duration::from_secs(2);

/// Instrumentation scope of every span.
const SCOPE: &str = "understudy";

/// Logs or traces could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter was refused.
    #[error("reading telemetry.log = {filter:?}")]
    Filter {
        /// As configured.
        filter: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The exporter was refused.
    #[error("making an exporter to telemetry.otlp = {endpoint:?}")]
    Exporter {
        /// As configured.
        endpoint: String,
        /// Why.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// The process logs elsewhere already.
    #[error("installing the log subscriber")]
    Installed(#[source] tracing_subscriber::util::TryInitError),
}

/// Keeps telemetry going; [`Guard::shutdown`] sends what is left.
#[derive(Debug)]
#[must_use = "spans that are still queued are lost without shutdown"]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
}

impl Guard {
    /// Sends what is queued, for at most [`SHUTDOWN_LIMIT`].
    pub async fn shutdown(self) {
        let Some(provider) = self.provider else { return };
        // It blocks: a worker must stay free for the exporter itself.
        let work = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(SHUTDOWN_LIMIT));
        match work.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not delivered"),
            Err(error) => tracing::warn!(%error, "the last spans were not delivered"),
        }
    }
}

/// Sets up logs and, where configured, traces for the process. Needs a Tokio runtime. A collector that is down costs
/// nothing but its spans.
///
/// # Errors
/// When filter or endpoint are refused, or a subscriber is installed already.
pub fn init(service: &'static str, instance: &str, config: &Telemetry) -> Result<Guard, TelemetryError> {
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|source| TelemetryError::Filter { filter: config.log.clone(), source })?;
    // What cannot be written is lost. To complain of it on stderr, which is what cannot be written, would end the
    // process: a full disk under the log must not.
    let text = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // Colours are for who looks on, not for what keeps logs.
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false);
    let text = if config.json { text.json().flatten_event(true).boxed() } else { text.boxed() };
    let guard = traces(service, instance, config)?;
    // Only our own spans: those of the exporter's connection would be exported by it in turn.
    let spans = guard.provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(SCOPE))
            .with_filter(filter_fn(|metadata| metadata.target().starts_with(SCOPE)))
    });
    let subscriber = tracing_subscriber::registry().with(filter).with(text).with(spans);
    subscriber.try_init().map_err(TelemetryError::Installed)?;
    Ok(guard)
}

/// Sets up traces alone, as the process's global tracer: the W3C propagator always, an exporter where configured.
///
/// # Errors
/// When the endpoint is refused.
pub fn traces(service: &'static str, instance: &str, config: &Telemetry) -> Result<Guard, TelemetryError> {
    global::set_text_map_propagator(TraceContextPropagator::new());
    let Some(endpoint) = &config.otlp else { return Ok(Guard { provider: None }) };
    let exporter =
        SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_LIMIT).build();
    let exporter =
        exporter.map_err(|source| TelemetryError::Exporter { endpoint: endpoint.clone(), source })?;
    let resource = Resource::builder_empty()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_id_generator(Ids(RandomIdGenerator::default()))
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build();
    global::set_tracer_provider(provider.clone());
    Ok(Guard { provider: Some(provider) })
}

/// The root span of a tenure, as a remote parent: what is recorded under it lands in the one trace of that tenure,
/// whichever service records it. `trace_id` comes from [`understudy_wire::event::trace_id`].
pub fn tenure_context(trace_id: u128) -> Context {
    let (trace, root) = tenure_ids(trace_id);
    let parent = SpanContext::new(trace, root, TraceFlags::SAMPLED, true, TraceState::default());
    Context::new().with_remote_span_context(parent)
}

/// Trace and root span of a tenure. The lower half of a name-based UUID is 62 bits of a hash: never 0, and as unlikely
/// to meet another one as any span id.
fn tenure_ids(trace_id: u128) -> (TraceId, SpanId) {
    let [.., a, b, c, d, e, f, g, h] = trace_id.to_be_bytes();
    (TraceId::from(trace_id), SpanId::from_bytes([a, b, c, d, e, f, g, h]))
}

/// Something that is over: when it began and ended on this host, and how.
#[derive(Debug, Clone)]
pub struct PastSpan {
    /// What was done, such as `announce`.
    pub name: Cow<'static, str>,
    /// When it began.
    pub start: BootTime,
    /// When it ended.
    pub end: BootTime,
    /// What is worth knowing of it.
    pub attributes: Vec<KeyValue>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl PastSpan {
    /// A span without attributes that went well.
    pub fn new(name: impl Into<Cow<'static, str>>, start: BootTime, end: BootTime) -> Self {
        Self { name: name.into(), start, end, attributes: Vec::new(), error: None }
    }

    /// With one more attribute.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<opentelemetry::Value>) -> Self {
        self.attributes.push(KeyValue::new(key, value));
        self
    }
}

/// Records `span` under `parent`; returns its context, for what happened within it.
pub fn record(parent: &Context, span: PastSpan) -> Context {
    let tracer = global::tracer(SCOPE);
    let (start, end) = (clock::wall(span.start), span.end.since(span.start));
    let builder = tracer
        .span_builder(span.name)
        .with_kind(SpanKind::Internal)
        .with_start_time(start)
        .with_attributes(span.attributes);
    let mut recorded = tracer.build_with_context(builder, parent);
    if let Some(error) = span.error {
        recorded.set_status(Status::error(error));
    }
    recorded.end_with_timestamp(start + end);
    parent.with_remote_span_context(recorded.span_context().clone())
}

/// Records the root span of a tenure; for the one that carries the tenure out, once.
pub fn record_tenure(trace_id: u128, span: PastSpan) -> Context {
    CHOSEN.set(Some(tenure_ids(trace_id)));
    let context = record(&Context::new(), span);
    CHOSEN.set(None);
    context
}

thread_local! {
    /// Ids for the next span of this thread.
    static CHOSEN: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Random ids, but for the root span of a tenure.
#[derive(Debug)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        CHOSEN.get().map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        CHOSEN.get().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}
