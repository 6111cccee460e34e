//! Orders of members that were not heard yet: what a leader that dies may leave half made.

use std::collections::BTreeMap;

use understudy_wire::NodeId;

use crate::{
    plan::{Action, ActionKind, Key},
    view::{GroupView, Life},
};

/// What a start was ordered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) key: Key,
    pub(crate) domain: Option<String>,
    pub(crate) replaces: Option<NodeId>,
    /// The leader before gave it: nobody carries it out any more.
    pub(crate) inherited: bool,
}

/// Orders of members that were not heard yet, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Orders(pub(crate) BTreeMap<NodeId, Order>);

/// An order that is given once more, and what the driver says of the member.
pub(crate) struct Unfinished {
    pub(crate) node: NodeId,
    pub(crate) cause: String,
    pub(crate) action: Action,
}

impl Orders {
    /// A start was given out.
    pub(crate) fn note(&mut self, action: &Action) {
        if let ActionKind::Start { node, domain, replaces } = &action.kind {
            let (key, domain, replaces) = (action.key.clone(), domain.clone(), replaces.clone());
            self.0.insert(node.clone(), Order { key, domain, replaces, inherited: false });
        }
    }

    /// A member of this name is replaced, or was never made.
    pub(crate) fn forget(&mut self, node: &NodeId) {
        self.0.remove(node);
    }

    /// Forgets members that were heard, and what the leader before ordered and nobody lists: its name is free.
    pub(crate) fn settle(&mut self, view: &GroupView) {
        self.0.retain(|node, order| match view.members.get(node) {
            Some(member) => member.incarnation == 0 && member.life != Life::Alive,
            None => !order.inherited,
        });
    }

    /// Orders of the leader before whose members are there and do not run; each comes up once.
    pub(crate) fn unfinished(&mut self, view: &GroupView) -> Vec<Unfinished> {
        let mut unfinished = Vec::new();
        for (node, order) in self.0.iter_mut().filter(|(_, order)| order.inherited) {
            let life = view.members.get(node).map(|member| &member.life);
            let Some(Life::Failed(cause)) = life else { continue };
            order.inherited = false;
            let Order { key, domain, replaces, .. } = order.clone();
            let action = Action { key, kind: ActionKind::Start { node: node.clone(), domain, replaces } };
            unfinished.push(Unfinished { node: node.clone(), cause: cause.clone(), action });
        }
        unfinished
    }
}
