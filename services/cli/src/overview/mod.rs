//! The deployment as all detectors together see it: what `status` shows, and its stable JSON form.
//!
//! Names and meanings of the fields stay as they are; new ones may be added.

#[cfg(test)]
pub(crate) mod fixture;
mod merge;
mod node;
mod redundancy;

use serde::Serialize;

pub(crate) use merge::merge;

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Overview {
    /// Name of the deployment.
    pub(crate) cluster: String,
    /// Who votes.
    pub(crate) seats: Seats,
    /// By name.
    pub(crate) groups: Vec<Group>,
}

/// The seats and who sits on them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Seats {
    /// S: how many there should be.
    pub(crate) expected: u8,
    /// No configuration said how many: the default, or the highest that answered.
    pub(crate) assumed: bool,
    /// Q: how many must agree.
    pub(crate) quorum: u8,
    /// How many may grant now.
    pub(crate) granting: u8,
    /// Numbers of the seats that did not answer.
    pub(crate) missing: Vec<u8>,
    /// Every detector that answered: seats by number, then observers.
    pub(crate) detectors: Vec<Detector>,
}

/// One detector process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Detector {
    /// Its seat, 0 for an observer.
    pub(crate) seat: u32,
    /// The process.
    pub(crate) incarnation: u64,
    /// host:port of its direct path, empty when it has none.
    pub(crate) address: String,
    /// `granting`; `late`: granting, but its own loop ran late by more than an interval (rule R13); `silent`: just
    /// started (rule R6); `conflict`: two processes on one seat, neither grants; `observing`: no seat.
    pub(crate) state: String,
    /// How late its own loop ran last.
    pub(crate) late_ms: f64,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Group {
    /// Its name.
    pub(crate) group: String,
    /// N: slots.
    pub(crate) active: u32,
    /// M: standbys wanted.
    pub(crate) standby: u32,
    /// The state in one sentence, for people.
    pub(crate) headline: String,
    /// Standbys that could take a slot over now.
    pub(crate) ready_standbys: Vec<String>,
    /// Every slot is served and would be again after one more node or one more detector is lost.
    pub(crate) can_lose_one_more: bool,
    /// Why, or why not.
    pub(crate) because: Vec<String>,
    /// By number.
    pub(crate) slots: Vec<Slot>,
    /// By name; every node that a detector has heard of.
    pub(crate) nodes: Vec<Node>,
}

/// Whether a slot is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tenancy {
    /// A quorum of seats grants it to one holder.
    Held,
    /// No quorum grants it to anyone.
    Vacant,
    /// Too few seats answered to know.
    Unknown,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Slot {
    /// Its number.
    pub(crate) slot: u32,
    /// Whether it is held.
    pub(crate) state: Tenancy,
    /// The node that a quorum of seats grants it to.
    pub(crate) holder: Option<String>,
    /// Epoch that the holder claims; absent while nobody holds it or the holder has not claimed it yet.
    pub(crate) epoch: Option<u64>,
    /// Highest epoch that any seat knows.
    pub(crate) highest_epoch: u64,
    /// Whether the seats that answered say different things.
    pub(crate) disagree: bool,
    /// What each seat that answered says.
    pub(crate) votes: Vec<Vote>,
    /// Addresses that follow the slot.
    pub(crate) vips: Vec<String>,
    /// DNS names that follow the slot.
    pub(crate) names: Vec<String>,
}

/// One seat's grant of one slot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Vote {
    /// The seat.
    pub(crate) seat: u8,
    /// Whom it grants the slot, if anyone.
    pub(crate) node: Option<String>,
    /// For how long yet.
    pub(crate) remaining_ms: f64,
    /// Highest epoch it knows.
    pub(crate) highest_epoch: u64,
}

/// What a node is for its group now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// A quorum grants it a slot.
    Active,
    /// It waits.
    Standby,
    /// It cannot be chosen: failed, unhealthy, or in maintenance.
    Out,
}

/// One node. What it says of itself comes from the detector that heard it last.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) node: String,
    /// What it is now.
    pub(crate) role: Role,
    /// Slots that a quorum grants it.
    pub(crate) slots: Vec<u32>,
    /// Slots that it says it holds.
    pub(crate) claims: Vec<Claim>,
    /// `alive`, `suspect`, `failed`, `unhealthy` or `unknown`: what most seats say; the worst of equally many.
    pub(crate) judgement: &'static str,
    /// What each seat says, where they differ.
    pub(crate) judgements: Vec<SeatJudgement>,
    /// Suspicion, the median over the seats.
    pub(crate) phi: f64,
    /// Time since its last heartbeat, by the seat that heard it last.
    pub(crate) silent_ms: f64,
    /// `healthy`, `unhealthy`, `starting` or `unknown`.
    pub(crate) health: &'static str,
    /// It could take a slot over.
    pub(crate) ready: bool,
    /// Why it is not healthy or not ready, in its own words.
    pub(crate) reason: String,
    /// `hot`, `warm`, `cold` or `unknown`.
    pub(crate) standby: &'static str,
    /// Higher is preferred.
    pub(crate) priority: i32,
    /// Any seat has it in maintenance.
    pub(crate) maintenance: bool,
    /// Most seats choose it after all steadier nodes, since it fell often.
    pub(crate) damped: bool,
    /// Its own address.
    pub(crate) address: String,
    /// `standby`, `taking over`, `serving` or `releasing`; empty when it has no executor.
    pub(crate) phase: String,
}

/// A slot and the epoch that a node claims it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Claim {
    /// The slot.
    pub(crate) slot: u32,
    /// The epoch.
    pub(crate) epoch: u64,
}

/// One seat's judgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SeatJudgement {
    /// The seat, 0 for an observer.
    pub(crate) seat: u32,
    /// As in [`Node::judgement`].
    pub(crate) judgement: &'static str,
}

impl Overview {
    /// Leaves one group.
    ///
    /// # Errors
    /// The groups there are, when it is none of them.
    pub(crate) fn only(mut self, group: &str) -> Result<Self, Vec<String>> {
        if !self.groups.iter().any(|known| known.group == group) {
            return Err(self.groups.into_iter().map(|known| known.group).collect());
        }
        self.groups.retain(|known| known.group == group);
        Ok(self)
    }

    /// The group of that name.
    pub(crate) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.group == name)
    }

    /// Whether every slot has a holder.
    pub(crate) fn all_held(&self) -> bool {
        self.groups.iter().flat_map(|group| &group.slots).all(|slot| slot.holder.is_some())
    }
}

impl Group {
    /// The slot of that number.
    pub(crate) fn slot(&self, number: u16) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.slot == u32::from(number))
    }

    /// The node of that name.
    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.node == name)
    }
}

impl Slot {
    /// Who holds it, or why that is nobody: `web-a`, `nobody (seats disagree: 1 for web-a, 2 for web-b)`.
    pub(crate) fn standing(&self) -> String {
        match (&self.holder, self.state) {
            (Some(holder), _) => holder.clone(),
            (None, Tenancy::Unknown) => format!("unknown ({})", self.votes_in_words()),
            (None, _) => format!("nobody ({})", self.votes_in_words()),
        }
    }

    /// The votes, equal ones together: `seats disagree: 1 2 for web-a, 3 for nobody`.
    pub(crate) fn votes_in_words(&self) -> String {
        if self.votes.is_empty() {
            return "no seat answered".to_owned();
        }
        let mut sides: Vec<(&str, Vec<String>)> = Vec::new();
        for vote in &self.votes {
            let node = vote.node.as_deref().unwrap_or("nobody");
            match sides.iter_mut().find(|(known, _)| *known == node) {
                Some((_, seats)) => seats.push(vote.seat.to_string()),
                None => sides.push((node, vec![vote.seat.to_string()])),
            }
        }
        let sides: Vec<_> =
            sides.into_iter().map(|(node, seats)| format!("{} for {node}", seats.join(" "))).collect();
        match sides.len() {
            1 => format!("{} {}", if self.votes.len() == 1 { "seat" } else { "seats" }, sides[0]),
            _ => format!("seats disagree: {}", sides.join(", ")),
        }
    }
}
