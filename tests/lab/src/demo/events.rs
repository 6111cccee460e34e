//! The history of the deployment, read by the CLI as anybody would.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use understudy_wire::{
    EventBody,
    v1::{Judgement, NodeJudged, Takeover, TakeoverFailed},
};

use crate::{Deployment, Launch, Process, binary, wait_until};

/// A record waits up to two seconds for name servers and witnesses, and then has to be stored.
const RECORD: Duration = Duration::from_secs(10);
/// Events that are read back at the start: more than a deployment leaves in its first seconds.
const EARLIER: &str = "100";
/// The group whose events count; autoscalers take over a slot of their own.
const GROUP: &str = "web";

/// `understudy events --follow` on the client's host. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Events {
    process: Process,
}

impl Events {
    /// Starts to follow.
    pub(super) fn follow(deployment: &Deployment) -> Result<Self> {
        let process = Launch::new(&deployment.client, "events", binary("understudy")?)
            .arguments(["--timeout", "10s", "--config"])
            .arguments([deployment.config()])
            .arguments(["events", "--json", "--follow", "--last", EARLIER])
            .spawn()?;
        Ok(Self { process })
    }

    /// Waits for the record of the takeover of slot 0 by `node` with an epoch above `epoch`.
    pub(super) fn wait_takeover(&self, node: &str, epoch: u64) -> Result<Takeover> {
        let what = format!("the record of {node}'s takeover");
        let record = wait_until(&what, RECORD, || {
            self.takeovers_above(0, epoch).into_iter().find(|takeover| takeover.node == node)
        });
        record.with_context(|| format!("events are in {}", self.process.log().display()))
    }

    /// Records of takeovers of one of the group's slots with an epoch above this one, as they came.
    pub(super) fn takeovers_above(&self, slot: u32, epoch: u64) -> Vec<Takeover> {
        let text = self.process.log_text();
        let takeovers = of_kind::<Takeover>(&text);
        takeovers.filter(|one| one.group == GROUP && one.slot == slot && one.epoch > epoch).collect()
    }

    /// Takeovers of the slot that failed with an epoch above this one.
    pub(super) fn failed_above(&self, slot: u32, epoch: u64) -> Vec<TakeoverFailed> {
        let text = self.process.log_text();
        let failed = of_kind::<TakeoverFailed>(&text);
        failed.filter(|one| one.group == GROUP && one.slot == slot && one.epoch > epoch).collect()
    }

    /// How many judgements came so far.
    pub(super) fn judgements(&self) -> usize {
        of_kind::<NodeJudged>(&self.process.log_text()).count()
    }

    /// The first suspicion of `node` after the first `known` judgements.
    pub(super) fn phi(&self, node: &str, known: usize) -> Option<f64> {
        of_kind::<NodeJudged>(&self.process.log_text())
            .skip(known)
            .find(|judged| judged.node == node && judged.judgement() == Judgement::Suspect)
            .map(|judged| judged.phi)
    }
}

/// Bodies of the events of one type, out of lines of JSON. A line that is being written, or is no event, is passed over.
fn of_kind<B: EventBody + DeserializeOwned>(text: &str) -> impl Iterator<Item = B> {
    text.lines().filter_map(|line| {
        let mut event: Value = serde_json::from_str(line).ok()?;
        (event["kind"] == B::KIND).then_some(())?;
        serde_json::from_value(event["data"].take()).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_by_their_kind_and_half_a_line_is_none() {
        let text = "no events yet\n\
            {\"kind\":\"judged\",\"data\":{\"node\":\"web-a\",\"judgement\":\"JUDGEMENT_SUSPECT\",\"phi\":3.1}}\n\
            {\"kind\":\"takeover\",\"sequence\":7,\"data\":{\"node\":\"web-b\",\"epoch\":\"1017\"}}\n\
            {\"kind\":\"takeover\",\"data\":{\"node\":\"we";
        let takeovers: Vec<Takeover> = of_kind(text).collect();
        assert_eq!(takeovers.len(), 1);
        assert_eq!((takeovers[0].node.as_str(), takeovers[0].epoch), ("web-b", 1017));
        assert_eq!(of_kind::<NodeJudged>(text).map(|judged| judged.phi).collect::<Vec<_>>(), [3.1]);
    }
}
