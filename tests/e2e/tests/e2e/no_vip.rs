//! Row 24: a group without VIP. The record follows the holder's own address, and the gate guards address and port.
//!
//! Clients keep the old address (connection pools and resolvers do, whatever the TTL says): the old holder must send
//! them away, not leave them hanging, and must never serve them beside the new one.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use understudy_e2e::{LEASE_AND_A_BIT, SOON, Stage};
use understudy_lab::{
    Deployment, Process,
    deployment::{Node, PORT, Plan},
    fetch, wait_until,
};

/// What the witness needs, as for a VIP: confirming the epoch and updating the name server have to fit in.
const WITNESS: Duration = Duration::from_millis(100);
/// How long the old holder is watched after it goes on.
const WATCH: Duration = Duration::from_secs(3);
/// A refusal takes a round trip; what is dropped takes a client's patience, which is longer.
const AT_ONCE: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(2);

/// Knot (3.2) holds back some of the updates that come within a second of the one before, until that second is over.
/// A failover so soon after another is not what is measured here.
const SERVER_PAUSE: Duration = Duration::from_millis(1200);

/// web-a serves without a VIP, and its record is older than [`SERVER_PAUSE`].
fn stage() -> Result<Stage> {
    let stage = Stage::with("row 24", Plan { vip: false, ..Plan::new("e2e") })?;
    let first = vec![own(&stage.deployment, "web-a").ip()];
    let names = stage.names.as_ref().context("a group without VIP has a name")?.snapshot();
    let seen = names.iter().find(|sample| sample.addresses.as_ref() == Some(&first)).map(|sample| sample.at);
    let seen = seen.context("the name was at web-a")?;
    wait_until("the record is old enough", SOON, || stage.probe.mark().since(seen) > SERVER_PAUSE)?;
    Ok(stage)
}

fn own(deployment: &Deployment, node: &str) -> SocketAddr {
    deployment.node(node).host.socket(PORT)
}

/// Connects from the client's host, as one that has this address from wherever.
fn connect(deployment: &Deployment, address: SocketAddr) -> Result<std::io::Result<TcpStream>> {
    deployment.client.enter(|| TcpStream::connect_timeout(&address, PATIENCE))
}

/// A new connection to the node is refused at once.
fn refuses(stage: &Stage, node: &str) -> Result<()> {
    let address = own(&stage.deployment, node);
    let begin = Instant::now();
    let outcome = connect(&stage.deployment, address)?.map(drop).map_err(|error| error.kind());
    let took = begin.elapsed();
    ensure!(
        outcome == Err(ErrorKind::ConnectionRefused),
        "connecting to {node}, which lost the slot: {outcome:?}"
    );
    ensure!(took < AT_ONCE, "{node} took {} ms to refuse", took.as_millis());
    Ok(())
}

/// The record has moved to `heir`, with a newer epoch, and who follows it is served there.
fn followed_to(stage: &Stage, heir: &str, before: u64) -> Result<()> {
    let names = stage.names.as_ref().context("a group without VIP has a name")?;
    names.wait_for(&[own(&stage.deployment, heir).ip()], SOON)?;
    stage.dns_epoch_above(before)?;
    let answer = fetch(&stage.deployment.client, own(&stage.deployment, heir), "/", PATIENCE)?;
    ensure!(answer.status == 200 && answer.body.trim() == heir, "{heir} answers {answer:?}");
    Ok(())
}

#[test]
fn row_24_active_cut_off_the_network() -> Result<()> {
    let stage = stage()?;
    let epoch = stage.dns_epoch()?;
    stage.fails_over("no VIP: active cut off the network", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    followed_to(&stage, "web-b", epoch)?;
    let healed = stage.probe.mark();
    stage.deployment.network.heal("web-a")?;
    wait_until("the old holder can be reached again", SOON, || refuses(&stage, "web-a").is_ok())?;
    stage.nothing_moves("no VIP: the old active is back", "web-b", healed, WATCH)?;
    refuses(&stage, "web-a")?;
    stage.end()
}

#[test]
fn row_24_all_processes_of_the_active_killed() -> Result<()> {
    let stage = stage()?;
    let epoch = stage.dns_epoch()?;
    stage.fails_over(
        "no VIP: all processes of the active killed",
        "web-b",
        LEASE_AND_A_BIT,
        |deployment| {
            let node = deployment.node("web-a");
            let all = [&node.executor, &node.heartbeat, &node.workload];
            all.iter().try_for_each(|process| process.signal(Signal::SIGKILL))
        },
    )?;
    followed_to(&stage, "web-b", epoch)?;
    // A workload that is back before its executor is not served by: the fence stays.
    stage.deployment.node("web-a").workload.restart()?;
    let local = SocketAddr::from(([127, 0, 0, 1], PORT));
    let host = &stage.deployment.node("web-a").host;
    wait_until("the workload of web-a is back", SOON, || fetch(host, local, "/healthz", PATIENCE).is_ok())?;
    refuses(&stage, "web-a")?;
    stage.end()
}

#[test]
fn row_24_executor_of_the_active_killed() -> Result<()> {
    let stage = stage()?;
    let epoch = stage.dns_epoch()?;
    stage.fails_over("no VIP: executor kill -9", "web-b", WITNESS, |deployment| {
        deployment.node("web-a").executor.kill9()
    })?;
    followed_to(&stage, "web-b", epoch)?;
    let log = stage.deployment.node("web-a").heartbeat.log_text();
    ensure!(log.contains("the gate is proved shut"), "the witness did not release: {log}");
    refuses(&stage, "web-a")?;
    stage.end()
}

/// A connection that a client opened while `node` served: it is reset with the next word, and nothing is served over it.
fn is_reset(connection: &mut TcpStream, node: &str) -> Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    let begin = Instant::now();
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let outcome = connection.read(&mut [0; 512]).map_err(|error| error.kind());
    ensure!(outcome == Err(ErrorKind::ConnectionReset), "an old connection to {node}: {outcome:?}");
    ensure!(begin.elapsed() < AT_ONCE, "{node} took {} ms to reset", begin.elapsed().as_millis());
    Ok(())
}

fn stopped(fault: &str, of: impl Fn(&Node) -> Vec<&Process>) -> Result<()> {
    let stage = stage()?;
    let epoch = stage.dns_epoch()?;
    let mut connection = connect(&stage.deployment, own(&stage.deployment, "web-a"))??;
    let fault = format!("no VIP: {fault}");
    stage.fails_over(&format!("{fault} SIGSTOP"), "web-b", LEASE_AND_A_BIT, |deployment| {
        of(deployment.node("web-a")).iter().try_for_each(|process| process.stop())
    })?;
    followed_to(&stage, "web-b", epoch)?;
    refuses(&stage, "web-a")?;
    is_reset(&mut connection, "web-a")?;
    let resumed = stage.probe.mark();
    of(stage.deployment.node("web-a")).iter().try_for_each(|process| process.cont())?;
    stage.nothing_moves(&format!("{fault} SIGCONT"), "web-b", resumed, WATCH)?;
    let history = stage.probe.snapshot();
    let served = history.last_served("web-a", stage.probe.mark()).context("web-a served before")?;
    ensure!(served < resumed, "the old holder answered again after SIGCONT");
    refuses(&stage, "web-a")?;
    let names = stage.names.as_ref().context("a group without VIP has a name")?.snapshot();
    let heir = vec![own(&stage.deployment, "web-b").ip()];
    let mut answers =
        names.iter().filter(|sample| sample.at >= resumed).filter_map(|sample| sample.addresses.as_ref());
    let other = answers.find(|addresses| **addresses != heir);
    ensure!(other.is_none(), "the record went back to {other:?}");
    stage.deployment.wait_standbys()?;
    stage.end()
}

#[test]
fn row_24_executor_stopped() -> Result<()> {
    stopped("executor", |node| vec![&node.executor])
}

#[test]
fn row_24_heartbeat_stopped() -> Result<()> {
    stopped("heartbeat", |node| vec![&node.heartbeat])
}

#[test]
fn row_24_both_stopped() -> Result<()> {
    stopped("executor and heartbeat", |node| node.services().into())
}
