//! What `/metrics` shows of an executor.

use std::time::Duration;

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

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
    takeover_seconds: Histogram,
    round_trip_seconds: Histogram,
}

impl Metrics {
    /// Registers all.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            takeovers: Counter::default(),
            demotions: Counter::default(),
            refused: Counter::default(),
            dns_failures: Counter::default(),
            held: Gauge::default(),
            takeover_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
            round_trip_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
        };
        registry.register("takeovers", "Slots taken over", metrics.takeovers.clone());
        registry.register("demotions", "Slots given up or lost", metrics.demotions.clone());
        registry.register(
            "grants_refused",
            "Grants and revokes that were not counted",
            metrics.refused.clone(),
        );
        registry.register("dns_failures", "First failures of DNS updates", metrics.dns_failures.clone());
        registry.register("slots_held", "Slots held now", metrics.held.clone());
        let takeover = metrics.takeover_seconds.clone();
        registry.register_with_unit("takeover", "From quorum to serving", Unit::Seconds, takeover);
        let round_trip = metrics.round_trip_seconds.clone();
        registry.register_with_unit("renewal", "From heartbeat to grant", Unit::Seconds, round_trip);
        metrics
    }

    /// A takeover took this long from quorum to serving.
    pub fn observe_takeover(&self, took: Duration) {
        self.takeover_seconds.observe(took.as_secs_f64());
    }

    /// A renewal took this long from heartbeat to grant.
    pub fn observe_renewal(&self, took: Duration) {
        self.round_trip_seconds.observe(took.as_secs_f64());
    }
}
