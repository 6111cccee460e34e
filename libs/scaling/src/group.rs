//! One group's turn: the order of everything.

use std::{collections::BTreeMap, time::Duration};

use understudy_wire::{BootTime, GroupId, Slot};

use crate::{
    census::{Census, Register},
    forecast::History,
    load::{self, Aim, Held, Tracker},
    orders::Orders,
    pending::Pending,
    plan::{Action, ActionKind, Decision, Finding, Inputs, Key, Outcome, Rule},
    repair::Ledger,
    rules::GroupRules,
    view::{GroupView, WallClock},
};

/// Everything that is remembered of one group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    pub(crate) register: Register,
    pub(crate) ledger: Ledger,
    pub(crate) pending: Pending,
    pub(crate) orders: Orders,
    pub(crate) tracker: Tracker,
    pub(crate) history: History,
    /// Since when slots drain.
    pub(crate) drained: BTreeMap<Slot, BootTime>,
    pub(crate) surplus_since: Option<BootTime>,
    /// What waited or was refused in the last turn.
    pub(crate) last: Vec<(Rule, Outcome)>,
}

/// What one turn works with.
pub(crate) struct Turn<'a> {
    pub(crate) id: &'a GroupId,
    pub(crate) rules: &'a GroupRules,
    pub(crate) view: &'a GroupView,
    pub(crate) interval: Duration,
    pub(crate) wall: Option<WallClock>,
    pub(crate) now: BootTime,
    pub(crate) inputs: Inputs,
    pub(crate) findings: Vec<Finding>,
    /// Starts that this turn has given out.
    started: usize,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(
        id: &'a GroupId,
        rules: &'a GroupRules,
        view: &'a GroupView,
        (interval, wall, now): (Duration, Option<WallClock>, BootTime),
    ) -> Self {
        let inputs = Inputs {
            open: view.open,
            serving: view.serving,
            min: rules.min,
            max: rules.max,
            standby: rules.standby,
            wish: view.serving,
            ..Inputs::default()
        };
        Self { id, rules, view, interval, wall, now, inputs, findings: Vec::new(), started: 0 }
    }

    pub(crate) fn say(&mut self, rule: Rule, outcome: Outcome, reason: String) {
        self.findings.push(Finding { rule, outcome, reason, actions: Vec::new() });
    }

    /// How many more may start now.
    pub(crate) fn room(&self, census: &Census<'_>) -> usize {
        usize::from(self.rules.in_flight).saturating_sub(census.starting + self.started)
    }

    /// Why slots and members are left alone: a failover is under way.
    pub(crate) fn failover(&self, census: &Census<'_>) -> Option<String> {
        match census.vacant.first() {
            Some(slot) => Some(format!("a failover is under way: slot {slot} has no holder")),
            None => self.view.failover.then(|| "a failover is under way".to_owned()),
        }
    }
}

impl Group {
    /// One turn, in the order that the crate's documentation states.
    pub(crate) fn observe(&mut self, mut turn: Turn<'_>) -> Decision {
        self.ledger.settle(turn.view.steering.budgets_granted, turn.now);
        let unfinished = self.unfinished(&turn);
        let census = self.register.census(turn.rules, turn.view, &self.pending, turn.now);
        // Only now: the census has to know who was removed on purpose.
        self.pending.settle(turn.view, turn.interval, turn.now);
        turn.inputs.ready = census.ready.len();
        turn.inputs.coming = census.coming.len() + census.ordered;
        turn.inputs.broken =
            census.broken.iter().map(|broken| format!("{}: {}", broken.node, broken.cause)).collect();
        turn.inputs.vacant.clone_from(&census.vacant);
        turn.inputs.repairs_left = self.ledger.left(&turn.rules.repair);

        let aim = self.load(&mut turn);
        if let Some(by) = &turn.view.steering.paused {
            turn.findings.clear();
            turn.say(Rule::Steering, Outcome::Refused, format!("paused by {by}: nothing is done"));
            return self.decide(turn);
        }
        let active = aim.wish.max(turn.view.serving).saturating_add(aim.ahead);
        let wanted = usize::from(active) + usize::from(turn.rules.standby);
        let short = wanted.saturating_sub(census.counted());
        self.resume(&mut turn, unfinished);
        let unfilled = self.repair(&mut turn, &census, short);
        self.fill(&mut turn, &census, aim, unfilled);
        self.scale_out(&mut turn, &census, aim);
        self.scale_in(&mut turn, &census, aim);
        self.surplus(&mut turn, &census, aim);
        self.decide(turn)
    }

    fn decide(&mut self, turn: Turn<'_>) -> Decision {
        // That the load has to wait for a window comes and goes with its noise: explained, but no event.
        let standing = |finding: &Finding| match finding.outcome {
            Outcome::Refused => true,
            Outcome::Waits => finding.rule != Rule::Load,
            Outcome::Acted | Outcome::Nothing => false,
        };
        let found: Vec<_> = turn
            .findings
            .iter()
            .filter(|finding| standing(finding))
            .map(|finding| (finding.rule, finding.outcome))
            .collect();
        let acted = turn.findings.iter().any(|finding| finding.outcome == Outcome::Acted);
        let news = acted || found != self.last;
        self.last = found;
        Decision { group: turn.id.clone(), inputs: turn.inputs, findings: turn.findings, news }
    }

    /// Keeps those actions that are not under way, and says why they are done.
    pub(crate) fn act(&mut self, turn: &mut Turn<'_>, rule: Rule, reason: String, actions: Vec<Action>) {
        let fresh: Vec<_> = actions.into_iter().filter(|action| self.pending.add(action, turn.now)).collect();
        for action in &fresh {
            match &action.kind {
                ActionKind::Start { node, .. } => {
                    turn.started += 1;
                    self.orders.note(action);
                    // Whoever had the name before was somebody else, and that one's replacement is not this one's: as
                    // long as neither was heard both have incarnation 0.
                    self.ledger.replaced.remove(node);
                }
                ActionKind::Remove { node } => {
                    let incarnation = turn.view.members.get(node).map_or(0, |member| member.incarnation);
                    self.register.parting.insert(node.clone(), (incarnation, action.key.clone()));
                }
                _ => {}
            }
        }
        if fresh.is_empty() {
            return;
        }
        match turn.findings.last_mut() {
            Some(last) if (last.rule, &last.reason) == (rule, &reason) => last.actions.extend(fresh),
            _ => turn.findings.push(Finding { rule, outcome: Outcome::Acted, reason, actions: fresh }),
        }
    }

    /// An action could not be carried out.
    pub(crate) fn failed(&mut self, key: &Key, why: &str) {
        self.register.parting.retain(|_, (_, removal)| removal != key);
        match self.pending.forget(key) {
            // Not back and not to be waited for: it is replaced.
            Some(ActionKind::Start { node, .. } | ActionKind::Restart { node, .. })
                if self.register.restarted.contains_key(&node) =>
            {
                self.register.restarted.entry(node).and_modify(|(_, at)| *at = BootTime::default());
            }
            Some(ActionKind::Start { node, .. }) => {
                self.orders.forget(&node);
                self.register.stillborn(node, why);
            }
            _ => {}
        }
    }

    /// What the load wants, said in any case.
    fn load(&mut self, turn: &mut Turn<'_>) -> Aim {
        let (rules, view, serving) = (turn.rules, turn.view, turn.view.serving);
        let readings: Vec<_> =
            rules.load.targets.iter().map(|target| load::read(&rules.load, target, view)).collect();
        let measured = readings.iter().map(|reading| reading.want).max().unwrap_or(rules.min);
        let holding = |wall| rules.schedules.iter().filter(move |schedule| schedule.holds(wall));
        let floor =
            turn.wall.and_then(|wall| holding(wall).map(|schedule| schedule.active).max()).unwrap_or(0);
        turn.inputs.schedules = turn
            .wall
            .map(|wall| holding(wall).map(|schedule| schedule.cron().to_owned()).collect())
            .unwrap_or_default();
        if let Some(forecast) = rules.forecast {
            let sure = readings.iter().all(|reading| reading.missing.is_empty());
            let demand = readings.iter().map(|reading| reading.demand).fold(0.0, f64::max);
            self.history.add(forecast, sure.then_some(demand), turn.now);
            turn.inputs.forecast = self.history.demand();
        }
        let ahead = turn.inputs.forecast.map_or(0, load::members);
        let wanted = measured.max(floor).max(ahead);
        let least = rules.min.max(floor).min(rules.max);
        let mut want = wanted.clamp(rules.min, rules.max);
        let limit = load::limit(&rules.load, view).filter(|_| want > serving.max(least));
        if limit.is_some() {
            want = serving.max(least);
        }
        let mut aim = self.tracker.aim(rules, serving, want, turn.now);
        // What was decided by a person, or must hold in any case, waits for no window.
        let certain = view.steering.pinned.map(|pinned| pinned.clamp(rules.min, rules.max));
        let bounded = certain.unwrap_or(aim.wish.clamp(rules.min, rules.max));
        if certain.is_some() || bounded != aim.wish {
            aim = Aim { wish: bounded, keep: bounded.max(serving), ahead: 0, held: None };
        }
        turn.inputs.wish = aim.wish;
        turn.inputs.readings = readings;
        let (outcome, reason) = explain(turn, aim, wanted, limit);
        turn.say(Rule::Load, outcome, reason);
        aim
    }
}

fn explain(turn: &Turn<'_>, aim: Aim, wanted: u16, limit: Option<String>) -> (Outcome, String) {
    let (rules, serving) = (turn.rules, turn.view.serving);
    let mut said: Vec<String> = turn
        .inputs
        .readings
        .iter()
        .map(|reading| {
            let missing = if reading.missing.is_empty() {
                String::new()
            } else {
                format!(" ({})", reading.missing.join(", "))
            };
            format!(
                "{} {:.2} of {:.2} wants {}{missing}",
                reading.signal, reading.mean, reading.target, reading.want
            )
        })
        .collect();
    said.extend(turn.inputs.schedules.iter().map(|cron| format!("schedule {cron:?} holds")));
    said.extend(turn.inputs.forecast.map(|demand| format!("forecast {demand:.1} members")));
    said.extend(turn.view.steering.pinned.map(|pinned| format!("pinned to {pinned}")));
    let said = if said.is_empty() { format!("{} wanted", rules.min) } else { said.join("; ") };
    if let Some(limit) = limit {
        return (Outcome::Refused, format!("{said}; {limit}"));
    }
    if wanted > rules.max && turn.view.steering.pinned.is_none() {
        return (Outcome::Refused, format!("{said}; {wanted} wanted, but max is {}", rules.max));
    }
    match aim.held {
        Some(Held::Window(most)) => {
            let window = rules.load.window_in.as_secs();
            (Outcome::Waits, format!("{said}; {serving} serve, up to {most} were wanted within {window} s"))
        }
        Some(Held::Young) => {
            let window = rules.load.window_in.as_secs();
            (
                Outcome::Waits,
                format!("{said}; {serving} serve, and nothing is scaled in before {window} s were watched"),
            )
        }
        Some(Held::Cooldown) => {
            (Outcome::Waits, format!("{said}; {serving} serve, the last change was just now"))
        }
        None => (
            Outcome::Nothing,
            format!("{said}; {serving} serve, {} of {} standbys are ready", turn.inputs.ready, rules.standby),
        ),
    }
}
