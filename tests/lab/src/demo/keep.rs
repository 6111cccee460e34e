//! The deployment goes on after the acts, to play with.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::Result;

use super::{interrupt, print};
use crate::{
    Deployment, Moment, binary,
    deployment::{NAME, PORT, VIP},
};

/// How often it looks for processes that ended.
const ROUND: Duration = Duration::from_secs(2);

/// Prints the instructions, and stays until a signal ends the process; starts again what ends meanwhile, as a service
/// manager would.
pub(super) fn stay(deployment: &Deployment) -> Result<()> {
    print(&instructions(&Places::of(deployment)?))?;
    loop {
        // Paces the looks, as a service manager waits before it starts again what ended.
        (Moment::now() + ROUND).reach();
        for process in deployment.processes().filter(|process| !process.is_running()) {
            interrupt::hold();
            process.restart()?;
            print(&format!("{} had ended and was started again, pid {}\n", process.name(), process.pid()))?;
        }
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
    fn of(deployment: &Deployment) -> Result<Self> {
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
            pids: deployment.processes().map(|process| (process.name().to_owned(), process.pid())).collect(),
        })
    }
}

/// Commands for another terminal; lines of commands are as long as they must be.
fn instructions(places: &Places) -> String {
    let Places { client, node, name, executor, dns, understudy, config, folder, pids } = places;
    let inside = format!("ip netns exec {client}");
    let mut text = format!(
        "\nThe deployment goes on until Ctrl-C. In another terminal, as root, from this folder:\n\n\
         understudy() {{ {inside} \\\n    {understudy} --config {config} \"$@\"; }}\n\
         understudy status\n\
         understudy watch\n\
         understudy events --last 3\n\
         understudy switchover --group web --to web-b\n\
         understudy maintenance on --group web --node web-a\n\n"
    );
    text += &remark(&format!("{inside} curl -s http://{VIP}:{PORT}/"), "who serves");
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
