//! What others learn of a takeover: its record, the name servers' answers, its trace.

use std::time::Duration;

use understudy_dns::{Answer, Outcome};
use understudy_service::{
    clock,
    telemetry::{self, PastSpan},
};
use understudy_wire::{
    BootTime, Claim, Slot,
    event::trace_id,
    v1::{self, StepOutcome},
};

use crate::{executor::Executor, tenure::Tenure};

impl Executor {
    /// A detector's judgement: a member that is silent is not there, and the time of suspicion belongs into the record.
    pub fn judged(&mut self, verdict: &v1::Verdict) {
        let Ok(node) = verdict.node.parse() else { return };
        let now = clock::now();
        match verdict.judgement() {
            v1::Judgement::Suspect | v1::Judgement::Failed => {
                // From the network: what is no time, such as a negative one, is none.
                let silent = Duration::try_from_secs_f64(verdict.silent_ms / 1e3).unwrap_or_default();
                let slots = self.settings.group.slots.len();
                let ours = |claim: &Claim| usize::from(claim.slot.0) < slots;
                let claims = verdict.claims.iter().filter_map(|raw| Claim::try_from(*raw).ok());
                self.peers.silent(now, &node, now.before(silent), &claims.filter(ours).collect::<Vec<_>>());
            }
            v1::Judgement::Alive | v1::Judgement::Unhealthy | v1::Judgement::Unspecified => {
                if self.peers.back(now, &node) {
                    // It has not heard of this node meanwhile.
                    self.greeted += 1;
                }
            }
        }
    }

    /// A name server answered, or failed for the first time.
    pub fn dns_answered(&mut self, outcome: &Outcome) {
        let (answer, reason) = match &outcome.result {
            Ok(Answer::Applied) => ("applied", String::new()),
            Ok(Answer::AlreadyThere) => ("already there", String::new()),
            Ok(Answer::NewerKnown { epoch }) => ("newer known", format!("the zone holds epoch {epoch}")),
            Err(error) => ("failed", format!("{:#}", Chain(error))),
        };
        let slot = Slot(u16::try_from(outcome.slot).unwrap_or(u16::MAX));
        let now = clock::now();
        let current = self.tenures.get_mut(&slot).filter(|tenure| tenure.epoch.0 == outcome.epoch);
        if let Some(tenure) = current
            && outcome.result.is_ok()
        {
            let detail = format!("{} {answer} at {}", outcome.name, outcome.server);
            tenure.note("DNS", now.before(outcome.elapsed), now, StepOutcome::Done, detail);
            tenure.open_ends = tenure.open_ends.saturating_sub(1);
        }
        if outcome.result.is_err() {
            self.metrics.dns_failures.inc();
            tracing::warn!(server = outcome.server, name = outcome.name, reason, "updating DNS; tries go on");
        }
        let updated = v1::DnsUpdated {
            group: self.settings.group_id.to_string(),
            slot: outcome.slot,
            node: self.settings.node.to_string(),
            epoch: outcome.epoch,
            name: outcome.name.clone(),
            server: outcome.server.clone(),
            answer: answer.to_owned(),
            reason,
            attempts: outcome.attempts,
            after_ms: outcome.elapsed.as_secs_f64() * 1e3,
        };
        let key = format!("{slot}/{}/{}/{}/{answer}", outcome.epoch, outcome.name, outcome.server);
        self.tell(&key, &updated);
    }

    /// The successor's updates are on their way: stop caring for the records of this tenure. What it has withdrawn is
    /// cared for on, as a slot that was closed has no successor (rule R14).
    pub(crate) fn stop_dns(&self, tenure: &Tenure) {
        let Some(dns) = &self.dns else { return };
        for name in &self.settings.group.slots[usize::from(tenure.slot.0)].names {
            dns.clear(name.as_str(), tenure.slot.0.into());
        }
    }

    /// Publishes the record once it is complete, or has waited long enough.
    pub(crate) fn publish_record_if_complete(&mut self, slot: Slot) {
        let now = clock::now();
        let Some(mut tenure) = self.tenures.remove(&slot) else { return };
        self.hear_of_previous(&mut tenure);
        if tenure.record_is_ready(now) {
            self.publish_record(&mut tenure);
        }
        self.tenures.insert(slot, tenure);
    }

    /// Who held the slot, and what ended it, may be heard only after the slot was taken over.
    pub(crate) fn hear_of_previous(&self, tenure: &mut Tenure) {
        tenure.previous = match (tenure.previous.take(), self.peers.previous(tenure.slot, tenure.epoch)) {
            (Some(known), Some(heard)) => Some(known.updated(heard)),
            (known, heard) => known.or(heard),
        };
    }

    /// Publishes the record of a takeover that came to serve, and its trace, unless it was published.
    pub(crate) fn publish_record(&self, tenure: &mut Tenure) {
        let Some(serving) = tenure.serving_at.filter(|_| !tenure.published) else { return };
        tenure.published = true;
        let settings = &self.settings;
        let trace = trace_id(&settings.cluster, &settings.group_id, tenure.slot, tenure.epoch);
        self.tell(
            &format!("{}/{}", tenure.slot, tenure.epoch),
            &tenure.record(settings.group_id.as_str(), &settings.node, trace),
        );
        self.metrics.takeover.observe(serving.since(tenure.quorum_at));
        let span = |name: &'static str, from: BootTime, to: BootTime| {
            PastSpan::new(name, from, to)
                .with("group", settings.group_id.to_string())
                .with("slot", i64::from(tenure.slot.0))
                .with("node", settings.node.to_string())
        };
        let root = telemetry::record_tenure(trace, span("failover", tenure.zero(), serving));
        for done in &tenure.done {
            let mut step = span(done.name, done.started, done.ended).with("detail", done.detail.clone());
            if !matches!(done.outcome, StepOutcome::Done | StepOutcome::Already) {
                step.error = Some(done.detail.clone());
            }
            telemetry::record(&root, step);
        }
    }
}

/// An error and its causes, each once.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}
