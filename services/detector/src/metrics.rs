//! What `/metrics` shows of a detector.

use std::time::Duration;

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// Counters of one detector.
pub struct Metrics {
    /// Heartbeats taken in.
    pub heartbeats: Counter,
    /// Grants sent.
    pub grants: Counter,
    /// Revocations sent.
    pub revokes: Counter,
    /// Vacant slots given to somebody.
    pub elections: Counter,
    /// Nodes suspected.
    pub suspicions: Counter,
    /// Nodes whose heartbeat was taken in since the start.
    pub nodes: Gauge,
    lateness: Histogram,
}

impl Metrics {
    /// Registers all.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            heartbeats: Counter::default(),
            grants: Counter::default(),
            revokes: Counter::default(),
            elections: Counter::default(),
            suspicions: Counter::default(),
            nodes: Gauge::default(),
            lateness: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
        };
        registry.register("heartbeats", "Heartbeats taken in", metrics.heartbeats.clone());
        registry.register("grants", "Grants sent", metrics.grants.clone());
        registry.register("revokes", "Revocations sent", metrics.revokes.clone());
        registry.register("elections", "Vacant slots given to somebody", metrics.elections.clone());
        registry.register("suspicions", "Times a node became suspect", metrics.suspicions.clone());
        registry.register("nodes", "Nodes heard since the start", metrics.nodes.clone());
        let lateness = metrics.lateness.clone();
        registry.register_with_unit("loop_lateness", "How late the loop ran", Unit::Seconds, lateness);
        metrics
    }

    /// The loop ran this late.
    pub fn observe_lateness(&self, late: Duration) {
        self.lateness.observe(late.as_secs_f64());
    }
}
