//! The heartbeat publisher of one node.

use std::process::ExitCode;

use clap::Parser;
use understudy_service::{CommonArgs, Role, Threads, run};

/// Samples the workload of one node and publishes its heartbeats.
#[derive(Parser)]
#[command(name = "understudy-heartbeat", version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(Role::Heartbeat, Threads::One, &args.common, understudy_heartbeat::run::run)
}
