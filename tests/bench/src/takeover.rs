//! What the new holder does itself: from the quorum to the first announcement, and one renewal of the gate.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use understudy_lab::{
    Deployment, Moment, Network,
    deployment::{Plan, VIP, VIP6},
    wait_until,
};
use understudy_vip::gate::{Gate, GateConfig, Guard};

use crate::figures::{median, percentile, rounded, save, worst};

/// File of these figures.
pub(crate) const FILE: &str = "takeover.json";
/// Renewals of the gate.
const RENEWALS: usize = 3_000;
/// Pause between them: a cache as cold as between two heartbeats would be costs more than one kept warm.
const PAUSE: Duration = Duration::from_millis(5);
/// How far ahead each renewal reaches.
const LEASE: Duration = Duration::from_millis(300);
/// For a record to reach JetStream.
const SOON: Duration = Duration::from_secs(30);

/// What was found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// From the quorum to the end of the first announcement, the longest of all takeovers, ms.
    pub quorum_to_announcement_ms: f64,
    /// The same, median, ms.
    pub quorum_to_announcement_median_ms: f64,
    /// Takeovers looked at.
    pub takeovers: usize,
    /// The same of the very first holder, which counts above too, ms: everything starts, and all that the client has asked
    /// until then waits for its first frame.
    pub first_holder_ms: f64,
    /// Renewing the gate of an IPv4 and an IPv6 address, asked for to answered, p99, microseconds.
    pub gate_renewal_p99_us: f64,
    /// The same, median, microseconds.
    pub gate_renewal_median_us: f64,
    /// Renewals looked at.
    pub renewals: usize,
}

/// Measures both.
pub(crate) fn measure(runs: u16) -> Result<()> {
    let renewals = renewals()?;
    let (first, takeovers) = takeovers(usize::from(runs))?;
    let figures = Figures {
        quorum_to_announcement_ms: rounded(worst(&takeovers)),
        quorum_to_announcement_median_ms: rounded(median(&takeovers)),
        takeovers: takeovers.len(),
        first_holder_ms: rounded(first),
        gate_renewal_p99_us: rounded(percentile(&renewals, 0.99)),
        gate_renewal_median_us: rounded(median(&renewals)),
        renewals: renewals.len(),
    };
    println!("{figures:#?}");
    save(FILE, &figures)
}

/// What the first holder took, then that and switchovers back and forth, read from the records that the new holders publish.
fn takeovers(runs: usize) -> Result<(f64, Vec<f64>)> {
    let deployment = Deployment::start(Plan { name_servers: Vec::new(), ..Plan::new("takeover") })?;
    let probe = deployment.probe()?;
    deployment.wait_first(&probe)?;
    for round in 0..runs {
        let to = if round % 2 == 0 { "web-b" } else { "web-a" };
        let output = deployment.understudy(&["switchover", "--group", "web", "--to", to])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        probe.wait_served_by(to, SOON)?;
        deployment.wait_standbys()?;
    }
    let records = wait_until("the record of every takeover", SOON, || {
        let output = deployment.understudy(&["events", "--json", "--last", "10000"]).ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let records = events.filter_map(|mut event| event.get_mut("data").map(Value::take));
        let found: Vec<_> = records.filter(|record| quorum_to_announcement(record).is_some()).collect();
        (found.len() > runs).then_some(found)
    })?;
    let took = |record: &Value| quorum_to_announcement(record).unwrap_or_default();
    let slowest = records.iter().max_by(|one, other| took(one).total_cmp(&took(other)));
    println!("the slowest takeover: {:#}", slowest.context("no takeover")?);
    let first = records.iter().find(|record| record["cause"] == "first").context("no first holder")?;
    Ok((took(first), records.iter().map(took).collect()))
}

/// Of a takeover's record; none of any other event: only a takeover announces.
fn quorum_to_announcement(record: &Value) -> Option<f64> {
    // What is zero is left out of protobuf's JSON: the quorum too, where the old holder's last claim was heard after it.
    let number = |of: &Value, key: &str| of.get(key).and_then(Value::as_f64).unwrap_or_default();
    let steps = record.get("steps")?.as_array()?;
    let first = steps.iter().find(|step| step["name"] == "announce")?;
    Some(number(first, "startedMs") + number(first, "tookMs") - number(record, "quorumMs"))
}

/// Renewals of a real gate in a namespace of its own, microseconds each.
fn renewals() -> Result<Vec<f64>> {
    let network = Network::create("gate")?;
    let host = network.host_numbered("node", 11)?;
    host.enter(|| {
        let addresses: [IpAddr; 2] = [VIP.parse()?, VIP6.parse()?];
        let guards = addresses.map(Guard::Address);
        let config = GateConfig { name: "bench".into(), mark: 0x0040_0000 };
        let gate = Gate::install(config, &guards)?;
        let mut taken = Vec::with_capacity(RENEWALS);
        for _ in 0..RENEWALS {
            let begin = Moment::now();
            gate.open(&guards, (begin + LEASE).nanos()).context("renewing the gate")?;
            taken.push(Moment::now().since(begin).as_secs_f64() * 1e6);
            (Moment::now() + PAUSE).reach();
        }
        Ok(taken)
    })?
}
