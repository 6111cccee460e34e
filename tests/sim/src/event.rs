//! What can happen next.

use std::{cmp::Ordering, rc::Rc};

use understudy_wire::{Claim, Epoch, Grant, Heartbeat, Incarnation, Release, Revoke, Slot, SlotRelease};

use crate::options::Fault;

/// A message between hosts.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Heartbeat(Rc<Heartbeat>),
    Release(Rc<Release>),
    Grant(Rc<Grant>),
    Revoke(Rc<Revoke>),
}

/// What an executor tells its publisher: all that a heartbeat says of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    pub(crate) incarnation: Incarnation,
    pub(crate) claims: Vec<Claim>,
    pub(crate) known: Vec<Claim>,
    pub(crate) releases: Vec<SlotRelease>,
    pub(crate) starting: bool,
}

/// One process: `generation` tells it from those before and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) kind: Kind,
    /// Small, since millions of these are sorted.
    raw_index: u8,
    pub(crate) generation: u32,
}

impl Process {
    pub(crate) fn new(kind: Kind, index: usize, generation: u32) -> Self {
        Self { kind, raw_index: index as u8, generation }
    }

    /// Of its host among those of its kind.
    pub(crate) fn index(self) -> usize {
        self.raw_index.into()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Detector,
    Publisher,
    Executor,
}

/// What a process has to handle; queued while it is paused.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    Message(Message),
    Timer,
    /// Detector: the durable ceiling is at least this.
    Ceiling(Slot, Epoch),
    /// Detector: another process of the same seat was heard.
    Rival,
    /// Detector: these nodes (bits) are in maintenance.
    Maintenance(u32),
    /// Detector: the size has changed (rule R14); what is stored by then is read.
    Size,
    /// Detector: a fencing agent says that this boot of the node (its count) is off.
    Fenced(usize, u64),
    /// Publisher: the executor's state, or the same again as an answer.
    State(Rc<State>),
    /// Publisher: the executor of this incarnation is gone.
    ExecutorGone(Incarnation),
    /// Executor: a heartbeat went out, which it answers.
    Asked,
    /// Executor: the publisher is gone, or there again.
    PublisherGone,
    PublisherBack,
    /// Executor: the takeover plan is through.
    TakenOver(Slot, Epoch),
    /// Executor: the operator wants the slot moved.
    Switchover(Slot),
}

/// What happens at an instant of real time.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A message arrives at a host, for whatever process listens there.
    Deliver {
        to: u8,
        message: Message,
    },
    /// Something for one process.
    Handle(Process, Input),
    Resume(Process),
    /// A read (`None`) or raise of a ceiling reaches the store.
    Store(Process, Slot, Option<Epoch>),
    /// Two processes of one seat hear of each other.
    Presence(u64),
    RivalEnds(u64),
    Start(Kind, usize),
    Boot(usize),
    Uncut(u64),
    PathUp(usize),
    Healthy(usize),
    MaintenanceOver(usize),
    /// The slots that were closed are opened again.
    Reopen,
    /// The register is written with this epoch by this node.
    Register(usize, Slot, Epoch),
    /// The next of many faults.
    Strike,
    /// The only fault.
    Single(Fault),
    Heal,
}

/// An event in the queue; the order in which equal times were queued decides among them.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) at: u64,
    pub(crate) number: u64,
    pub(crate) event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// Reversed: the heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}
