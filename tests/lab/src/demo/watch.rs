//! The client: who serves the VIP, and what the name resolves to.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};

use super::report::Names;
use crate::{
    ANSWER_LIMIT, Deployment, DnsProbe, DnsSample, Gap, History, Moment, Probe,
    deployment::{NAME, VIP},
    wait_until,
};

/// For what must happen, but whose speed the client's gap tells.
pub(super) const SOON: Duration = Duration::from_secs(20);
/// How long the client must be served without a break before a gap counts as over.
const SETTLED: Duration = Duration::from_millis(300);
/// A break: a few questions lost on a busy machine are none.
const BREAK_MS: f64 = 50.0;

/// Both probes. They record two minutes and a half at most, so every act has its own; the next one's start before
/// these end, and nothing goes unseen.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) probe: Probe,
    names: DnsProbe,
}

impl Watch {
    /// Starts to ask.
    pub(super) fn start(deployment: &Deployment) -> Result<Self> {
        Self::over(deployment, deployment.probe()?)
    }

    /// As [`Watch::start`] with a probe that has begun.
    pub(super) fn over(deployment: &Deployment, probe: Probe) -> Result<Self> {
        let server = deployment.name_server()?.address();
        let names = DnsProbe::start(&deployment.client, server, NAME, "A")?;
        Ok(Self { probe, names })
    }

    /// Waits until the name resolves to the VIP, and to nothing else.
    pub(super) fn wait_name(&self) -> Result<Moment> {
        self.names.wait_for(&[address()?], SOON)
    }

    /// What the name resolved to since then.
    pub(super) fn names_since(&self, since: Moment) -> Result<Names> {
        Ok(Names::count(&self.answers_since(since), &[&[address()?]]))
    }

    /// Answers of the name server since then.
    pub(super) fn answers_since(&self, since: Moment) -> Vec<DnsSample> {
        let mut samples = self.names.snapshot();
        samples.retain(|sample| sample.at >= since);
        samples
    }

    /// Each change of what the name resolved to since then: when it was seen, and what it was from then on.
    pub(super) fn changes(&self, since: Moment) -> Vec<(Moment, Vec<IpAddr>)> {
        let samples = self.names.snapshot();
        let answers = samples.iter().filter_map(|sample| Some((sample.at, in_order(sample)?)));
        let mut changes: Vec<(Moment, Vec<IpAddr>)> = Vec::new();
        for (at, addresses) in answers {
            if changes.last().is_none_or(|(_, last)| *last != addresses) {
                changes.push((at, addresses));
            }
        }
        changes.into_iter().skip(1).filter(|(at, _)| *at >= since).collect()
    }

    /// When the name was first asked for, since then, and had exactly these addresses, which must be in order.
    pub(super) fn resolved(&self, addresses: &[IpAddr], since: Moment) -> Option<Moment> {
        let samples = self.names.snapshot();
        let wanted =
            |sample: &&DnsSample| sample.at >= since && in_order(sample).as_deref() == Some(addresses);
        samples.iter().find(wanted).map(|sample| sample.at)
    }

    /// Waits until `node` serves the client, and has done so without a break for a while; the gap since then.
    pub(super) fn wait_moved(&self, node: &str, since: Moment) -> Result<Gap> {
        self.probe.wait_served_by(node, SOON)?;
        wait_until(&format!("{node} to serve without a break"), SOON, || {
            let now = self.probe.mark();
            let history = self.probe.snapshot();
            self.probe.serving_now().as_deref() == Some(node)
                && history.first_answer(node, earlier(now, 2 * SETTLED)).is_some()
                && history.longest_gap(earlier(now, SETTLED), now) < BREAK_MS
        })?;
        // A snapshot leaves the youngest questions out: the span must end before them, or they would be a gap.
        let end = earlier(self.probe.mark(), 2 * ANSWER_LIMIT);
        Ok(self.probe.snapshot().gap(since, end))
    }

    /// Watches for `span`; returns what was seen so far.
    pub(super) fn look_on(&self, span: Duration) -> Result<History> {
        let end = self.probe.mark() + span;
        wait_until("the watch to be over", span + SOON, || self.probe.mark() >= end)?;
        Ok(self.probe.snapshot())
    }
}

/// The addresses of an answer in order, whatever order they came in; none where there was no answer.
pub(super) fn in_order(sample: &DnsSample) -> Option<Vec<IpAddr>> {
    let mut addresses = sample.addresses.clone()?;
    addresses.sort_unstable();
    Some(addresses)
}

/// Highest epoch in the TXT records beside the name; 0 where the zone has none.
pub(super) fn zone_epoch(deployment: &Deployment) -> Result<u64> {
    let records = deployment.name_server()?.records(&format!("_understudy.{NAME}"), "TXT")?;
    Ok(records.iter().filter_map(|record| epoch_in(record)).max().unwrap_or(0))
}

fn epoch_in(record: &str) -> Option<u64> {
    let digits = record.split("epoch=").nth(1)?;
    digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

/// The VIP.
pub(super) fn address() -> Result<IpAddr> {
    VIP.parse().context("parsing the VIP")
}

pub(super) fn earlier(moment: Moment, span: Duration) -> Moment {
    Moment::from_nanos(moment.nanos().saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_read_out_of_a_text_record() {
        assert_eq!(epoch_in("slot=0 epoch=1017"), Some(1017));
        assert_eq!(epoch_in("\"v=1;epoch=12;slot=0\""), Some(12));
        assert_eq!(epoch_in("slot=0"), None);
    }
}
