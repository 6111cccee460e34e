//! Who gets a vacant slot (rule R3). All seats order alike.

use std::{cmp::Reverse, collections::BTreeSet, fmt::Write as _, time::Duration};

use litemap::LiteMap;
use understudy_wire::{BootId, BootTime, Epoch, GroupId, Health, Holder, NodeId, Slot};

use crate::state::{Member, SlotState};

/// Everything an election looks at.
pub(crate) struct Ballot<'a> {
    pub(crate) now: BootTime,
    pub(crate) slot: Slot,
    pub(crate) group: &'a GroupId,
    pub(crate) fresh: Duration,
    pub(crate) state: &'a SlotState,
    pub(crate) members: &'a LiteMap<NodeId, Box<Member>>,
    pub(crate) maintenance: &'a BTreeSet<NodeId>,
    pub(crate) damped: &'a BTreeSet<NodeId>,
    pub(crate) fenced: &'a BTreeSet<(NodeId, BootId)>,
    /// Nodes with another slot of the group.
    pub(crate) busy: BTreeSet<&'a NodeId>,
    /// The present holder, when the question is who could follow it.
    pub(crate) except: Option<&'a NodeId>,
}

/// The winner, and what its grant echoes.
pub(crate) struct Choice {
    pub(crate) holder: Holder,
    pub(crate) echo: BootTime,
    pub(crate) claimed: Option<Epoch>,
}

/// The first candidate, else a holder that is unwell but still claims the slot when nobody better is there (R10:
/// never fail over to something worse, so never take the slot from it for nothing either).
pub(crate) fn choose(ballot: &Ballot<'_>) -> Option<Choice> {
    let bidding = || ballot.members.iter().filter(|(node, member)| ballot.obstacle(node, member).is_none());
    let fit = bidding().filter(|(node, member)| ballot.unfit(node, member).is_none());
    let first = fit.min_by_key(|(node, member)| ballot.order(node, member));
    let last_resort = || {
        let claimants = bidding().filter(|(_, member)| ballot.claim(member).is_some());
        claimants.max_by_key(|(_, member)| ballot.claim(member)).filter(|_| ballot.except.is_none())
    };
    let (node, member) = first.or_else(last_resort)?;
    Some(Choice { holder: member.bidder(node)?, echo: member.sent_at, claimed: ballot.claim(member) })
}

/// Why there is no candidate, node by node, for people.
pub(crate) fn why_nobody(ballot: &Ballot<'_>) -> String {
    let mut reasons = String::new();
    for (node, member) in ballot.members.iter() {
        let reason = ballot.obstacle(node, member).or_else(|| ballot.unfit(node, member));
        let separator = if reasons.is_empty() { "" } else { ", " };
        let _ = write!(reasons, "{separator}{node} {}", reason.unwrap_or("is a candidate"));
    }
    if reasons.is_empty() { "no node was heard".into() } else { reasons }
}

/// Sorts candidates; the least comes first.
type Order =
    (Reverse<Option<Epoch>>, bool, bool, bool, bool, Reverse<i32>, understudy_wire::StandbyKind, u64);

impl Ballot<'_> {
    /// Why a node cannot be granted the slot at all.
    fn obstacle(&self, node: &NodeId, member: &Member) -> Option<&'static str> {
        let Some(bidder) = member.bidder(node) else { return Some("has no executor") };
        let void = self.state.released.get(node);
        if self.except == Some(node) {
            Some("holds it")
        } else if self.now.since(member.heard_at) > self.fresh {
            Some("is silent")
        } else if self.fenced.contains(&(node.clone(), member.boot)) {
            Some("is fenced")
        } else if self.busy.contains(node) {
            Some("holds another slot")
        } else if void.is_some_and(|(holder, at)| *holder == bidder && member.sent_at <= *at) {
            Some("has just released it")
        } else {
            None
        }
    }

    /// Why a node should not be granted the slot.
    fn unfit(&self, node: &NodeId, member: &Member) -> Option<&'static str> {
        let claims = self.claim(member).is_some();
        if self.maintenance.contains(node) {
            Some("is in maintenance")
        } else if member.health == Health::Unhealthy {
            Some("is unhealthy")
        } else if !member.ready && !claims {
            Some("is not ready")
        } else if member.health == Health::Starting && !claims {
            Some("is starting")
        } else {
            None
        }
    }

    fn claim(&self, member: &Member) -> Option<Epoch> {
        member.claims.iter().find(|(slot, _)| *slot == self.slot).map(|(_, epoch)| *epoch)
    }

    /// Seats need not know the same of the past (who held it last, who flaps): that would split every vote for ever.
    /// So it counts for nothing among those who were tried in vain, and after a few splits all seats order alike.
    ///
    /// Who flaps comes after everybody steadier, whatever its priority: it would soon be gone again. Alone it is chosen
    /// at once. Each seat counts the falls that it saw itself, for a node cannot remember its own crash; where a node is
    /// damped by some seats only, there are two opinions, and one of two has a quorum.
    fn order(&self, node: &NodeId, member: &Member) -> Order {
        let successor = self.state.successor.as_ref().is_some_and(|(named, _)| named == node);
        let shunned = self.state.shunned.contains_key(node);
        let held_last = !shunned && self.state.last_claim.as_ref().is_some_and(|(_, last)| last == node);
        let damped = !shunned && self.damped.contains(node);
        (
            Reverse(self.claim(member)),
            !successor,
            shunned,
            !held_last,
            damped,
            Reverse(member.priority),
            member.standby,
            stable_hash(self.group, self.slot, node),
        )
    }
}

/// FNV-1a, 64 bits: the same on every host and in every version, which the standard hashers do not promise.
fn stable_hash(group: &GroupId, slot: Slot, node: &NodeId) -> u64 {
    let bytes = group.as_str().bytes().chain(slot.0.to_be_bytes()).chain(node.as_str().bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
