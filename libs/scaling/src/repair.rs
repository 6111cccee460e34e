//! Self-healing: restart in place, then replace, with backoff and a budget.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use understudy_wire::{BootTime, NodeId};

use crate::{
    census::{Broken, Census},
    group::{Group, Turn},
    orders::Unfinished,
    plan::{Action, ActionKind, Key, Outcome, Rule},
    rules::Repair,
};

/// The budget is for so long, and a member's backoff forgets what lies further back.
const HOUR: Duration = Duration::from_secs(3600);

/// One repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) at: BootTime,
    /// The first member in the line of replacements that it belongs to.
    pub(crate) root: NodeId,
    pub(crate) node: NodeId,
    pub(crate) incarnation: u64,
    pub(crate) restart: bool,
    pub(crate) cause: String,
}

/// Repairs of the last hour.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) done: VecDeque<Done>,
    /// Replacements, and the first member of their line.
    pub(crate) roots: BTreeMap<NodeId, NodeId>,
    /// Members whose replacement was ordered, with the incarnation that was replaced.
    pub(crate) replaced: BTreeMap<NodeId, u64>,
    /// How often operators have given the budget anew.
    pub(crate) granted: u64,
}

/// Whether a repair may be done now.
enum Leave {
    Granted,
    /// Not for this long.
    Backoff(Duration),
    Spent,
}

impl Ledger {
    /// Forgets what lies back more than an hour, or what an operator has forgiven.
    pub(crate) fn settle(&mut self, granted: u64, now: BootTime) {
        if granted > self.granted {
            self.granted = granted;
            self.done.clear();
        }
        while self.done.front().is_some_and(|done| now.since(done.at) >= HOUR) {
            self.done.pop_front();
        }
        let done = &self.done;
        self.roots.retain(|node, root| done.iter().any(|done| done.node == *node || done.root == *root));
    }

    pub(crate) fn left(&self, rules: &Repair) -> u32 {
        rules.budget.saturating_sub(self.done.len() as u32)
    }

    /// Whether this incarnation has its replacement.
    pub(crate) fn has_heir(&self, broken: &Broken) -> bool {
        self.replaced.get(&broken.node) == Some(&broken.incarnation)
    }

    fn root(&self, node: &NodeId) -> NodeId {
        self.roots.get(node).unwrap_or(node).clone()
    }

    fn leave(&self, rules: &Repair, broken: &Broken, now: BootTime) -> Leave {
        if self.left(rules) == 0 {
            return Leave::Spent;
        }
        let root = self.root(&broken.node);
        // A restart and the replacement after it are one trouble.
        let restart =
            |done: &&Done| done.restart && done.node == broken.node && done.incarnation == broken.incarnation;
        let earlier: Vec<_> = self.done.iter().filter(|done| done.root == root && !restart(done)).collect();
        let Some(last) = earlier.last() else { return Leave::Granted };
        let replaced = |restart: &Done| {
            earlier.iter().any(|done| {
                !done.restart && (&done.node, done.incarnation) == (&restart.node, restart.incarnation)
            })
        };
        let troubles = earlier.iter().filter(|done| !done.restart || !replaced(done)).count();
        let doubled = 1u32.checked_shl(troubles as u32 - 1).unwrap_or(u32::MAX);
        let wait = rules.backoff.saturating_mul(doubled).min(rules.backoff_max);
        match wait.saturating_sub(now.since(last.at)) {
            Duration::ZERO => Leave::Granted,
            left => Leave::Backoff(left),
        }
    }

    fn note(&mut self, (node, incarnation): (&NodeId, u64), cause: &str, restart: bool, now: BootTime) {
        let (root, node, cause) = (self.root(node), node.clone(), cause.to_owned());
        self.done.push_back(Done { at: now, root, node, incarnation, restart, cause });
    }

    /// "web: 5 replacements in 10 min, stopped; cause: image exits with 127"
    fn spent(&self, turn: &Turn<'_>) -> String {
        let restarts = self.done.iter().filter(|done| done.restart).count();
        let replacements = self.done.len() - restarts;
        let counted = match (restarts, replacements) {
            (0, _) => format!("{replacements} replacements"),
            (_, 0) => format!("{restarts} restarts"),
            _ => format!("{restarts} restarts and {replacements} replacements"),
        };
        let since = self.done.front().map_or(Duration::ZERO, |first| turn.now.since(first.at));
        let minutes = since.as_secs().div_ceil(60).max(1);
        let cause = self.done.back().map_or("no repair is allowed", |last| last.cause.as_str());
        format!("{}: {counted} in {minutes} min, stopped; cause: {cause}", turn.id)
    }
}

impl Group {
    /// What the leader before has ordered and left half made: as good as restarted in place, also where nothing else is.
    /// So it takes part of the budget, and counts as coming for as long as a restart is given. Nothing while the group is
    /// paused.
    pub(crate) fn unfinished(&mut self, turn: &Turn<'_>) -> Vec<Unfinished> {
        self.orders.settle(turn.view);
        if turn.view.steering.paused.is_some() {
            return Vec::new();
        }
        let left = self.ledger.left(&turn.rules.repair) as usize;
        let restarted = &mut self.register.restarted;
        let mut unfinished = self.orders.unfinished(turn.view);
        // What the leader before has restarted, too, is not tried a third time.
        unfinished.retain(|half| !restarted.contains_key(&half.node));
        unfinished.truncate(left);
        for Unfinished { node, cause, .. } in &unfinished {
            restarted.insert(node.clone(), (0, turn.now));
            self.ledger.note((node, 0), cause, true, turn.now);
        }
        unfinished
    }

    /// Goes on with the members that the leader before has left half made.
    pub(crate) fn resume(&mut self, turn: &mut Turn<'_>, unfinished: Vec<Unfinished>) {
        for Unfinished { node, cause, action } in unfinished {
            let reason = format!("the leader before has left {node} half made ({cause}): ordered once more");
            self.act(turn, Rule::Repair, reason, vec![action]);
        }
    }

    /// Makes good broken members, of `short` that are missing. Returns how many are still to be filled in.
    pub(crate) fn repair(&mut self, turn: &mut Turn<'_>, census: &Census<'_>, short: usize) -> usize {
        let mut short = short;
        let mut room = turn.room(census);
        let open = census.broken.iter().filter(|broken| !self.ledger.has_heir(broken));
        let open: Vec<_> = open.cloned().collect();
        for (index, broken) in open.iter().enumerate() {
            if short == 0 {
                break;
            }
            short -= 1;
            match self.ledger.leave(&turn.rules.repair, broken, turn.now) {
                Leave::Spent => {
                    let reason = self.ledger.spent(turn);
                    turn.say(Rule::Budget, Outcome::Refused, reason);
                    // Nor may the places of the others be filled in as if nobody had ever had them.
                    return short.saturating_sub(open.len() - index - 1);
                }
                Leave::Backoff(left) => {
                    let reason = format!(
                        "{} is broken ({}) and was repaired before: again in {} s",
                        broken.node,
                        broken.cause,
                        left.as_secs() + 1
                    );
                    turn.say(Rule::Repair, Outcome::Waits, reason);
                }
                Leave::Granted if broken.restartable => self.restart(turn, broken),
                Leave::Granted if room == 0 => {
                    let reason = format!("{} is broken, but {} start already", broken.node, census.starting);
                    turn.say(Rule::Repair, Outcome::Waits, reason);
                }
                Leave::Granted => {
                    room -= 1;
                    self.replace(turn, census, broken);
                }
            }
        }
        short
    }

    fn restart(&mut self, turn: &mut Turn<'_>, broken: &Broken) {
        let (node, incarnation) = (broken.node.clone(), broken.incarnation);
        let key = Key::member("restart", turn.id, &node, incarnation);
        self.ledger.note((&broken.node, incarnation), &broken.cause, true, turn.now);
        self.register.restarted.insert(node.clone(), (incarnation, turn.now));
        let reason = format!(
            "{node} is broken ({}): restarted in place, replaced if it is not back in {} s",
            broken.cause,
            turn.rules.repair.restart_for.as_secs()
        );
        let action = Action { key, kind: ActionKind::Restart { node, incarnation } };
        self.act(turn, Rule::Repair, reason, vec![action]);
    }

    fn replace(&mut self, turn: &mut Turn<'_>, census: &Census<'_>, broken: &Broken) {
        self.register.found(&broken.node);
        self.orders.forget(&broken.node);
        let (node, domain) = self.place(turn, census);
        // Who is not there any more leaves nothing behind but a missing member: a leader that never saw it gives the
        // same key for the same place.
        let (key, replaces) = if broken.lost {
            (Key::fill(turn.id, &node), None)
        } else {
            let key = Key::member("replace", turn.id, &broken.node, broken.incarnation);
            self.ledger.replaced.insert(broken.node.clone(), broken.incarnation);
            (key, Some(broken.node.clone()))
        };
        self.ledger.note((&broken.node, broken.incarnation), &broken.cause, false, turn.now);
        let root = self.ledger.root(&broken.node);
        self.ledger.roots.insert(node.clone(), root);
        let reason = format!("{} is broken ({}): replaced by {node}", broken.node, broken.cause);
        let kind = ActionKind::Start { node, domain, replaces };
        self.act(turn, Rule::Repair, reason, vec![Action { key, kind }]);
    }
}
