//! The deployment goes on after the acts, to play with.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::Result;

use super::{fleet::Fleet, interrupt, print};
use crate::{
    Deployment, Moment, Process, binary,
    deployment::{NAME, PORT, VIP, vips},
};

/// How often it looks for processes that ended.
const ROUND: Duration = Duration::from_secs(2);

/// Prints the instructions, and stays until a signal ends the process; starts again what ends meanwhile, as a service
/// manager would, and starts and stops what the autoscalers say. `fleet` is not there where an act went wrong before.
pub(super) fn stay(deployment: &Deployment, fleet: Option<&Fleet<'_>>) -> Result<()> {
    let mut pids = Vec::new();
    each(deployment, fleet, |process| {
        pids.push((process.name().to_owned(), process.pid()));
        Ok(())
    })?;
    print(&instructions(&Places::of(deployment, pids)?, fleet.is_some()))?;
    loop {
        // Paces the looks, as a service manager waits before it starts again what ended.
        (Moment::now() + ROUND).reach();
        if let Some(error) = fleet.and_then(|fleet| fleet.yard.tend().err()) {
            interrupt::hold();
            return Err(error);
        }
        each(deployment, fleet, |process| {
            if process.is_running() {
                return Ok(());
            }
            interrupt::hold();
            process.restart()?;
            print(&format!("{} had ended and was started again, pid {}\n", process.name(), process.pid()))
        })?;
    }
}

/// Does something with each process that is to run.
fn each(
    deployment: &Deployment,
    fleet: Option<&Fleet<'_>>,
    mut what: impl FnMut(&Process) -> Result<()>,
) -> Result<()> {
    match fleet {
        Some(fleet) => fleet.try_for_each_process(what),
        None => deployment.processes().try_for_each(&mut what),
    }
}

/// What the instructions name.
#[derive(Clone, Debug)]
struct Places {
    /// Namespace of the client.
    client: String,
    /// Namespace of the first node.
    node: String,
    /// Its name, and its executor's pid.
    name: String,
    executor: u32,
    /// Address of the name server.
    dns: String,
    /// The CLI as it is called.
    understudy: String,
    config: String,
    folder: String,
    /// Processes with their pids.
    pids: Vec<(String, u32)>,
}

impl Places {
    fn of(deployment: &Deployment, pids: Vec<(String, u32)>) -> Result<Self> {
        let program = binary("understudy")?;
        let here = std::env::current_dir().unwrap_or_default();
        let understudy = program.strip_prefix(here).map_or(program.as_path(), |inside| inside);
        let node = &deployment.nodes[0];
        let shown = |path: &Path| path.display().to_string();
        Ok(Self {
            client: deployment.client.namespace().to_owned(),
            node: node.host.namespace().to_owned(),
            name: node.host.name().to_owned(),
            executor: node.executor.pid(),
            dns: deployment.name_server()?.address().ip().to_string(),
            understudy: shown(understudy),
            config: shown(&deployment.config()),
            folder: shown(deployment.network.folder()),
            pids,
        })
    }
}

/// Commands for another terminal; lines of commands are as long as they must be. `scaled`: autoscalers run.
fn instructions(places: &Places, scaled: bool) -> String {
    let Places { client, node, name, executor, dns, understudy, config, folder, pids } = places;
    let inside = format!("ip netns exec {client}");
    let mut text = format!(
        "\nThe deployment goes on until Ctrl-C. In another terminal, as root, from this folder:\n\n\
         understudy() {{ {inside} \\\n    {understudy} --config {config} \"$@\"; }}\n\
         understudy status\n\
         understudy watch\n\
         understudy events --last 3\n\
         understudy switchover --group web --to web-b\n\
         understudy maintenance on --group web --node web-a\n"
    );
    if scaled {
        text += &remark("understudy scale --group web --active 2", "whatever the load says");
        text += &remark("understudy scale --group web --auto", "as the load says");
        text += &remark("understudy scaling explain --group web", "why it did that, or nothing");
        text += &remark("understudy scaling pause --group web", "nothing, until: resume");
    }
    text.push('\n');
    text += &remark(&format!("{inside} curl -s http://{VIP}:{PORT}/"), "who serves");
    if scaled {
        let second = &vips(1)[0];
        text += &remark(
            &format!("{inside} curl -s http://{second}:{PORT}/"),
            "the same of slot 1, while it is open",
        );
    }
    text += &format!("{inside} kdig @{dns} {NAME} A +short\n");
    text += &format!("{inside} kdig @{dns} _understudy.{NAME} TXT +short\n\n");
    text += &remark(&format!("ip -n {node} link set eth0 down"), &format!("cuts {name} off"));
    text += &remark(&format!("ip -n {node} link set eth0 up"), "and back");
    let stop = format!("kill -STOP {executor}; sleep 5; kill -CONT {executor}");
    text += &remark(&stop, &format!("the executor of {name}"));
    let all = format!("ip netns pids {node} | xargs kill -9");
    text += &remark(&all, &format!("all processes of {name} at once"));
    let _ = write!(text, "\nWhat ends is started again after two seconds. Logs are in {folder}; pids:\n\n");
    for line in pids.chunks(3) {
        let cells = line.iter().map(|(name, pid)| format!("  {name:<16} {pid:>9}"));
        let _ = writeln!(text, "{}", cells.collect::<String>());
    }
    text.push('\n');
    text
}

/// A command, and behind it what it is for.
fn remark(command: &str, purpose: &str) -> String {
    let pad = 54_usize.saturating_sub(command.len()).max(2);
    format!("{command}{:pad$}# {purpose}\n", "")
}

#[cfg(test)]
#[path = "keep_tests.rs"]
mod tests;
