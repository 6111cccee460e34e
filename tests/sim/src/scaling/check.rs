//! What must hold, see the module's documentation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use understudy_scaling::{Action, ActionKind, GroupView, Life};
use understudy_wire::NodeId;

use super::{members::Instance, options::Options};
use crate::seeds::Violation;

/// The instances, and those of them whose removal is under way.
pub(crate) struct There<'a> {
    pub(crate) instances: &'a BTreeMap<NodeId, Instance>,
    pub(crate) leaving: BTreeSet<NodeId>,
}

#[derive(Debug, Default)]
pub(crate) struct Check {
    pub(crate) violation: Option<Violation>,
    pub(crate) actions: u64,
    out_at: Option<u64>,
    in_at: Option<u64>,
    /// Repairs that were given out.
    repairs: VecDeque<u64>,
    /// Changes that were carried out.
    changes: VecDeque<u64>,
    faults: VecDeque<u64>,
    /// Who was started in which place, and when.
    heirs: BTreeMap<String, (NodeId, u64)>,
    /// Leaders that knew nothing of those before them.
    pub(crate) amnesias: VecDeque<u64>,
    pub(crate) last_action: u64,
}

impl Check {
    /// Keeps the first violation.
    pub(crate) fn fail(&mut self, invariant: u8, at: u64, what: String) {
        self.violation.get_or_insert_with(|| Violation { invariant, at: format!("{at} s"), what });
    }

    pub(crate) fn fault(&mut self, now: u64) {
        self.faults.push_back(now);
    }

    /// Judges an action against what was true when it was decided.
    pub(crate) fn given(
        &mut self,
        now: u64,
        options: &Options,
        view: &GroupView,
        muted: bool,
        action: &Action,
    ) {
        self.actions += 1;
        self.last_action = now;
        let group = &options.group;
        let vacant = (0..view.serving).any(|slot| {
            view.slots.get(&understudy_wire::Slot(slot)).is_none_or(|state| state.holder.is_none())
        });
        let within =
            |at: Option<u64>, window: std::time::Duration| at.is_some_and(|at| now - at < window.as_secs());
        match &action.kind {
            ActionKind::Open { slot } | ActionKind::Undrain { slot } => {
                if slot.0 >= group.max {
                    self.fail(1, now, format!("slot {slot} is opened, max is {}", group.max));
                }
                if within(self.in_at, group.load.window_out) {
                    self.fail(2, now, format!("slot {slot} is opened just after a scale-in"));
                }
                self.out_at = Some(now);
            }
            ActionKind::Drain { slot } => {
                if slot.0 < group.min {
                    self.fail(1, now, format!("slot {slot} is drained, min is {}", group.min));
                }
                if vacant {
                    self.fail(1, now, format!("slot {slot} is drained during a failover"));
                }
                if within(self.out_at, group.load.window_in) {
                    self.fail(2, now, format!("slot {slot} is drained just after a scale-out"));
                }
                if muted {
                    self.fail(3, now, format!("slot {slot} is drained while a metric is missing"));
                }
                self.in_at = Some(now);
            }
            ActionKind::Close { slot } => {
                if vacant {
                    self.fail(1, now, format!("slot {slot} is closed during a failover"));
                }
            }
            ActionKind::Remove { node } => self.removed(now, options, view, vacant, node),
            ActionKind::Restart { .. } | ActionKind::Start { replaces: Some(_), .. } => {
                self.repaired(now, options);
            }
            ActionKind::Start { .. } => {}
        }
    }

    fn removed(&mut self, now: u64, options: &Options, view: &GroupView, vacant: bool, node: &NodeId) {
        let holds = |node: &NodeId| view.slots.values().any(|slot| slot.holder.as_ref() == Some(node));
        if holds(node) {
            self.fail(1, now, format!("{node} is removed and holds a slot"));
        }
        if vacant {
            self.fail(1, now, format!("{node} is removed during a failover"));
        }
        let ready = |node: &NodeId| {
            view.members.get(node).is_some_and(|member| member.ready && member.life == Life::Alive)
        };
        let left =
            view.members.keys().filter(|other| *other != node && ready(other) && !holds(other)).count();
        if ready(node) && left == 0 && options.group.standby > 0 {
            self.fail(1, now, format!("{node} is removed and was the last ready standby"));
        }
    }

    fn repaired(&mut self, now: u64, options: &Options) {
        self.repairs.push_back(now);
        drop_older(&mut self.repairs, now, 3_600);
        drop_older(&mut self.amnesias, now, 3_600);
        let budget = options.group.repair.budget as usize * (1 + self.amnesias.len());
        if self.repairs.len() > budget {
            self.fail(
                4,
                now,
                format!("{} repairs within an hour, the budget is {budget}", self.repairs.len()),
            );
        }
    }

    /// Invariant 5: an instance is about to be started in this place (the policy's own key).
    pub(crate) fn filled(
        &mut self,
        now: u64,
        options: &Options,
        there: &There<'_>,
        place: &str,
        node: &NodeId,
    ) {
        // A StatefulSet keeps no keys: a leader that knows nothing takes a heir for a member like any other, and may fill
        // the place again if one more is wanted anyway. The size below holds all the same.
        if let Some((heir, born)) = self.heirs.insert(place.to_owned(), (node.clone(), now))
            && !options.ordinals
            && there.instances.get(&heir).is_some_and(|instance| instance.lives() && instance.born == born)
        {
            self.fail(5, now, format!("{place} is filled by {node}, and {heir} lives"));
        }
        // Who came back just now had been given up when this was ordered.
        let recent = now.saturating_sub(options.driver_delay + 2 * options.interval);
        let expected = |(node, instance): &(&NodeId, &Instance)| {
            instance.lives()
                && instance.back_at.is_none_or(|at| at < recent)
                && !there.leaving.contains(*node)
        };
        let living = there.instances.iter().filter(expected).count();
        let most = usize::from(options.group.max + options.group.standby);
        if living >= most {
            self.fail(5, now, format!("{node} is started, {living} live, {most} are the most"));
        }
    }

    /// Something was changed by the driver.
    pub(crate) fn changed(&mut self, now: u64) {
        self.changes.push_back(now);
    }

    /// Invariant 4: changes within five minutes. Each fault costs a restart, a replacement, a removal and what follows
    /// from them. Each window sees at most one whole cycle of the load: start, open, drain, close and remove.
    pub(crate) fn bounded(&mut self, now: u64, options: &Options) {
        drop_older(&mut self.changes, now, 300);
        drop_older(&mut self.faults, now, 900);
        let members = usize::from(options.group.max + options.group.standby);
        let cycles = 2 + 300 / options.group.load.window_in.as_secs().max(1) as usize;
        let most = (5 * cycles + 4 * self.faults.len()) * members;
        if self.changes.len() > most {
            self.fail(4, now, format!("{} changes within 300 s, {most} are the most", self.changes.len()));
        }
    }
}

fn drop_older(times: &mut VecDeque<u64>, now: u64, span: u64) {
    while times.front().is_some_and(|at| now - at >= span) {
        times.pop_front();
    }
}
