//! The lab's own programs: the workload that tests and demo serve, and cleaning up after runs that died.

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "understudy-lab", version, about = "Workload for tests and demo; cleans up after them")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Workload { name, listen } => understudy_lab::workload::run(&name, listen),
        Command::Sweep => {
            println!("{} namespace(s) removed", understudy_lab::sweep());
            Ok(())
        }
    }
}
