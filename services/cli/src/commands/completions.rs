//! `understudy completions SHELL`.

use clap::CommandFactory as _;
use clap_complete::Shell;
use understudy_service::exit;

use crate::{args::Args, output};

pub(super) fn run(shell: Shell) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "understudy", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(exit::OK)
}
