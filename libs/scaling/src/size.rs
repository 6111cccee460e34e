//! N + M: orders, promotion, draining, surplus.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use understudy_wire::{NodeId, Slot};

use crate::{
    census::Census,
    group::{Group, Turn},
    load::Aim,
    plan::{Action, ActionKind, Key, Outcome, Rule},
};

/// Members beyond N + M are looked at for so many intervals before one goes: who is coming back may be gone again.
const SURPLUS_INTERVALS: u32 = 2;

impl Group {
    /// Orders `short` members that nobody has had before.
    pub(crate) fn fill(&mut self, turn: &mut Turn<'_>, census: &Census<'_>, aim: Aim, short: usize) {
        let count = short.min(turn.room(census));
        if short == 0 {
            return;
        }
        if count == 0 {
            let reason = format!("{short} members are missing, but {} start already", census.starting);
            return turn.say(Rule::Redundancy, Outcome::Waits, reason);
        }
        let reason = format!(
            "{} active and {} standby are wanted{}, {} are there or on their way",
            aim.wish.max(turn.view.serving),
            turn.rules.standby,
            if aim.ahead > 0 { format!(" and {} more ahead of the rise", aim.ahead) } else { String::new() },
            census.counted()
        );
        for _ in 0..count {
            let (node, domain) = self.place(turn, census);
            let key = Key::fill(turn.id, &node);
            let kind = ActionKind::Start { node, domain, replaces: None };
            self.act(turn, Rule::Redundancy, reason.clone(), vec![Action { key, kind }]);
        }
    }

    /// The lowest free name, and the failure domain with the fewest standbys, then the fewest members.
    pub(crate) fn place(&self, turn: &Turn<'_>, census: &Census<'_>) -> (NodeId, Option<String>) {
        let ordered: BTreeSet<_> = self.pending.starts().collect();
        // A name that a living key speaks of would give that key again.
        let spoken: BTreeSet<_> = turn
            .view
            .members
            .values()
            .filter_map(|member| member.key.as_deref()?.split('/').nth(2))
            .collect();
        let free = |node: &NodeId| {
            !turn.view.members.contains_key(node)
                && !ordered.contains(node)
                && !spoken.contains(node.as_str())
        };
        let names = (1u32..).filter_map(|number| NodeId::new(&format!("{}-{number}", turn.id)).ok());
        let node =
            names.into_iter().find(free).expect("not every number is taken, and group names are short");
        (node, self.domain(turn, census))
    }

    fn domain(&self, turn: &Turn<'_>, census: &Census<'_>) -> Option<String> {
        let label = turn.rules.spread.as_ref()?;
        let broken: BTreeSet<_> = census.broken.iter().map(|broken| &broken.node).collect();
        let mut domains: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (node, member) in &turn.view.members {
            let Some(domain) = member.labels.get(label) else { continue };
            let (standbys, members) = domains.entry(domain).or_default();
            if !broken.contains(node) {
                *members += 1;
                *standbys += usize::from(!census.holders.contains_key(node));
            }
        }
        for domain in self.pending.domains(turn.view) {
            let (standbys, members) = domains.entry(domain).or_default();
            *members += 1;
            *standbys += 1;
        }
        domains.into_iter().min_by_key(|(name, counts)| (*counts, *name)).map(|(name, _)| name.to_owned())
    }

    /// Takes draining slots back, then promotes ready standbys, until `aim.wish` slots serve.
    pub(crate) fn scale_out(&mut self, turn: &mut Turn<'_>, census: &Census<'_>, aim: Aim) {
        let (serving, open) = (turn.view.serving, turn.view.open);
        if aim.wish <= serving || self.pending.slots() {
            return;
        }
        if let Some(why) = turn.failover(census) {
            return turn.say(
                Rule::ScaleOut,
                Outcome::Waits,
                format!("N from {serving} to {} is wanted, but {why}", aim.wish),
            );
        }
        let back = aim.wish.min(open);
        let ready = u16::try_from(census.ready.len()).unwrap_or(u16::MAX);
        let top = aim.wish.min(open.saturating_add(ready)).max(open);
        if back <= serving && top <= open {
            let reason = format!("N from {serving} to {} is wanted, but no standby is ready", aim.wish);
            return turn.say(Rule::ScaleOut, Outcome::Waits, reason);
        }
        let slot = |verb, slot: u16, kind| self.slot_action(turn, verb, Slot(slot), kind);
        let undrained =
            (serving..back).map(|number| slot("undrain", number, ActionKind::Undrain { slot: Slot(number) }));
        let opened = (open..top).map(|number| slot("open", number, ActionKind::Open { slot: Slot(number) }));
        let actions = undrained.chain(opened).collect();
        let reason = format!("N from {serving} to {} is wanted; ready standbys: {ready}", aim.wish);
        self.tracker.scaled(true, turn.now);
        self.act(turn, Rule::ScaleOut, reason, actions);
    }

    /// Drains the highest slots down to `aim.wish`, and closes those that are drained.
    pub(crate) fn scale_in(&mut self, turn: &mut Turn<'_>, census: &Census<'_>, aim: Aim) {
        let (serving, open) = (turn.view.serving, turn.view.open);
        self.drained.retain(|slot, _| (serving..open).contains(&slot.0));
        for slot in (serving..open).map(Slot) {
            self.drained.entry(slot).or_insert(turn.now);
        }
        // What is taken back is no longer drained, even where the view does not show it yet.
        if aim.wish > serving || (aim.wish == serving && open == serving) || self.pending.slots() {
            return;
        }
        if let Some(why) = turn.failover(census) {
            return turn.say(
                Rule::ScaleIn,
                Outcome::Waits,
                format!("N from {serving} to {} would do, but {why}", aim.wish),
            );
        }
        let to = aim.wish.max(open.saturating_sub(turn.rules.load.step_in));
        if to < serving {
            let slots = (to..serving).rev().map(Slot);
            let actions =
                slots.map(|slot| self.slot_action(turn, "drain", slot, ActionKind::Drain { slot })).collect();
            let reason = format!(
                "N from {serving} to {} will do: drained for at most {} s",
                aim.wish,
                turn.rules.drain.as_secs()
            );
            self.tracker.scaled(false, turn.now);
            self.act(turn, Rule::ScaleIn, reason, actions);
        } else {
            self.close(turn);
        }
    }

    /// Closes drained slots, from the top.
    fn close(&mut self, turn: &mut Turn<'_>) {
        let mut reason = String::new();
        let mut actions = Vec::new();
        for slot in (turn.view.serving..turn.view.open).rev().map(Slot) {
            let lasted =
                self.drained.get(&slot).map_or_else(Default::default, |since| turn.now.since(*since));
            let connections = turn.view.slots.get(&slot).and_then(|state| state.connections);
            let left = connections.map_or("an unknown number of".to_owned(), |count| count.to_string());
            // Whoever asked the name server just before may still come: so not within the first interval.
            let vacant = turn.view.slots.get(&slot).is_none_or(|state| state.holder.is_none());
            let empty = vacant || (connections == Some(0) && lasted >= turn.interval);
            if !empty && lasted < turn.rules.drain {
                let rest = (turn.rules.drain - lasted).as_secs();
                let reason =
                    format!("slot {slot} drains: {left} connections, closed in {rest} s at the latest");
                if actions.is_empty() {
                    return turn.say(Rule::ScaleIn, Outcome::Waits, reason);
                }
                break;
            }
            reason =
                format!("slot {slot} is drained after {} s, {left} connections are left", lasted.as_secs());
            actions.push(self.slot_action(turn, "close", slot, ActionKind::Close { slot }));
        }
        self.act(turn, Rule::ScaleIn, reason, actions);
    }

    fn slot_action(&self, turn: &Turn<'_>, verb: &str, slot: Slot, kind: ActionKind) -> Action {
        let epoch = turn.view.slots.get(&slot).map_or_else(Default::default, |state| state.epoch);
        Action { key: Key::slot(verb, turn.id, slot, epoch), kind }
    }

    /// Removes standbys beyond M and what is left of replaced members. Never a holder, never the last ready standby of
    /// a group that wants one, nothing during a failover.
    pub(crate) fn surplus(&mut self, turn: &mut Turn<'_>, census: &Census<'_>, aim: Aim) {
        let standby = usize::from(turn.rules.standby);
        let wanted = usize::from(aim.keep.max(turn.view.serving)) + standby;
        let counted = census.counted();
        if counted <= wanted {
            self.surplus_since = None;
        }
        let calm = turn.failover(census).is_none() && census.ready.len() >= standby && !self.pending.slots();
        if counted >= wanted && calm {
            self.clear(turn, census);
        }
        if counted <= wanted || !calm {
            return;
        }
        let since = *self.surplus_since.get_or_insert(turn.now);
        if turn.now.since(since) < turn.interval * SURPLUS_INTERVALS {
            return;
        }
        let spare = census.ready.len() - standby;
        let order = |node: &&&NodeId| (self.crowd(turn, node), number(node), node.as_str().to_owned());
        let goes = |node: &&&NodeId| turn.view.members.get(**node).is_some_and(|member| member.removable);
        let mut coming: Vec<_> = census.coming.iter().filter(goes).collect();
        let mut ready: Vec<_> = census.ready.iter().filter(goes).collect();
        coming.sort_by_key(|node| Reverse(order(node)));
        ready.sort_by_key(|node| Reverse(order(node)));
        let go: Vec<NodeId> =
            coming.into_iter().chain(ready.into_iter().take(spare)).map(|node| (*node).clone()).collect();
        let go = &go[..go.len().min(counted - wanted)];
        let reason = format!("{counted} members are there, {wanted} are wanted");
        if go.is_empty() && census.coming.len() + spare > 0 {
            let reason = format!("{reason}, but the driver can remove none of those that could go");
            turn.say(Rule::Surplus, Outcome::Waits, reason);
        } else if !go.is_empty() {
            let actions = go.iter().map(|node| self.removal(turn, node)).collect();
            self.act(turn, Rule::Surplus, reason, actions);
        }
    }

    /// Removes what is left of broken members: the group has what it needs without them.
    fn clear(&mut self, turn: &mut Turn<'_>, census: &Census<'_>) {
        self.register.forget_lost();
        let broken: Vec<_> = census.broken.iter().filter(|broken| broken.removable).collect();
        for broken in broken.into_iter().take(usize::from(turn.rules.in_flight)) {
            let reason = format!("{} is broken ({}) and no longer needed", broken.node, broken.cause);
            let action = self.removal(turn, &broken.node);
            self.act(turn, Rule::Surplus, reason, vec![action]);
        }
    }

    fn removal(&self, turn: &Turn<'_>, node: &NodeId) -> Action {
        let incarnation = turn.view.members.get(node).map_or(0, |member| member.incarnation);
        let key = Key::member("remove", turn.id, node, incarnation);
        Action { key, kind: ActionKind::Remove { node: node.clone() } }
    }

    /// Members in the failure domain of this one.
    fn crowd(&self, turn: &Turn<'_>, node: &NodeId) -> usize {
        let Some(label) = &turn.rules.spread else { return 0 };
        let domain = |node: &NodeId| turn.view.members.get(node)?.labels.get(label);
        let own = domain(node);
        turn.view.members.values().filter(|member| own.is_some() && member.labels.get(label) == own).count()
    }
}

/// The number at the end of a name: the youngest of equals goes first.
fn number(node: &NodeId) -> u64 {
    node.as_str().rsplit('-').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}
