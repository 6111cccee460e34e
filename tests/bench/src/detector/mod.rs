//! What one detector can take: heartbeats a second on one core, memory a node, time from heartbeat to grant.
//!
//! The real process, pinned to one processor, behind a real NATS server; server and load share the other processor.
//! Nodes come in pairs, a holder and a standby, the group with the most grants for its heartbeats.

mod load;

use std::{cell::Cell, fmt::Write as _, net::Ipv4Addr, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use understudy_lab::{
    Host, Launch, Moment, NatsCluster, Network, Process, deployment::DETECTOR_PAGES, fetch, wait_until,
};

use crate::{
    figures::{median, percentile, rounded, save, worst},
    usage::{self, OTHERS, OWN},
};
use load::{Load, group_name};

/// File of these figures.
pub(crate) const FILE: &str = "detector.json";
/// Deployment of the load.
const CLUSTER: &str = "bench";
/// Heartbeats of a node a second (I = 100 ms).
const RATE: f64 = 10.0;
/// How long nodes beat at that rate: every window of 200 intervals is filled.
const STEADY: Duration = Duration::from_secs(24);
/// What of it counts for latencies: the last part, when everything is warm.
const TIMED: Duration = Duration::from_secs(10);
/// Heartbeats a second offered, one step after the other, until some are lost.
const OFFERED: [f64; 7] = [50e3, 100e3, 155e3, 175e3, 200e3, 250e3, 300e3];
/// How long each is offered.
const STEP: Duration = Duration::from_secs(3);
/// What is still on its way after a step must be taken in by then.
const DRAIN: Duration = Duration::from_secs(10);
/// JetStream keeps a ceiling for each group, one after the other.
const UP: Duration = Duration::from_secs(90);
/// A page of `/metrics` of a busy detector.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// The least over all node counts.
    pub heartbeats_per_second_per_core: f64,
    /// At the largest node count, where pools and buffers count least.
    pub bytes_per_node: f64,
    /// At 1,000 nodes (or the count next to it), ms.
    pub renewal_p99_ms: f64,
    /// Each node count by itself.
    pub at: Vec<Count>,
}

/// Figures of one node count.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Count {
    /// Nodes, half of them holders.
    pub nodes: usize,
    /// Most heartbeats a second that were all taken in.
    pub heartbeats_per_second: f64,
    /// Processor time for one of them, microseconds.
    pub cpu_us_per_heartbeat: f64,
    /// Growth of anonymous resident memory from no node to all, bytes a node.
    pub bytes_per_node: f64,
    /// At ten heartbeats a second and node: from heartbeat to grant, ms.
    pub renewal_median_ms: f64,
    /// The same, p99.
    pub renewal_p99_ms: f64,
    /// The same, worst.
    pub renewal_worst_ms: f64,
    /// Percent of a core at that rate.
    pub cpu_percent: f64,
}

/// Measures every count.
pub(crate) fn measure(counts: &[usize]) -> Result<()> {
    let mut at = Vec::new();
    for nodes in counts {
        // The load keeps its thread on one processor, and whatever that thread starts inherits it.
        let count = thread::scope(|scope| scope.spawn(|| measure_count(*nodes)).join());
        let count = count.map_err(|_panic| anyhow!("the measuring thread panicked"))?;
        let count = count.with_context(|| format!("{nodes} nodes"))?;
        println!("{count:#?}");
        at.push(count);
    }
    let near = at.iter().min_by_key(|count| count.nodes.abs_diff(1_000)).context("no node count is named")?;
    let figures = Figures {
        heartbeats_per_second_per_core: at
            .iter()
            .map(|c| c.heartbeats_per_second)
            .fold(f64::INFINITY, f64::min),
        bytes_per_node: at.iter().map(|c| c.bytes_per_node).fold(0.0, f64::max),
        renewal_p99_ms: near.renewal_p99_ms,
        at,
    };
    save(FILE, &figures)
}

/// Network, server and detector for a number of nodes.
struct Bed {
    detector: Process,
    host: Host,
    nats: NatsCluster,
    client: Host,
    /// Heartbeats that never came.
    lost: Cell<u64>,
    _network: Network,
}

fn measure_count(nodes: usize) -> Result<Count> {
    let bed = Bed::start(nodes)?;
    let empty = usage::memory(bed.detector.pid())?.anonymous;
    let mut load = Load::connect(&bed.client, bed.nats.servers()[0].host(), CLUSTER, nodes, OTHERS)?;
    let rate = RATE * nodes as f64;
    load.join(RATE)?;
    // Some were lost at the nodes' own rate: no rate from there on is one at which all are taken in.
    let mut lost_at = f64::INFINITY;
    if let Err(loss) = bed.drain(&load) {
        println!("{nodes} nodes, while they join: {loss:#}");
        lost_at = rate;
    }
    load.send(rate, STEADY - TIMED)?;
    drop(load.take_latencies());
    let (before, begin) = (usage::processor_time(bed.detector.pid())?, Moment::now());
    load.send(rate, TIMED)?;
    let span = Moment::now().since(begin);
    let used = usage::processor_time(bed.detector.pid())? - before;
    let latencies = load.take_latencies();
    let full = usage::memory(bed.detector.pid())?.anonymous;
    if let Err(loss) = bed.drain(&load) {
        println!("{nodes} nodes, at {rate} heartbeats a second: {loss:#}");
        lost_at = rate;
    }
    ensure!(!latencies.is_empty(), "no grant came: {}", bed.detector.log_text());
    let (mut most, mut cost) = (0.0, 0.0);
    for offered in OFFERED.into_iter().take_while(|offered| *offered < lost_at) {
        let Some((taken, used)) = bed.flood(&mut load, offered)? else { break };
        if taken > most {
            (most, cost) = (taken, used);
        }
    }
    Ok(Count {
        nodes,
        heartbeats_per_second: most.round(),
        cpu_us_per_heartbeat: rounded(cost),
        bytes_per_node: (full.saturating_sub(empty) as f64 / nodes as f64).round(),
        renewal_median_ms: rounded(median(&latencies)),
        renewal_p99_ms: rounded(percentile(&latencies, 0.99)),
        renewal_worst_ms: rounded(worst(&latencies)),
        cpu_percent: rounded(used.as_secs_f64() / span.as_secs_f64() * 100.0),
    })
}

impl Bed {
    /// A detector that grants, and has heard nobody.
    fn start(nodes: usize) -> Result<Self> {
        let network = Network::create("capacity")?;
        let client = network.host_numbered("load", 5)?;
        let server = network.host_numbered("nats-1", 11)?;
        let host = network.host_numbered("detector-1", 21)?;
        let nats = NatsCluster::start(std::slice::from_ref(&server))?;
        let config = network.folder().join("understudy.toml");
        std::fs::write(&config, configuration(&nats.urls()[0], nodes.div_ceil(2)))?;
        let program = understudy_lab::binary("understudy-detector")?;
        let detector = Launch::new(&host, "detector", program)
            .environment("UNDERSTUDY_CONFIG", &config)
            .environment("UNDERSTUDY_DETECTOR__SEAT", "1")
            .environment("UNDERSTUDY_HTTP__LISTEN", host.socket(DETECTOR_PAGES).to_string())
            .spawn()?;
        usage::pin(nats.servers()[0].process().pid(), OTHERS)?;
        let bed = Self { detector, host, nats, client, lost: Cell::new(0), _network: network };
        bed.detector.wait_ready(UP, || {
            fetch(&bed.host, bed.host.socket(DETECTOR_PAGES), "/readyz", PATIENCE)
                .is_ok_and(|page| page.status == 200)
        })?;
        usage::pin(bed.detector.pid(), OWN)?;
        Ok(bed)
    }

    /// Offers heartbeats for a while. Heartbeats taken in a second, until the last one was, and microseconds of
    /// processor time for each; `None` when some were lost.
    fn flood(&self, load: &mut Load, offered: f64) -> Result<Option<(f64, f64)>> {
        let (before, lost) = (load.sent(), self.lost.get());
        let (used, begin) = (usage::processor_time(self.detector.pid())?, Moment::now());
        load.send(offered, STEP)?;
        let all = self.drain(load);
        let span = Moment::now().since(begin).as_secs_f64();
        drop(load.take_latencies());
        let used = usage::processor_time(self.detector.pid())? - used;
        let sent = load.sent() - before;
        let taken = sent - (self.lost.get() - lost);
        let (rate, cost) = (taken as f64 / span, used.as_secs_f64() * 1e6 / taken as f64);
        println!("offered {offered:.0}/s: {taken} of {sent} taken in, {rate:.0}/s, {cost:.2} us each");
        Ok(all.is_ok().then_some((rate, cost)))
    }

    /// Waits until every heartbeat that was sent since the last call has been taken in; fails when some were lost.
    fn drain(&self, load: &Load) -> Result<()> {
        let drained = wait_until("every heartbeat to be taken in", DRAIN, || {
            self.missing(load).is_ok_and(|missing| missing == 0)
        });
        drained.or_else(|error| {
            let missing = self.missing(load)?;
            self.lost.set(self.lost.get() + missing);
            Err(error.context(format!("{missing} of {} lost; {}", load.sent(), self.losses()?)))
        })
    }

    /// Heartbeats on their way, or lost since the last look at what was.
    fn missing(&self, load: &Load) -> Result<u64> {
        let accounted = self.lost.get() + self.taken_in()?;
        // One that came late after all must not make up for another that is lost.
        load.sent().checked_sub(accounted).context("heartbeats came that had counted as lost")
    }

    /// What the detector says that it lost, and where.
    fn losses(&self) -> Result<String> {
        let page = fetch(&self.host, self.host.socket(DETECTOR_PAGES), "/metrics", PATIENCE)?;
        let lost = |line: &&str| {
            let counted = line.starts_with("understudy_bus_dropped_total")
                || line.starts_with("understudy_bus_nats_slow_consumer_total")
                || line.starts_with("understudy_bus_nats_disconnects_total");
            counted && !line.ends_with(" 0")
        };
        Ok(page.body.lines().filter(lost).collect::<Vec<_>>().join(", "))
    }

    fn taken_in(&self) -> Result<u64> {
        let page = fetch(&self.host, self.host.socket(DETECTOR_PAGES), "/metrics", PATIENCE)?;
        let value = page.body.lines().find_map(|line| line.strip_prefix("understudy_heartbeats_total "));
        Ok(value.with_context(|| format!("no heartbeats in {}", page.body))?.trim().parse()?)
    }
}

/// Pairs, each with a VIP of its own.
fn configuration(server: &str, groups: usize) -> String {
    let mut text = format!(
        "cluster = \"{CLUSTER}\"\n[nats]\nservers = [\"{server}\"]\n\
         [access]\ninsecure = true\n[lease]\ninterval = \"100ms\"\nduration = \"300ms\"\n[detector]\nseats = 3\n"
    );
    for group in 0..groups {
        let vip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 1)) + group as u32);
        let _ = write!(
            text,
            "[group.{}]\nactive = 1\nstandby = 1\n[[group.{0}.slot]]\nvips = [\"{vip}/9\"]\n",
            group_name(group)
        );
    }
    text
}
