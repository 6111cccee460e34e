//! Rows 3 and 17: processes of the active are stopped, and later go on as if nothing had been.

use std::time::Duration;

use anyhow::{Result, ensure};
use understudy_e2e::{LEASE_AND_A_BIT, Stage};
use understudy_lab::{Process, deployment::Node};

/// How long the old holder is watched after it goes on.
const WATCH: Duration = Duration::from_secs(3);

fn stopped(stage: Stage, fault: &str, of: impl Fn(&Node) -> Vec<&Process>) -> Result<()> {
    stage.fails_over(&format!("{fault} SIGSTOP"), "web-b", LEASE_AND_A_BIT, |deployment| {
        of(deployment.node("web-a")).iter().try_for_each(|process| process.stop())
    })?;
    let resumed = stage.probe.mark();
    of(stage.deployment.node("web-a")).iter().try_for_each(|process| process.cont())?;
    stage.nothing_moves(&format!("{fault} SIGCONT"), "web-b", resumed, WATCH)?;
    let history = stage.probe.snapshot();
    let answered = history.first_answer("web-a", resumed);
    ensure!(answered.is_none(), "the old holder answered again after SIGCONT");
    // It is well again, and a standby.
    stage.deployment.wait_standbys()?;
    stage.end()
}

#[test]
fn row_03_executor_stopped() -> Result<()> {
    stopped(Stage::set("row 3")?, "executor", |node| vec![&node.executor])
}

#[test]
fn row_03_heartbeat_stopped() -> Result<()> {
    stopped(Stage::set("row 3")?, "heartbeat", |node| vec![&node.heartbeat])
}

#[test]
fn row_03_both_stopped() -> Result<()> {
    stopped(Stage::set("row 3")?, "executor and heartbeat", |node| node.services().into())
}

#[test]
fn row_17_executor_stopped() -> Result<()> {
    stopped(Stage::set_ipv6("row 17")?, "executor", |node| vec![&node.executor])
}

#[test]
fn row_17_heartbeat_stopped() -> Result<()> {
    stopped(Stage::set_ipv6("row 17")?, "heartbeat", |node| vec![&node.heartbeat])
}

#[test]
fn row_17_both_stopped() -> Result<()> {
    stopped(Stage::set_ipv6("row 17")?, "executor and heartbeat", |node| node.services().into())
}
