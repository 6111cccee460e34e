//! Rows 7 to 10: NATS servers, detectors, and everything at once.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use understudy_e2e::{LEASE_AND_A_BIT, SOON, Stage};
use understudy_lab::wait_until;

/// How long nothing may move.
const WATCH: Duration = Duration::from_secs(2);
/// How long all NATS servers are stopped.
const OUTAGE: Duration = Duration::from_secs(30);

#[test]
fn row_07_each_nats_server_killed_and_stopped() -> Result<()> {
    let stage = Stage::set("row 7")?;
    for server in stage.deployment.nats.servers() {
        let name = server.host().name();
        let since = stage.probe.mark();
        server.process().kill9()?;
        stage.nothing_moves(&format!("{name} killed"), "web-a", since, WATCH)?;
        server.process().restart()?;
        stage.deployment.nats.wait_ready(SOON)?;
        let since = stage.probe.mark();
        server.process().stop()?;
        stage.nothing_moves(&format!("{name} SIGSTOP"), "web-a", since, WATCH)?;
        server.process().cont()?;
        stage.deployment.nats.wait_ready(SOON)?;
    }
    stage.end()
}

#[test]
fn row_07_all_nats_servers_stopped() -> Result<()> {
    let stage = Stage::set("row 7")?;
    let epoch = stage.dns_epoch()?;
    let servers = stage.deployment.nats.servers();
    let stopped = stage.probe.mark();
    servers.iter().try_for_each(|server| server.process().stop())?;
    stage.nothing_moves("all NATS servers SIGSTOP", "web-a", stopped, Duration::from_secs(5))?;
    stage.fails_over("active cut off while NATS is away", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    let epoch = stage.dns_epoch_above(epoch)?;
    let since = stage.probe.mark();
    let left = OUTAGE.saturating_sub(since.since(stopped));
    stage.nothing_moves("NATS still away", "web-b", since, left)?;
    servers.iter().try_for_each(|server| server.process().cont())?;
    stage.takeover_is_recorded(epoch)?;
    stage.end()
}

#[test]
fn row_08_each_detector_killed_stopped_and_restarted() -> Result<()> {
    let stage = Stage::set("row 8")?;
    for detector in &stage.deployment.detectors {
        let name = detector.name();
        let since = stage.probe.mark();
        detector.kill9()?;
        stage.nothing_moves(&format!("{name} killed"), "web-a", since, WATCH)?;
        let since = stage.probe.mark();
        detector.restart()?;
        stage.deployment.wait_granting()?;
        stage.nothing_moves(&format!("{name} restarted"), "web-a", since, WATCH)?;
        let since = stage.probe.mark();
        detector.stop()?;
        stage.nothing_moves(&format!("{name} SIGSTOP"), "web-a", since, WATCH)?;
        let since = stage.probe.mark();
        detector.cont()?;
        stage.deployment.wait_granting()?;
        stage.nothing_moves(&format!("{name} SIGCONT"), "web-a", since, WATCH)?;
    }
    stage.end()
}

#[test]
fn row_09_two_detectors_stopped() -> Result<()> {
    let stage = Stage::set("row 9")?;
    let since = stage.probe.mark();
    let two = &stage.deployment.detectors[..2];
    two.iter().try_for_each(|detector| detector.stop())?;
    stage.probe.wait_dark(SOON)?;
    let history = stage.probe.snapshot();
    let last = history.last_served("web-a", stage.probe.mark()).context("web-a served before")?;
    let lit = last.since(since);
    ensure!(lit <= LEASE_AND_A_BIT, "the VIP answered for {} ms without a quorum", lit.as_millis());
    two.iter().try_for_each(|detector| detector.cont())?;
    wait_until("the VIP is back", SOON, || stage.probe.serving_now().is_some())?;
    stage.end()
}

/// Elsewhere two actives stay after hosts have come up at the same time, until somebody restarts one.
#[test]
fn row_10_everything_restarted_at_once() -> Result<()> {
    let stage = Stage::set("row 10")?;
    let epoch = stage.dns_epoch()?;
    let deployment = &stage.deployment;
    let nats = deployment.nats.servers().iter().map(|server| server.process());
    let services = deployment.nodes.iter().flat_map(|node| node.services());
    let all: Vec<_> = nats.chain(&deployment.detectors).chain(services).collect();
    all.iter().try_for_each(|process| process.kill9())?;
    stage.probe.wait_dark(SOON)?;
    all.iter().try_for_each(|process| process.restart())?;
    wait_until("the VIP is back", SOON, || stage.probe.serving_now().is_some())?;
    stage.dns_epoch_above(epoch)?;
    stage.end()
}
