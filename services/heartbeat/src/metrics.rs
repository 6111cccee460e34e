//! What `/metrics` shows of a heartbeat publisher.

use std::time::Duration;

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// Counters of one publisher.
pub struct Metrics {
    /// Heartbeats sent.
    pub heartbeats: Counter,
    /// Releases sent for a dead executor.
    pub witness_releases: Counter,
    /// 1 while every check is up.
    pub healthy: Gauge,
    lateness: Histogram,
}

impl Metrics {
    /// Registers all.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            heartbeats: Counter::default(),
            witness_releases: Counter::default(),
            healthy: Gauge::default(),
            lateness: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
        };
        registry.register("heartbeats", "Heartbeats sent", metrics.heartbeats.clone());
        let releases = metrics.witness_releases.clone();
        registry.register("witness_releases", "Releases sent for a dead executor", releases);
        registry.register("workload_healthy", "1 while every check is up", metrics.healthy.clone());
        let lateness = metrics.lateness.clone();
        registry.register_with_unit(
            "heartbeat_lateness",
            "How late heartbeats left",
            Unit::Seconds,
            lateness,
        );
        metrics
    }

    /// A heartbeat left this late.
    pub fn observe_lateness(&self, late: Duration) {
        self.lateness.observe(late.as_secs_f64());
    }
}
