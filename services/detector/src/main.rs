//! One detector.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use understudy_service::{CommonArgs, Role, Threads, run};

/// A heartbeat is a dozen small allocations, and with many nodes most of them were in no cache: a quarter of what it cost
/// with the system's allocator (docs/performance.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

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
