//! Who served a slot, one after the other, by the answers to the watchers of the nodes.

use super::events::{Claim, Told};

/// An event is made after its tenure began to serve, but the two times are read by different clocks of one host, and
/// events carry milliseconds.
const CLOCKS_APART: u64 = 100_000_000;
/// A record waits up to two seconds for name servers and witnesses, and one that a hung NATS server swallowed is sent
/// again after two more. An executor that is ended before that cannot tell.
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
    pub(super) fn is_excused(&self, silent_from: Option<u64>) -> bool {
        silent_from.is_some_and(|at| at <= self.first + TELLS_WITHIN)
    }
}
