//! What `/metrics` shows of a heartbeat publisher.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use understudy_service::metrics::{Times, counter, gauge};

/// Counters of one publisher.
pub struct Metrics {
    /// Heartbeats sent.
    pub heartbeats: Counter,
    /// Releases sent for a dead executor.
    pub witness_releases: Counter,
    /// 1 while every check is up.
    pub healthy: Gauge,
    /// How late heartbeats left.
    pub lateness: Times,
}

impl Metrics {
    /// Registers all.
    pub fn new(registry: &mut Registry) -> Self {
        let shortest = Duration::from_micros(100);
        Self {
            heartbeats: counter(registry, "heartbeats", "Heartbeats sent"),
            witness_releases: counter(registry, "witness_releases", "Releases sent for a dead executor"),
            healthy: gauge(registry, "workload_healthy", "1 while every check is up"),
            lateness: Times::new(registry, "heartbeat_lateness", "How late heartbeats left", shortest),
        }
    }
}
