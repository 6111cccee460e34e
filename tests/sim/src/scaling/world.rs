//! One run: members, seats, load, driver, leader, faults, second by second.

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use understudy_scaling::{
    Action, ActionKind, Finding, GroupView, Member, Policy, Sample, SlotView, View, WallClock,
};
use understudy_wire::{BootTime, Epoch, NodeId, Slot};

use super::{
    check::Check,
    demand::{Demand, Shape},
    driver::{Order, ordinal},
    members::{Instance, SlotState, State, elect},
    options::{Fault, Mutant, Options},
};
use crate::trace::Trace;

/// What is wrong with a member's metric.
#[derive(Debug, Clone, Copy)]
enum Mute {
    Missing,
    Stale,
    Nonsense,
}

pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) now: u64,
    random: SmallRng,
    pub(crate) policy: Policy,
    /// Another leader, and until when it acts.
    pub(crate) rival: Option<(u64, Policy)>,
    pub(crate) instances: BTreeMap<NodeId, Instance>,
    pub(crate) slots: BTreeMap<Slot, SlotState>,
    pub(crate) open: u16,
    pub(crate) serving: u16,
    pub(crate) orders: Vec<Order>,
    /// Of a StatefulSet.
    pub(crate) replicas: u32,
    pub(crate) driver_down_until: u64,
    bad_image_until: u64,
    mutes: BTreeMap<NodeId, (u64, Mute)>,
    demand: Demand,
    calm: Demand,
    next_fault: u64,
    pub(crate) struck: Option<u64>,
    pub(crate) trace: Trace,
    pub(crate) check: Check,
}

impl World {
    pub(crate) fn new(options: Options, keep_lines: bool) -> Self {
        let mut random = SmallRng::seed_from_u64(options.seed);
        let active = options.group.min;
        let length = options.calm_from.min(options.end);
        let next_fault = options.faults_from + random.random_range(0..options.fault_gap.min(400));
        Self {
            now: 0,
            policy: Policy::new(options.rules()),
            rival: None,
            instances: BTreeMap::new(),
            slots: BTreeMap::new(),
            open: active,
            serving: active,
            orders: Vec::new(),
            replicas: 0,
            driver_down_until: 0,
            bad_image_until: 0,
            mutes: BTreeMap::new(),
            demand: Demand::new(options.shape, options.seed, options.load, length, options.noise),
            calm: Demand::new(Shape::Flat, options.seed, options.load, length, options.noise),
            next_fault,
            struck: None,
            trace: Trace::new(keep_lines),
            check: Check::default(),
            random,
            options,
        }
        .sized(active)
    }

    /// Runs to the end, or to the first violation.
    pub(crate) fn run(&mut self) {
        while self.now < self.options.end && self.check.violation.is_none() {
            self.second();
        }
        if self.options.single.is_none() {
            self.converged();
        }
    }

    /// One second.
    pub(crate) fn second(&mut self) {
        self.strike();
        self.live();
        self.reconcile();
        self.drive();
        let leaving = self.leaving();
        elect(&mut self.slots, &self.instances, &leaving, (self.open, self.serving, self.options.takeover));
        self.look();
        if self.now.is_multiple_of(self.options.interval) {
            self.turn();
        }
        self.now += 1;
    }

    /// The same world with so many members serving at the start.
    pub(crate) fn sized(mut self, active: u16) -> Self {
        (self.open, self.serving) = (active, active);
        self.replicas = u32::from(active + self.options.group.standby);
        for number in 0..active + self.options.group.standby {
            let rack = usize::from(number) % self.options.racks;
            let node = NodeId::new(&format!("web-{}", number + 1)).expect("a good name");
            self.instances.insert(
                node,
                Instance { state: State::Up, incarnation: 1, rack, key: None, born: 0, back_at: None },
            );
        }
        self
    }

    pub(crate) fn draw(&mut self, from: u64, to: u64) -> u64 {
        self.random.random_range(from..=to.max(from))
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.random.random_bool(share)
    }

    fn note(&mut self, facts: &[u64], line: impl FnOnce() -> String) {
        self.trace.note(self.now * 1_000_000_000, facts, line);
    }

    fn at(&self) -> BootTime {
        BootTime(0).after(Duration::from_secs(100_000 + self.now))
    }

    /// The next fault, if it is time.
    fn strike(&mut self) {
        if let Some(fault) = self.options.single {
            if self.now == self.options.faults_from {
                self.struck = Some(self.now);
                self.fault(fault);
            }
        } else if self.now >= self.next_fault
            && self.now < self.options.calm_from
            && !self.options.faults.is_empty()
        {
            let index = self.draw(0, self.options.faults.len() as u64 - 1) as usize;
            self.fault(self.options.faults[index]);
            self.next_fault = self.now + self.draw(1, 2 * self.options.fault_gap);
        }
    }

    fn fault(&mut self, fault: Fault) {
        self.check.fault(self.now);
        self.note(&[1, fault as u64], || format!("fault {fault:?}"));
        let lasts = self.now + self.draw(5, 200);
        let victim = self.draw(0, self.instances.len().max(1) as u64 - 1) as usize;
        let victim = self.instances.keys().nth(victim).cloned();
        let rack = self.draw(0, self.options.racks as u64 - 1) as usize;
        let mute = [Mute::Missing, Mute::Stale, Mute::Nonsense][self.draw(0, 2) as usize];
        match fault {
            Fault::Crash => self.change(victim.as_ref(), State::Dead("exits with 1")),
            Fault::Cut => self.change(victim.as_ref(), State::Cut { until: lasts }),
            Fault::Ill => self.change(victim.as_ref(), State::Ill { until: lasts }),
            Fault::Vanish => drop(victim.and_then(|node| self.instances.remove(&node))),
            Fault::Rack => {
                self.instances.values_mut().filter(|instance| instance.rack == rack).for_each(|instance| {
                    instance.state = State::Dead("the rack is without power");
                });
            }
            Fault::ThunderingRestart => {
                let ready_at = self.now + self.options.restart_most;
                for instance in self.instances.values_mut().skip(1) {
                    (instance.state, instance.back_at) = (State::Booting { ready_at }, Some(self.now));
                }
            }
            Fault::BadImage => self.bad_image_until = lasts,
            Fault::TwoLeaders => self.rival = Some((lasts, Policy::new(self.options.rules()))),
            Fault::DriverDown => self.driver_down_until = lasts,
            Fault::Metrics => {
                if let Some(node) = victim {
                    self.mutes.insert(node, (lasts + 400, mute));
                }
            }
            Fault::NewLeader => {
                let memory = self.policy.memory(self.at());
                self.policy = Policy::resume(self.options.rules(), memory, self.at());
            }
            Fault::Amnesia => {
                self.check.amnesias.push_back(self.now);
                self.policy = Policy::new(self.options.rules());
            }
        }
    }

    fn change(&mut self, node: Option<&NodeId>, state: State) {
        if let Some(instance) = node.and_then(|node| self.instances.get_mut(node)) {
            instance.state = state;
        }
    }

    /// Instances rise, come back, or end.
    fn live(&mut self) {
        let (now, calm) = (self.now, self.now >= self.options.calm_from);
        let bad_image = !calm && now < self.bad_image_until;
        for instance in self.instances.values_mut() {
            match instance.state {
                State::Booting { .. } if bad_image && instance.incarnation == 0 => {
                    instance.state = State::Dead("image exits with 127");
                }
                State::Booting { ready_at } if ready_at <= now => {
                    (instance.state, instance.incarnation) = (State::Up, instance.incarnation + 1);
                }
                State::Ill { until } | State::Cut { until } if until <= now || calm => {
                    (instance.state, instance.back_at) = (State::Up, Some(now));
                }
                _ => {}
            }
        }
        if calm {
            (self.driver_down_until, self.rival) = (0, None);
            self.mutes.clear();
        }
        self.mutes.retain(|_, (until, _)| *until > now);
    }

    /// What must hold in every second.
    fn look(&mut self) {
        let (now, ready) = (self.now, self.ready());
        for (slot, state) in &self.slots {
            if state.vacant_for > self.options.takeover && ready > 0 {
                let what =
                    format!("slot {slot} is vacant for {} s, {ready} standbys are ready", state.vacant_for);
                self.check.fail(1, now, what);
            }
        }
        let group = &self.options.group;
        if self.serving < group.min || self.open > group.max {
            let what = format!(
                "N is {} of {}, from {} to {} is allowed",
                self.serving, self.open, group.min, group.max
            );
            self.check.fail(1, now, what);
        }
        self.check.bounded(now, &self.options);
        if self.struck.is_some_and(|struck| now >= struck + self.options.restored_within()) {
            self.whole();
        }
    }

    /// Standbys that could take a slot now.
    fn ready(&self) -> usize {
        let (slots, leaving) = (&self.slots, self.leaving());
        let holds = |node: &NodeId| slots.values().any(|slot| slot.holder.as_ref() == Some(node));
        let up = self.instances.iter().filter(|(_, instance)| instance.state == State::Up);
        up.filter(|(node, _)| !holds(node) && !leaving.contains(*node)).count()
    }

    /// Invariant 6: N + M are ready.
    fn whole(&mut self) {
        // A slot that was opened just now is being taken.
        let slots = self.slots.values();
        let vacant = slots.filter(|slot| slot.vacant_for > self.options.takeover).count();
        let (ready, wanted) = (self.ready(), usize::from(self.options.group.standby));
        if vacant > 0 || ready < wanted {
            let what =
                format!("{vacant} of {} slots are vacant, {ready} of {wanted} standbys are ready", self.open);
            self.check.fail(6, self.now, what);
        }
    }

    /// Invariant 6: after the storm the group is whole, of the right size, tidy and calm.
    fn converged(&mut self) {
        if self.check.violation.is_some() || self.options.group.repair.budget < 1_000 {
            return;
        }
        self.whole();
        let (there, wanted) = (self.instances.len(), usize::from(self.serving + self.options.group.standby));
        // While the highest holds a slot nobody can go.
        let highest =
            |slot: &SlotState| slot.holder.as_ref().is_some_and(|node| ordinal(node) == self.replicas);
        let stuck = self.options.ordinals && there > wanted && self.slots.values().any(highest);
        if (there != wanted && !stuck) || self.open != self.serving {
            self.check.fail(6, self.now, format!("{there} instances are there, {wanted} are wanted"));
        }
        if self.now - self.check.last_action < 300 {
            let what = format!("something was done at {} s, the load is flat", self.check.last_action);
            self.check.fail(6, self.now, what);
        }
        let (load, group) = (self.calm.at(self.now), &self.options.group);
        let (least, most) = (load.ceil(), (load * 1.02 / (1.0 - group.load.tolerance_in)).ceil());
        let fits = (least as u16).clamp(group.min, group.max)..=(most as u16 + 1).clamp(group.min, group.max);
        if !fits.contains(&self.serving) {
            self.check.fail(6, self.now, format!("N is {}, the load is {load:.2}", self.serving));
        }
    }

    fn view(&self) -> GroupView {
        let calm = self.now >= self.options.calm_from;
        let load = if calm { &self.calm } else { &self.demand }.measured(self.now);
        let share = 0.7 * load / f64::from(self.serving.max(1));
        let mut members: BTreeMap<_, _> =
            self.instances.iter().map(|(node, instance)| (node.clone(), instance.member())).collect();
        for (node, member) in members.iter_mut().filter(|_| self.options.ordinals) {
            member.removable = ordinal(node) == self.replicas;
        }
        // The driver lists what it has been told to start; a StatefulSet only what is written in it.
        for order in self.orders.iter().filter(|_| !self.options.ordinals) {
            if let ActionKind::Start { node, .. } = &order.action.kind {
                let key = Some(order.action.key.to_string());
                members.entry(node.clone()).or_insert(Member {
                    managed: true,
                    removable: true,
                    key,
                    ..Member::default()
                });
            }
        }
        let mut slots = BTreeMap::new();
        for (slot, state) in &self.slots {
            let connections = Some(state.connections as u64);
            slots.insert(
                *slot,
                SlotView { holder: state.holder.clone(), epoch: Epoch(state.epoch), connections },
            );
            let Some(node) = &state.holder else { continue };
            let Some(member) = members.get_mut(node) else { continue };
            let value = if slot.0 < self.serving { share } else { 0.0 };
            let (fresh, old) = (Duration::from_secs(1), Duration::from_secs(600));
            let sample = match self.mutes.get(node).map(|(_, mute)| *mute) {
                None => Some(Sample { value, age: fresh }),
                Some(Mute::Stale) => Some(Sample { value: 0.0, age: old }),
                Some(Mute::Nonsense) => Some(Sample { value: f64::NAN, age: fresh }),
                Some(Mute::Missing) if self.options.mutant == Some(Mutant::MissingIsIdle) => {
                    Some(Sample { value: 0.0, age: fresh })
                }
                Some(Mute::Missing) => None,
            };
            member.signals.extend(sample.map(|sample| ("cpu".to_owned(), sample)));
        }
        let failover = slots.iter().any(|(slot, state)| slot.0 < self.serving && state.holder.is_none());
        let (open, serving, can_restart) = (self.open, self.serving, self.options.can_restart);
        GroupView { open, serving, slots, members, failover, can_restart, ..GroupView::default() }
    }

    /// What the leader sees; a mutant's eyes are bad.
    fn seen(&self, view: &GroupView) -> GroupView {
        let mut seen = view.clone();
        if self.options.mutant == Some(Mutant::BlindToFailover) {
            let other = view.slots.values().find_map(|state| state.holder.clone());
            seen.slots
                .values_mut()
                .filter(|state| state.holder.is_none())
                .for_each(|state| state.holder.clone_from(&other));
            seen.failover = false;
        }
        seen
    }

    fn turn(&mut self) {
        let view = self.view();
        let mut holders = (0..view.open).filter_map(|slot| view.slots.get(&Slot(slot))?.holder.as_ref());
        let muted = holders.any(|node| self.mutes.contains_key(node));
        let now = self.at();
        let groups = BTreeMap::from([(Options::id(), self.seen(&view))]);
        let whole = View { wall: Some(WallClock(self.now as i64)), groups };
        let plan = self.policy.observe(&whole, now);
        let rival = self.rival.as_mut().filter(|(until, _)| *until > self.now);
        let beside = rival.map(|(_, policy)| policy.observe(&whole, now).decisions).unwrap_or_default();
        let next = now.after(Duration::from_secs(self.options.interval));
        assert_eq!(plan.next, next, "the next turn is an interval off");
        for decision in &plan.decisions {
            assert!(!decision.findings.is_empty(), "every decision is explained");
            let said = |finding: &Finding| {
                finding
                    .reason
                    .bytes()
                    .fold(finding.rule as u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
            };
            let facts: Vec<u64> = decision.findings.iter().map(said).collect();
            self.note(&facts, || {
                let lines = decision.findings.iter().map(|finding| {
                    let actions: Vec<_> = finding
                        .actions
                        .iter()
                        .map(|action| format!("{} [{}]", action.kind, action.key))
                        .collect();
                    format!(
                        "{} {}: {} {}",
                        finding.rule.name(),
                        finding.outcome.name(),
                        finding.reason,
                        actions.join(", ")
                    )
                });
                lines.collect::<Vec<_>>().join(" | ")
            });
        }
        let actions: Vec<Action> =
            plan.decisions.iter().flat_map(|decision| decision.actions().cloned()).collect();
        for action in actions {
            self.check.given(self.now, &self.options, &view, muted, &action);
            self.take(action);
        }
        beside.iter().flat_map(|decision| decision.actions()).for_each(|action| self.take(action.clone()));
    }
}
