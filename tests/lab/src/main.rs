//! The lab's own programs: the demo, the nemesis, the table of gaps, the workload that tests and demo serve, a writer
//! that keeps a disk busy, and cleaning up after runs that died.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use understudy_lab::{
    Cleanup,
    nemesis::{self, Options},
};

#[derive(Debug, Parser)]
#[command(
    name = "understudy-lab",
    version,
    about = "Demo, nemesis, the workload of demo and tests, and cleaning up after them"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole deployment in network namespaces, let its nodes fail and its load rise and fall, and show step by
    /// step what becomes of that.
    ///
    /// Exits with 0 only if every takeover and every scaling went as intended, two nodes never answered, DNS followed,
    /// and no request failed while the group was scaled.
    Demo {
        /// Leave it running afterwards, with instructions to play with, until Ctrl-C.
        #[arg(long)]
        keep: bool,
    },
    /// Strike a whole deployment with random faults, two at a time, then heal them, and judge what was recorded.
    ///
    /// Exits with 0 only if two nodes never answered, epochs rose, every slot was filled within five seconds of each
    /// healing, and no process grew.
    Nemesis {
        /// Faults come from it: the same seed, the same faults. A new one each time unless given.
        #[arg(long)]
        seed: Option<u64>,
        /// How many faults; a hundred take a minute.
        #[arg(long, default_value_t = 100)]
        faults: usize,
        /// Where schedule, history and memory of the run are written.
        #[arg(long, default_value = "target/nemesis")]
        folder: PathBuf,
        /// Judge this history of an earlier run, and run nothing.
        #[arg(long, conflicts_with_all = ["seed", "faults", "folder"])]
        check: Option<PathBuf>,
    },
    /// Print the table of the gaps that the end-to-end tests wrote down.
    Gaps {
        /// One JSON object a line: test, fault, gap_ms, bound_ms.
        file: PathBuf,
    },
    /// Serve HTTP and a UDP echo on one port; SIGUSR1 makes it hang, SIGUSR2 brings it back.
    Workload {
        /// Name that it answers with.
        #[arg(long)]
        name: String,
        /// Port on all addresses, TCP and UDP.
        #[arg(long)]
        listen: u16,
    },
    /// Write to a file without an end, and make the disk keep each mebibyte before the next (fsync).
    Scribble {
        /// The file; 64 MiB at most, over and over.
        file: PathBuf,
    },
    /// Remove namespaces and processes that killed runs left behind.
    Sweep,
}

fn main() -> ExitCode {
    // Its causes, not where in the program it came from: that is what a person needs here.
    run(Arguments::parse().command).unwrap_or_else(|error| {
        eprintln!("understudy-lab: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo { keep } => return understudy_lab::demo::run(keep).map(exit_code),
        Command::Nemesis { check: Some(file), .. } => {
            let verdict = nemesis::check_file(&file)?;
            println!("{verdict}");
            return Ok(exit_code(verdict.violations.is_empty()));
        }
        Command::Nemesis { seed, faults, folder, check: None } => {
            let options = Options { seed: seed.unwrap_or_else(nemesis::fresh_seed), faults, folder };
            return strike(&options).map(exit_code);
        }
        Command::Gaps { file } => print!("{}", understudy_lab::gaps::table_of(&file)?),
        Command::Workload { name, listen } => understudy_lab::workload::run(&name, listen)?,
        Command::Scribble { file } => understudy_lab::write_and_sync(&file)?,
        Command::Sweep => println!("{} namespace(s) removed", understudy_lab::sweep()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the nemesis and prints what came of it.
fn strike(options: &Options) -> Result<bool> {
    Cleanup::install()?;
    println!("seed {}; again: {}", options.seed, options.command());
    let report = nemesis::run(options)?;
    println!("{report}");
    Ok(report.is_good())
}

fn exit_code(all_went_well: bool) -> ExitCode {
    if all_went_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
