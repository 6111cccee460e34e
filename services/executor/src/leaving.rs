//! Demotion: shut gate, release, remove address, demote (design section 5).

use std::collections::VecDeque;

use understudy_lease::Why;
use understudy_service::{calm, clock};
use understudy_wire::{
    BootTime, Slot,
    v1::{self, StepOutcome},
};

use crate::{
    executor::{Executor, HookDone},
    plan::{self, Step},
    taking::outcome,
    tenure::{Done, Tenure, steps},
};

/// A tenure that ends.
pub struct Ending {
    tenure: Tenure,
    why: Why,
    /// Bids made until then are void (rule R8); this node says that it is ready for another slot only after that. `None`
    /// before the release.
    void_until: Option<BootTime>,
    queue: VecDeque<Step>,
    hook_runs: bool,
    began: BootTime,
    done: Vec<Done>,
}

impl Ending {
    /// When it is over, unless a hook runs.
    pub fn deadline(&self) -> Option<BootTime> {
        self.void_until.filter(|_| !self.hook_runs)
    }
}

impl Executor {
    /// The lease machine gave the slot up: nothing is served when this returns, and its release comes out next.
    pub(crate) async fn shut(&mut self, slot: Slot, why: Why) {
        let Some(tenure) = self.tenures.remove(&slot) else { return };
        let began = clock::now();
        // A hook that still promotes must not promote what is no longer held.
        if let Some(hook) = self.running.remove(&slot) {
            hook.abort();
        }
        self.network.shut(&tenure.guards, &tenure.vips).await;
        let shut = clock::now();
        tracing::info!(%slot, epoch = %tenure.epoch, %why, "the gate is shut");
        self.metrics.demotions.inc();
        let config = &self.settings.group.slots[usize::from(slot.0)];
        let plan = plan::demotion(&self.settings.group, config, self.settings.kind, &tenure.guards);
        self.holder.gate_shut(shut, slot);
        let queue = plan.steps.into_iter().filter(|step| !matches!(step, Step::ShutGate(_) | Step::Release));
        let done = vec![Done {
            name: "shut gate",
            started: began,
            ended: shut,
            outcome: StepOutcome::Done,
            detail: String::new(),
        }];
        let ending =
            Ending { void_until: None, queue: queue.collect(), hook_runs: false, began, done, why, tenure };
        self.endings.insert(slot, ending);
    }

    /// The release is in the queue of node.sock: what seats grant to heartbeats made until `at` is void. What needs no
    /// haste comes when it has left.
    pub(crate) async fn released(&mut self, slot: Slot, at: BootTime) {
        let Some(mut ending) = self.endings.remove(&slot) else { return };
        // Grants given back while a hook of the demotion runs are released, too.
        if ending.void_until.is_none() {
            ending.void_until = Some(at);
            calm::others().await;
            let started = ending.done.last().map_or(ending.began, |shut| shut.ended);
            ending.done.push(Done {
                name: "release",
                started,
                ended: clock::now(),
                outcome: StepOutcome::Done,
                detail: String::new(),
            });
            self.stop_dns(&ending.tenure);
            self.hear_of_previous(&mut ending.tenure);
            self.publish_record(&mut ending.tenure);
        }
        self.endings.insert(slot, ending);
    }

    /// What comes after the release: nobody waits for it.
    pub(crate) async fn advance_endings(&mut self) {
        let idle = self.endings.iter().filter(|(_, ending)| !ending.hook_runs);
        for slot in idle.map(|(slot, _)| *slot).collect::<Vec<_>>() {
            let Some(mut ending) = self.endings.remove(&slot) else { continue };
            while let Some(step) = ending.queue.pop_front() {
                let started = clock::now();
                let name = step.name();
                let result = match step {
                    Step::RemoveAddress(vip) => self.network.remove(vip).await.map(drop),
                    Step::Demote(hook) | Step::Stop(hook) => {
                        self.run_hook(slot, ending.tenure.epoch, name, hook);
                        ending.hook_runs = true;
                        break;
                    }
                    _ => unreachable!("a demotion plan has no step of a takeover"),
                };
                let (outcome, detail) = match result {
                    Ok(()) => (StepOutcome::Done, String::new()),
                    // Its lifetime ends in seconds, and the gate is shut: worth a line, not worth stopping for.
                    Err(error) => (StepOutcome::Failed, format!("{error:#}")),
                };
                ending.done.push(Done { name, started, ended: clock::now(), outcome, detail });
            }
            if ending.hook_runs || ending.void_until.is_none_or(|until| clock::now() <= until) {
                self.endings.insert(slot, ending);
            } else {
                self.tell_demoted(slot, &ending);
            }
        }
    }

    /// A hook ended: of a demotion, else of a takeover.
    pub fn hook_ended(&mut self, done: &HookDone) {
        self.running.remove(&done.slot);
        let ending = self.endings.get_mut(&done.slot).filter(|_| matches!(done.step, "demote" | "stop"));
        let Some(ending) = ending else {
            if done.step == "demote" {
                Self::leftover_hook_ended(done);
            } else {
                self.takeover_hook_ended(done);
            }
            return;
        };
        let (outcome, detail) = outcome(&done.result);
        if done.result.is_err() {
            tracing::error!(slot = %done.slot, step = done.step, detail, "a hook of a demotion failed");
        }
        ending.done.push(Done {
            name: done.step,
            started: done.started,
            ended: clock::now(),
            outcome,
            detail,
        });
        ending.hook_runs = false;
    }

    /// Tells how the tenure ended. One that never came to serve has no record of a takeover: it failed, be it by a step
    /// or because the slot was lost meanwhile.
    fn tell_demoted(&mut self, slot: Slot, ending: &Ending) {
        let Ending { tenure, why, .. } = ending;
        let epoch = tenure.epoch;
        let steps = steps(&ending.done, ending.began);
        if tenure.serving_at.is_none() {
            let failed = v1::TakeoverFailed {
                group: self.settings.group_id.to_string(),
                slot: slot.0.into(),
                node: self.settings.node.to_string(),
                epoch: epoch.0,
                step: tenure.step.to_owned(),
                reason: match why {
                    Why::TakeoverFailed(reason) => reason.clone(),
                    lost => lost.to_string(),
                },
                steps: crate::tenure::steps(&tenure.done, tenure.zero()),
            };
            self.tell(&format!("{slot}/{epoch}"), &failed);
        }
        let demoted = v1::Demoted {
            group: self.settings.group_id.to_string(),
            slot: slot.0.into(),
            node: self.settings.node.to_string(),
            epoch: epoch.0,
            reason: why.to_string(),
            steps,
        };
        self.tell(&format!("{slot}/{epoch}"), &demoted);
        self.history.write();
    }
}
