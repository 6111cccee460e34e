//! Row 11: planned moves.

use std::time::Duration;

use anyhow::{Result, ensure};
use understudy_e2e::{SOON, Stage};

/// What a planned move may cost the client.
const PLANNED: Duration = Duration::from_millis(10);
/// Planned moves, back and forth.
const MOVES: usize = 20;

#[test]
fn row_11_switchover_on_command() -> Result<()> {
    let stage = Stage::set("row 11")?;
    for round in 0..MOVES {
        let (from, to) = if round % 2 == 0 { ("web-a", "web-b") } else { ("web-b", "web-a") };
        stage.deployment.wait_standbys()?;
        stage.fails_over(&format!("switchover {from} to {to}"), to, PLANNED, |deployment| {
            Stage::switch_over(deployment, to)
        })?;
    }
    stage.end()
}

#[test]
fn row_11_switchover_without_a_ready_standby_is_refused() -> Result<()> {
    let stage = Stage::set("row 11")?;
    for standby in ["web-b", "web-c"] {
        stage.deployment.node(standby).executor.kill9()?;
    }
    stage.deployment.wait_status("no standby is ready", |status| {
        status["groups"][0]["ready_standbys"].as_array()?.is_empty().then_some(())
    })?;
    let since = stage.probe.mark();
    for (arguments, reason) in [
        (&["switchover", "--group", "web", "--to", "web-b"][..], "web-b has no executor"),
        (&["switchover", "--group", "web"], "no ready standby"),
        (&["switchover", "--group", "web", "--to", "web-a"], "web-a holds"),
        (&["switchover", "--group", "web", "--to", "nobody"], "nobody is not a member"),
    ] {
        let output = stage.deployment.understudy(arguments)?;
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(!output.status.success(), "{arguments:?} was not refused: {said}");
        ensure!(said.contains(reason), "{arguments:?}: the reason {reason:?} is not in {said:?}");
    }
    stage.nothing_moves("refused switchovers", "web-a", since, Duration::from_secs(1))?;
    stage.end()
}

#[test]
fn maintenance_moves_the_slot_and_keeps_it_away() -> Result<()> {
    let stage = Stage::set("maintenance")?;
    let maintenance = |state: &'static str| {
        let output =
            stage.deployment.understudy(&["maintenance", state, "--group", "web", "--node", "web-a"])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    stage.fails_over("maintenance on", "web-b", Duration::from_millis(50), |_| maintenance("on"))?;
    let refused = stage.deployment.understudy(&["switchover", "--group", "web", "--to", "web-a"])?;
    ensure!(!refused.status.success(), "a node in maintenance was given the slot");
    maintenance("off")?;
    understudy_lab::wait_until("the node can follow again", SOON, || {
        let output = stage.deployment.understudy(&["switchover", "--group", "web", "--to", "web-a"]).ok()?;
        output.status.success().then_some(())
    })?;
    stage.settle("web-a")?;
    stage.end()
}
