//! The driver: does what it is told, late, once, or not at all.

use std::collections::BTreeSet;

use understudy_scaling::{Action, ActionKind, Failed};
use understudy_wire::NodeId;

use super::{
    check::There,
    members::{Instance, State},
    options::{Mutant, Options},
    world::World,
};

/// An action on its way.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) at: u64,
    pub(crate) action: Action,
}

impl World {
    /// Takes an action of the policy; what concerns slots is stored at once.
    pub(crate) fn take(&mut self, action: Action) {
        if self.now < self.driver_down_until {
            let why = "the driver does not answer".to_owned();
            let failed = Failed { group: Options::id(), key: action.key, why };
            self.rival.iter_mut().for_each(|(_, rival)| rival.handle_failed(&failed));
            return self.policy.handle_failed(&failed);
        }
        let delay = match action.kind {
            ActionKind::Start { .. } | ActionKind::Restart { .. } | ActionKind::Remove { .. } => {
                self.draw(0, self.options.driver_delay)
            }
            _ => 0,
        };
        self.orders.push(Order { at: self.now + delay, action });
    }

    /// Instances whose removal is under way.
    pub(crate) fn leaving(&self) -> BTreeSet<NodeId> {
        let removed = self.orders.iter().filter_map(|order| match &order.action.kind {
            ActionKind::Remove { node } => Some(node.clone()),
            _ => None,
        });
        removed.collect()
    }

    /// Carries out what is due.
    pub(crate) fn drive(&mut self) {
        while let Some(index) = self.orders.iter().position(|order| order.at <= self.now) {
            let order = self.orders.remove(index);
            self.carry_out(&order.action);
        }
    }

    fn carry_out(&mut self, action: &Action) {
        let changed = match &action.kind {
            ActionKind::Open { slot } => {
                let before = (self.open, self.serving);
                (self.open, self.serving) = (self.open.max(slot.0 + 1), self.serving.max(slot.0 + 1));
                before != (self.open, self.serving)
            }
            // A slot is taken back only while it is open, and closed only while it drains.
            ActionKind::Undrain { slot } if slot.0 < self.open => {
                std::mem::replace(&mut self.serving, slot.0 + 1) != slot.0 + 1
            }
            ActionKind::Close { slot } if slot.0 >= self.serving => {
                std::mem::replace(&mut self.open, slot.0) != slot.0
            }
            ActionKind::Undrain { .. } | ActionKind::Close { .. } => false,
            ActionKind::Drain { slot } => std::mem::replace(&mut self.serving, slot.0) != slot.0,
            ActionKind::Start { node, domain, .. } => {
                self.start(node, domain.as_deref(), action.key.as_str())
            }
            ActionKind::Restart { node, incarnation } => self.restart(node, *incarnation),
            ActionKind::Remove { node } => self.remove(node, action),
        };
        if changed {
            self.check.changed(self.now);
        }
    }

    fn remove(&mut self, node: &NodeId, action: &Action) -> bool {
        let held = self.slots.values().any(|slot| slot.holder.as_ref() == Some(node));
        if self.options.ordinals && ordinal(node) < self.replicas {
            let why = "only the highest can go".to_owned();
            let failed = Failed { group: Options::id(), key: action.key.clone(), why };
            self.policy.handle_failed(&failed);
            return false;
        }
        let gone = !held && self.instances.remove(node).is_some();
        if gone && self.options.ordinals {
            self.replicas -= 1;
        }
        gone
    }

    /// What the controller of a StatefulSet and the kubelets do by themselves: what is missing is made, what has ended is
    /// started again.
    pub(crate) fn reconcile(&mut self) {
        if !self.options.ordinals {
            return;
        }
        for number in 1..=self.replicas {
            let node = NodeId::new(&format!("web-{number}")).expect("a good name");
            let dead = self.instances.get(&node).map(|instance| matches!(instance.state, State::Dead(_)));
            let makes = match dead {
                None => true,
                Some(dead) => dead && self.chance(0.03),
            };
            if makes {
                let now = self.now;
                let (rack, ready_at) = (self.any_rack(), now + self.any_start_up());
                let fresh = Instance {
                    state: State::Booting { ready_at },
                    incarnation: 0,
                    rack,
                    key: None,
                    born: now,
                    back_at: Some(now),
                };
                let instance = self.instances.entry(node).or_insert(fresh);
                (instance.state, instance.back_at) = (State::Booting { ready_at }, Some(now));
            }
        }
    }

    fn any_rack(&mut self) -> usize {
        self.draw(0, self.options.racks as u64 - 1) as usize
    }

    fn any_start_up(&mut self) -> u64 {
        self.draw(self.options.start_least, self.options.group.start_up.as_secs())
    }

    /// Starts an instance, unless its name or its key is there already.
    fn start(&mut self, node: &NodeId, domain: Option<&str>, place: &str) -> bool {
        let timed = self.options.mutant == Some(Mutant::KeyFromTime);
        let (node, key) = if timed {
            let name = format!("web-t{}x{}", self.now, self.instances.len());
            (NodeId::new(&name).expect("a good name"), format!("web/at/{}", self.now))
        } else {
            (node.clone(), place.to_owned())
        };
        let known = |instance: &Instance| {
            instance.key.as_deref() == Some(&key) && !matches!(instance.state, State::Dead(_))
        };
        if self.instances.contains_key(&node) || self.instances.values().any(known) {
            return false;
        }
        let leaving = self.leaving();
        let there = There { leaving, instances: &self.instances };
        self.check.filled(self.now, &self.options, &there, place, &node);
        let rack = domain.and_then(|rack| rack.strip_prefix('r')?.parse().ok());
        let rack = rack.unwrap_or_else(|| self.any_rack());
        let ready_at = self.now + self.any_start_up();
        let key = (!self.options.ordinals).then_some(key);
        let instance = Instance {
            state: State::Booting { ready_at },
            incarnation: 0,
            rack,
            key,
            born: self.now,
            back_at: None,
        };
        self.replicas = self.replicas.max(ordinal(&node));
        self.instances.insert(node, instance);
        true
    }

    fn restart(&mut self, node: &NodeId, incarnation: u64) -> bool {
        let helps = self.chance(self.options.restart_helps);
        let ready_at = self.now + self.draw(1, self.options.restart_most);
        let held = self.slots.values().any(|slot| slot.holder.as_ref() == Some(node));
        let Some(instance) = self.instances.get_mut(node) else { return false };
        if instance.incarnation != incarnation || instance.state == State::Up || held || !helps {
            return false;
        }
        (instance.state, instance.back_at) = (State::Booting { ready_at }, Some(self.now));
        true
    }
}

/// The number in its name; 0: it has none.
pub(crate) fn ordinal(node: &NodeId) -> u32 {
    node.as_str().strip_prefix("web-").and_then(|number| number.parse().ok()).unwrap_or(0)
}
