//! What `/metrics` shows of an autoscaler.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// Labels of an action's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Carried {
    /// Group.
    pub group: String,
    /// `start`, `stop`, `restart` or `slot`.
    pub action: &'static str,
    /// `done` or `failed`.
    pub outcome: &'static str,
}

/// Labels of what there is one of for each group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfGroup {
    /// Group.
    pub group: String,
}

/// Counters of one autoscaler.
#[derive(Debug)]
pub struct Metrics {
    /// 1 while this process acts.
    pub leading: Gauge,
    /// Actions carried out.
    pub actions: Family<Carried, Counter>,
    /// Lists that a driver did not give.
    pub unlisted: Family<OfGroup, Counter>,
    /// Slots that take new clients.
    pub serving: Family<OfGroup, Gauge>,
    /// Slots that are aimed at.
    pub wanted: Family<OfGroup, Gauge>,
    /// Standbys that could take a slot.
    pub ready: Family<OfGroup, Gauge>,
    /// Repairs that are left in this hour.
    pub repairs_left: Family<OfGroup, Gauge>,
    decided: Histogram,
}

impl Metrics {
    /// Registers all.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            leading: Gauge::default(),
            actions: Family::default(),
            unlisted: Family::default(),
            serving: Family::default(),
            wanted: Family::default(),
            ready: Family::default(),
            repairs_left: Family::default(),
            decided: Histogram::new(exponential_buckets(0.000_01, 4.0, 10)),
        };
        registry.register("leading", "1 while this autoscaler acts", metrics.leading.clone());
        registry.register("scaling_actions", "Actions carried out", metrics.actions.clone());
        registry.register(
            "driver_lists_failed",
            "Lists that a driver did not give",
            metrics.unlisted.clone(),
        );
        registry.register("slots_serving", "Slots that take new clients", metrics.serving.clone());
        registry.register("slots_wanted", "Slots that are aimed at", metrics.wanted.clone());
        registry.register("standbys_ready", "Standbys that could take a slot", metrics.ready.clone());
        let left = metrics.repairs_left.clone();
        registry.register("repairs_left", "Repairs that are left in this hour", left);
        let decided = metrics.decided.clone();
        registry.register_with_unit(
            "decision",
            "How long a turn for all groups took",
            Unit::Seconds,
            decided,
        );
        metrics
    }

    /// A turn took this long.
    pub fn observe_turn(&self, took: Duration) {
        self.decided.observe(took.as_secs_f64());
    }
}
