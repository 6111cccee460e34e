//! What comes out: actions, and why.

use std::fmt;

use understudy_wire::{BootTime, Epoch, GroupId, NodeId, Slot};

/// Idempotency key: made from the state that the action brings about, so equal views give equal keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The key as it travels: labels of containers, environment of commands.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key that was stored.
    pub(crate) fn stored(key: String) -> Self {
        Self(key)
    }

    pub(crate) fn slot(verb: &str, group: &GroupId, slot: Slot, epoch: Epoch) -> Self {
        Self(format!("{group}/{verb}/{slot}/{epoch}"))
    }

    pub(crate) fn member(verb: &str, group: &GroupId, node: &NodeId, incarnation: u64) -> Self {
        Self(format!("{group}/{verb}/{node}/{incarnation}"))
    }

    pub(crate) fn fill(group: &GroupId, node: &NodeId) -> Self {
        Self(format!("{group}/fill/{node}"))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing to be done. Done twice it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Names the state that it brings about.
    pub key: Key,
    /// What is done.
    pub kind: ActionKind,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionKind {
    /// Store `open` and `serving` above this slot: the lease rules promote a standby into it at once.
    Open {
        /// The slot.
        slot: Slot,
    },
    /// Store `serving` = this slot: no new clients, its DNS weight goes out.
    Drain {
        /// The slot.
        slot: Slot,
    },
    /// Store `serving` above this slot: the load is back.
    Undrain {
        /// The slot.
        slot: Slot,
    },
    /// Store `open` = this slot: its holder releases it and becomes a standby.
    Close {
        /// The slot.
        slot: Slot,
    },
    /// Start an instance under this name.
    Start {
        /// Its name.
        node: NodeId,
        /// Value of the `spread` label that it should run under.
        domain: Option<String>,
        /// The member whose place it takes; `None`: a new place.
        replaces: Option<NodeId>,
    },
    /// Restart this incarnation in place; a newer one is left alone.
    Restart {
        /// The member.
        node: NodeId,
        /// As last heard; 0: never heard.
        incarnation: u64,
    },
    /// Stop and delete the instance: first into maintenance, so that no seat elects it any more, then, if it holds no
    /// slot, away with it.
    Remove {
        /// The member.
        node: NodeId,
    },
}

impl fmt::Display for ActionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { slot } => write!(f, "open slot {slot}"),
            Self::Drain { slot } => write!(f, "drain slot {slot}"),
            Self::Undrain { slot } => write!(f, "take slot {slot} back into service"),
            Self::Close { slot } => write!(f, "close slot {slot}"),
            Self::Start { node, domain, replaces } => {
                write!(f, "start {node}")?;
                if let Some(domain) = domain {
                    write!(f, " in {domain}")?;
                }
                if let Some(old) = replaces {
                    write!(f, " for {old}")?;
                }
                Ok(())
            }
            Self::Restart { node, .. } => write!(f, "restart {node}"),
            Self::Remove { node } => write!(f, "remove {node}"),
        }
    }
}

/// Which rule spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Paused by an operator.
    Steering,
    /// Restart or replacement of a broken member.
    Repair,
    /// The repair budget of the hour.
    Budget,
    /// What the load wants.
    Load,
    /// N + M members.
    Redundancy,
    /// Promotion of standbys.
    ScaleOut,
    /// Draining and closing of slots.
    ScaleIn,
    /// Removal of what is too much.
    Surplus,
}

impl Rule {
    /// As it travels and is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steering => "steering",
            Self::Repair => "repair",
            Self::Budget => "budget",
            Self::Load => "load",
            Self::Redundancy => "redundancy",
            Self::ScaleOut => "scale-out",
            Self::ScaleIn => "scale-in",
            Self::Surplus => "surplus",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There are actions.
    Acted,
    /// Something is wanted and has to wait.
    Waits,
    /// Something is wanted and is not done until somebody changes something.
    Refused,
    /// Nothing is wanted.
    Nothing,
}

impl Outcome {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acted => "acted",
            Self::Waits => "waits",
            Self::Refused => "refused",
            Self::Nothing => "nothing",
        }
    }
}

/// One rule's word on one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// What came of it.
    pub outcome: Outcome,
    /// Why, for people.
    pub reason: String,
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
}

/// One target as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Name of the signal.
    pub signal: String,
    /// What it is kept at.
    pub target: f64,
    /// Mean over the serving members that said it; 0 where none did.
    pub mean: f64,
    /// How many said it.
    pub heard: usize,
    /// Who did not, and why.
    pub missing: Vec<String>,
    /// Load in units of members: the sum divided by the target.
    pub demand: f64,
    /// N that it wants.
    pub want: u16,
}

/// What a decision was made from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Inputs {
    /// Slots that are granted.
    pub open: u16,
    /// Slots that take new clients.
    pub serving: u16,
    /// Least N.
    pub min: u16,
    /// Largest N.
    pub max: u16,
    /// M.
    pub standby: u16,
    /// Standbys that could take a slot now.
    pub ready: usize,
    /// Members that start, or are given time to come back.
    pub coming: usize,
    /// Members that are broken, each with its cause.
    pub broken: Vec<String>,
    /// Slots in service without a holder.
    pub vacant: Vec<Slot>,
    /// The targets.
    pub readings: Vec<Reading>,
    /// Schedules that hold, as written.
    pub schedules: Vec<String>,
    /// Load that is forecast for the time a new member takes, in members.
    pub forecast: Option<f64>,
    /// N that is aimed at after windows, cooldowns and steps.
    pub wish: u16,
    /// Repairs that are left in this hour.
    pub repairs_left: u32,
}

/// Everything about one group in one turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The group.
    pub group: GroupId,
    /// What it was made from.
    pub inputs: Inputs,
    /// At least one.
    pub findings: Vec<Finding>,
    /// It acts, or waits or refuses for another cause than the turn before: worth an event.
    pub news: bool,
}

impl Decision {
    /// What is to be done, in this order.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.findings.iter().flat_map(|finding| &finding.actions)
    }
}

/// What comes out of one turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// One for each group that is in the rules and in the view.
    pub decisions: Vec<Decision>,
    /// When to ask again at the latest.
    pub next: BootTime,
}
