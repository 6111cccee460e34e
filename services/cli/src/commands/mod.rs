//! One file a command.

mod certs;
mod completions;
mod events;
mod maintenance;
mod nats_auth;
mod scaling;
mod status;
mod switchover;
mod validate;
mod watch;

use understudy_bus::Identity::{self, Operator, Viewer};

use crate::{
    args::{Args, Command, Global, Maintenance, Scaling},
    session::Session,
};

/// Does what was asked; the exit code.
pub(crate) fn run(args: Args) -> anyhow::Result<u8> {
    let Args { global, command } = args;
    match command {
        Command::Validate(args) => validate::run(&args),
        Command::Certs(args) => certs::run(&args),
        Command::NatsAuth(args) => nats_auth::run(&args),
        Command::Completions { shell } => completions::run(shell),
        Command::Status(args) => {
            connected(&global, &Viewer, async |session| status::run(session, &args).await)
        }
        Command::Watch(args) => connected(&global, &Viewer, async |session| watch::run(session, &args).await),
        Command::Events(args) => {
            connected(&global, &Viewer, async |session| events::run(session, &args).await)
        }
        Command::Switchover(args) => {
            connected(&global, &Operator, async |session| switchover::run(session, &args).await)
        }
        Command::Maintenance { action } => {
            let role = if matches!(action, Maintenance::List { .. }) { Viewer } else { Operator };
            connected(&global, &role, async |session| maintenance::run(session, &action).await)
        }
        Command::Scale(args) => {
            connected(&global, &Operator, async |session| scaling::scale(session, &args).await)
        }
        Command::Scaling { action } => {
            let role = if matches!(action, Scaling::Explain(_)) { Viewer } else { Operator };
            connected(&global, &role, async |session| scaling::run(session, &action).await)
        }
    }
}

/// Connects as `role`, which is the least that the command needs: one that only looks needs no credential that may steer.
fn connected(
    global: &Global,
    role: &Identity,
    command: impl AsyncFnOnce(&Session) -> anyhow::Result<u8>,
) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { command(&Session::open(global, role).await?).await })
}
