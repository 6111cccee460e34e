//! One detector.

use std::process::ExitCode;

use clap::Parser;
use understudy_service::{CommonArgs, Role, Threads, run};

/// Votes on who may serve, and judges who is alive.
#[derive(Parser)]
#[command(name = "understudy-detector", version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(Role::Detector, Threads::One, &args.common, understudy_detector::run::run)
}
