//! The failover executor of one node.

use std::process::ExitCode;

use clap::Parser;
use understudy_service::{CommonArgs, Role, Threads, run};

/// Holds the lease of one node and moves its addresses and DNS records.
#[derive(Parser)]
#[command(name = "understudy-executor", version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Print what a takeover and a demotion would do, and end.
    #[arg(long)]
    dry_run: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(Role::Executor, Threads::One, &args.common, move |frame| {
        understudy_executor::run::run(frame, args.dry_run)
    })
}
