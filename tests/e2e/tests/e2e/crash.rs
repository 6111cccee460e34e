//! Rows 1, 2 and 17: the active or one of its processes goes.

use std::time::Duration;

use anyhow::{Result, ensure};
use understudy_e2e::{LEASE_AND_A_BIT, SOON, Stage};
use understudy_lab::{deployment::VIP6, wait_until};

/// What the witness needs.
const WITNESS: Duration = Duration::from_millis(100);

fn cut_off(stage: Stage) -> Result<()> {
    let epoch = stage.dns_epoch()?;
    stage.fails_over("active cut off the network", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    stage.dns_epoch_above(epoch)?;
    stage.end()
}

fn killed(stage: Stage) -> Result<()> {
    let epoch = stage.dns_epoch()?;
    stage.fails_over("all processes of the active killed", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.node("web-a").kill()
    })?;
    stage.dns_epoch_above(epoch)?;
    stage.end()
}

#[test]
fn row_01_active_cut_off_the_network() -> Result<()> {
    cut_off(Stage::set("row 1")?)
}

#[test]
fn row_01_all_processes_of_the_active_killed() -> Result<()> {
    killed(Stage::set("row 1")?)
}

/// Elsewhere a second recovery is refused for a while, since there was one just now.
#[test]
fn row_01_the_next_active_is_cut_off_as_soon_as_it_serves() -> Result<()> {
    let stage = Stage::set("row 1")?;
    for (active, heir) in [("web-a", "web-b"), ("web-b", "web-c")] {
        stage.fails_over(
            &format!("{active} cut off, one after the other"),
            heir,
            LEASE_AND_A_BIT,
            |deployment| deployment.network.isolate(active),
        )?;
    }
    stage.end()
}

/// Elsewhere an IPv6 address takes half a minute to move where the IPv4 address is there at once.
#[test]
fn row_17_active_cut_off_the_network() -> Result<()> {
    cut_off(Stage::set_ipv6("row 17")?)
}

#[test]
fn row_17_all_processes_of_the_active_killed() -> Result<()> {
    killed(Stage::set_ipv6("row 17")?)
}

/// Elsewhere a VIP stays in dadfailed after a move: the kernel does not answer for it, and nobody notices.
#[test]
fn row_17_standby_has_the_vip_in_dadfailed() -> Result<()> {
    let stage = Stage::set_ipv6("row 17")?;
    let host = &stage.deployment.node("web-b").host;
    // Somebody else's configuration puts the address there while the active serves it. Behind the fence the two could
    // not see each other, and there would be no duplicate.
    host.run("nft", ["delete", "table", "inet", "understudy_fence_web"])?;
    host.run(
        "sysctl",
        ["-q", "-w", "net.ipv6.conf.eth0.accept_dad=1", "net.ipv6.conf.eth0.dad_transmits=1"],
    )?;
    host.run("ip", ["-6", "address", "add", &format!("{VIP6}/64"), "dev", "eth0"])?;
    let shown = || host.run("ip", ["-6", "address", "show", "dev", "eth0", "to", VIP6]);
    wait_until("the kernel finds the duplicate", SOON, || {
        shown().is_ok_and(|text| text.contains("dadfailed"))
    })?;
    stage.fails_over("active cut off, standby in dadfailed", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    ensure!(!shown()?.contains("dadfailed"), "served although the kernel does not answer: {}", shown()?);
    let log = stage.deployment.node("web-b").executor.log_text();
    ensure!(log.contains("the address was not usable"), "nothing is said of it");
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
