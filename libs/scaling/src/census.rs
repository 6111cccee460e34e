//! Who counts: every member of a group is put into exactly one class.

use std::collections::BTreeMap;

use understudy_wire::{BootTime, NodeId, Slot};

use crate::{
    pending::Pending,
    plan::Key,
    rules::GroupRules,
    view::{GroupView, Life, Member},
};

/// So many start-up times until a member that is not ready counts as broken.
const START_UPS: u32 = 2;

/// What a member is like; a change of it starts its clock anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Well,
    Away,
    Starting,
    Unready,
    Ill,
    Failed,
}

impl Condition {
    fn of(member: &Member) -> Self {
        match &member.life {
            Life::Failed(_) => Self::Failed,
            _ if member.maintenance => Self::Away,
            Life::Starting => Self::Starting,
            Life::Alive if !member.healthy => Self::Ill,
            Life::Alive if !member.ready => Self::Unready,
            Life::Alive => Self::Well,
        }
    }
}

/// Since when a member is like this.
#[derive(Debug, Clone, Copy)]
struct Spell {
    incarnation: u64,
    condition: Condition,
    since: BootTime,
}

/// A member that is missed.
#[derive(Debug, Clone)]
struct Lost {
    node: NodeId,
    incarnation: u64,
    cause: String,
}

/// What is remembered of members from turn to turn.
#[derive(Debug, Clone, Default)]
pub(crate) struct Register {
    spells: BTreeMap<NodeId, Spell>,
    /// Members that vanished without having been removed, or never came to be: last incarnation and cause.
    ///
    /// One entry for each missing place: a place that cannot be filled comes up again under the same name.
    lost: Vec<Lost>,
    /// Incarnations that were restarted in place, or whose order was given once more, and when.
    pub(crate) restarted: BTreeMap<NodeId, (u64, BootTime)>,
    /// Incarnations that are removed on purpose, and by which order: until they are gone, however long that takes, or
    /// the order has failed.
    pub(crate) parting: BTreeMap<NodeId, (u64, Key)>,
}

/// A member that has to be made good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) node: NodeId,
    pub(crate) incarnation: u64,
    pub(crate) cause: String,
    /// It may be restarted in place: it is there, holds nothing, and this incarnation has not been restarted yet.
    pub(crate) restartable: bool,
    /// It is not there any more, so its name is free.
    pub(crate) lost: bool,
    /// The driver can remove it, so it has to be removed in the end.
    pub(crate) removable: bool,
}

/// The members of a group, class by class.
#[derive(Debug, Default)]
pub(crate) struct Census<'a> {
    pub(crate) holders: BTreeMap<&'a NodeId, Slot>,
    /// Standbys that could take a slot now.
    pub(crate) ready: Vec<&'a NodeId>,
    /// Members without a slot that start, or are given time to come back.
    pub(crate) coming: Vec<&'a NodeId>,
    /// Ordered and not listed yet.
    pub(crate) ordered: usize,
    pub(crate) broken: Vec<Broken>,
    /// Slots in service without a holder.
    pub(crate) vacant: Vec<Slot>,
    /// Holders that count.
    sound_holders: usize,
    /// Members that start for the first time.
    pub(crate) starting: usize,
}

impl Census<'_> {
    /// Members that are there or on their way.
    pub(crate) fn counted(&self) -> usize {
        self.sound_holders + self.ready.len() + self.coming.len() + self.ordered
    }
}

impl Register {
    /// A register that knows who was restarted.
    pub(crate) fn restored(restarted: BTreeMap<NodeId, (u64, BootTime)>) -> Self {
        Self { restarted, ..Self::default() }
    }

    /// Forgets members that vanished: the group has what it needs without them.
    pub(crate) fn forget_lost(&mut self) {
        self.lost.clear();
    }

    /// A member could not be started.
    pub(crate) fn stillborn(&mut self, node: NodeId, cause: &str) {
        self.lost.push(Lost { node, incarnation: 0, cause: format!("it cannot be started: {cause}") });
    }

    /// Nobody waits any longer for a member that has vanished: it was replaced, or it is back.
    pub(crate) fn found(&mut self, node: &NodeId) {
        if let Some(index) = self.lost.iter().position(|lost| lost.node == *node) {
            self.lost.remove(index);
        }
    }

    /// Classifies every member.
    pub(crate) fn census<'a>(
        &mut self,
        rules: &GroupRules,
        view: &'a GroupView,
        pending: &Pending,
        now: BootTime,
    ) -> Census<'a> {
        self.follow(view, now);
        let mut census = Census::default();
        for slot in (0..view.open).map(Slot) {
            match view.slots.get(&slot).and_then(|state| state.holder.as_ref()) {
                Some(holder) => drop(census.holders.insert(holder, slot)),
                // A slot that drains and has lost its holder is simply empty.
                None if slot.0 >= view.serving => {}
                None => census.vacant.push(slot),
            }
        }
        for (node, member) in &view.members {
            if !pending.removes(node) && !self.parted(node, member) {
                self.classify(rules, view, node, member, now, &mut census);
            }
        }
        for Lost { node, incarnation, cause } in &self.lost {
            census.broken.push(Broken {
                node: node.clone(),
                incarnation: *incarnation,
                cause: cause.clone(),
                restartable: false,
                lost: true,
                removable: false,
            });
        }
        census.ordered = pending.starts().filter(|node| !view.members.contains_key(*node)).count();
        census.starting += census.ordered;
        census
    }

    /// Notes what has changed since the last turn.
    fn follow(&mut self, view: &GroupView, now: BootTime) {
        let (lost, parting) = (&mut self.lost, &self.parting);
        self.spells.retain(|node, spell| {
            let there = view.members.contains_key(node);
            if !there && !parting.contains_key(node) && spell.condition != Condition::Away {
                let (incarnation, cause) = (spell.incarnation, "it has vanished".to_owned());
                lost.push(Lost { node: node.clone(), incarnation, cause });
            }
            there
        });
        for (node, member) in &view.members {
            let (incarnation, condition) = (member.incarnation, Condition::of(member));
            match self.spells.get_mut(node) {
                Some(spell) if (spell.incarnation, spell.condition) == (incarnation, condition) => {}
                Some(spell) => *spell = Spell { incarnation, condition, since: now },
                None => {
                    self.spells.insert(node.clone(), Spell { incarnation, condition, since: now });
                    self.found(node);
                }
            }
        }
        let same = |node: &NodeId, incarnation: u64| {
            view.members.get(node).is_some_and(|member| member.incarnation == incarnation)
        };
        self.restarted.retain(|node, (incarnation, _)| same(node, *incarnation));
        self.parting.retain(|node, (incarnation, _)| same(node, *incarnation));
    }

    /// Whether a member that is removed on purpose is out or gone already, as far as its driver is concerned.
    fn parted(&self, node: &NodeId, member: &Member) -> bool {
        self.parting.contains_key(node) && (member.maintenance || !member.managed)
    }

    fn classify<'a>(
        &self,
        rules: &GroupRules,
        view: &GroupView,
        node: &'a NodeId,
        member: &Member,
        now: BootTime,
        census: &mut Census<'a>,
    ) {
        let spell = self.spells[node];
        let lasted = now.since(spell.since);
        let slow = rules.start_up * START_UPS;
        let (patience, cause) = match (spell.condition, &member.life) {
            (Condition::Away, _) => return,
            (Condition::Well, _) => (None, String::new()),
            (Condition::Starting | Condition::Unready, _) => {
                (Some(slow), format!("not ready for {} s{}", lasted.as_secs(), colon(&member.reason)))
            }
            (_, Life::Failed(cause)) => (Some(rules.repair.after), cause.clone()),
            _ => (Some(rules.repair.after), format!("unhealthy{}", colon(&member.reason))),
        };
        let holds = census.holders.contains_key(node);
        let restarted =
            self.restarted.get(node).filter(|(incarnation, _)| *incarnation == member.incarnation);
        let returning = restarted.is_some_and(|(_, at)| now.since(*at) < rules.repair.restart_for);
        let broken = patience.is_some_and(|patience| lasted >= patience) && !returning;
        if broken {
            census.broken.push(Broken {
                node: node.clone(),
                incarnation: member.incarnation,
                cause,
                restartable: member.managed
                    && view.can_restart
                    && rules.repair.restart
                    && restarted.is_none()
                    && !holds,
                lost: false,
                removable: member.removable && !holds,
            });
        } else if holds {
            census.sound_holders += 1;
        } else if spell.condition == Condition::Well {
            census.ready.push(node);
        } else {
            census.coming.push(node);
            census.starting += usize::from(spell.condition == Condition::Starting);
        }
    }
}

/// `: reason`, or nothing.
fn colon(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
