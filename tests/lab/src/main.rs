//! The lab's own programs: the demo, the table of gaps, the workload that tests and demo serve, and cleaning up after
//! runs that died.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "understudy-lab",
    version,
    about = "Demo, the workload of demo and tests, and cleaning up after them"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole deployment in network namespaces, let its nodes fail, and show each failover step by step.
    ///
    /// Exits with 0 only if every takeover went as intended, two nodes never answered, and DNS followed.
    Demo {
        /// Leave it running afterwards, with instructions to play with, until Ctrl-C.
        #[arg(long)]
        keep: bool,
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
        Command::Gaps { file } => print!("{}", understudy_lab::gaps::table_of(&file)?),
        Command::Workload { name, listen } => understudy_lab::workload::run(&name, listen)?,
        Command::Sweep => println!("{} namespace(s) removed", understudy_lab::sweep()),
    }
    Ok(ExitCode::SUCCESS)
}

fn exit_code(all_went_well: bool) -> ExitCode {
    if all_went_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
