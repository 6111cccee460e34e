//! Row 22: a client that could hear nothing when the address moved.
//!
//! Elsewhere a lost announcement is never repeated: traffic arrives after minutes, or once somebody sends one by hand.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use understudy_e2e::{SOON, Stage};
use understudy_lab::{
    Moment, Probe, Traffic,
    deployment::{VIP, VIP6},
    wait_until,
};

/// How long the client hears neither ARP nor neighbour discovery of any node.
const DEAF: Duration = Duration::from_secs(2);
/// How soon afterwards it must reach the new holder: two announcements of a young takeover.
const REACHED: Duration = Duration::from_millis(500);

/// `node` is who answers its own watcher now.
fn serves(probe: &Probe, node: &str) -> bool {
    let history = probe.snapshot();
    let newest = history.eyes.get(node).and_then(|eye| eye.iter().rfind(|sample| sample.node().is_some()));
    newest.is_some_and(|sample| probe.mark().since(sample.sent) <= REACHED)
}

fn reached_in_time(probe: &Probe, vip: &str, deaf: Moment, hears: Moment) -> Result<Duration> {
    let first = wait_until(&format!("web-b serves the client at {vip}"), SOON, || {
        probe.snapshot().first_answer("web-b", deaf)
    })?;
    ensure!(first >= hears, "{vip}: the client was served although it could not know by whom");
    let took = first.since(hears);
    ensure!(took <= REACHED, "{vip}: the client reached the new holder after {} ms", took.as_millis());
    Ok(took)
}

#[test]
fn row_22_client_that_missed_the_announcements() -> Result<()> {
    let stage = Stage::set("row 22")?;
    let (network, client) = (&stage.deployment.network, &stage.deployment.client);
    let six = stage.deployment.probe_vip(VIP6)?;
    six.wait_served_by("web-a", SOON)?;
    let nodes: Vec<_> = stage.deployment.nodes.iter().map(|node| node.host.name()).collect();

    let deaf = stage.probe.mark();
    network.cut_traffic(&nodes, &[client.name()], &[Traffic::Arp, Traffic::Icmpv6])?;
    // The executor first: a publisher that dies before it would leave it a moment to release.
    let old = stage.deployment.node("web-a");
    [&old.executor, &old.heartbeat, &old.workload]
        .iter()
        .try_for_each(|process| process.signal(Signal::SIGKILL))?;
    wait_until("web-b serves", SOON, || serves(&stage.probe, "web-b") && serves(&six, "web-b"))?;
    wait_until("the client was deaf for long enough", SOON, || stage.probe.mark() >= deaf + DEAF)?;
    for (family, vip) in [("-4", VIP), ("-6", VIP6)] {
        let entry = client.run("ip", [family, "neigh", "show", "to", vip])?;
        ensure!(entry.contains(old.host.mac()), "the client no longer looks for the old holder: {entry:?}");
    }
    // Before the rules go, so that the time they take counts as well.
    let hears = stage.probe.mark();
    network.heal(client.name())?;
    for (probe, vip) in [(&stage.probe, VIP), (&six, VIP6)] {
        let took = reached_in_time(probe, vip, deaf, hears)?;
        let fault = format!("announcements missed, {vip}: from the end of that");
        stage.note(&fault, took.as_secs_f64() * 1e3, 0.0, Some(REACHED));
    }
    ensure!(six.finish().two_answering_at().is_empty(), "two nodes answered for the IPv6 VIP");
    stage.end()
}
