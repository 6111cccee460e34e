//! Rows 12 and 13: the name server is away, and an executor comes late.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use understudy_dns::{Algorithm, Answer, Desired, TsigKey, Zone, apply};
use understudy_e2e::{SOON, Stage};
use understudy_lab::{KEY_NAME, KEY_SECRET, deployment::NAME, wait_until};

/// T + 100 ms at T = 300 ms.
const LEASE_AND_A_BIT: Duration = Duration::from_millis(400);

#[test]
fn row_12_dns_server_down_during_a_failover() -> Result<()> {
    let stage = Stage::set("row 12")?;
    let epoch = stage.dns_epoch()?;
    let knot = stage.deployment.knot.as_ref().context("the deployment has a name server")?;
    knot.process().kill9()?;
    stage.fails_over("active cut off, DNS down", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    knot.restart()?;
    stage.dns_epoch_above(epoch)?;
    stage.end()
}

#[test]
fn row_13_a_stale_executor_updates_dns_late() -> Result<()> {
    let stage = Stage::set("row 13")?;
    let knot = stage.deployment.knot.as_ref().context("the deployment has a name server")?;
    let stale = stage.dns_epoch()?;
    stage.fails_over("executor SIGSTOP", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.node("web-a").executor.stop()
    })?;
    let newer = stage.dns_epoch_above(stale)?;
    let zone = || knot.records(&format!("_understudy.{NAME}"), "TXT");
    let (before, addresses) = (zone()?, knot.records(NAME, "A")?);
    // What the stopped executor would send, with the very code and key that it has, from the host that it is on.
    let server = knot.address();
    let key = TsigKey::new(KEY_NAME, Algorithm::HmacSha256, KEY_SECRET)?;
    let own = stage.deployment.node("web-a").host.ipv4();
    let late = move || {
        let zone = Zone {
            servers: vec![server],
            origin: "ha.test.".into(),
            key: Some(key),
            ttl: 1,
            timeout: Duration::from_secs(2),
        };
        let desired = Desired { name: NAME.into(), slot: 0, epoch: stale, addresses: vec![own.into()] };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        anyhow::Ok(runtime.block_on(apply(&zone, server, &desired))?)
    };
    let answer = stage.deployment.node("web-a").host.enter(late)??;
    ensure!(answer == Answer::NewerKnown { epoch: newer }, "a stale update was answered {answer:?}");
    ensure!(zone()? == before && knot.records(NAME, "A")? == addresses, "a stale update changed the zone");
    // And the real one, when it goes on.
    stage.deployment.node("web-a").executor.cont()?;
    wait_until("the old holder is a standby again", SOON, || stage.deployment.wait_standbys().ok())?;
    ensure!(zone()? == before, "the executor that went on changed the zone");
    stage.end()
}
