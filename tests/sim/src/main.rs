//! `run` many seeds, or `replay` one and print its trace.

use std::{io::Write, path::Path, process::ExitCode, time::Instant};

use clap::{Parser, Subcommand, ValueEnum};
use understudy_sim::{Mutant, Options, Simulation, replay, run_many, save, scaling};

#[derive(Parser)]
#[command(about = "Deterministic simulation of the lease under random faults")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run seeds until one fails; its trace goes to target/sim.
    Run {
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        #[command(flatten)]
        kind: Kind,
        #[command(flatten)]
        many: Many,
    },
    /// Print the trace of one seed.
    Replay {
        /// The seed.
        seed: u64,
        #[command(flatten)]
        kind: Kind,
    },
    /// The same two for the autoscaling policy.
    #[command(subcommand)]
    Scaling(Scaling),
}

#[derive(Subcommand, Clone, Copy)]
enum Scaling {
    /// Run seeds until one fails; its trace goes to target/sim.
    Run {
        /// How many.
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        #[command(flatten)]
        kind: ScalingKind,
        #[command(flatten)]
        many: Many,
    },
    /// Print the trace of one seed.
    Replay {
        /// The seed.
        seed: u64,
        #[command(flatten)]
        kind: ScalingKind,
    },
}

#[derive(clap::Args, Clone, Copy)]
struct Many {
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Failures after which to stop.
    #[arg(long, default_value_t = 1)]
    failures: usize,
}

#[derive(clap::Args, Clone, Copy)]
struct ScalingKind {
    /// Which runs.
    #[arg(long, value_enum, default_value_t = ScalingRuns::Storm)]
    runs: ScalingRuns,
    /// Rule to weaken.
    #[arg(long, value_enum)]
    mutant: Option<scaling::Mutant>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ScalingRuns {
    /// Many faults, then none.
    Storm,
    /// The same over a StatefulSet.
    Ordinals,
    /// Exactly one fault.
    Single,
}

impl ScalingRuns {
    fn name(self) -> &'static str {
        match self {
            Self::Storm => "storm",
            Self::Ordinals => "ordinals",
            Self::Single => "single",
        }
    }
}

impl ScalingKind {
    fn options(self, seed: u64) -> scaling::Options {
        let options = match self.runs {
            ScalingRuns::Storm => scaling::Options::storm(seed),
            ScalingRuns::Ordinals => scaling::Options::ordinals(seed),
            ScalingRuns::Single => scaling::Options::single(seed),
        };
        match self.mutant {
            Some(mutant) => options.weakened(mutant),
            None => options,
        }
    }
}

#[derive(clap::Args, Clone, Copy)]
struct Kind {
    /// Which runs.
    #[arg(long, value_enum, default_value_t = Runs::Storm)]
    runs: Runs,
    /// Rule to weaken.
    #[arg(long, value_enum)]
    mutant: Option<Mutant>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Runs {
    /// Many faults, then none.
    Storm,
    /// Exactly one fault.
    Single,
}

impl Runs {
    fn name(self) -> &'static str {
        match self {
            Self::Storm => "storm",
            Self::Single => "single",
        }
    }
}

impl Kind {
    fn options(self, seed: u64) -> Options {
        let options = match self.runs {
            Runs::Storm => Options::storm(seed),
            Runs::Single => Options::single(seed),
        };
        match self.mutant {
            Some(mutant) => options.weakened(mutant),
            None => options,
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run { seeds, kind, many } => {
            run_seeds(kind.runs.name(), seeds, many, |seed| kind.options(seed))
        }
        Command::Replay { seed, kind } => replay_seed(kind.options(seed)),
        Command::Scaling(Scaling::Run { seeds, kind, many }) => {
            run_seeds(kind.runs.name(), seeds, many, |seed| kind.options(seed))
        }
        Command::Scaling(Scaling::Replay { seed, kind }) => replay_seed(kind.options(seed)),
    }
}

fn run_seeds<S: Simulation>(
    runs: &str,
    seeds: u64,
    many: Many,
    options: impl Fn(u64) -> S + Sync,
) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let summary = run_many(many.from, seeds, many.threads, many.failures, &options, |_| ());
    let rate = summary.runs as f64 / began.elapsed().as_secs_f64();
    println!("{} runs, {} {}, {rate:.0} runs a second", summary.runs, summary.count, S::COUNTED);
    for outcome in &summary.failed {
        let path = save(Path::new("target/sim"), runs, options(outcome.seed))?;
        if let Some(violation) = &outcome.violation {
            println!("seed {}: {violation}; trace in {}", outcome.seed, path.display());
        }
    }
    Ok(if summary.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn replay_seed<S: Simulation>(options: S) -> anyhow::Result<ExitCode> {
    let (outcome, lines) = replay(options);
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "trace {:016x}", outcome.hash)?;
    if let Some(violation) = outcome.violation {
        writeln!(out, "{violation}")?;
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
