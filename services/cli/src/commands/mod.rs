//! One file a command.

mod completions;
mod events;
mod maintenance;
mod status;
mod switchover;
mod validate;
mod watch;

use crate::{
    args::{Args, Command, Global},
    session::Session,
};

/// Does what was asked; the exit code.
pub(crate) fn run(args: Args) -> anyhow::Result<u8> {
    let Args { global, command } = args;
    match command {
        Command::Validate(args) => validate::run(&args),
        Command::Completions { shell } => completions::run(shell),
        Command::Status(args) => connected(&global, async |session| status::run(session, &args).await),
        Command::Watch(args) => connected(&global, async |session| watch::run(session, &args).await),
        Command::Events(args) => connected(&global, async |session| events::run(session, &args).await),
        Command::Switchover(args) => {
            connected(&global, async |session| switchover::run(session, &args).await)
        }
        Command::Maintenance { action } => {
            connected(&global, async |session| maintenance::run(session, &action).await)
        }
    }
}

fn connected(
    global: &Global,
    command: impl AsyncFnOnce(&Session) -> anyhow::Result<u8>,
) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { command(&Session::open(global).await?).await })
}
