//! W3C trace context (`traceparent`, `tracestate`) in NATS headers.

use async_nats::HeaderMap;
use opentelemetry::{
    Context, global,
    propagation::{Extractor, Injector},
    trace::TraceContextExt as _,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use understudy_wire::Subject;

struct Inject<'a>(&'a mut HeaderMap);

impl Injector for Inject<'_> {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key, value);
    }
}

struct Extract<'a>(&'a HeaderMap);

impl Extractor for Extract<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_ref()).collect()
    }
}

/// Writes the current span into `headers`; nothing when there is none.
pub fn inject(headers: &mut HeaderMap) {
    let context = Span::current().context();
    if context.span().span_context().is_valid() {
        global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut Inject(headers));
        });
    }
}

/// The remote span that `headers` name; an empty context when there is none.
pub fn extract(headers: &HeaderMap) -> Context {
    global::get_text_map_propagator(|propagator| propagator.extract(&Extract(headers)))
}

/// Headers for a message on `subject`: heartbeats, grants and presence go without, they are too many (section 9).
pub(crate) fn headers_for(subject: &Subject) -> Option<HeaderMap> {
    if matches!(
        subject,
        Subject::Heartbeat(..)
            | Subject::Member(..)
            | Subject::Grant(..)
            | Subject::Detector(_)
            | Subject::Seat(_)
    ) {
        return None;
    }
    let mut headers = HeaderMap::new();
    inject(&mut headers);
    (!headers.is_empty()).then_some(headers)
}
