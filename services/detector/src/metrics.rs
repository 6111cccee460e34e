//! What `/metrics` shows of a detector.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use understudy_service::metrics::{Times, counter, gauge};

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
    /// Releases that freed nothing.
    pub releases_ignored: Counter,
    /// Nodes suspected.
    pub suspicions: Counter,
    /// Nodes whose heartbeat was taken in since the start.
    pub nodes: Gauge,
    /// How late the loop ran.
    pub lateness: Times,
}

impl Metrics {
    /// Registers all.
    pub fn new(registry: &mut Registry) -> Self {
        let ignored = "Releases that freed nothing: late, replayed or heard before";
        let shortest = Duration::from_micros(100);
        Self {
            heartbeats: counter(registry, "heartbeats", "Heartbeats taken in"),
            grants: counter(registry, "grants", "Grants sent"),
            revokes: counter(registry, "revokes", "Revocations sent"),
            elections: counter(registry, "elections", "Vacant slots given to somebody"),
            releases_ignored: counter(registry, "releases_ignored", ignored),
            suspicions: counter(registry, "suspicions", "Times a node became suspect"),
            nodes: gauge(registry, "nodes", "Nodes heard since the start"),
            lateness: Times::new(registry, "loop_lateness", "How late the loop ran", shortest),
        }
    }
}
