//! A name server whose name the engine does not know while it is down.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use understudy_compose::{Container, NODES, PROJECT, Stack};
use understudy_lab::{Moment, wait_until};

/// As of any planned move.
const PLANNED: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_secs(60);

/// The text beside the managed name, asked from the client's container.
fn beside_the_name() -> Result<String> {
    let pid = Container(format!("{PROJECT}-client")).pid()?.to_string();
    let ask = ["kdig", "+short", "+timeout=1", "+retry=0", "@172.29.77.53", "TXT", "_understudy.web.ha.test"];
    let answer = Command::new("nsenter").args(["-t", &pid, "-n"]).args(ask).output().context("kdig")?;
    Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
}

#[test]
fn an_executor_starts_and_takes_over_while_the_name_server_cannot_be_looked_up() -> Result<()> {
    let stack = Stack::up()?;
    let active = stack.active()?;
    let standby = NODES.iter().find(|node| **node != active).context("a standby")?;
    stack.compose(&["stop", "dns"])?;
    stack.compose(&["restart", &format!("{standby}-executor")])?;
    stack.wait_ready().context("the executor started without the name server")?;
    let since = Moment::now();
    stack.understudy(&["switchover", "--group", "web", "--to", standby])?;
    stack.client.wait_served(SOON, |node| node == *standby)?;
    let gap = stack.client.longest_gap(since);
    println!("switchover without the name server: gap {} ms", gap.as_millis());
    ensure!(gap <= PLANNED, "the address waited for the name: {gap:?}");
    let logs = || stack.compose(&["logs", "--no-color", &format!("{standby}-executor")]);
    // How long a name server lets somebody wait who asks for a name that it does not know, is its own affair.
    wait_until("it says so", SOON, || {
        logs().is_ok_and(|logs| logs.contains("dns.servers: looking it up; tries go on"))
    })
    .with_context(|| format!("{:?}", logs()))?;
    stack.compose(&["start", "dns"])?;
    let epoch = stack
        .wait_status("an epoch", |status| status["groups"][0]["slots"][0]["epoch"].as_u64())?
        .to_string();
    wait_until("the zone has the new epoch", SOON, || {
        beside_the_name().is_ok_and(|text| text.contains(&epoch))
    })
    .with_context(|| format!("epoch {epoch}, beside the name: {:?}", beside_the_name()))?;
    stack.end();
    Ok(())
}
