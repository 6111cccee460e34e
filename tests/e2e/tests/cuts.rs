//! Rows 5, 6 and 14: the network is cut in places.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use understudy_e2e::Stage;
use understudy_lab::{Deployment, Moment};

/// T at its default.
const LEASE: Duration = Duration::from_millis(300);
/// T + 100 ms.
const LEASE_AND_A_BIT: Duration = Duration::from_millis(400);
/// How long nothing may move.
const WATCH: Duration = Duration::from_secs(3);

/// Hosts that carry the two paths between nodes and detectors.
fn control_plane(deployment: &Deployment) -> Vec<String> {
    let detectors = deployment.detectors.iter().map(|process| process.host().name().to_owned());
    let nats = deployment.nats.servers().iter().map(|server| server.host().name().to_owned());
    detectors.chain(nats).collect()
}

fn dark_within_the_lease(stage: &Stage, since: Moment) -> Result<()> {
    let history = stage.probe.snapshot();
    let last = history.last_served("web-a", stage.probe.mark()).context("web-a served before")?;
    let lit = last.since(since);
    ensure!(lit <= LEASE, "web-a answered for {} ms after it was cut off", lit.as_millis());
    Ok(())
}

#[test]
fn row_05_cut_between_active_and_standby_only() -> Result<()> {
    let stage = Stage::set("row 5")?;
    let since = stage.probe.mark();
    for standby in ["web-b", "web-c"] {
        stage.deployment.network.cut_both("web-a", standby)?;
    }
    stage.nothing_moves("cut between active and standbys", "web-a", since, WATCH)?;
    stage.end()
}

#[test]
fn row_06_active_cut_from_the_detectors_but_not_from_the_client() -> Result<()> {
    let stage = Stage::set("row 6")?;
    let since = stage.probe.mark();
    stage.fails_over("active cut from detectors and NATS", "web-b", LEASE_AND_A_BIT, |deployment| {
        control_plane(deployment).iter().try_for_each(|host| deployment.network.cut_both("web-a", host))
    })?;
    dark_within_the_lease(&stage, since)?;
    stage.end()
}

#[test]
fn row_14_one_way_loss_from_the_active() -> Result<()> {
    let stage = Stage::set("row 14")?;
    let since = stage.probe.mark();
    stage.fails_over("one-way loss, active to detectors", "web-b", LEASE_AND_A_BIT, |deployment| {
        control_plane(deployment).iter().try_for_each(|host| deployment.network.cut("web-a", host))
    })?;
    dark_within_the_lease(&stage, since)?;
    stage.end()
}

#[test]
fn row_14_one_way_loss_to_the_active() -> Result<()> {
    let stage = Stage::set("row 14")?;
    let since = stage.probe.mark();
    stage.fails_over("one-way loss, detectors to active", "web-b", LEASE_AND_A_BIT, |deployment| {
        control_plane(deployment).iter().try_for_each(|host| deployment.network.cut(host, "web-a"))
    })?;
    dark_within_the_lease(&stage, since)?;
    stage.end()
}
