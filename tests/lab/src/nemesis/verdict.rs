//! What a check found.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    mem::discriminant,
    time::Duration,
};

use super::events::Claim;

/// Violations of one kind that are told; the rest is counted.
const TOLD: usize = 10;

/// Something that must never be. Times are CLOCK_BOOTTIME nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Violation {
    /// Nodes that answered for one slot in the same millisecond.
    TwoAnswering {
        /// The slot.
        slot: u32,
        /// When they were asked.
        at: u64,
        /// Who answered.
        nodes: BTreeSet<String>,
    },
    /// A tenure whose epoch is not above that of every tenure before it.
    EpochBack {
        /// The slot.
        slot: u32,
        /// The highest before.
        earlier: Claim,
        /// The one after it.
        later: Claim,
    },
    /// One epoch of several nodes.
    EpochTwice {
        /// The slot.
        slot: u32,
        /// The epoch.
        epoch: u64,
        /// Whose.
        nodes: BTreeSet<String>,
    },
    /// After a round was healed the slot was not served in time, or not without a break.
    NotFilled {
        /// The slot.
        slot: u32,
        /// The round.
        round: usize,
        /// From the healing until it was served for good; `None`: it was not.
        after: Option<Duration>,
    },
    /// The zone had an epoch, and then a lower one or none.
    DnsBack {
        /// The slot.
        slot: u32,
        /// When the lower one was seen.
        at: u64,
        /// Before.
        from: u64,
        /// After.
        to: Option<u64>,
    },
    /// At the end the zone had an epoch below that of the last takeover.
    DnsBehind {
        /// The slot.
        slot: u32,
        /// What the zone had.
        zone: Option<u64>,
        /// The last takeover.
        holder: Claim,
    },
    /// A node took the slot over, its executor lived on, and no event tells of it.
    NoTakeover {
        /// The slot.
        slot: u32,
        /// Who took it over.
        node: String,
        /// When it first answered.
        at: u64,
    },
    /// A process that no fault had ended was not there any more.
    Ended {
        /// Which.
        process: String,
        /// When that was found.
        at: u64,
    },
    /// Code of a process has panicked: an assertion, or something nobody thought of.
    Panicked {
        /// Which process.
        process: String,
        /// What it said.
        text: String,
    },
    /// The history is cut off, or there is nothing in it to judge by.
    Incomplete(&'static str),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoAnswering { slot, at, nodes } => {
                write!(f, "slot {slot}: {nodes:?} answered in one millisecond, at {at}")
            }
            Self::EpochBack { slot, earlier, later } => {
                write!(f, "slot {slot}: {later} took over after {earlier}")
            }
            Self::EpochTwice { slot, epoch, nodes } => {
                write!(f, "slot {slot}: epoch {epoch} is of {nodes:?}")
            }
            Self::NotFilled { slot, round, after: Some(after) } => {
                let after = after.as_millis();
                write!(f, "slot {slot}: served for good only {after} ms after round {round} was healed")
            }
            Self::NotFilled { slot, round, after: None } => {
                write!(f, "slot {slot}: not served after round {round} was healed")
            }
            Self::DnsBack { slot, at, from, to } => {
                write!(f, "slot {slot}: the zone went back from epoch {from} to {to:?}, at {at}")
            }
            Self::DnsBehind { slot, zone, holder } => {
                write!(f, "slot {slot}: at the end the zone has epoch {zone:?}, and {holder} took over last")
            }
            Self::NoTakeover { slot, node, at } => {
                write!(f, "slot {slot}: no event tells that {node} took over, at {at}")
            }
            Self::Ended { process, at } => write!(f, "{process} ended by itself, found at {at}"),
            Self::Panicked { process, text } => write!(f, "{process}: {text}"),
            Self::Incomplete(why) => f.write_str(why),
        }
    }
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// What must never be and was.
    pub violations: Vec<Violation>,
    /// Faults begun.
    pub faults: usize,
    /// Tenures that the probe saw.
    pub tenures: usize,
    /// Tenures without an event, whose executor was ended before it can have told.
    pub excused: usize,
    /// Lowest and highest epoch of all events.
    pub epochs: Option<(u64, u64)>,
    /// Time from the healing of each round until the slot was served for good.
    pub filled: Vec<Duration>,
    /// Part of the time from the first to the last answer in which clients were served.
    pub served: f64,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filled: Vec<String> = self.filled.iter().map(|filled| filled.as_millis().to_string()).collect();
        let (first, last) = self.epochs.unwrap_or_default();
        let Self { faults, tenures, excused, .. } = self;
        writeln!(
            f,
            "{faults} faults, {tenures} tenures ({excused} untold, by executors that were ended at once), \
             epochs {first} to {last}, served {:.1} % of the time, filled {} ms after each healing",
            self.served * 100.0,
            filled.join(", ")
        )?;
        let mut told: HashMap<_, usize> = HashMap::new();
        for violation in &self.violations {
            let count = told.entry(discriminant(violation)).or_default();
            *count += 1;
            if *count <= TOLD {
                writeln!(f, "VIOLATED: {violation}")?;
            }
        }
        write!(f, "{} violation(s)", self.violations.len())
    }
}
