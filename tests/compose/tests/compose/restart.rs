//! The whole stack stopped and started again, and every service restarted one by one.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use understudy_compose::{NODES, Stack, docker};
use understudy_lab::Moment;

/// Handed over and not lost: far below what a lease costs. Row 11 of the end-to-end tests has the bound of planned moves.
const PLANNED: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_secs(60);

fn epoch(stack: &Stack) -> Result<u64> {
    stack.wait_status("a confirmed holder", |status| status["groups"][0]["slots"][0]["epoch"].as_u64())
}

#[test]
fn a_whole_stack_restart_comes_back_with_higher_epochs_and_its_history() -> Result<()> {
    let stack = Stack::up()?;
    let before = epoch(&stack)?;
    // As it was told when it happened, with the time.
    let takeovers = |history: &str| -> Vec<String> {
        history.lines().filter(|line| line.contains(", serving after ")).map(str::to_owned).collect()
    };
    let events = || Ok::<_, anyhow::Error>(takeovers(&stack.understudy(&["events", "-n", "1000"])?));
    let before_it = events()?;
    ensure!(!before_it.is_empty(), "no takeover in the history");
    stack.compose(&["stop"])?;
    ensure!(stack.client.now().is_none(), "a stopped stack answers");
    stack.compose(&["start"])?;
    stack.client.wait_served(SOON, |_| true)?;
    stack.wait_ready()?;
    let after = epoch(&stack)?;
    ensure!(after > before, "epoch {after} after the restart, {before} before");
    let history = events()?;
    ensure!(history.starts_with(&before_it), "of {before_it:?} the history has only {history:?}");
    stack.end();
    Ok(())
}

#[test]
fn a_rolling_restart_of_every_service_costs_no_slot() -> Result<()> {
    let stack = Stack::up()?;
    let begin = Moment::now();
    let mut steps = Vec::new();
    let mut step = |name: &str, act: &dyn Fn() -> Result<()>| -> Result<()> {
        let since = Moment::now();
        act().with_context(|| format!("restarting {name}"))?;
        stack.wait_ready().with_context(|| format!("after the restart of {name}"))?;
        steps.push(format!("{name} {} ms", stack.client.longest_gap(since).as_millis()));
        Ok(())
    };
    for (service, replicas) in [("nats-1", 1), ("nats-2", 1), ("nats-3", 1), ("detector", 3), ("dns", 1)] {
        for number in 1..=replicas {
            let name = stack.replica(service, number).0;
            step(&name, &|| docker(&["restart", &name]).map(drop))?;
        }
    }
    // Standbys first, the active last, as docs/deployment.md says: its executor hands over when it is stopped.
    let active = stack.active()?;
    let mut restart = |node: &str, part: &str| {
        let service = format!("{node}-{part}");
        step(&service, &|| stack.compose(&["restart", &service]).map(drop))
    };
    for node in NODES.into_iter().filter(|node| *node != active) {
        restart(node, "heartbeat")?;
        restart(node, "executor")?;
    }
    ensure!(stack.active()? == active, "the slot moved although only standbys were restarted");
    restart(&active, "executor")?;
    let heir = stack.active()?;
    ensure!(heir != active, "{active} serves although its executor was restarted");
    restart(&active, "heartbeat")?;
    ensure!(stack.active()? == heir, "the slot moved although only a standby was restarted");
    let gap = stack.client.longest_gap(begin);
    println!("rolling restart: longest gap {} ms", gap.as_millis());
    ensure!(gap <= PLANNED, "the rolling restart cost the client {gap:?}: {}", steps.join(", "));
    stack.end();
    Ok(())
}
