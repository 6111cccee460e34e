//! The smallest service: what a `main.rs` looks like, and what the tests of the frame start.

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;
use understudy_service::{CommonArgs, Frame, Hopeless, Role, Threads};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// How it ends: `fail`, `hopeless`, `stubborn`; without it as asked.
    end: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    understudy_service::run(Role::Heartbeat, Threads::One, &args.common, |frame| serve(frame, args.end))
}

async fn serve(frame: Frame, end: Option<String>) -> anyhow::Result<()> {
    frame.health.ready(true, "nothing to do");
    match end.as_deref() {
        Some("fail") => return Err(anyhow::anyhow!("broken")).context("doing it"),
        Some("hopeless") => return Err(Hopeless("no kernel for this".into()).into()),
        _ => {}
    }
    say(b".")?;
    frame.shutdown.cancelled().await;
    if end.as_deref() == Some("stubborn") {
        say(b".")?;
        std::future::pending::<()>().await;
    }
    Ok(())
}

fn say(text: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text).and_then(|()| out.flush()).context("writing to stdout")
}
