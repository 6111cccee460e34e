//! Rows 5, 6 and 14: the network is cut in places.

use std::{cell::Cell, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use understudy_e2e::{LEASE, LEASE_AND_A_BIT, Stage};
use understudy_lab::{Deployment, Moment, Traffic};

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

/// Cuts the active off, one way or both, and sees that it goes dark within T of that, and that the standby serves.
fn cut_off(row: &'static str, fault: &str, out: bool, back: bool) -> Result<()> {
    let stage = Stage::set(row)?;
    let cut = Cell::new(stage.probe.mark());
    stage.fails_over(fault, "web-b", LEASE_AND_A_BIT, |deployment| {
        let hosts = control_plane(deployment);
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        if out {
            deployment.network.cut_traffic(&["web-a"], &hosts, &[Traffic::All])?;
        }
        if back {
            deployment.network.cut_traffic(&hosts, &["web-a"], &[Traffic::All])?;
        }
        cut.set(stage.probe.mark());
        Ok(())
    })?;
    dark_within_the_lease(&stage, cut.get())?;
    stage.end()
}

#[test]
fn row_06_active_cut_from_the_detectors_but_not_from_the_client() -> Result<()> {
    cut_off("row 6", "active cut from detectors and NATS", true, true)
}

#[test]
fn row_14_one_way_loss_from_the_active() -> Result<()> {
    cut_off("row 14", "one-way loss, active to detectors", true, false)
}

#[test]
fn row_14_one_way_loss_to_the_active() -> Result<()> {
    cut_off("row 14", "one-way loss, detectors to active", false, true)
}

/// Elsewhere what one half-dead node says of the others makes healthy ones be thrown out.
fn half_dead_standby(fault: &str, hears: bool) -> Result<()> {
    let stage = Stage::set("half-dead standby")?;
    let mut others = control_plane(&stage.deployment);
    others.extend(["web-a", "web-c"].map(str::to_owned));
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let since = stage.probe.mark();
    let (from, to) = if hears { (["web-b"].as_slice(), &*others) } else { (&*others, ["web-b"].as_slice()) };
    stage.deployment.network.cut_traffic(from, to, &[Traffic::All])?;
    stage.wait_only_standby("web-c")?;
    stage.nothing_moves(fault, "web-a", since, WATCH)?;
    let found_bad =
        |event: &Value| event["kind"] == "judged" && event["data"]["judgement"] != "JUDGEMENT_ALIVE";
    let bad: Vec<_> = stage.events()?.into_iter().filter(found_bad).collect();
    let only_it = bad.iter().all(|event| event["data"]["node"] == "web-b");
    ensure!(!bad.is_empty() && only_it, "web-b was to be found out, and nobody else: {bad:?}");
    stage.end()
}

#[test]
fn a_standby_that_hears_nobody_takes_nobody_with_it() -> Result<()> {
    half_dead_standby("standby hears nobody", false)
}

#[test]
fn a_standby_that_nobody_hears_takes_nobody_with_it() -> Result<()> {
    half_dead_standby("nobody hears the standby", true)
}
