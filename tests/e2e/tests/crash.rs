//! Rows 1 to 4: the active, one of its processes, or its workload goes.

use std::time::Duration;

use anyhow::Result;
use understudy_e2e::Stage;

/// T + 100 ms at T = 300 ms.
const LEASE_AND_A_BIT: Duration = Duration::from_millis(400);
/// What the witness needs.
const WITNESS: Duration = Duration::from_millis(100);

#[test]
fn row_01_active_cut_off_the_network() -> Result<()> {
    let stage = Stage::set("row 1")?;
    let epoch = stage.dns_epoch()?;
    stage.fails_over("active cut off the network", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    stage.dns_epoch_above(epoch)?;
    stage.end()
}

#[test]
fn row_01_all_processes_of_the_active_killed() -> Result<()> {
    let stage = Stage::set("row 1")?;
    let epoch = stage.dns_epoch()?;
    stage.fails_over("all processes of the active killed", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.node("web-a").processes().iter().try_for_each(|process| process.kill9())
    })?;
    stage.dns_epoch_above(epoch)?;
    stage.end()
}

#[test]
fn row_02_executor_of_the_active_killed() -> Result<()> {
    let stage = Stage::set("row 2")?;
    stage.fails_over("executor kill -9", "web-b", WITNESS, |deployment| {
        deployment.node("web-a").executor.kill9()
    })?;
    stage.end()
}

#[test]
fn row_02_heartbeat_of_the_active_killed() -> Result<()> {
    let stage = Stage::set("row 2")?;
    stage.fails_over("heartbeat kill -9", "web-b", WITNESS, |deployment| {
        deployment.node("web-a").heartbeat.kill9()
    })?;
    stage.end()
}
