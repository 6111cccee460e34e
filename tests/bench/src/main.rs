//! Measures what Understudy promises, on this machine: the gap that a client sees beside keepalived's, what a detector
//! can take, what a takeover and an idle node cost, how well N follows the load. Writes `target/bench/*.json` and
//! `docs/benchmarks.md`.
//!
//! Needs root, a release build, and what `scripts/install-tools bench` installs.

mod detector;
mod document;
mod failover;
mod figures;
mod machine;
mod node;
mod scaling;
mod takeover;
mod usage;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What a node's two services cost while nothing happens.
    Node,
    /// From quorum to first announcement, and one renewal of the gate.
    Takeover,
    /// Heartbeats a second, memory, renewal latency.
    Detector,
    /// Client-visible gaps beside keepalived's.
    Failover,
    /// The autoscaling policy beside other rules, and its turn for a large cluster.
    Scaling,
}

#[derive(Debug, Parser)]
#[command(
    name = "understudy-bench",
    about = "Measures failover beside keepalived, the detector's capacity, what a node costs, and how well N follows \
             the load"
)]
struct Arguments {
    /// Parts to measure, with commas; all of them when none is named. Figures of the others stay as they are.
    #[arg(value_delimiter = ',')]
    only: Vec<Part>,
    /// Faults of each kind and system.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Heartbeat intervals of the failover part, milliseconds.
    #[arg(long, value_delimiter = ',', default_value = "100,50,20,10")]
    intervals: Vec<u64>,
    /// Faults of the failover part; those that keepalived does not survive are measured at the first interval only.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<failover::Fault>,
    /// Node counts of the detector part.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000")]
    nodes: Vec<usize>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("understudy-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every figure that was measured, now or before, reaches its target.
fn run(arguments: &Arguments) -> Result<bool> {
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    // First, since its memory is that of this process.
    if wanted(Part::Scaling) {
        scaling::measure()?;
    }
    if wanted(Part::Node) {
        node::measure()?;
    }
    if wanted(Part::Takeover) {
        takeover::measure(arguments.runs)?;
    }
    if wanted(Part::Detector) {
        detector::measure(&arguments.nodes)?;
    }
    if wanted(Part::Failover) {
        failover::measure(&arguments.intervals, &arguments.faults, arguments.runs)?;
    }
    document::write()
}
