//! `understudy`: shows how a deployment stands and steers it, for the person on call.
//!
//! Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 78 the configuration was refused.

mod args;
mod ask;
mod commands;
mod credentials;
mod failure;
mod output;
mod overview;
mod render;
mod session;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match commands::run(args) {
        Ok(code) => code.into(),
        Err(error) => failure::report(&error).into(),
    }
}
