//! Row 22: a client that could hear nothing when the address moved; and one that hears of no address at all, since a
//! router stands between.
//!
//! Elsewhere a lost announcement is never repeated: traffic arrives after minutes, or once somebody sends one by hand.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use understudy_e2e::{LEASE_AND_A_BIT, SOON, Stage};
use understudy_lab::{
    Moment, Probe, Traffic,
    deployment::{PORT, VIP, VIP6},
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

/// A client of another subnet, behind a router that hangs on the same switch as the nodes.
fn beyond_a_router(stage: &Stage) -> Result<Probe> {
    let deployment = &stage.deployment;
    let router = deployment.network.host_numbered("router", 6)?;
    let far = deployment.network.host("far", "10.78.0.5/24", "fd78::5/64")?;
    router.run("ip", ["address", "add", "10.78.0.1/24", "dev", "eth0"])?;
    // Both subnets are on one wire here: a redirect would tell the client and the nodes to do without the router.
    let settings = ["net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.eth0.send_redirects=0"];
    router.run("sysctl", [["-q", "-w", "net.ipv4.ip_forward=1"].as_slice(), &settings].concat())?;
    far.run("ip", ["route", "add", "10.77.0.0/24", "via", "10.78.0.1"])?;
    for node in &deployment.nodes {
        node.host.run("ip", ["route", "add", "10.78.0.0/24", "via", &router.ipv4().to_string()])?;
    }
    let hosts: Vec<_> = deployment.nodes.iter().map(|node| &node.host).collect();
    Probe::start(&deployment.network, &far, &hosts, SocketAddr::new(VIP.parse()?, PORT))
}

/// Elsewhere clients in another subnet wait for a quarter of a minute longer: their router learns late where the address is.
#[test]
fn client_in_another_subnet_is_served_as_soon() -> Result<()> {
    let mut stage = Stage::set("another subnet")?;
    stage.probe = beyond_a_router(&stage)?;
    stage.probe.wait_served_by("web-a", SOON)?;
    stage.fails_over("active cut off, client behind a router", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    stage.end()
}
