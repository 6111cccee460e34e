//! Row 4: the workload dies or hangs.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use understudy_e2e::{SOON, Stage};
use understudy_lab::{deployment::Plan, wait_until};

/// The check of the deployment: two failures, each at most an interval of 100 ms apart, plus 50 ms.
const KILLED: Duration = Duration::from_millis(2 * 100 + 50);
/// A hanging check also takes its timeout of 100 ms, twice.
const HANGS: Duration = Duration::from_millis(2 * (100 + 100) + 50);
/// How long nothing may move.
const WATCH: Duration = Duration::from_secs(2);

#[test]
fn row_04_workload_killed() -> Result<()> {
    let stage = Stage::set("row 4")?;
    stage.fails_over("workload killed", "web-b", KILLED, |deployment| {
        deployment.node("web-a").workload.kill9()
    })?;
    stage.end()
}

#[test]
fn row_04_workload_hangs() -> Result<()> {
    let stage = Stage::set("row 4")?;
    stage.fails_over("workload hangs", "web-b", HANGS, |deployment| {
        deployment.node("web-a").workload.signal(Signal::SIGUSR1)
    })?;
    stage.end()
}

#[test]
fn row_04_stays_without_a_healthy_standby() -> Result<()> {
    let stage = Stage::set("row 4")?;
    for standby in ["web-b", "web-c"] {
        stage.deployment.node(standby).workload.signal(Signal::SIGUSR1)?;
    }
    stage.deployment.wait_status("no standby is ready", |status| {
        status["groups"][0]["ready_standbys"].as_array()?.is_empty().then_some(())
    })?;
    let epoch = stage.dns_epoch()?;
    stage.deployment.node("web-a").workload.signal(Signal::SIGUSR1)?;
    let unhealthy = |status: &serde_json::Value| {
        let nodes = status["groups"][0]["nodes"].as_array()?;
        nodes.iter().all(|node| node["health"] == "unhealthy").then_some(())
    };
    stage.deployment.wait_status("every node is unhealthy", unhealthy)?;
    let end = stage.probe.mark() + WATCH;
    wait_until("the watch is over", WATCH * 2, || stage.probe.mark() >= end)?;
    let holder = stage.deployment.wait_status("a status", |status| {
        Some(status["groups"][0]["slots"][0]["holder"].as_str().map(str::to_owned))
    })?;
    ensure!(holder.as_deref() == Some("web-a"), "the slot moved to {holder:?}, which is no better");
    ensure!(stage.dns_epoch()? == epoch, "the epoch rose although nothing had to move");
    stage.deployment.node("web-a").workload.signal(Signal::SIGUSR2)?;
    stage.settle("web-a")?;
    stage.end()
}

/// Elsewhere one blip of a check is critical, and thresholds have been asked for for years.
#[test]
fn a_single_blip_of_a_check_moves_nothing() -> Result<()> {
    // It fails once for each such file.
    let check = "[[group.web.check]]\nkind = \"exec\"\ninterval = \"300ms\"\nfall = 2\n\
                 command = [\"/bin/sh\", \"-c\", \"! rm $UNDERSTUDY_NODE__STATE_DIR.blip 2>/dev/null\"]\n";
    let stage = Stage::with("blip", Plan { group: check.to_owned(), ..Plan::new("blip") })?;
    let since = stage.probe.mark();
    let blip = stage.deployment.network.folder().join("web-a-state.blip");
    for _ in 0..2 {
        std::fs::write(&blip, "")?;
        wait_until("the check has failed once", SOON, || !blip.exists())?;
        stage.nothing_moves("one blip of a check", "web-a", since, WATCH)?;
    }
    stage.end()
}
