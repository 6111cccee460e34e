//! What the next leader should know of this one: times as ages, since clocks of two hosts are never compared.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use understudy_wire::{BootTime, GroupId, NodeId};

use crate::{
    census::Register,
    forecast::History,
    group::Group,
    orders::{Order, Orders},
    plan::Key,
    repair::{Done, Ledger},
};

/// What one leader leaves to the next. Not needed for safety: see the crate's documentation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Group by group.
    pub groups: BTreeMap<GroupId, GroupMemory>,
}

/// What one leader leaves of one group.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupMemory {
    /// Repairs of the last hour, oldest first.
    pub repairs: Vec<RememberedRepair>,
    /// Replacements, and the first member of their line.
    pub roots: BTreeMap<NodeId, NodeId>,
    /// Members whose replacement was ordered, with the incarnation that was replaced.
    pub replaced: BTreeMap<NodeId, u64>,
    /// Members that were ordered and not heard yet.
    pub orders: BTreeMap<NodeId, RememberedOrder>,
    /// How often operators have given the budget anew.
    pub budgets_granted: u64,
    /// Demand of the last seasons in members, oldest first.
    pub demand: Vec<f32>,
}

/// What a member was ordered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedOrder {
    /// Key of the order.
    pub key: String,
    /// Value of the `spread` label that it should run under.
    pub domain: Option<String>,
    /// The member whose place it takes.
    pub replaces: Option<NodeId>,
}

/// One repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedRepair {
    /// How long ago, milliseconds.
    pub age_ms: u64,
    /// First member of the line of replacements.
    pub root: NodeId,
    /// The member that was broken.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: u64,
    /// In place.
    pub restart: bool,
    /// Why it was broken.
    pub cause: String,
}

impl GroupMemory {
    pub(crate) fn of(group: &Group, now: BootTime) -> Self {
        let repairs = group.ledger.done.iter().map(|done| RememberedRepair {
            age_ms: u64::try_from(now.since(done.at).as_millis()).unwrap_or(u64::MAX),
            root: done.root.clone(),
            node: done.node.clone(),
            incarnation: done.incarnation,
            restart: done.restart,
            cause: done.cause.clone(),
        });
        let remembered = |order: &Order| RememberedOrder {
            key: order.key.to_string(),
            domain: order.domain.clone(),
            replaces: order.replaces.clone(),
        };
        let orders = group.orders.0.iter().map(|(node, order)| (node.clone(), remembered(order)));
        Self {
            repairs: repairs.collect(),
            orders: orders.collect(),
            roots: group.ledger.roots.clone(),
            replaced: group.ledger.replaced.clone(),
            budgets_granted: group.ledger.granted,
            demand: group.history.values.iter().copied().collect(),
        }
    }

    pub(crate) fn restore(self, now: BootTime) -> Group {
        let mut done: Vec<_> = self
            .repairs
            .into_iter()
            .map(|repair| Done {
                at: now.before(Duration::from_millis(repair.age_ms)),
                root: repair.root,
                node: repair.node,
                incarnation: repair.incarnation,
                restart: repair.restart,
                cause: repair.cause,
            })
            .collect();
        done.sort_by_key(|done| done.at);
        // Who was restarted is known from its repair, or the next leader would restart it again.
        let restarts = done.iter().filter(|done| done.restart);
        let restarted = restarts.map(|done| (done.node.clone(), (done.incarnation, done.at))).collect();
        let register = Register::restored(restarted);
        let orders = self.orders.into_iter().map(|(node, RememberedOrder { key, domain, replaces })| {
            (node, Order { key: Key::stored(key), domain, replaces, inherited: true })
        });
        let orders = Orders(orders.collect());
        let ledger = Ledger {
            done: done.into(),
            roots: self.roots,
            replaced: self.replaced,
            granted: self.budgets_granted,
        };
        Group { register, ledger, orders, history: History::restored(&self.demand), ..Group::default() }
    }
}
