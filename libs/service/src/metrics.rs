//! The kinds of metrics that services have, each registered where it is made.

use std::time::Duration;

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// Buckets of [`Times`], each twice the one before: from a tenth of a millisecond they reach 3.3 s.
const BUCKETS: u16 = 16;

/// Counts what happened since the start.
pub fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// Shows a number as it is now.
pub fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

/// How long something takes.
#[derive(Debug, Clone)]
pub struct Times(Histogram);

impl Times {
    /// Times of which the shortest worth telling apart is `shortest`.
    pub fn new(registry: &mut Registry, name: &str, help: &str, shortest: Duration) -> Self {
        let times = Histogram::new(exponential_buckets(shortest.as_secs_f64(), 2.0, BUCKETS));
        registry.register_with_unit(name, help, Unit::Seconds, times.clone());
        Self(times)
    }

    /// It took this long once.
    pub fn observe(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }
}
