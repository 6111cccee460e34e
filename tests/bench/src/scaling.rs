//! The autoscaling policy beside two well-known rules on the same traces, and its turn for a large cluster: by the
//! simulation (`tests/sim/src/scaling/bench.rs`), in no real time.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::figures::save;

/// File of these figures.
pub(crate) const FILE: &str = "scaling.json";
/// Seeds of each trace.
const SEEDS: u64 = 7;

/// What the simulation found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Seeds of each trace.
    pub seeds: u64,
    /// What a member takes until it is ready, seconds.
    pub start_up_seconds: u64,
    /// M.
    pub standby: u64,
    /// One for each kind of trace.
    pub traces: Vec<Trace>,
    /// Many groups at a time.
    pub large_cluster: Large,
}

/// A trace under three rules.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Trace {
    /// Kind.
    pub trace: String,
    /// Our policy.
    pub understudy: Cost,
    /// The rule of the Kubernetes HPA.
    pub hpa: Cost,
    /// Target tracking.
    pub target_tracking: Cost,
    /// Ours over the HPA's, seed by seed.
    pub ratios: Ratios,
}

/// What a rule cost.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Minutes with more load than the members were to have.
    pub minutes_over_target: Spread,
    /// With a tenth more.
    pub minutes_over_target_by_a_tenth: Spread,
    /// Of all instances, the standbys too.
    pub instance_hours: Spread,
}

/// Ours over the HPA's.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ratios {
    /// Of minutes over target.
    pub minutes_over_target: Spread,
    /// Of instance-hours.
    pub instance_hours: Spread,
}

/// Over all seeds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

/// One leader of many groups.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Large {
    /// Groups.
    pub groups: u64,
    /// Members of all of them.
    pub members: u64,
    /// Turns that were taken.
    pub turns: u64,
    /// How long one took, ms.
    pub turn_ms: Turn,
    /// Most memory that the process ever had, MiB.
    pub peak_memory_mib: f64,
}

/// How long a turn took, ms.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub median: f64,
    pub most: f64,
}

/// Runs the simulation. The memory is that of this process, so nothing else may have been measured in it before.
pub(crate) fn measure() -> Result<()> {
    let figures: Figures = serde_json::from_value(understudy_sim::scaling::bench::bench(SEEDS)?)
        .context("reading what the simulation found")?;
    println!("{figures:#?}");
    save(FILE, &figures)
}
