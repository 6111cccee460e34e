//! What the two services of a node cost while nothing happens.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use understudy_lab::{
    Deployment, Moment, Process,
    deployment::{Node, Plan},
};

use crate::{
    figures::{rounded, save},
    usage::{self, OTHERS, OWN},
};

/// File of these figures.
pub(crate) const FILE: &str = "node.json";
/// Until connections and allocators have settled, which nothing tells, and the takeover is no longer young: its holder
/// announces the address four times a second for 30 s.
const SETTLE: Duration = Duration::from_secs(35);
/// How long is looked at.
const SPAN: Duration = Duration::from_secs(30);
const MIB: f64 = 1024.0 * 1024.0;

/// Heartbeat and executor of one node together; the dearer one of holder and standby.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Percent of one core.
    pub cpu_percent: f64,
    /// Resident memory, MiB.
    pub rss_mib: f64,
    /// The same with shared pages divided, MiB.
    pub pss_mib: f64,
    /// Heartbeat interval, ms.
    pub interval_ms: u64,
    /// Each service by itself.
    pub services: Vec<Service>,
}

/// One process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Service {
    /// Node and service.
    pub name: String,
    /// Percent of one core.
    pub cpu_percent: f64,
    /// Resident memory, MiB.
    pub rss_mib: f64,
    /// The same with shared pages divided, MiB.
    pub pss_mib: f64,
}

/// Measures holder and standby of an idle deployment, one after the other. A node is a host of its own, so the one that is
/// looked at has one processor to itself, and the nodes and servers that would be elsewhere share the other, which also
/// takes in what the node sends them.
pub(crate) fn measure() -> Result<()> {
    let plan = Plan { name_servers: Vec::new(), ..Plan::new("idle") };
    let interval_ms = u64::try_from(plan.interval.as_millis())?;
    let deployment = Deployment::start(plan)?;
    let probe = deployment.probe()?;
    deployment.wait_first(&probe)?;
    // The probe's questions are the workload's business, but their packets are this machine's.
    drop(probe);
    (Moment::now() + SETTLE).reach();
    let nodes = [look_at(&deployment, 0)?, look_at(&deployment, 1)?];
    let dearest = |of: fn(&Service) -> f64| {
        let sums = nodes.iter().map(|services| services.iter().map(of).sum::<f64>());
        rounded(sums.fold(0.0, f64::max))
    };
    let figures = Figures {
        cpu_percent: dearest(|service| service.cpu_percent),
        rss_mib: dearest(|service| service.rss_mib),
        pss_mib: dearest(|service| service.pss_mib),
        interval_ms,
        services: nodes.into_iter().flatten().collect(),
    };
    println!("{figures:#?}");
    save(FILE, &figures)
}

/// What the services of one node cost while it has a processor to itself.
fn look_at(deployment: &Deployment, index: usize) -> Result<Vec<Service>> {
    let node = &deployment.nodes[index];
    deployment.processes().try_for_each(|process| usage::pin(process.pid(), OTHERS))?;
    node.processes().iter().try_for_each(|process| usage::pin(process.pid(), OWN))?;
    deployment.network.receive_on(&deployment.plan.members[index].name, OTHERS)?;
    let before = times(node)?;
    let begin = Moment::now();
    (begin + SPAN).reach();
    let after = times(node)?;
    let span = Moment::now().since(begin).as_secs_f64();
    let service = |(process, (before, after)): (&Process, (Duration, Duration))| {
        let memory = usage::memory(process.pid())?;
        Ok(Service {
            name: process.name().into(),
            cpu_percent: rounded((after - before).as_secs_f64() / span * 100.0),
            rss_mib: rounded(memory.rss as f64 / MIB),
            pss_mib: rounded(memory.pss as f64 / MIB),
        })
    };
    node.services().into_iter().zip(before.into_iter().zip(after)).map(service).collect()
}

fn times(node: &Node) -> Result<Vec<Duration>> {
    node.services().iter().map(|process| usage::processor_time(process.pid())).collect()
}
