//! Client-visible gaps of Understudy and of keepalived: the same network, the same workload, the same probe, one fault
//! after the other in turn.

mod keepalived;
mod understudy;

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use understudy_lab::{ANSWER_LIMIT, Host, Moment, Network, Probe, Stalls, wait_until};

use crate::figures::{load, median, rounded, save, worst};
use keepalived::Keepalived;
use understudy::Understudy;

/// File of these figures.
pub(crate) const FILE: &str = "failover.json";
/// T = 3 I: the relation of the default configuration (300 ms and 100 ms).
pub(crate) const LEASE_INTERVALS: u32 = 3;
/// How long is looked at after a fault that one of the two does not survive.
pub(crate) const WINDOW: Duration = Duration::from_secs(3);
/// How long a node must serve alone before it counts as settled.
const SETTLED: Duration = Duration::from_millis(400);
/// For anything that must happen, but whose speed is not measured.
const SOON: Duration = Duration::from_secs(30);

/// What is done to the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// Its host is cut off from every other.
    Cut,
    /// It is asked to hand over: Understudy by its command, keepalived by SIGTERM.
    Switchover,
    /// Every process of the system on it is killed with SIGKILL.
    DaemonKilled,
    /// Every process of the system on it is stopped with SIGSTOP.
    DaemonStopped,
    /// The link between the two nodes is cut, every other stays.
    LinkBetween,
}

impl Fault {
    /// Whether the service must move, for either system; else a window of time is looked at.
    fn moves(self) -> bool {
        matches!(self, Self::Cut | Self::Switchover)
    }

    /// As the tables call it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Cut => "node cut off",
            Self::Switchover => "switchover",
            Self::DaemonKilled => "daemon killed (kill -9)",
            Self::DaemonStopped => "daemon stopped (SIGSTOP)",
            Self::LinkBetween => "link between the nodes cut",
        }
    }
}

/// All runs of one fault, system and interval.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// `understudy` or `keepalived`.
    pub system: String,
    /// The fault.
    pub fault: Fault,
    /// Heartbeats or advertisements, ms.
    pub interval_ms: u64,
    /// Number of runs.
    pub runs: usize,
    /// Longest time without an answer that the client saw in each run, ms.
    pub gap_ms: Gap,
    /// Time in which two nodes answered, the longest of all runs, ms.
    pub two_answering_ms: f64,
    /// Understudy: lease T; keepalived: three advertisements and the skew of its priority. ms.
    pub timeout_ms: f64,
    /// How long was looked at after the fault, ms; none where the service moves.
    pub window_ms: Option<u64>,
    /// Every gap, in the order of the runs, ms.
    pub gaps_ms: Vec<f64>,
    /// What the machine itself stood still within each gap, ms.
    pub stalled_ms: Vec<f64>,
}

/// Of the gaps of a row, ms.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Gap {
    /// Half were shorter.
    pub median: f64,
    /// The longest.
    pub worst: f64,
}

/// What is compared: two nodes of which one serves an address.
trait System {
    fn name(&self) -> &'static str;
    fn probe(&self) -> Result<Probe>;
    /// Names of its two hosts.
    fn members(&self) -> [&str; 2];
    /// Time from the last sign of life to the takeover, ms.
    fn timeout_ms(&self) -> f64;
    /// Does what only this system can do (cuts are the network's).
    fn inflict(&self, fault: Fault, holder: &str, heir: &str) -> Result<()>;
    /// Undoes it, and returns when the other node could take over.
    fn mend(&self, fault: Fault, holder: &str) -> Result<()>;
}

/// What one run showed.
struct Sample {
    gap: f64,
    two: f64,
    stalled: f64,
}

/// Measures what is asked for; rows that were measured before and are not now stay.
pub(crate) fn measure(intervals: &[u64], faults: &[Fault], runs: u16) -> Result<()> {
    let stalls = Stalls::watch()?;
    for (index, interval) in intervals.iter().enumerate() {
        let wanted = Fault::value_variants().iter().copied();
        let wanted: Vec<Fault> = wanted
            .filter(
                |fault| if faults.is_empty() { fault.moves() || index == 0 } else { faults.contains(fault) },
            )
            .collect();
        measure_interval(Duration::from_millis(*interval), &wanted, usize::from(runs), &stalls)
            .with_context(|| format!("interval of {interval} ms"))?;
    }
    Ok(())
}

fn measure_interval(interval: Duration, faults: &[Fault], runs: usize, stalls: &Stalls) -> Result<()> {
    let understudy = Understudy::start(interval)?;
    let deployment = understudy.deployment();
    let keepalived = Keepalived::start(&deployment.network, &deployment.client, interval)?;
    let systems: [&dyn System; 2] = [&understudy, &keepalived];
    for fault in faults {
        let mut samples = [Vec::new(), Vec::new()];
        for run in 0..runs {
            // Where in the interval a fault falls decides over the gap: a moment of each part of it alike.
            let phase = (run as f64 + rand::rng().random::<f64>()) / runs as f64;
            for (system, samples) in systems.iter().zip(&mut samples) {
                let sample = one(*system, &deployment.network, *fault, interval, phase, stalls)
                    .with_context(|| format!("{}, {}, run {run}", system.name(), fault.words()))?;
                println!(
                    "{} {} at {interval:?}: gap {:.1} ms, stalled {:.1}, two answering {:.0}",
                    system.name(),
                    fault.words(),
                    sample.gap,
                    sample.stalled,
                    sample.two
                );
                samples.push(sample);
            }
        }
        for (system, samples) in systems.iter().zip(samples) {
            keep(row(*system, *fault, interval, &samples))?;
        }
    }
    Ok(())
}

/// One fault, and its repair.
fn one(
    system: &dyn System,
    network: &Network,
    fault: Fault,
    interval: Duration,
    phase: f64,
    stalls: &Stalls,
) -> Result<Sample> {
    let probe = system.probe()?;
    let holder = settled(&probe)?;
    let [one, other] = system.members();
    let heir = if holder == one { other } else { one };
    // The fault comes at a moment of the clock; there is no state to wait for.
    let now = probe.mark();
    (now + until_phase(now, interval, phase)).reach();
    let before = probe.mark();
    match fault {
        Fault::Cut => network.isolate(&holder)?,
        Fault::LinkBetween => network.cut_both(one, other)?,
        Fault::Switchover | Fault::DaemonKilled | Fault::DaemonStopped => {
            system.inflict(fault, &holder, heir)?;
        }
    }
    let end = if fault.moves() { probe.wait_served_by(heir, SOON)? + SETTLED } else { before + WINDOW };
    wait_until("the look to be over", SOON, || probe.mark() >= end + 2 * ANSWER_LIMIT)?;
    let history = probe.snapshot();
    let gap = history.gap(before, end);
    let sample = Sample {
        gap: gap.milliseconds(),
        two: history.two_answering().as_secs_f64() * 1e3,
        stalled: stalls.between(gap.from, gap.to).as_secs_f64() * 1e3,
    };
    match fault {
        Fault::Cut => network.heal(&holder)?,
        Fault::LinkBetween => network.heal_between(one, other)?,
        Fault::Switchover | Fault::DaemonKilled | Fault::DaemonStopped => {}
    }
    system.mend(fault, &holder)?;
    settled(&probe)?;
    Ok(sample)
}

/// How long it is until the clock is at `phase` (0 to 1) of an interval. Heartbeats keep their place in it.
fn until_phase(now: Moment, interval: Duration, phase: f64) -> Duration {
    let interval = interval.as_nanos() as u64;
    let wanted = (phase * interval as f64) as u64;
    Duration::from_nanos((wanted + interval - now.nanos() % interval) % interval)
}

/// Waits until exactly one node has answered, client and watchers alike, for a while; its name.
fn settled(probe: &Probe) -> Result<String> {
    let mut since: Option<(String, Moment)> = None;
    wait_until("one node to serve alone", SOON, || {
        let now = probe.mark();
        let (serving, eyes) = (probe.serving_now(), probe.eyes_now());
        let alone = serving.filter(|node| eyes.len() == 1 && eyes[0] == *node);
        since = alone.map(|node| match since.take() {
            Some((known, from)) if known == node => (known, from),
            _ => (node, now),
        });
        since.as_ref().filter(|(_, from)| now.since(*from) >= SETTLED).map(|(node, _)| node.clone())
    })
}

fn row(system: &dyn System, fault: Fault, interval: Duration, samples: &[Sample]) -> Row {
    let all = |of: fn(&Sample) -> f64| samples.iter().map(of).map(rounded).collect::<Vec<_>>();
    let gaps = all(|sample| sample.gap);
    Row {
        system: system.name().into(),
        fault,
        interval_ms: interval.as_millis() as u64,
        runs: samples.len(),
        gap_ms: Gap { median: rounded(median(&gaps)), worst: worst(&gaps) },
        two_answering_ms: worst(&all(|sample| sample.two)),
        timeout_ms: rounded(system.timeout_ms()),
        window_ms: (!fault.moves()).then_some(WINDOW.as_millis() as u64),
        gaps_ms: gaps,
        stalled_ms: all(|sample| sample.stalled),
    }
}

/// Puts a row in the place of the one of the same fault, system and interval.
fn keep(row: Row) -> Result<()> {
    let mut rows: Vec<Row> = load(FILE)?.unwrap_or_default();
    let same = |other: &Row| {
        (&other.system, other.fault, other.interval_ms) == (&row.system, row.fault, row.interval_ms)
    };
    rows.retain(|other| !same(other));
    rows.push(row);
    rows.sort_by_key(|row| {
        (row.fault as u8, std::cmp::Reverse(row.interval_ms), std::cmp::Reverse(row.system.clone()))
    });
    save(FILE, &rows)
}

/// A probe of one address on two hosts.
fn probe(network: &Network, client: &Host, hosts: [&Host; 2], vip: &str) -> Result<Probe> {
    let vip: std::net::IpAddr = vip.parse().context("parsing the VIP")?;
    Probe::start(network, client, &hosts, (vip, understudy_lab::deployment::PORT).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_moment_of_a_phase_is_within_one_interval() {
        let at = |ms: u64, phase| {
            until_phase(Moment::from_nanos(ms * 1_000_000), Duration::from_millis(100), phase).as_millis()
        };
        assert_eq!((at(1_230, 0.5), at(1_250, 0.5), at(1_260, 0.5)), (20, 0, 90));
    }
}
