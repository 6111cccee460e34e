//! One autoscaler.

use std::process::ExitCode;

use clap::Parser;
use understudy_service::{CommonArgs, Role, Threads, run};

/// Keeps N + M members of each group alive, and N with the load. Several may run: one acts.
#[derive(Parser)]
#[command(name = "understudy-autoscaler", version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Decide and print what would be done, without standing for election and without doing anything.
    #[arg(long)]
    dry_run: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(Role::Autoscaler, Threads::Several, &args.common, move |frame| {
        understudy_autoscaler::run::run(frame, args.dry_run)
    })
}
