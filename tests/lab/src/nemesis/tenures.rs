//! Who served a slot, one after the other, by the answers to the watchers of the nodes.

use super::{
    events::{Claim, Told},
    schedule::{Action, Fault},
};

/// An event is made after its tenure began to serve, but the two times are read by different clocks of one host, and
/// events carry milliseconds.
const CLOCKS_APART: u64 = 100_000_000;
/// A record waits up to two seconds for name servers and witnesses, and one that a hung NATS server swallowed is sent
/// again after two more. An executor that is ended before it had this long, unhindered, cannot tell: what was not
/// sent yet is in its memory only.
const TELLS_WITHIN: u64 = 4_000_000_000;

/// A time in which one node answered, and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tenure {
    /// The node.
    pub(super) node: String,
    /// When its first answered question was asked.
    pub(super) first: u64,
    /// When its last answered question was asked.
    pub(super) last: u64,
}

/// Tenures out of answers (when asked, by whom answered), which may come in any order.
pub(super) fn of(mut answers: Vec<(u64, String)>) -> Vec<Tenure> {
    answers.sort();
    let mut tenures: Vec<Tenure> = Vec::new();
    for (sent, node) in answers {
        match tenures.last_mut() {
            Some(tenure) if tenure.node == node => tenure.last = sent,
            _ => tenures.push(Tenure { node, first: sent, last: sent }),
        }
    }
    tenures
}

impl Tenure {
    /// What tells of it: the first takeover of the node after its beginning and before `until`. A node that lost the
    /// slot and took it again unseen in between has told several times.
    pub(super) fn claim(&self, until: u64, takeovers: &[Told]) -> Option<Claim> {
        let from = self.first.saturating_sub(CLOCKS_APART);
        let within = |told: &&Told| told.claim.node == self.node && (from..until).contains(&told.created);
        takeovers.iter().filter(within).map(|told| &told.claim).min_by_key(|claim| claim.epoch).cloned()
    }

    /// Until when its executor could tell anything; `ended`: when a process was ended, and which. What comes later from
    /// this node is of another tenure.
    pub(super) fn silent_from(&self, ended: &[(u64, String)]) -> Option<u64> {
        let executor = format!("{}-executor", self.node);
        let own = ended.iter().filter(|(at, process)| *process == executor && *at >= self.first);
        own.map(|(at, _)| *at).min()
    }

    /// Whether an executor that is silent from this moment on may not have told.
    pub(super) fn is_excused(&self, silent_from: Option<u64>, hindered: &[Hindrance]) -> bool {
        let own = hindered.iter().filter(|hindrance| hindrance.node == self.node);
        let mut own: Vec<_> = own.map(|hindrance| (hindrance.from, hindrance.to)).collect();
        own.sort_unstable();
        let in_time = |free_from: u64, (from, to): (u64, u64)| {
            if from <= free_from.saturating_add(TELLS_WITHIN) { free_from.max(to) } else { free_from }
        };
        let free_from = own.into_iter().fold(self.first, in_time);
        silent_from.is_some_and(|at| at <= free_from.saturating_add(TELLS_WITHIN))
    }
}

/// A time in which the executor of a node could tell nobody anything.
#[derive(Clone, Debug)]
pub(super) struct Hindrance {
    /// Of the fault.
    pub(super) number: usize,
    node: String,
    from: u64,
    /// When it was healed; at first, never.
    pub(super) to: u64,
}

impl Hindrance {
    /// What a fault that strikes `at` keeps from telling: an executor that is stopped, or one whose host is cut off
    /// from more than one of the NATS servers. From a single one it goes to another, which [`TELLS_WITHIN`] includes.
    pub(super) fn of(at: u64, fault: &Fault) -> Vec<Self> {
        let nats = fault.peers.iter().filter(|peer| peer.starts_with("nats-")).count();
        let node = |on: &String| match fault.action {
            Action::Isolate => Some(on.clone()),
            Action::Cut | Action::Mute | Action::Deafen => (nats > 1).then(|| on.clone()),
            Action::Stop => on.strip_suffix("-executor").map(str::to_owned),
            Action::Kill | Action::Restart => None,
        };
        let hindrance = |node| Self { number: fault.number, node, from: at, to: u64::MAX };
        fault.on.iter().filter_map(node).map(hindrance).collect()
    }
}
