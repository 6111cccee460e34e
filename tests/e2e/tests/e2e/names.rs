//! Rows 12 and 13: the name server is away, and an executor comes late.

use std::time::Duration;

use anyhow::{Result, ensure};
use understudy_dns::{Algorithm, Answer, Desired, TsigKey, Zone, apply};
use understudy_e2e::{LEASE_AND_A_BIT, SOON, Stage};
use understudy_lab::{KEY_NAME, KEY_SECRET, deployment::NAME, wait_until};

#[test]
fn row_12_dns_server_down_during_a_failover() -> Result<()> {
    let stage = Stage::set("row 12")?;
    let epoch = stage.dns_epoch()?;
    let server = stage.deployment.name_server()?;
    server.process().kill9()?;
    stage.fails_over("active cut off, DNS down", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    server.restart()?;
    stage.dns_epoch_above(epoch)?;
    stage.end()
}

#[test]
fn row_13_a_stale_executor_updates_dns_late() -> Result<()> {
    let stage = Stage::set("row 13")?;
    let server = stage.deployment.name_server()?;
    let stale = stage.dns_epoch()?;
    stage.fails_over("executor SIGSTOP", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.node("web-a").executor.stop()
    })?;
    let newer = stage.dns_epoch_above(stale)?;
    let zone = || server.records(&format!("_understudy.{NAME}"), "TXT");
    let (before, addresses) = (zone()?, server.records(NAME, "A")?);
    // What the stopped executor would send, with the very code and key that it has, from the host that it is on.
    let address = server.address();
    let key = TsigKey::new(KEY_NAME, Algorithm::HmacSha256, KEY_SECRET)?;
    let own = stage.deployment.node("web-a").host.ipv4();
    let late = move || {
        let zone = Zone {
            servers: vec![address.to_string()],
            origin: "ha.test.".into(),
            key: Some(key),
            ttl: 1,
            timeout: Duration::from_secs(2),
        };
        let desired = Desired { name: NAME.into(), slot: 0, epoch: stale, addresses: vec![own.into()] };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        anyhow::Ok(runtime.block_on(apply(&zone, address, &desired))?)
    };
    let answer = stage.deployment.node("web-a").host.enter(late)??;
    ensure!(answer == Answer::NewerKnown { epoch: newer }, "a stale update was answered {answer:?}");
    ensure!(zone()? == before && server.records(NAME, "A")? == addresses, "a stale update changed the zone");
    // And the real one, when it goes on.
    stage.deployment.node("web-a").executor.cont()?;
    wait_until("the old holder is a standby again", SOON, || stage.deployment.wait_standbys().ok())?;
    ensure!(zone()? == before, "the executor that went on changed the zone");
    stage.end()
}
