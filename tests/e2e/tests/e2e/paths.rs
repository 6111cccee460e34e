//! Row 21: one of the two unlike paths is gone, the other carries the lease.

use std::time::Duration;

use anyhow::{Result, ensure};
use understudy_e2e::{SOON, Stage, metric};
use understudy_lab::{
    CLIENT_PORT, Deployment, Traffic,
    deployment::{DETECTOR_PAGES, DIRECT_PORT},
    wait_until,
};

const DIRECT: &str = "understudy_bus_received_total{path=\"direct\"}";
const NATS: &str = "understudy_bus_received_total{path=\"nats\"}";
/// What was under way when the path was cut has arrived by then.
const SETTLED: Duration = Duration::from_secs(1);
/// How long nothing may move.
const WATCH: Duration = Duration::from_secs(3);

/// Messages that each detector has taken from a path.
fn received(deployment: &Deployment, path: &str) -> Result<Vec<f64>> {
    deployment.detectors.iter().map(|detector| metric(detector, DETECTOR_PAGES, path)).collect()
}

/// Cuts every connection to `port` between `clients` and `servers`, and sees by the detectors' own counters that this
/// ended one path and not the other.
fn path_cut(fault: &str, ended: &str, goes_on: &str, cut: impl Fn(&Deployment) -> Result<()>) -> Result<()> {
    let stage = Stage::set("row 21")?;
    let deployment = &stage.deployment;
    let epoch = stage.dns_epoch()?;
    let since = stage.probe.mark();
    cut(deployment)?;
    stage.nothing_moves(fault, "web-a", since, SETTLED)?;
    let (silent, lively) = (received(deployment, ended)?, received(deployment, goes_on)?);
    stage.nothing_moves(fault, "web-a", since, WATCH)?;
    let (still, livelier) = (received(deployment, ended)?, received(deployment, goes_on)?);
    ensure!(silent == still, "{fault}: {ended} rose from {silent:?} to {still:?}");
    // At the very least what one node has to say in that time.
    let least = WATCH.div_duration_f64(deployment.plan.interval) * 0.8;
    let rose = lively.iter().zip(&livelier).all(|(before, after)| after - before >= least);
    ensure!(rose, "{fault}: {goes_on} rose from {lively:?} to {livelier:?} only");

    let since = stage.probe.mark();
    deployment.network.heal_all()?;
    wait_until("every detector hears of the path again", SOON, || {
        let now = received(deployment, ended).ok()?;
        now.iter().zip(&still).all(|(now, then)| *now >= then + least).then_some(())
    })?;
    stage.nothing_moves(&format!("{fault}, healed"), "web-a", since, SETTLED)?;
    ensure!(stage.dns_epoch()? == epoch, "the slot was lost, although to nobody else");
    stage.end()
}

fn cut_port(deployment: &Deployment, clients: &[&str], servers: &[&str], port: u16) -> Result<()> {
    deployment.network.cut_traffic(clients, servers, &[Traffic::Tcp(port)])?;
    deployment.network.cut_traffic(servers, clients, &[Traffic::Tcp(port)])
}

fn nodes(deployment: &Deployment) -> Vec<&str> {
    deployment.nodes.iter().map(|node| node.host.name()).collect()
}

fn detectors(deployment: &Deployment) -> Vec<&str> {
    deployment.detectors.iter().map(|detector| detector.host().name()).collect()
}

#[test]
fn row_21_direct_path_cut() -> Result<()> {
    path_cut("direct path cut", DIRECT, NATS, |deployment| {
        cut_port(deployment, &nodes(deployment), &detectors(deployment), DIRECT_PORT)
    })
}

#[test]
fn row_21_nats_path_cut() -> Result<()> {
    path_cut("NATS path cut", NATS, DIRECT, |deployment| {
        let clients = [nodes(deployment), detectors(deployment)].concat();
        let servers: Vec<_> = deployment.nats.servers().iter().map(|server| server.host().name()).collect();
        cut_port(deployment, &clients, &servers, CLIENT_PORT)
    })
}
