//! Row 23, and a store without a quorum: what the slot hangs on is away for a while, and what it does not.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use understudy_e2e::{LEASE, LEASE_AND_A_BIT, SOON, Stage, metric};
use understudy_lab::{deployment::DETECTOR_PAGES, wait_until};

/// How long all detectors are paused.
const PAUSE: Duration = Duration::from_secs(2);
/// Longer than JetStream takes to elect a leader (4 to 9 s), which it now cannot.
const NO_QUORUM: Duration = Duration::from_secs(12);

#[test]
fn row_23_all_detectors_paused_together() -> Result<()> {
    let stage = Stage::set("row 23")?;
    let epoch = stage.dns_epoch()?;
    let detectors = &stage.deployment.detectors;
    detectors.iter().try_for_each(|detector| detector.stop())?;
    let stopped = stage.probe.mark();
    stage.probe.wait_dark(SOON)?;
    wait_until("the pause is over", SOON, || stage.probe.mark() >= stopped + PAUSE)?;
    let resumed = stage.probe.mark();
    let history = stage.probe.snapshot();
    let last =
        history.eyes.values().flatten().filter(|sample| sample.node().is_some() && sample.sent < resumed);
    let last = last.map(|sample| sample.sent).max().context("web-a served before")?;
    let lit = last.since(stopped);
    ensure!(lit <= LEASE, "the VIP answered for {} ms without a detector", lit.as_millis());

    detectors.iter().try_for_each(|detector| detector.cont())?;
    let back = wait_until("the VIP is back", SOON, || stage.probe.serving_now())?;
    ensure!(back == "web-a", "{back} holds the slot although web-a had done nothing to lose it");
    stage.settle("web-a")?;
    let (gap, stalled) = stage.gap_since(stopped);
    // They take in what is queued, wait an interval (rule R13), and hear who claims the slot.
    let bound = PAUSE + LEASE_AND_A_BIT;
    stage.note("all detectors paused for 2 s", gap, stalled, Some(bound));
    ensure!(gap <= bound.as_secs_f64() * 1e3, "the client's gap was {gap:.1} ms");
    let nodes: Vec<_> = stage.probe.snapshot().tenures().into_iter().map(|(node, ..)| node).collect();
    ensure!(nodes.iter().all(|node| node == "web-a"), "{nodes:?} served, one after the other");
    stage.dns_epoch_above(epoch)?;
    stage.end()
}

/// Elsewhere a store that loses its quorum, or is slow, demotes a healthy primary; and a stream without a leader may
/// stall until somebody resets it. Here no lease waits for JetStream, and what it missed it gets once it is back.
#[test]
fn jetstream_without_a_quorum_moves_nothing() -> Result<()> {
    let stage = Stage::set("JetStream without a quorum")?;
    let epoch = stage.dns_epoch()?;
    let servers = stage.deployment.nats.servers();
    let (left, lost) = servers.split_first().context("a cluster of three")?;
    let since = stage.probe.mark();
    lost.iter().try_for_each(|server| server.process().kill9())?;
    wait_until("JetStream has no leader", SOON, || left.meta_leader(servers.len()).is_none())?;
    stage.nothing_moves("JetStream without a quorum", "web-a", since, NO_QUORUM)?;
    ensure!(left.meta_leader(servers.len()).is_none(), "JetStream has a leader after all");
    // NATS itself goes on: it is the store alone that is away.
    let heard = || {
        let received = "understudy_bus_received_total{path=\"nats\"}";
        let detectors = stage.deployment.detectors.iter();
        detectors.map(|detector| metric(detector, DETECTOR_PAGES, received)).collect::<Result<Vec<_>>>()
    };
    let before = heard()?;
    wait_until("every detector hears of the nodes over NATS", SOON, || {
        let now = heard().ok()?;
        now.iter().zip(&before).all(|(now, before)| now > before).then_some(())
    })?;
    stage.fails_over(
        "active cut off, JetStream without a quorum",
        "web-b",
        LEASE_AND_A_BIT,
        |deployment| deployment.network.isolate("web-a"),
    )?;
    let epoch = stage.dns_epoch_above(epoch)?;

    let since = stage.probe.mark();
    lost.iter().try_for_each(|server| server.process().restart())?;
    stage.deployment.nats.wait_ready(SOON)?;
    stage.takeover_is_recorded(epoch)?;
    stage.nothing_moves("JetStream with a quorum again", "web-b", since, Duration::from_secs(1))?;
    stage.end()
}
