//! What the two services of a node cost while nothing happens.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use understudy_lab::{
    Deployment, Moment,
    deployment::{Node, Plan},
};

use crate::{
    figures::{rounded, save},
    usage::{self, Memory},
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
}

/// Measures holder and standby of an idle deployment.
pub(crate) fn measure() -> Result<()> {
    let plan = Plan { name_servers: Vec::new(), ..Plan::new("idle") };
    let interval_ms = u64::try_from(plan.interval.as_millis())?;
    let deployment = Deployment::start(plan)?;
    let probe = deployment.probe()?;
    deployment.wait_first(&probe)?;
    // The probe's questions are the workload's business, but their packets are this machine's.
    drop(probe);
    (Moment::now() + SETTLE).reach();
    let nodes = &deployment.nodes[..2];
    let before = times(nodes)?;
    let begin = Moment::now();
    (begin + SPAN).reach();
    let after = times(nodes)?;
    let span = Moment::now().since(begin).as_secs_f64();
    let mut services = Vec::new();
    let mut sums: Vec<(f64, Memory)> = Vec::new();
    for (node, (before, after)) in nodes.iter().zip(before.iter().zip(&after)) {
        let mut sum = (0.0, Memory::default());
        for (process, (before, after)) in node.services().iter().zip(before.iter().zip(after)) {
            let cpu_percent = (*after - *before).as_secs_f64() / span * 100.0;
            let memory = usage::memory(process.pid())?;
            sum = (sum.0 + cpu_percent, sum.1 + memory);
            let rss_mib = rounded(memory.rss as f64 / MIB);
            services.push(Service {
                name: process.name().into(),
                cpu_percent: rounded(cpu_percent),
                rss_mib,
            });
        }
        sums.push(sum);
    }
    let largest = |of: fn(&(f64, Memory)) -> f64| rounded(sums.iter().map(of).fold(0.0, f64::max));
    let figures = Figures {
        cpu_percent: largest(|(cpu, _)| *cpu),
        rss_mib: largest(|(_, memory)| memory.rss as f64 / MIB),
        pss_mib: largest(|(_, memory)| memory.pss as f64 / MIB),
        interval_ms,
        services,
    };
    println!("{figures:#?}");
    save(FILE, &figures)
}

fn times(nodes: &[Node]) -> Result<Vec<Vec<Duration>>> {
    let of =
        |node: &Node| node.services().iter().map(|process| usage::processor_time(process.pid())).collect();
    nodes.iter().map(of).collect()
}
