//! What went wrong, and the exit code for it.

use std::io;

use understudy_service::{config::Report, exit};

/// Wrong usage, as clap has it.
pub(crate) const USAGE: u8 = 2;

/// The command line is not enough.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The configuration has mistakes.
#[derive(Debug, thiserror::Error)]
#[error("the configuration was refused")]
pub(crate) struct Refused(pub(crate) Report);

/// Says on stderr what failed; the exit code.
pub(crate) fn report(error: &anyhow::Error) -> u8 {
    if let Some(Refused(report)) = error.downcast_ref() {
        for problem in &report.errors {
            eprintln!("error: {problem}");
        }
        return exit::CONFIG;
    }
    // Whoever read our output has seen enough, as `head` has.
    let broken = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    if error.downcast_ref().is_some_and(broken) {
        return exit::OK;
    }
    eprintln!("error: {error:#}");
    if error.is::<Usage>() { USAGE } else { exit::ERROR }
}
