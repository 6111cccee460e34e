//! Actions that were given out and do not show in the view yet.

use std::{collections::BTreeMap, time::Duration};

use understudy_wire::{BootTime, NodeId};

use crate::{
    plan::{Action, ActionKind, Key},
    view::{GroupView, Life},
};

/// An action that does not show after so many intervals is given out again, under the same key.
const PATIENCE: u32 = 6;

#[derive(Debug, Clone)]
struct Given {
    at: BootTime,
    kind: ActionKind,
}

/// Actions of one group under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pending(BTreeMap<Key, Given>);

impl Pending {
    /// Forgets what the view shows, and what took too long.
    pub(crate) fn settle(&mut self, view: &GroupView, interval: Duration, now: BootTime) {
        let patience = interval * PATIENCE;
        self.0.retain(|_, given| !shows(&given.kind, view) && now.since(given.at) < patience);
    }

    /// Takes an action in; `false`: it is under way already.
    pub(crate) fn add(&mut self, action: &Action, now: BootTime) -> bool {
        if self.0.contains_key(&action.key) {
            return false;
        }
        self.0.insert(action.key.clone(), Given { at: now, kind: action.kind.clone() });
        true
    }

    pub(crate) fn forget(&mut self, key: &Key) -> Option<ActionKind> {
        self.0.remove(key).map(|given| given.kind)
    }

    /// Names of instances that are being started.
    pub(crate) fn starts(&self) -> impl Iterator<Item = &NodeId> {
        self.0.values().filter_map(|given| match &given.kind {
            ActionKind::Start { node, .. } => Some(node),
            _ => None,
        })
    }

    /// Failure domains that instances are being started in.
    pub(crate) fn domains<'a>(&'a self, view: &'a GroupView) -> impl Iterator<Item = &'a str> {
        self.0.values().filter_map(|given| match &given.kind {
            ActionKind::Start { node, domain, .. } if !view.members.contains_key(node) => domain.as_deref(),
            _ => None,
        })
    }

    /// Whether the instance is being removed.
    pub(crate) fn removes(&self, node: &NodeId) -> bool {
        self.0.values().any(|given| matches!(&given.kind, ActionKind::Remove { node: gone } if gone == node))
    }

    /// Whether a slot is being opened, drained or closed.
    pub(crate) fn slots(&self) -> bool {
        let slot = |kind: &ActionKind| {
            use ActionKind::{Close, Drain, Open, Undrain};
            matches!(kind, Open { .. } | Drain { .. } | Undrain { .. } | Close { .. })
        };
        self.0.values().any(|given| slot(&given.kind))
    }
}

fn shows(kind: &ActionKind, view: &GroupView) -> bool {
    match kind {
        ActionKind::Open { slot } => view.open > slot.0,
        ActionKind::Drain { slot } => view.serving <= slot.0,
        ActionKind::Undrain { slot } => view.serving > slot.0,
        ActionKind::Close { slot } => view.open <= slot.0,
        ActionKind::Start { node, .. } => view.members.contains_key(node),
        ActionKind::Remove { node } => !view.members.contains_key(node),
        ActionKind::Restart { node, incarnation } => view.members.get(node).is_none_or(|member| {
            member.incarnation != *incarnation || !matches!(member.life, Life::Failed(_))
        }),
    }
}
