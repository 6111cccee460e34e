//! One tenure of a slot: what was done so far, what comes next, and the record of it.

use std::{collections::VecDeque, time::Duration};

use ipnet::IpNet;
use understudy_service::config::RecordAddress;
use understudy_vip::gate::Guard;
use understudy_wire::{BootTime, Epoch, NodeId, Seat, Slot, v1};

use crate::{
    announcing::Announcing,
    peers::Previous,
    plan::{Plan, Step},
};

/// How long the record waits for name servers and witnesses; what comes later has events of its own.
const RECORD_AFTER: Duration = Duration::from_secs(2);

/// A step that was done.
#[derive(Debug, Clone)]
pub struct Done {
    /// Its name.
    pub name: &'static str,
    /// When it began.
    pub started: BootTime,
    /// When it ended.
    pub ended: BootTime,
    /// How it went.
    pub outcome: v1::StepOutcome,
    /// What it was done to, or why it failed.
    pub detail: String,
}

/// What the next step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: it can be done.
    Nothing,
    /// A quorum that has seen the epoch (rule R7).
    Confirmation,
    /// A hook that runs.
    Hook,
    /// The checks of a workload that was started, until this time at most.
    Health(BootTime),
    /// Every step is done.
    Over,
}

/// One tenure.
#[derive(Debug)]
pub struct Tenure {
    /// The slot.
    pub slot: Slot,
    /// Its epoch.
    pub epoch: Epoch,
    /// End of the lease.
    pub until: BootTime,
    /// Whether a quorum has seen the epoch.
    pub confirmed: bool,
    /// VIPs of the slot.
    pub vips: Vec<IpNet>,
    /// What the gate guards.
    pub guards: Vec<Guard>,
    /// Whether the gate was opened: renewals reach the kernel from then on.
    pub open: bool,
    /// Steps to come.
    pub queue: VecDeque<Step>,
    /// What the first of them waits for.
    pub wait: Wait,
    /// When it began to wait.
    pub waiting_since: BootTime,
    /// Name of the step that came last, be it done, under way or failed; empty before the first.
    pub step: &'static str,
    /// Steps done.
    pub done: Vec<Done>,
    /// Announcing per VIP.
    pub announcing: Vec<(IpNet, Announcing)>,
    /// When clients were served.
    pub serving_at: Option<BootTime>,
    /// When the quorum was there.
    pub quorum_at: BootTime,
    /// First grant of each seat.
    pub grants: Vec<(Seat, BootTime)>,
    /// Who held the slot before.
    pub previous: Option<Previous>,
    /// A release may be heard this long after the quorum: seats grant on it, and their grants may come first.
    pub release_within: Duration,
    /// Predicted milliseconds from quorum to serving.
    pub predicted_ms: Option<f64>,
    /// Names that DNS was asked to have follow it, which needs a confirmed epoch (rule R7).
    pub names: Vec<(String, RecordAddress)>,
    /// Whether the slot was closed under it (rule R14): its lease runs out, and nobody follows.
    pub closed: bool,
    /// DNS answers and witnesses that the record still waits for.
    pub open_ends: usize,
    /// Whether the record was published.
    pub published: bool,
}

impl Tenure {
    /// A tenure that begins.
    pub fn new(slot: Slot, epoch: Epoch, until: BootTime, now: BootTime, plan: Plan) -> Self {
        Self {
            slot,
            epoch,
            until,
            confirmed: false,
            vips: Vec::new(),
            guards: Vec::new(),
            open: false,
            queue: plan.steps.into(),
            step: "",
            wait: Wait::Nothing,
            waiting_since: now,
            done: Vec::new(),
            announcing: Vec::new(),
            serving_at: None,
            quorum_at: now,
            grants: Vec::new(),
            previous: None,
            release_within: Duration::ZERO,
            predicted_ms: None,
            names: Vec::new(),
            closed: false,
            open_ends: 0,
            published: false,
        }
    }

    /// When something must be done although nothing comes in: a start that takes too long, a record that is due.
    pub fn deadline(&self) -> Option<BootTime> {
        let health = if let Wait::Health(deadline) = self.wait { Some(deadline) } else { None };
        health.into_iter().chain(self.record_due()).min()
    }

    /// When the record is published, complete or not.
    fn record_due(&self) -> Option<BootTime> {
        self.serving_at.filter(|_| !self.published).map(|at| at.after(RECORD_AFTER))
    }

    /// Whether to publish the record now.
    pub fn record_is_ready(&self, now: BootTime) -> bool {
        self.record_due().is_some_and(|due| now >= due || (self.open_ends == 0 && self.cause_is_settled(now)))
    }

    /// Whether nothing that may yet be heard of the old holder changes [`Self::cause`].
    fn cause_is_settled(&self, now: BootTime) -> bool {
        let released = self.previous.as_ref().is_some_and(|previous| previous.released.is_some());
        released || now >= self.quorum_at.after(self.release_within)
    }

    /// Notes a step that ended `now`.
    pub fn note(
        &mut self,
        name: &'static str,
        started: BootTime,
        now: BootTime,
        outcome: v1::StepOutcome,
        detail: impl Into<String>,
    ) {
        self.done.push(Done { name, started, ended: now, outcome, detail: detail.into() });
    }

    /// Whether the workload is being started or promoted: not to be judged by its checks yet.
    pub fn starting(&self) -> bool {
        let runs = matches!(self.wait, Wait::Hook | Wait::Health(_));
        let pending = self
            .queue
            .iter()
            .any(|step| matches!(step, Step::Start(_) | Step::AwaitHealthy | Step::Promote(_)));
        (runs || pending) && self.serving_at.is_none()
    }

    /// Zero of the record: the last heartbeat known of the old holder, else the first grant.
    pub fn zero(&self) -> BootTime {
        let heard = self.previous.as_ref().map(|previous| previous.last_claim);
        let granted = self.grants.iter().map(|(_, at)| *at).min();
        heard.or(granted).unwrap_or(self.quorum_at).min(self.quorum_at)
    }

    /// How it came about: `first`, `switchover`, `release` or `failover`.
    pub fn cause(&self) -> &'static str {
        match &self.previous {
            None => "first",
            Some(Previous { released: Some(true), .. }) => "switchover",
            Some(Previous { released: Some(false), .. }) => "release",
            Some(Previous { released: None, .. }) => "failover",
        }
    }

    /// The record of the takeover, as the event carries it.
    pub fn record(&self, group: &str, node: &NodeId, trace: u128) -> v1::Takeover {
        let zero = self.zero();
        let offset = |at: BootTime| at.since(zero).as_secs_f64() * 1e3;
        let suspected_at = self.previous.as_ref().and_then(|previous| previous.suspected_at);
        v1::Takeover {
            group: group.to_owned(),
            slot: self.slot.0.into(),
            node: node.to_string(),
            epoch: self.epoch.0,
            previous: self.previous.as_ref().map(|previous| previous.node.to_string()).unwrap_or_default(),
            cause: self.cause().to_owned(),
            suspected_ms: suspected_at.filter(|at| *at >= zero).map(offset),
            grants: self
                .grants
                .iter()
                .map(|(seat, at)| v1::SeatGrant { seat: seat.raw().into(), at_ms: offset(*at) })
                .collect(),
            quorum_ms: offset(self.quorum_at),
            steps: steps(&self.done, zero),
            serving_ms: self.serving_at.map(offset).unwrap_or_default(),
            predicted_ms: self.predicted_ms,
            trace_id: format!("{trace:032x}"),
        }
    }
}

/// Steps as an event carries them, offsets from `zero`.
pub fn steps(done: &[Done], zero: BootTime) -> Vec<v1::Step> {
    let step = |done: &Done| v1::Step {
        name: done.name.to_owned(),
        started_ms: done.started.since(zero).as_secs_f64() * 1e3,
        took_ms: done.ended.since(done.started).as_secs_f64() * 1e3,
        outcome: done.outcome.into(),
        detail: done.detail.clone(),
    };
    done.iter().map(step).collect()
}
