//! What `/metrics` shows of an executor.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use understudy_service::metrics::{Times, counter, gauge};

/// Counters of one executor.
pub struct Metrics {
    /// Slots taken.
    pub takeovers: Counter,
    /// Slots given up.
    pub demotions: Counter,
    /// Grants that were not counted.
    pub refused: Counter,
    /// Name servers that failed.
    pub dns_failures: Counter,
    /// Slots held now.
    pub held: Gauge,
    /// From quorum to serving.
    pub takeover: Times,
    /// From heartbeat to grant.
    pub renewal: Times,
}

impl Metrics {
    /// Registers all.
    pub fn new(registry: &mut Registry) -> Self {
        let (takeover, renewal) = (Duration::from_micros(100), Duration::from_micros(50));
        Self {
            takeovers: counter(registry, "takeovers", "Slots taken over"),
            demotions: counter(registry, "demotions", "Slots given up or lost"),
            refused: counter(registry, "grants_refused", "Grants and revokes that were not counted"),
            dns_failures: counter(registry, "dns_failures", "First failures of DNS updates"),
            held: gauge(registry, "slots_held", "Slots held now"),
            takeover: Times::new(registry, "takeover", "From quorum to serving", takeover),
            renewal: Times::new(registry, "renewal", "From heartbeat to grant", renewal),
        }
    }
}
