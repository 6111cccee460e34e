//! `run` many seeds, or `replay` one and print its trace.

use std::{io::Write, path::Path, process::ExitCode, time::Instant};

use clap::{Parser, Subcommand, ValueEnum};
use understudy_sim::{Mutant, Options, replay, run_many, save};

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
        /// The first of them.
        #[arg(long, default_value_t = 0)]
        from: u64,
        #[command(flatten)]
        kind: Kind,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Failures after which to stop.
        #[arg(long, default_value_t = 1)]
        failures: usize,
    },
    /// Print the trace of one seed.
    Replay {
        /// The seed.
        seed: u64,
        #[command(flatten)]
        kind: Kind,
    },
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

    fn name(self) -> &'static str {
        match self.runs {
            Runs::Storm => "storm",
            Runs::Single => "single",
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run { seeds, from, kind, threads, failures } => {
            let began = Instant::now();
            let summary = run_many(from, seeds, threads, failures, |seed| kind.options(seed), |_| ());
            let rate = summary.runs as f64 / began.elapsed().as_secs_f64();
            println!("{} runs, {} tenures, {rate:.0} runs a second", summary.runs, summary.tenures);
            for outcome in &summary.failed {
                let path = save(Path::new("target/sim"), kind.name(), kind.options(outcome.seed))?;
                if let Some(violation) = &outcome.violation {
                    println!("seed {}: {violation}; trace in {}", outcome.seed, path.display());
                }
            }
            Ok(if summary.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Replay { seed, kind } => {
            let (outcome, lines) = replay(kind.options(seed));
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
    }
}
