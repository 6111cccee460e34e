//! keepalived under comparison: VRRP version 3 by multicast, two nodes of the default priority, scheduled and locked in
//! memory as Understudy is.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use understudy_lab::{Host, Launch, Network, Probe, Process, deployment::PORT, tool, wait_until, workload};

use super::{Fault, SOON, System};

/// Names of the nodes.
const MEMBERS: [&str; 2] = ["vrrp-a", "vrrp-b"];
/// Their numbers.
const NUMBERS: [u8; 2] = [61, 62];
/// Address that moves.
const VIP: &str = "10.77.0.101";
/// keepalived's default.
const PRIORITY: u32 = 100;
/// What a node writes when it has become a backup.
const BACKUP: &str = "Entering BACKUP STATE";

struct Node {
    host: Host,
    daemon: Process,
    _workload: Process,
}

pub(super) struct Keepalived<'a> {
    network: &'a Network,
    client: &'a Host,
    interval: Duration,
    nodes: [Node; 2],
}

impl<'a> Keepalived<'a> {
    /// Two nodes on a network that is there already.
    pub(super) fn start(network: &'a Network, client: &'a Host, interval: Duration) -> Result<Self> {
        let start = |index: usize| {
            let host = network.host_numbered(MEMBERS[index], NUMBERS[index])?;
            let workload = workload::start(&host, PORT)?;
            let daemon = daemon(&host, interval)?;
            anyhow::Ok(Node { host, daemon, _workload: workload })
        };
        Ok(Self { network, client, interval, nodes: [start(0)?, start(1)?] })
    }

    fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.host.name() == name).with_context(|| format!("no node {name}"))
    }
}

fn daemon(host: &Host, interval: Duration) -> Result<Process> {
    let name = host.name();
    let file = |kind: &str| host.folder().join(format!("{name}.{kind}"));
    let config = file("conf");
    fs::write(&config, configuration(name, interval))
        .with_context(|| format!("writing {}", config.display()))?;
    Launch::new(host, name, tool("keepalived")?)
        .arguments(["--dont-fork", "--log-console", "--vrrp"])
        .arguments(["--use-file".as_ref(), config.as_os_str()])
        .arguments(["--pid".as_ref(), file("pid").as_os_str()])
        .arguments(["--vrrp_pid".as_ref(), file("vrrp-pid").as_os_str()])
        .spawn()
}

/// Both begin as backups and stay what they become, as both nodes of Understudy do.
fn configuration(name: &str, interval: Duration) -> String {
    format!(
        "global_defs {{\n  router_id {name}\n  vrrp_version 3\n  vrrp_rt_priority 10\n  vrrp_no_swap\n}}\n\
         vrrp_instance web {{\n  state BACKUP\n  nopreempt\n  interface eth0\n  virtual_router_id 51\n\
         \x20 priority {PRIORITY}\n  advert_int {}\n  virtual_ipaddress {{\n    {VIP}/24\n  }}\n}}\n",
        interval.as_secs_f64()
    )
}

fn signal(node: &Node, signal: Signal) -> Result<()> {
    // Its own group, and its child's.
    killpg(Pid::from_raw(node.daemon.pid() as i32), signal)
        .with_context(|| format!("sending {signal} to keepalived on {}", node.host.name()))
}

/// Starts it again, and waits until it is a backup that hears the master.
fn restart(node: &Node) -> Result<()> {
    let before = node.daemon.log_text().matches(BACKUP).count();
    node.daemon.restart()?;
    wait_until("keepalived to be a backup", SOON, || node.daemon.log_text().matches(BACKUP).count() > before)
}

impl System for Keepalived<'_> {
    fn name(&self) -> &'static str {
        "keepalived"
    }

    fn probe(&self) -> Result<Probe> {
        super::probe(self.network, self.client, [&self.nodes[0].host, &self.nodes[1].host], VIP)
    }

    fn members(&self) -> [&str; 2] {
        MEMBERS
    }

    /// RFC 5798 section 6.1: three advertisements and the skew.
    fn timeout_ms(&self) -> f64 {
        let skew = f64::from(256 - PRIORITY) / 256.0;
        self.interval.as_secs_f64() * 1e3 * (3.0 + skew)
    }

    fn inflict(&self, fault: Fault, holder: &str, _heir: &str) -> Result<()> {
        let node = self.node(holder)?;
        match fault {
            Fault::Switchover => node.daemon.terminate(),
            Fault::DaemonKilled => signal(node, Signal::SIGKILL),
            Fault::DaemonStopped => signal(node, Signal::SIGSTOP),
            Fault::Cut | Fault::LinkBetween => bail!("a fault of the network"),
        }
    }

    fn mend(&self, fault: Fault, holder: &str) -> Result<()> {
        let node = self.node(holder)?;
        match fault {
            Fault::Switchover => {
                node.daemon.wait_exit(SOON)?;
                restart(node)
            }
            Fault::DaemonKilled => {
                // Nobody takes the address away from a host whose daemon was killed.
                node.host.run("ip", ["address", "del", &format!("{VIP}/24"), "dev", "eth0"])?;
                restart(node)
            }
            // Once in a while both stay masters after it; the next run must begin with one.
            Fault::DaemonStopped => {
                signal(node, Signal::SIGCONT)?;
                node.daemon.terminate()?;
                node.daemon.wait_exit(SOON)?;
                restart(node)
            }
            Fault::Cut | Fault::LinkBetween => Ok(()),
        }
    }
}
