//! What the autoscaler has of one group beside what the book has of it.

use std::collections::{BTreeMap, BTreeSet};

use understudy_scaling::{GroupMemory, Key};
use understudy_wire::{NodeId, v1};

use crate::book::Listing;

/// One group while this process leads.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) listing: Option<Listing>,
    pub(crate) list_under_way: bool,
    /// Actions under way, by key.
    pub(crate) under_way: BTreeSet<Key>,
    /// Nodes that are being removed.
    pub(crate) leaving: BTreeSet<NodeId>,
    /// How often the driver has called an order done that its list does not show.
    pub(crate) said_done: BTreeMap<Key, u32>,
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
