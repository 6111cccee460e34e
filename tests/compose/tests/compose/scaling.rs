//! Scaling and failures of what is beside the way of the traffic: the client sees none of it.

use anyhow::Result;
use understudy_compose::{Stack, docker};

#[test]
fn services_are_scaled_up_and_down_and_nats_servers_fail_without_a_gap() -> Result<()> {
    let stack = Stack::up()?;
    let seats = |granting: u64, observers: usize| {
        stack.wait_status("the seats are as scaled", |status| {
            let observing = status["seats"]["detectors"]
                .as_array()?
                .iter()
                .filter(|one| one["state"] == "observing")
                .count();
            (status["seats"]["granting"] == granting && observing == observers).then_some(())
        })
    };
    seats(3, 0)?;
    stack.nothing_moves("scaled to five detectors", || {
        stack.compose(&["up", "-d", "--scale", "detector=5"])?;
        seats(3, 2)
    })?;
    stack.nothing_moves("scaled back to three detectors", || {
        stack.compose(&["up", "-d", "--scale", "detector=3"])?;
        seats(3, 0)
    })?;
    for replicas in ["autoscaler=1", "autoscaler=2"] {
        stack.nothing_moves(&format!("scaled to {replicas}"), || {
            stack.compose(&["up", "-d", "--scale", replicas])?;
            stack.wait_ready()
        })?;
    }
    for server in ["nats-1", "nats-2", "nats-3"] {
        let name = stack.container(server).0;
        stack.nothing_moves(&format!("{server} killed"), || {
            docker(&["kill", &name])?;
            stack.wait_ready()?;
            docker(&["start", &name])?;
            stack.wait_ready()
        })?;
        stack.nothing_moves(&format!("{server} paused"), || {
            docker(&["pause", &name])?;
            let ready = stack.wait_ready();
            docker(&["unpause", &name])?;
            ready?;
            stack.wait_ready()
        })?;
    }
    stack.end();
    Ok(())
}
