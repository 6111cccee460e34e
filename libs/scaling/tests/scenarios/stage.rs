//! A stage for the policy: one group `web`, a driver that does at once what it is told, and seats that fill a vacant
//! slot with the first ready standby within a second. New members take 60 s to be ready, restarts 10 s.

use std::{collections::BTreeMap, time::Duration};

use understudy_scaling::{
    ActionKind, Failed, Forecast, GroupRules, GroupView, Life, Member, Outcome, Policy, Rules, Sample,
    Schedule, Shared, Target, View, WallClock,
};
use understudy_wire::{BootTime, Epoch, GroupId, NodeId, Slot};

/// 2026-01-05 07:59 UTC, a Monday.
const START: i64 = 1_767_571_200 + 8 * 3600 - 60;
const START_UP: u64 = 60;
const RESTART: u64 = 10;

pub(crate) struct Stage {
    now: u64,
    rules: Rules,
    policy: Option<Policy>,
    view: GroupView,
    /// When a member becomes ready.
    rises: BTreeMap<NodeId, u64>,
    /// Load of the group in members, spread evenly; `None`: nobody says it.
    load: Option<f64>,
    /// Members that say nothing.
    mute: Vec<NodeId>,
    shared: Option<f64>,
    /// Another signal that every member says.
    said: Option<(String, f64)>,
    /// Instances end at once with this cause.
    image_exits: Option<String>,
    /// Restarts do nothing.
    restarts_fail: bool,
    /// A member that is started stays half made.
    halves: bool,
    /// What a removal takes, in seconds: half of it in maintenance, half of it dead before anybody says so.
    removal: u64,
    /// When the removal of a member began.
    leaves: BTreeMap<NodeId, u64>,
    /// Only the member with the highest number can be removed.
    ordinals: bool,
    /// Every verbose decision is shown, not only news.
    verbose: bool,
    trace: String,
}

fn web() -> GroupId {
    GroupId::new("web").unwrap()
}

impl Stage {
    pub(crate) fn new() -> Self {
        let rules =
            Rules { interval: Rules::INTERVAL, groups: BTreeMap::from([(web(), GroupRules::fixed(1, 1))]) };
        Self {
            now: 0,
            rules,
            policy: None,
            view: GroupView { can_restart: true, ..GroupView::default() },
            rises: BTreeMap::new(),
            load: None,
            mute: Vec::new(),
            shared: None,
            said: None,
            image_exits: None,
            restarts_fail: false,
            halves: false,
            removal: 0,
            leaves: BTreeMap::new(),
            ordinals: false,
            verbose: false,
            trace: String::new(),
        }
    }

    fn say(&mut self, line: &str) {
        self.trace += &format!("{:>5}  {line}\n", self.now);
    }

    fn member(&mut self, node: &NodeId, rack: Option<&str>, key: Option<String>, ready: bool) {
        let labels = rack.map(|rack| ("rack".to_owned(), rack.to_owned())).into_iter().collect();
        let life = if ready { Life::Alive } else { Life::Starting };
        let incarnation = u64::from(ready);
        let member = Member {
            life,
            managed: true,
            removable: true,
            healthy: ready,
            ready,
            incarnation,
            labels,
            key,
            ..Member::default()
        };
        self.view.members.insert(node.clone(), member);
    }

    fn fail(&mut self, node: &NodeId, cause: &str) {
        let member = self.view.members.get_mut(node).expect("the script names a member");
        member.life = Life::Failed(cause.to_owned());
        for slot in self.view.slots.values_mut().filter(|slot| slot.holder.as_ref() == Some(node)) {
            slot.holder = None;
        }
    }

    fn revive(&mut self, node: &NodeId) {
        self.rises.remove(node);
        let member = self.view.members.get_mut(node).expect("the script names a member");
        member.incarnation += 1;
        (member.life, member.healthy, member.ready) = (Life::Alive, true, true);
    }

    /// Removals go on: out, then dead and let in again, as its name is free, then forgotten.
    fn remove(&mut self) {
        for (node, began) in self.leaves.clone() {
            let lasted = self.now - began;
            let Some(member) = self.view.members.get_mut(&node).filter(|_| lasted < self.removal) else {
                self.view.members.remove(&node);
                self.leaves.remove(&node);
                continue;
            };
            member.maintenance = lasted < self.removal / 2;
            if !member.maintenance {
                member.life = Life::Failed("silent for 1 s".into());
                (member.ready, member.managed, member.removable) = (false, false, false);
            }
        }
    }

    /// Members leave and rise, seats elect, members say their load.
    fn second(&mut self) {
        self.remove();
        let due: Vec<_> =
            self.rises.iter().filter(|(_, at)| **at <= self.now).map(|(node, _)| node.clone()).collect();
        for node in due {
            match self.image_exits.clone() {
                Some(cause) => {
                    self.rises.remove(&node);
                    self.fail(&node, &cause);
                }
                None => self.revive(&node),
            }
        }
        let (open, serving) = (self.view.open, self.view.serving);
        self.view.slots.retain(|slot, state| {
            if slot.0 >= open {
                state.holder = None;
            }
            true
        });
        for slot in (0..open).map(Slot) {
            let held: Vec<_> = self.view.slots.values().filter_map(|slot| slot.holder.clone()).collect();
            let state = self.view.slots.entry(slot).or_default();
            if state.holder.is_none() {
                let mut fit = self.view.members.iter().filter(|(node, member)| {
                    member.ready && member.life == Life::Alive && !member.maintenance && !held.contains(node)
                });
                state.holder = fit.next().map(|(node, _)| node.clone());
                state.epoch = Epoch(state.epoch.0 + u64::from(state.holder.is_some()));
            }
        }
        let share = self.load.map(|load| load / f64::from(serving.max(1)));
        for (node, member) in &mut self.view.members {
            member.signals.clear();
            let age = Duration::from_secs(1);
            let holds = self
                .view
                .slots
                .iter()
                .any(|(slot, state)| slot.0 < serving && state.holder.as_ref() == Some(node));
            let target = self.rules.groups[&web()].load.targets.first().map_or(1.0, |target| target.value);
            if let Some(share) = share.filter(|_| !self.mute.contains(node)) {
                member
                    .signals
                    .insert("cpu".into(), Sample { value: if holds { share * target } else { 0.0 }, age });
            }
            if let Some((signal, value)) = &self.said {
                member.signals.insert(signal.clone(), Sample { value: *value, age });
            }
            if let Some(value) = self.shared {
                member.signals.insert("db".into(), Sample { value, age });
            }
        }
    }

    fn at(&self) -> BootTime {
        BootTime(0).after(Duration::from_secs(10_000 + self.now))
    }

    fn turn(&mut self) {
        if self.ordinals {
            // No name here has two digits.
            let highest = self.view.members.keys().next_back().cloned();
            for (node, member) in &mut self.view.members {
                member.removable = Some(node) == highest.as_ref();
            }
        }
        let Some(mut policy) = self.policy.take() else { return };
        let groups = BTreeMap::from([(web(), self.view.clone())]);
        let view = View { wall: Some(WallClock(START + self.now as i64)), groups };
        let plan = policy.observe(&view, self.at());
        for decision in plan.decisions {
            for finding in &decision.findings {
                let shown = finding.outcome != Outcome::Nothing && decision.news;
                if shown || self.verbose {
                    self.say(&format!(
                        "{} {}: {}",
                        finding.rule.name(),
                        finding.outcome.name(),
                        finding.reason
                    ));
                }
                for action in &finding.actions {
                    self.say(&format!("    {} [{}]", action.kind, action.key));
                }
            }
            for action in decision.actions() {
                if let Err(why) = self.carry_out(&action.kind, action.key.as_str()) {
                    policy.handle_failed(&Failed { group: web(), key: action.key.clone(), why });
                }
            }
        }
        self.policy = Some(policy);
    }

    fn carry_out(&mut self, kind: &ActionKind, key: &str) -> Result<(), String> {
        match kind {
            ActionKind::Open { slot } => {
                self.view.open = self.view.open.max(slot.0 + 1);
                self.view.serving = self.view.serving.max(slot.0 + 1);
            }
            ActionKind::Undrain { slot } => self.view.serving = self.view.serving.max(slot.0 + 1),
            ActionKind::Drain { slot } => self.view.serving = self.view.serving.min(slot.0),
            ActionKind::Close { slot } => self.view.open = self.view.open.min(slot.0),
            ActionKind::Start { node, domain, .. } => {
                self.member(node, domain.as_deref(), Some(key.to_owned()), false);
                if self.halves {
                    self.fail(node, "it has no executor");
                    return Ok(());
                }
                let delay = if self.image_exits.is_some() { 3 } else { START_UP };
                self.rises.insert(node.clone(), self.now + delay);
            }
            ActionKind::Restart { node, .. } if self.restarts_fail => {
                return Err(format!("{node} cannot be restarted"));
            }
            ActionKind::Restart { node, .. } => drop(self.rises.insert(node.clone(), self.now + RESTART)),
            ActionKind::Remove { node } if self.removal > 0 => {
                self.leaves.entry(node.clone()).or_insert(self.now);
            }
            ActionKind::Remove { node } => {
                self.view.members.remove(node);
                self.rises.remove(node);
            }
        }
        Ok(())
    }
}

impl understudy_golden::Stage for Stage {
    /// Plays the seconds up to `time`; every fifth is a turn of the policy.
    fn advance(&mut self, time: u64) {
        while self.now < time {
            self.second();
            if self.now.is_multiple_of(5) {
                self.turn();
            }
            self.now += 1;
        }
    }

    fn command(&mut self, line: &str) {
        self.say(&format!("> {line}"));
        let words: Vec<_> = line.split_whitespace().collect();
        let name = |name: &str| NodeId::new(name).unwrap();
        let rules = self.rules.groups.get_mut(&web()).unwrap();
        match words[..] {
            ["group", min, max, standby] => {
                let number = |text: &str| text.parse::<u16>().unwrap();
                (rules.min, rules.max, rules.standby) = (number(min), number(max), number(standby));
                rules.spread = Some("rack".into());
            }
            ["budget", budget] => rules.repair.budget = budget.parse().unwrap(),
            ["target", value] => {
                rules.load.targets = vec![Target { signal: "cpu".into(), value: value.parse().unwrap() }];
            }
            ["forecast"] => rules.forecast = Some(Forecast { season: Duration::from_secs(3600) }),
            ["also", signal, value] => {
                let target = Target { signal: signal.into(), value: value.parse().unwrap() };
                rules.load.targets.push(target);
            }
            ["says", signal, value] => self.said = Some((signal.into(), value.parse().unwrap())),
            ["shared", full] => {
                rules.load.shared = vec![Shared { signal: "db".into(), full: full.parse().unwrap() }];
            }
            ["schedule", active] => {
                let ten_minutes = Duration::from_secs(600);
                rules.schedules =
                    vec![Schedule::new("0 8 * * 1-5", ten_minutes, active.parse().unwrap()).unwrap()];
            }
            ["node", node, rack] => self.member(&name(node), Some(rack), None, true),
            ["slots", slots] => {
                let count = slots.parse().unwrap();
                (self.view.open, self.view.serving) = (count, count);
            }
            ["leader"] => self.policy = Some(Policy::new(self.rules.clone())),
            ["new", "leader"] => {
                let memory = self.policy.as_ref().unwrap().memory(self.at());
                self.policy = Some(Policy::resume(self.rules.clone(), memory, self.at()));
            }
            ["load", load] => self.load = load.parse().ok(),
            ["db", value] => self.shared = value.parse().ok(),
            ["mute", node] => self.mute.push(name(node)),
            ["speak", node] => self.mute.retain(|mute| mute.as_str() != node),
            ["fail", node, ..] => self.fail(&name(node), &words[2..].join(" ")),
            ["back", node] => self.revive(&name(node)),
            ["exits", ..] => self.image_exits = Some(words[1..].join(" ")),
            ["starts"] => self.image_exits = None,
            ["restarts", "off"] => self.view.can_restart = false,
            ["restarts", "fail"] => self.restarts_fail = true,
            ["halves", word] => self.halves = word == "on",
            ["removals", seconds] => self.removal = seconds.parse().unwrap(),
            ["ordinals"] => self.ordinals = true,
            ["failover", word] => self.view.failover = word == "begins",
            ["connections", slot, count] => {
                let slot = self.view.slots.entry(Slot(slot.parse().unwrap())).or_default();
                slot.connections = count.parse().ok();
            }
            ["pause", by] => self.view.steering.paused = Some(by.into()),
            ["go", "on"] => self.view.steering.paused = None,
            ["pin", count] => self.view.steering.pinned = count.parse().ok(),
            ["grant", "budget"] => self.view.steering.budgets_granted += 1,
            ["explain", word] => self.verbose = word == "on",
            _ => panic!("no such command: {line}"),
        }
    }

    fn into_trace(self) -> String {
        self.trace
    }
}
