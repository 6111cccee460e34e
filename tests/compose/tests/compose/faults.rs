//! The active killed, paused and disconnected, with the bounds of the end-to-end tests.

use std::time::Duration;

use anyhow::{Context as _, Result};
use understudy_compose::{Stack, T, docker};
use understudy_lab::Moment;

/// A crash: the lease, and 100 ms to take over, as in row 1 of the end-to-end tests.
const CRASH: Duration = T.saturating_add(Duration::from_millis(100));
/// A workload that hangs: twice the check's timeout of 100 ms, on top an interval, and 50 ms to move.
const HANGS: Duration = Duration::from_millis(450);

/// `docker VERB` on the three containers of a node.
fn whole_node(stack: &Stack, verb: &str, node: &str) -> Result<()> {
    let parts = ["", "-heartbeat", "-executor"].map(|part| stack.container(&format!("{node}{part}")).0);
    let [workload, heartbeat, executor] = &parts;
    docker(&[verb, workload, heartbeat, executor]).map(drop)
}

#[test]
fn the_active_killed_paused_and_disconnected_is_replaced() -> Result<()> {
    let mut stack = Stack::up()?;
    let begin = Moment::now();
    stack.watch_nodes()?;

    let killed = stack.active()?;
    // The container that owns the node's network: the engine takes that away a while after the workload. Before that the
    // check of deploy/understudy.toml finds the workload dead, or the lease runs out not much later.
    stack.fails_over("docker compose kill", CRASH, |active| stack.compose(&["kill", active]).map(drop))?;
    stack.never_two(begin)?;
    // Heartbeat and executor are in a network namespace without a network now. They end, and are started again in the
    // new one, by nobody but the engine.
    stack.compose(&["up", "-d", &killed])?;
    stack.wait_ready()?;

    let begin = Moment::now();
    stack.watch_nodes()?;
    let killed = stack.active()?;
    stack.fails_over("docker kill of the whole node", CRASH, |active| whole_node(&stack, "kill", active))?;
    stack.never_two(begin)?;
    stack.compose(&["up", "-d"])?;
    stack.wait_ready().with_context(|| format!("{killed} is back"))?;

    let begin = Moment::now();
    stack.watch_nodes()?;
    let paused = stack.active()?;
    stack
        .fails_over("docker pause of the whole node", CRASH, |active| whole_node(&stack, "pause", active))?;
    whole_node(&stack, "unpause", &paused)?;
    stack.wait_ready()?;

    let workload = stack.container(&stack.active()?).0;
    stack.fails_over("docker pause of the workload", HANGS, |_| docker(&["pause", &workload]).map(drop))?;
    docker(&["unpause", &workload])?;
    stack.wait_ready()?;

    let (network, cut) = (stack.network(), stack.active()?);
    let workload = stack.container(&cut).0;
    stack.fails_over("docker network disconnect", CRASH, |_| {
        docker(&["network", "disconnect", &network, &workload]).map(drop)
    })?;
    stack.never_two(begin)?;
    docker(&["network", "connect", "--alias", &cut, &network, &workload])?;
    // The engine has called the interface eth1, where heartbeat and executor find the network of the VIP.
    stack.wait_ready()?;
    stack.end();
    Ok(())
}
