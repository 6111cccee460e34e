//! What must not stay behind: a VIP whose keeper is gone.

use anyhow::Result;
use nix::sys::signal::Signal;
use understudy_e2e::{LEASE_AND_A_BIT, SOON, Stage};
use understudy_lab::{
    deployment::{VIP, VIP6},
    wait_until,
};

/// Whether the node has either of the group's addresses.
fn has_vip(stage: &Stage, node: &str) -> Result<bool> {
    let shown = stage.deployment.node(node).host.run("ip", ["address", "show", "dev", "eth0"])?;
    Ok(shown.contains(&format!("{VIP}/")) || shown.contains(&format!("{VIP6}/")))
}

/// kill -9, docker rm and compose down leave the VIP on the host: here it answers nobody from the first millisecond
/// on, and goes by itself although nobody is left on the node to remove it.
#[test]
fn kill_9_of_everything_on_a_node_leaves_no_vip_behind() -> Result<()> {
    let stage = Stage::set("kill -9 leaves the VIP behind")?;
    stage.fails_over("everything on the active killed", "web-b", LEASE_AND_A_BIT, |deployment| {
        let node = deployment.node("web-a");
        let all = [&node.executor, &node.heartbeat, &node.workload];
        all.iter().try_for_each(|process| process.signal(Signal::SIGKILL))
    })?;
    wait_until("web-a loses the addresses", SOON, || has_vip(&stage, "web-a").is_ok_and(|has| !has))?;
    stage.end()
}

/// The control plane is stopped, and the VIP is kept for ever: here the last holder goes dark within the lease, takes
/// the address away, and the group is served again when the control plane is back.
#[test]
fn a_stopped_control_plane_does_not_keep_the_vip_for_ever() -> Result<()> {
    let stage = Stage::set("control plane stopped, VIP kept")?;
    let since = stage.probe.mark();
    let servers = stage.deployment.nats.servers().iter().map(|server| server.process());
    let all: Vec<_> = stage.deployment.detectors.iter().chain(servers).collect();
    all.iter().try_for_each(|process| process.stop())?;
    stage.probe.wait_dark(SOON)?;
    let last = stage.probe.snapshot().last_served("web-a", stage.probe.mark());
    let lit = last.map(|last| last.since(since)).unwrap_or_default();
    anyhow::ensure!(
        lit <= LEASE_AND_A_BIT,
        "the VIP answered for {} ms without a control plane",
        lit.as_millis()
    );
    for node in ["web-a", "web-b", "web-c"] {
        wait_until("nobody has the address", SOON, || has_vip(&stage, node).is_ok_and(|has| !has))?;
    }
    all.iter().try_for_each(|process| process.cont())?;
    wait_until("the VIP is back", SOON, || stage.probe.serving_now().is_some())?;
    stage.end()
}
