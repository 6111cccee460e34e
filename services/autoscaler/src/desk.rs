//! What the autoscaler has of one group beside what the book has of it.

use std::collections::{BTreeMap, BTreeSet};

use understudy_scaling::{ActionKind, GroupMemory, Key};
use understudy_wire::{NodeId, v1};

use crate::{book::Listing, driver::Instance};

/// A driver that has said so often that an instance is started, and does not list it, does not tell the truth.
pub(crate) const LIES: u32 = 3;

/// One group while this process leads.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) listing: Option<Listing>,
    pub(crate) list_under_way: bool,
    /// Actions under way.
    pub(crate) under_way: BTreeMap<Key, ActionKind>,
    /// Nodes that are being removed.
    pub(crate) leaving: BTreeSet<NodeId>,
    /// Members that the driver has called started and does not list, and how often it has.
    pub(crate) said_done: BTreeMap<Key, (NodeId, u32)>,
    /// The last decision, also one to do nothing.
    pub(crate) last: Option<v1::ScalingDecided>,
    /// Something was decided that the next leader should know.
    pub(crate) unsaved: bool,
}

impl Desk {
    /// What the next leader should know of the group.
    pub(crate) fn left(&self, policy: GroupMemory) -> Left {
        Left { policy, leaving: self.leaving.clone() }
    }

    /// The driver says that an order is carried out.
    pub(crate) fn said_done(&mut self, key: &Key) {
        if let Some(ActionKind::Start { node, .. }) = self.under_way.remove(key) {
            self.said_done.entry(key.clone()).or_insert((node, 0)).1 += 1;
        }
    }

    /// What is listed was started, as the driver has said: under its key, where the driver keeps one, or its name.
    pub(crate) fn listed(&mut self, listing: &Listing) {
        self.said_done.retain(|key, (node, _)| {
            let carries = |instance: &Instance| instance.key.as_deref() == Some(key.as_str());
            !listing.contains_key(node) && !listing.values().any(carries)
        });
    }

    /// Whether the driver has called the order done so often that it is not believed any more; counted anew then.
    pub(crate) fn lied(&mut self, key: &Key) -> bool {
        let lied = self.said_done.get(key).is_some_and(|(_, times)| *times >= LIES);
        if lied {
            self.said_done.remove(key);
        }
        lied
    }

    /// A removal is over: its node is named by the third part of the key.
    pub(crate) fn settle_leaving(&mut self, key: &Key) {
        let node = key.as_str().split('/').nth(2).unwrap_or_default();
        if self.leaving.iter().any(|leaving| leaving.as_str() == node) {
            self.leaving.retain(|leaving| leaving.as_str() != node);
            self.unsaved = true;
        }
    }
}

/// What one leader leaves of one group to the next.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Left {
    /// Of the policy.
    pub policy: GroupMemory,
    /// Nodes that were taken out to be removed.
    pub leaving: BTreeSet<NodeId>,
}

#[cfg(test)]
mod tests {
    use understudy_scaling::{GroupRules, GroupView, Policy, Rules, View};
    use understudy_wire::{BootTime, GroupId};

    use super::*;
    use crate::driver::State;

    /// The first order of a group that has nobody.
    fn start() -> (Key, ActionKind) {
        let web = GroupId::new("web").unwrap();
        let groups = BTreeMap::from([(web.clone(), GroupRules::fixed(1, 0))]);
        let mut policy = Policy::new(Rules { interval: Rules::INTERVAL, groups });
        let view = View { wall: None, groups: BTreeMap::from([(web, GroupView::default())]) };
        let plan = policy.observe(&view, BootTime(1_000_000_000_000));
        let action = plan.decisions[0].actions().next().expect("somebody is missing").clone();
        (action.key, action.kind)
    }

    fn say_done(desk: &mut Desk, (key, kind): &(Key, ActionKind)) {
        desk.under_way.insert(key.clone(), kind.clone());
        desk.said_done(key);
    }

    #[test]
    fn who_says_done_and_lists_nothing_is_believed_three_times() {
        let (mut desk, order) = (Desk::default(), start());
        for _ in 0..LIES {
            assert!(!desk.lied(&order.0));
            say_done(&mut desk, &order);
            desk.listed(&Listing::new());
        }
        assert!(desk.lied(&order.0));
        assert!(!desk.lied(&order.0), "counted anew");
    }

    /// The same order may be right again and again: its member is removed and started each time.
    #[test]
    fn what_is_listed_was_no_lie_even_where_the_driver_keeps_no_keys() {
        let (mut desk, order) = (Desk::default(), start());
        let node = NodeId::new("web-1").unwrap();
        let instance =
            Instance { state: State::Starting, key: None, labels: BTreeMap::new(), removable: true };
        for _ in 0..LIES * 2 {
            assert!(!desk.lied(&order.0));
            say_done(&mut desk, &order);
            desk.listed(&Listing::from([(node.clone(), instance.clone())]));
            desk.listed(&Listing::new());
        }
    }
}
