//! Decisions as events, operators' wishes as the policy takes them.

use understudy_wire::{Epoch, NodeId, v1};

use crate::{
    plan::{Action, ActionKind, Decision, Finding, Inputs, Outcome, Reading, Rule},
    view::Steering,
};

impl Decision {
    /// The event `event.<group>.scaling`, signed by the leader of this epoch.
    pub fn event(&self, leader: &NodeId, epoch: Epoch) -> v1::ScalingDecided {
        v1::ScalingDecided {
            group: self.group.to_string(),
            leader: leader.to_string(),
            epoch: epoch.0,
            inputs: Some(inputs(&self.inputs)),
            findings: self.findings.iter().map(finding).collect(),
        }
    }
}

fn inputs(inputs: &Inputs) -> v1::ScalingInputs {
    v1::ScalingInputs {
        open: inputs.open.into(),
        serving: inputs.serving.into(),
        min: inputs.min.into(),
        max: inputs.max.into(),
        standby: inputs.standby.into(),
        ready: count(inputs.ready),
        coming: count(inputs.coming),
        broken: inputs.broken.clone(),
        vacant: inputs.vacant.iter().map(|slot| slot.0.into()).collect(),
        readings: inputs.readings.iter().map(reading).collect(),
        schedules: inputs.schedules.clone(),
        forecast: inputs.forecast,
        wish: inputs.wish.into(),
        repairs_left: inputs.repairs_left,
    }
}

fn count(members: usize) -> u32 {
    u32::try_from(members).unwrap_or(u32::MAX)
}

fn reading(reading: &Reading) -> v1::ScalingReading {
    v1::ScalingReading {
        signal: reading.signal.clone(),
        target: reading.target,
        mean: reading.mean,
        heard: count(reading.heard),
        missing: reading.missing.clone(),
        demand: reading.demand,
        want: reading.want.into(),
    }
}

fn finding(finding: &Finding) -> v1::ScalingFinding {
    let rule = match finding.rule {
        Rule::Steering => v1::ScalingRule::Steering,
        Rule::Repair => v1::ScalingRule::Repair,
        Rule::Budget => v1::ScalingRule::Budget,
        Rule::Load => v1::ScalingRule::Load,
        Rule::Redundancy => v1::ScalingRule::Redundancy,
        Rule::ScaleOut => v1::ScalingRule::ScaleOut,
        Rule::ScaleIn => v1::ScalingRule::ScaleIn,
        Rule::Surplus => v1::ScalingRule::Surplus,
    };
    let outcome = match finding.outcome {
        Outcome::Acted => v1::ScalingOutcome::Acted,
        Outcome::Waits => v1::ScalingOutcome::Waits,
        Outcome::Refused => v1::ScalingOutcome::Refused,
        Outcome::Nothing => v1::ScalingOutcome::Nothing,
    };
    v1::ScalingFinding {
        rule: rule.into(),
        outcome: outcome.into(),
        reason: finding.reason.clone(),
        actions: finding.actions.iter().map(action).collect(),
    }
}

fn action(action: &Action) -> v1::ScalingAction {
    use v1::scaling_action::Kind;
    let kind = match &action.kind {
        ActionKind::Open { slot } => Kind::Open(slot.0.into()),
        ActionKind::Close { slot } => Kind::Close(slot.0.into()),
        ActionKind::Drain { slot } => Kind::Drain(slot.0.into()),
        ActionKind::Undrain { slot } => Kind::Undrain(slot.0.into()),
        ActionKind::Start { node, domain, replaces } => Kind::Start(v1::ScalingStart {
            node: node.to_string(),
            domain: domain.clone().unwrap_or_default(),
            replaces: replaces.as_ref().map(ToString::to_string).unwrap_or_default(),
        }),
        ActionKind::Restart { node, incarnation } => {
            Kind::Restart(v1::ScalingRestart { node: node.to_string(), incarnation: *incarnation })
        }
        ActionKind::Remove { node } => Kind::Remove(node.to_string()),
    };
    v1::ScalingAction { key: action.key.to_string(), kind: Some(kind) }
}

impl From<&v1::ScalingSteering> for Steering {
    fn from(stored: &v1::ScalingSteering) -> Self {
        Self {
            paused: Some(stored.paused_by.clone()).filter(|by| !by.is_empty()),
            pinned: u16::try_from(stored.pinned).ok().filter(|pinned| *pinned > 0),
            standby: stored.standby.and_then(|standby| u16::try_from(standby).ok()),
            budgets_granted: stored.budgets_granted,
        }
    }
}
