//! Rows 18 and 19: nodes that come back, and nodes that come and go.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use understudy_e2e::{LEASE_AND_A_BIT, SOON, Stage};
use understudy_lab::{Moment, deployment::Plan, wait_until};

/// Handed over: far below what a lost lease costs. Row 11 has the bound of planned moves.
const PLANNED: Duration = Duration::from_millis(50);
/// How long the preferred node must have been stable.
const STABLE: Duration = Duration::from_secs(5);
/// The holder looks once a second, and a second for a busy machine.
const LOOKS: Duration = Duration::from_secs(2);
/// Falls within a minute that damp a node.
const FALLS: usize = 3;

fn plan(name: &str, failback: &str) -> Plan {
    Plan { policy: format!("failback = \"{failback}\""), ..Plan::new(name) }
}

/// web-a is killed, web-b follows, web-a comes back as a ready standby; returns when it was started again.
fn kill_and_return(stage: &Stage) -> Result<Moment> {
    stage.fails_over("preferred node killed", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.node("web-a").kill()
    })?;
    let started = stage.probe.mark();
    stage.deployment.node("web-a").restart()?;
    stage.deployment.wait_standbys()?;
    Ok(started)
}

/// Elsewhere the policy of failback is misread or ignored, in both directions.
#[test]
fn row_18_failback_after_the_preferred_node_was_stable() -> Result<()> {
    let stage = Stage::with("row 18", plan("stable", "5s"))?;
    let started = kill_and_return(&stage)?;
    let ready = stage.probe.mark();
    stage.fails_over("failback", "web-a", PLANNED, |_| Ok(()))?;
    let back = stage.probe.snapshot().first_answer("web-a", started).context("web-a serves")?;
    let after = back.since(started);
    ensure!(after >= STABLE, "failed back {} ms after the node was started", after.as_millis());
    let late = back.since(ready + STABLE);
    ensure!(late <= LOOKS, "failed back only {} ms after the node had been stable", late.as_millis());
    wait_until("the failback is in the history as a switchover", SOON, || {
        let events = stage.events().ok()?;
        let record = events.into_iter().rfind(|event| event["kind"] == "takeover")?;
        let data = &record["data"];
        (data["node"] == "web-a" && data["previous"] == "web-b" && data["cause"] == "switchover")
            .then_some(())
    })?;
    stage.end()
}

/// Elsewhere an old active must be made a standby again by hand, or takes its place back unasked.
#[test]
fn row_18_never_fails_back_unless_told_to() -> Result<()> {
    let stage = Stage::with("row 18", plan("never", "never"))?;
    let started = kill_and_return(&stage)?;
    // More than twice what the other policy waits.
    stage.nothing_moves("preferred node returned", "web-b", started, 2 * (STABLE + LOOKS))?;
    stage.end()
}

/// Elsewhere the address returns to a rebooted node before its network is ready.
#[test]
fn row_18_no_failback_to_a_node_whose_network_is_not_ready() -> Result<()> {
    let stage = Stage::with("row 18", plan("notready", "1s"))?;
    stage.fails_over("preferred node killed", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.node("web-a").kill()
    })?;
    // The detectors hear it, but on the segment of the VIP it does not reach the holder yet.
    stage.deployment.network.cut_both("web-a", "web-b")?;
    let started = stage.probe.mark();
    stage.deployment.node("web-a").restart()?;
    stage.deployment.wait_standbys()?;
    stage.nothing_moves("preferred node without network", "web-b", started, STABLE)?;
    stage.fails_over("its network is ready", "web-a", PLANNED, |deployment| {
        deployment.network.heal_between("web-a", "web-b")
    })?;
    stage.end()
}

#[test]
fn interface_that_comes_up_after_the_executor_makes_the_node_ready() -> Result<()> {
    let stage = Stage::set("interface")?;
    let since = stage.probe.mark();
    let node = stage.deployment.node("web-b");
    stage.deployment.network.link_down("web-b")?;
    node.executor.kill9()?;
    let before = node.executor.log_text().len();
    node.executor.restart()?;
    // The gate and the interface are looked at before NATS, which cannot be reached.
    wait_until("the executor has looked at its interface", SOON, || {
        node.executor.log_text()[before..].contains("nats: IO error")
    })?;
    stage.deployment.network.link_up("web-b")?;
    stage.deployment.wait_standbys()?;
    stage.nothing_moves("standby's interface down and up", "web-a", since, Duration::ZERO)?;
    stage.end()
}

/// Elsewhere a follower that was killed disturbs the VIP when it returns.
#[test]
fn a_standby_that_is_killed_and_returns_moves_nothing() -> Result<()> {
    let stage = Stage::set("standby returns")?;
    let since = stage.probe.mark();
    stage.deployment.node("web-b").kill()?;
    stage.wait_only_standby("web-c")?;
    // Nobody does anything by hand: it is a ready standby again as soon as it runs.
    stage.deployment.node("web-b").restart()?;
    stage.deployment.wait_standbys()?;
    stage.nothing_moves("standby killed and returned", "web-a", since, Duration::from_secs(2))?;
    stage.end()
}

/// Elsewhere flap detection has been asked for for years. web-b, the first in line, has fallen often, and is well again. web-c is steady.
fn after_flaps(stage: &Stage) -> Result<()> {
    stage.deployment.wait_status("web-b is a ready standby, and damped", |status| {
        let group = &status["groups"][0];
        let ready = group["ready_standbys"].as_array()?.iter().any(|node| node == "web-b");
        let damped =
            group["nodes"].as_array()?.iter().any(|node| node["node"] == "web-b" && node["damped"] == true);
        (ready && damped).then_some(())
    })?;
    stage.fails_over("active cut off, first in line flaps", "web-c", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-a")
    })?;
    let served = stage.probe.snapshot().last_served("web-b", stage.probe.mark());
    ensure!(served.is_none(), "the node that flaps served meanwhile");
    // Better a node that flaps than none.
    stage.fails_over("only a flapping node is left", "web-b", LEASE_AND_A_BIT, |deployment| {
        deployment.network.isolate("web-c")
    })
}

#[test]
fn row_19_node_whose_workload_flaps_is_not_chosen_while_a_steadier_one_is_there() -> Result<()> {
    let stage = Stage::set("row 19")?;
    for _ in 0..FALLS {
        for (signal, health) in [(Signal::SIGUSR1, "unhealthy"), (Signal::SIGUSR2, "healthy")] {
            stage.deployment.node("web-b").workload.signal(signal)?;
            stage.deployment.wait_status(&format!("web-b is {health}"), |status| {
                let nodes = status["groups"][0]["nodes"].as_array()?;
                nodes.iter().any(|node| node["node"] == "web-b" && node["health"] == health).then_some(())
            })?;
        }
    }
    after_flaps(&stage)?;
    stage.end()
}

#[test]
fn row_19_node_that_is_cut_off_again_and_again_is_not_chosen_while_a_steadier_one_is_there() -> Result<()> {
    let stage = Stage::set("row 19")?;
    for _ in 0..FALLS {
        stage.deployment.network.isolate("web-b")?;
        stage.deployment.wait_status("web-b has failed", |status| {
            let nodes = status["groups"][0]["nodes"].as_array()?;
            nodes.iter().any(|node| node["node"] == "web-b" && node["judgement"] == "failed").then_some(())
        })?;
        stage.deployment.network.heal("web-b")?;
        stage.deployment.wait_standbys()?;
    }
    after_flaps(&stage)?;
    stage.end()
}
