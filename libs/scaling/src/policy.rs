//! The policy for all groups.

use std::collections::BTreeMap;

use understudy_wire::{BootTime, GroupId};

use crate::{
    group::{Group, Turn},
    memory::{GroupMemory, Memory},
    plan::{Key, Plan},
    rules::{GroupRules, Rules},
    view::View,
};

/// Forecasts that are fitted in one turn: one takes milliseconds, and a turn has to stay below 100 ms.
const FITS_A_TURN: usize = 4;

/// An action that could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The group.
    pub group: GroupId,
    /// Key of the action.
    pub key: Key,
    /// Why, such as "no such image: web:2".
    pub why: String,
}

/// Decides for all groups of a cluster: see the crate's documentation.
#[derive(Debug, Clone)]
pub struct Policy {
    rules: Rules,
    groups: BTreeMap<GroupId, Group>,
    asked: BootTime,
    /// The group whose forecast was fitted last: the next turn goes on behind it.
    fitted: Option<GroupId>,
}

impl Policy {
    /// A policy that knows nothing yet. Rules must be without [`Rules::problems`]; the configuration checks them.
    pub fn new(rules: Rules) -> Self {
        Self { rules, groups: BTreeMap::new(), asked: BootTime::default(), fitted: None }
    }

    /// A policy that goes on where another leader has stopped.
    pub fn resume(rules: Rules, memory: Memory, now: BootTime) -> Self {
        let groups = memory.groups.into_iter().map(|(id, group)| (id, group.restore(now)));
        Self { groups: groups.collect(), ..Self::new(rules) }
    }

    /// What the next leader should know.
    pub fn memory(&self, now: BootTime) -> Memory {
        let groups = self.groups.iter().map(|(id, group)| (id.clone(), GroupMemory::of(group, now)));
        Memory { groups: groups.collect() }
    }

    /// Decides. `now` is the leader's CLOCK_BOOTTIME and never goes back. Asking more often than the interval says is
    /// allowed: a group's turn is the same, only its history gets denser.
    pub fn observe(&mut self, view: &View, now: BootTime) -> Plan {
        self.asked = now;
        let mut decisions = Vec::with_capacity(view.groups.len());
        for (id, group_view) in &view.groups {
            let Some(rules) = self.rules.groups.get(id) else { continue };
            let steered = group_view.steering.standby.map(|standby| GroupRules { standby, ..rules.clone() });
            let rules = steered.as_ref().unwrap_or(rules);
            let group = self.groups.entry(id.clone()).or_default();
            let turn = Turn::new(id, rules, group_view, (self.rules.interval, view.wall, now));
            decisions.push(group.observe(turn));
        }
        self.groups.retain(|id, _| self.rules.groups.contains_key(id));
        self.fit();
        Plan { decisions, next: self.next_deadline() }
    }

    /// When to call [`observe`](Self::observe) again at the latest.
    pub fn next_deadline(&self) -> BootTime {
        self.asked.after(self.rules.interval)
    }

    /// Takes in that an action failed: it is tried again, in another way or later. An action that succeeds needs no
    /// word: the view shows it.
    pub fn handle_failed(&mut self, failed: &Failed) {
        if let Some(group) = self.groups.get_mut(&failed.group) {
            group.failed(&failed.key, &failed.why);
        }
    }

    /// Fits the forecasts that are due, a few a turn, every group in its turn.
    fn fit(&mut self) {
        let Self { rules, groups, fitted, .. } = self;
        let due = |group: &Group| group.history.due();
        let behind =
            groups.iter().filter(|(id, group)| fitted.as_ref().is_none_or(|last| *id > last) && due(group));
        let before =
            groups.iter().filter(|(id, group)| fitted.as_ref().is_some_and(|last| *id <= last) && due(group));
        let turn: Vec<GroupId> = behind.chain(before).take(FITS_A_TURN).map(|(id, _)| id.clone()).collect();
        for id in turn {
            let (Some(rule), Some(group)) = (rules.groups.get(&id), groups.get_mut(&id)) else { continue };
            if let Some(forecast) = rule.forecast {
                group.history.fit(forecast, rule.start_up + rules.interval);
            }
            *fitted = Some(id);
        }
    }
}
